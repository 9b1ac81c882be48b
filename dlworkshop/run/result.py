"""What a run leaves in memory and on disk: the trained members and their numbers."""

import importlib.metadata
import platform
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.special

from dlworkshop.errors import UserError
from dlworkshop.learn.metrics import balanced_accuracy, mean_and_error
from dlworkshop.learn.population import QUARANTINED, STOPPED, Population, over_members
from dlworkshop.models.model import Model, num_params, predict, table
from dlworkshop.run.programs import update_flops
from dlworkshop.run.record import plain, read_json
from dlworkshop.run.tuning import rule_of_thumb
from dlworkshop.types import Array, Metrics, PyTree

PREDICT_BATCH = 512  # images at a time
WORST = 24  # mistakes shown in the report
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "dlworkshop")


class Run(NamedTuple):
    """A trained population: one model for each member, side by side."""

    model: Model
    params: PyTree  # [P, ...]
    summary: dict[str, Any]  # what summary.json holds
    workdir: Path | None

    def predict(self, images: Array) -> np.ndarray:
        """Outputs (logits) of every member for a batch [B, ...]: [P, B, K].

        Images that lie on disk are read a part at a time.
        """
        return self.predictor()(images)

    def predictor(self) -> Callable[[Array], np.ndarray]:
        """`predict` for many batches: its programs are made once and kept.

        For files, see `run.answers`.
        """

        @jax.jit
        def outputs(params, batch):
            size = len(batch)
            example = jax.ShapeDtypeStruct(batch.shape[1:], batch.dtype)
            flops = update_flops(self.model, example)
            choice = rule_of_thumb(params, size, flops)
            part = choice.micro_batch or size  # of the batch, at a time
            parts = batch.reshape(-1, part, *batch.shape[1:])

            def member(params):
                rows = jax.lax.map(
                    lambda part: predict(self.model, params, part), parts
                )
                return rows.reshape(size, *rows.shape[2:])

            return over_members(member, choice.one_by_one)(params)

        def predict_all(images: Array) -> np.ndarray:
            images = images if hasattr(images, "shape") else np.asarray(images)
            # padded to few sizes, so that there are few programs
            size = min(1 << (len(images) - 1).bit_length(), PREDICT_BATCH)
            groups = []
            for params in self._groups():
                rows = []
                for first in range(0, len(images), size):
                    batch = np.asarray(images[first : first + size])
                    short = size - len(batch)
                    padded = np.pad(batch, [(0, short)] + [(0, 0)] * (batch.ndim - 1))
                    rows.append(np.asarray(outputs(params, padded))[:, : len(batch)])
                groups.append(np.concatenate(rows, axis=1))
            return np.concatenate(groups)

        return predict_all

    def left(self, file: str) -> Any:
        """What the run left in a JSON file of its folder.

        Raises:
            UserError: if the run has no folder, or the file is not there.
        """
        if self.workdir is None:
            raise UserError("the run has no folder: give fit a workdir to work with it")
        return read_json(self.workdir / file)

    @property
    def test_metric(self) -> np.ndarray:
        """The metric of each member [P] on the test split; NaN where it is not finite.

        >>> rows = [{"test": {"accuracy": 0.5}}, {"test": {"accuracy": None}}]
        >>> summary = {"test": {"loss": {}, "accuracy": {}}, "population": rows}
        >>> Run(None, None, summary, None).test_metric
        array([0.5, nan])
        """
        name = metric_name(self.summary)
        rows = self.summary["population"]
        return np.array([row["test"][name] for row in rows], float)

    @property
    def alive(self) -> np.ndarray:
        """Which members [P] were not quarantined: those that have a vote.

        Raises:
            UserError: if there is none.
        """
        status = [row["status"] for row in self.summary["population"]]
        alive = np.asarray([each != "quarantined" for each in status])
        if not alive.any():
            raise UserError(f"no member of the run in {self.workdir} stayed finite")
        return alive

    def _groups(self) -> Iterator[PyTree]:
        """The parameters of as many members as were trained at once."""
        members = len(jax.tree.leaves(self.params)[0])
        size = self.summary.get("members_at_once", members)
        if size == members:
            yield self.params
            return
        leaves, tree = jax.tree.flatten(self.params)  # in the memory of the host
        for first in range(0, members, size):
            group = [np.asarray(leaf[first : first + size]) for leaf in leaves]
            yield jax.tree.unflatten(tree, group)


def metric_name(summary: Mapping[str, Any]) -> str:
    """The name of what a summary scores beside the loss.

    >>> metric_name({"test": {"loss": 0.1, "accuracy": 0.9, "balanced_accuracy": 0.9}})
    'accuracy'
    """
    return next(key for key in summary["test"] if key != "loss")


def summarise(plan, population: Population, scores, seconds) -> dict[str, Any]:
    """What summary.json holds; `scores` are Metrics [P, N] of each split read."""
    name, members = plan.config["metric"], len(plan.seeds)
    params, steps = population.train.params, np.asarray(population.train.step)
    alive = np.asarray(population.status) != QUARANTINED
    means = {
        split: Metrics(*(values.mean(-1) for values in per_example))
        for split, per_example in scores.items()
    }
    examples = int(steps.astype(np.int64).sum()) * plan.order.batch_size
    best = plan.config["patience"] is not None
    return plain(
        {
            "experiment": plan.config["experiment"],
            "dataset": plan.dataset.name,
            "model": plan.config["model"].get("name", "model"),
            "members": members,
            "steps": int(steps.max()),
            "parameters": num_params(params) // members,
            "parameters_taken": "best by validation loss" if best else "last",
            **{
                split: {
                    name: mean_and_error(mean.metric[alive]),
                    "loss": mean_and_error(mean.loss[alive]),
                    **_balanced(plan, scores[split].metric[alive], split),
                }
                for split, mean in means.items()
            },
            "seconds": seconds,
            "examples_per_second": examples / max(seconds["train"], 1e-9),
            "device": device(plan.mesh.devices.ravel()),
            "mesh": dict(plan.mesh.shape),
            "feed": plan.feed.name,
            "members_at_once": plan.groups.sizes[0],
            "versions": versions(),
            "claims": [],
            "population": population_table(
                population,
                plan.seeds,
                plan.hparams,
                plan.num_steps,
                means["test"],
                name,
            ),
            "table": table(plan.model, plan.dataset.train.image[0]),
        }
    )


def _balanced(plan, correct: np.ndarray, split: str) -> dict[str, Any]:
    """Balanced accuracy over the members, of what is right [P, N], for classes."""
    if plan.config["metric"] != "accuracy" or not plan.dataset.classes:
        return {}
    label = np.asarray(getattr(plan.dataset, split).label)
    return {"balanced_accuracy": mean_and_error(balanced_accuracy(correct, label))}


def population_table(
    population: Population, seeds, hparams, num_steps: int, test, metric: str
) -> list[dict[str, Any]]:
    """One row for each member, as in summary.json; `test` holds means [P]."""
    state = jax.device_get(population._replace(train=population.train.step))
    given = {k: v for k, v in hparams._asdict().items() if v is not None}
    rows = []
    for member, seed in enumerate(seeds):
        settings = {name: float(values[member]) for name, values in given.items()}
        steps = int(state.train[member])
        row = {
            "member": member,
            "seed": seed,
            "hparams": settings,
            "status": "finished",
            "steps": steps,
            "best_validation_loss": float(state.best_loss[member]),
            "test": {
                "loss": float(test.loss[member]),
                metric: float(test.metric[member]),
            },
        }
        if state.status[member] == STOPPED:
            row["status"] = "stopped early"
            row["note"] = f"no better since step {int(state.best_step[member])}"
        if state.status[member] == QUARANTINED:
            row["status"] = "quarantined"
            row["note"] = (
                f"loss or gradients not finite at step {steps + 1} of {num_steps}"
            )
        rows.append(row)
    return rows


def write_predictions(path: Path, split, classes, outputs, losses, alive) -> None:
    """Labels, predictions, losses, probabilities [P, N] and the images that were worst.

    The ensemble [N] is the mean of the probabilities of the members that are alive [P].
    """
    label = np.asarray(split.label, np.int32)
    with np.errstate(invalid="ignore"):  # a quarantined member may say anything
        probability = scipy.special.softmax(outputs.astype(np.float64), -1)  # [P, N, K]
    together = probability[alive].mean(0) if alive.any() else probability.mean(0)
    prediction = outputs.argmax(-1).astype(np.int32)  # [P, N]
    wrong = (prediction != split.label).any(0)  # [N]
    badness = np.where(wrong, losses.mean(0), -np.inf)
    worst = np.argsort(-badness, kind="stable")[: min(WORST, int(wrong.sum()))]
    beside = path.with_name(path.name + ".tmp.npz")
    np.savez_compressed(
        beside,
        label=label,
        prediction=prediction,
        loss=losses.astype(np.float32),
        confidence=probability.max(-1).astype(np.float32),
        likelihood=_of_label(probability, label).astype(np.float32),
        ensemble_prediction=together.argmax(-1).astype(np.int32),
        ensemble_confidence=together.max(-1).astype(np.float32),
        ensemble_likelihood=_of_label(together, label).astype(np.float32),
        worst_index=worst.astype(np.int32),
        worst_image=np.asarray(split.image[np.sort(worst)])[
            np.argsort(np.argsort(worst))
        ],
        classes=np.asarray(classes, dtype=np.str_),
    )
    beside.replace(path)


def _of_label(probability: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The probability [..., N] that was given to the true class, of [..., N, K]."""
    return np.take_along_axis(
        probability, np.broadcast_to(label, probability.shape[:-1])[..., None], -1
    )[..., 0]


def versions() -> dict[str, str]:
    """What computed it."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run where its source lies
            found[package] = "not installed"
    return found


def device(devices) -> str:
    """The devices in words.

    >>> device(jax.devices()[:1])
    '1 x cpu'
    """
    first = devices[0]
    kind = first.device_kind if first.platform != "cpu" else "cpu"
    return f"{len(devices)} x {kind}"
