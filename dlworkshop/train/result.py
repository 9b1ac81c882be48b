"""`Run`: the trained members and their results."""

import dataclasses
import functools
import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dlworkshop import run_files
from dlworkshop.data.inputs_like import as_learnt_from, check_inputs_like
from dlworkshop.data.leaves import TEXT, read
from dlworkshop.data.plain_arrays import checked_weights
from dlworkshop.data.rows import native_dtype
from dlworkshop.data.targets import as_labels
from dlworkshop.errors import UserError, repr_of
from dlworkshop.learn.hparams import Keywords, given
from dlworkshop.learn.metrics import Metric
from dlworkshop.learn.population import map_members
from dlworkshop.models.convolution import computed_by
from dlworkshop.models.model import (
    Model,
    StatefulModel,
    predict,
    stateful,
)
from dlworkshop.report import settings
from dlworkshop.report.words import count, humanize, with_error
from dlworkshop.train.autotune import convolves, rule_of_thumb
from dlworkshop.train.compiling import compiler_options
from dlworkshop.train.flops import update_flops
from dlworkshop.train.history import History
from dlworkshop.train.mesh import row_structs
from dlworkshop.train.scores import Evaluation, Parts, evaluate_parts
from dlworkshop.types import Batch, HParams, NotLoaded, PyTree

PREDICT_BATCH = 512  # examples at a time


@dataclasses.dataclass(frozen=True, repr=False)
class Run:
    """A trained population."""

    model: Model | StatefulModel
    params: PyTree  # [P, ...]
    summary: dict[str, Any]  # what summary.json holds
    workdir: Path | None = None
    state: PyTree = ()  # [P, ...] of a StatefulModel
    history: History = dataclasses.field(default_factory=History)
    hparams: HParams = dataclasses.field(default_factory=dict)  # name -> [P]
    model_routes: Keywords = dataclasses.field(default_factory=dict)  # of `apply`
    # [P, ...] at the end of training; `load_run` does not read it
    opt_state: PyTree = dataclasses.field(default_factory=NotLoaded)
    target: dict[str, Any] | None = None  # columns and units of a table's targets
    classes: Sequence[str] = ()  # [K] names
    # as given to `fit`; None for one whose function the folder does not hold
    metrics: Mapping[str, Callable | Metric | None] = dataclasses.field(
        default_factory=dict
    )

    def predict(self, inputs: PyTree) -> PyTree:
        """Outputs of every member for inputs [B, ...]: leaves [P, B, ...].

        The model determines what the outputs are (logits, probabilities, values). Those
        of a table with numeric targets are standardised, like its targets:
        `data.in_own_units(outputs, run.target)` are in their units.
        Inputs on disk are read in parts. A list is one array, and the columns of a data
        frame are found by name. If the run has several settings, `outputs[run.chosen]`
        are those of the best one. An example with NaN has outputs of NaN, unless the
        model masks it.

        Raises:
            UserError: if the inputs are not like those that the run learnt from.
        """
        return self.predictor(inputs)

    @functools.cached_property
    def predictor(self) -> Callable[[PyTree], PyTree]:
        """`predict` with its compiled programs, created once."""
        platform = _platform((self.params, self.state))
        outputs = _compiled_outputs(stateful(self.model), platform)

        def of_part(members, inputs: PyTree, start: int, size: int) -> PyTree:
            part = jax.tree.map(
                lambda leaf: np.asarray(
                    leaf[start : start + size], native_dtype(leaf.dtype)
                ),
                inputs,
            )
            found = jax.device_get(outputs(*members, _padded(part, size)))
            rows = len(jax.tree.leaves(part)[0])
            return jax.tree.map(lambda leaf: leaf[:, :rows], found)

        def predict_all(inputs: PyTree) -> PyTree:
            inputs = as_learnt_from(self.summary.get("inputs", {}), inputs)
            if "inputs" in self.summary:
                check_inputs_like(self.summary["inputs"], inputs)
            total = len(jax.tree.leaves(inputs)[0])
            # padded to one of few sizes, so that few programs are compiled
            size = min(1 << max(total - 1, 0).bit_length(), PREDICT_BATCH)
            starts = range(0, max(total, 1), size)
            groups = []
            for members in self._groups():
                rows = [of_part(members, inputs, start, size) for start in starts]
                groups.append(_concatenated(rows, 1))
            return _concatenated(groups, 0)

        return predict_all

    def evaluate(
        self,
        examples: Batch,
        members: Sequence[int] | None = None,
        *,
        metrics: Mapping[str, Callable | Metric] | None = None,
    ) -> Evaluation:
        """Scores on labelled examples, depending on what the outputs mean.

        For classes: accuracy, balanced accuracy (fractions) and cross-entropy (nats).
        For several labels: accuracy of labels, mean F1 (fractions) and binary
        cross-entropy (nats). For values: MAE, RMSE (in units of the target, if it is
        one column of a table) and R2. Besides, the metrics that were given to `fit`. A
        run that was loaded has those of the library, and a warning names the others.

        Args:
            examples: [N, ...] with targets like those of training, for example
                `dataset.test`; classes may be given by their names, False and True
                as bools; weights are used if there are any.
            members: the members to score, which also form the ensemble, as numbers or
                bool [P]; by default the `chosen` ones, so that settings are not mixed.
            metrics: more metrics, as those of `fit`; one of the same name is replaced.
                Those of classes are given the logarithms of the ensemble's
                probabilities as its logits.

        Raises:
            UserError: if the meaning of the outputs is not known and there are no
                metrics, the model returns several arrays, the examples are not like
                those of training, a metric is not one of such outputs, or no setting is
                chosen because none is finite on validation.

        >>> import dlworkshop as dw
        >>> x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
        >>> held = x[:50], (x[:50, 0] > 0).astype(np.int32)
        >>> dataset = dw.data.from_arrays(x[50:], (x[50:, 0] > 0).astype(np.int32))
        >>> rate = {"learning_rate": 0.1}
        >>> run = dw.fit(dw.models.logistic(2), dataset, hparams=rate, batch_size=10)
        >>> found = run.evaluate(dw.Batch(*held))
        >>> found.examples, found.scores["accuracy"]["mean"] > 0.8
        (50, True)
        >>> margin = lambda outputs, label: outputs[label] - outputs[1 - label]
        >>> "margin" in run.evaluate(dw.Batch(*held), metrics={"margin": margin}).scores
        True
        """
        if not isinstance(examples, Batch):
            raise UserError(
                f"the examples are {repr_of(examples)}: give a Batch(inputs, targets), "
                "such as dataset.test"
            )
        who = None if members is None else self._who(members)
        targets = _as_labels(examples.targets, self.classes)
        parts = _parts(examples._replace(targets=targets))
        words = "the examples given"
        return evaluate_parts(self, parts, words, members=who, metrics=metrics)

    def read_artifact(self, file: str) -> Any:
        """The contents of a JSON file in the run's folder.

        Raises:
            UserError: if the run has no folder, or the file is missing or damaged.
        """
        if self.workdir is None:
            raise UserError("the run has no folder: give fit a workdir")
        return run_files.read(self.workdir, file, self.summary)

    @property
    def test_metric(self) -> np.ndarray:
        """The first metric of each member [P] on the test split; NaN where unknown.

        >>> rows = [{"test": {"accuracy": 0.5}}, {"test": {"accuracy": None}}]
        >>> summary = {"test": {"loss": {}, "accuracy": {}}, "population": rows}
        >>> Run(None, None, summary).test_metric
        array([0.5, nan])
        """
        name = metric_name(self.summary)
        rows = self.summary["population"]
        return np.array([row.get("test", {}).get(name) for row in rows], float)

    @property
    def chosen(self) -> np.ndarray:
        """The members that form the ensemble, bool [P].

        They are those that were not quarantined and, if there are several settings,
        belong to the best setting by validation.

        Raises:
            UserError: if there is no such member.

        >>> rows = [{"status": "finished"}, {"status": "finished"}]
        >>> best = {"members": [1], "finite": 1.0}
        >>> Run(None, None, {"population": rows, "settings": [best]}).chosen.tolist()
        [False, True]
        """
        status = [row["status"] for row in self.summary["population"]]
        chosen = np.asarray([each != "quarantined" for each in status])
        if not chosen.any():
            where = "" if self.workdir is None else f" in {self.workdir}"
            raise UserError(f"no member of the run{where} stayed finite")
        if self.summary.get("settings"):
            best = settings.best(self.summary)
            if best is None:
                monitor = self.summary.get("monitor", "loss")
                raise UserError(
                    f"no setting of the run has a finite validation {monitor}, so none "
                    "is chosen: name the members, as run.evaluate(examples, "
                    "members=[0])"
                )
            chosen &= np.isin(np.arange(len(chosen)), best["members"])
        return chosen

    def _who(self, members: Sequence[int]) -> np.ndarray:
        """The named members as bool [P]."""
        size = len(self.summary["population"])
        named = np.atleast_1d(np.asarray(members))
        if named.dtype == bool and named.shape == (size,) and named.any():
            return named
        if (
            named.ndim != 1
            or not named.size
            or named.dtype.kind not in "iu"
            or not ((named >= 0) & (named < size)).all()
        ):
            raise UserError(
                f"members is {members!r:.60}: give a list of some of 0 to "
                f"{size - 1}, or a bool for each, some of them True"
            )
        return np.isin(np.arange(size), named)

    def _groups(self) -> Iterator[tuple[PyTree, PyTree, dict]]:
        """The arguments of `apply`, for as many members as were trained at once."""
        numbers = given(self.model_routes, self.hparams)
        whole = self.params, self.state, numbers
        members = len(jax.tree.leaves(self.params)[0])
        size = self.summary.get("members_at_once", members)
        if size == members:
            yield whole
            return
        for first in range(0, members, size):  # the population is in host memory
            yield jax.tree.map(
                lambda leaf, at=first: np.asarray(leaf[at : at + size]), whole
            )

    def __repr__(self) -> str:
        """Three lines: members, score, and how and where the run ended.

        >>> means = {"accuracy": {"mean": 0.95, "sem": 0.01}, "loss": {"mean": 0.2}}
        >>> rows = [{"status": "finished", "seed": seed} for seed in (0, 1)]
        >>> Run(None, None, {"members": 2, "model": "mlp", "dataset": "digits",
        ...                  "steps": 9, "test": means, "population": rows})
        Run of 2 x mlp on digits (2 seeds), 9 steps
        test accuracy 95.0 % ± 1.0 %, loss 0.200
        2 finished; in memory
        """
        return "\n".join(_in_words(self))

    def _repr_html_(self) -> str:
        """The same for notebooks, with curves."""
        from dlworkshop.report.notebook import curves  # noqa: PLC0415 (matplotlib)

        lines = "<br>".join(map(html.escape, _in_words(self)))
        rows = self.summary.get("population", ())
        healthy = [row.get("status") != "quarantined" for row in rows]
        mine = (settings.best(self.summary) or {}).get("members")
        return f"<p>{lines}</p>{curves(self.history, healthy or None, mine)}"


def _compiled_outputs(model: StatefulModel, platform: str) -> Callable:
    """(params, state, hparams, batch) -> outputs [P, B, ...], jitted."""

    @functools.partial(jax.jit, compiler_options=compiler_options(platform))
    def outputs(params, state, hparams, batch):
        size = len(jax.tree.leaves(batch)[0])
        example = row_structs(batch)
        execution = rule_of_thumb(
            size,
            update_flops(model, example),
            convolutions=convolves(model, example),
            platform=platform,
        )
        chosen = computed_by(model, execution.convolution, platform)
        part = execution.micro_batch or size  # examples at a time
        parts = jax.tree.map(
            lambda leaf: leaf.reshape(-1, part, *leaf.shape[1:]), batch
        )

        def member(params, state, hparams):
            rows = jax.lax.map(
                lambda part: predict(chosen, params, part, state, **hparams), parts
            )
            return jax.tree.map(lambda leaf: leaf.reshape(size, *leaf.shape[2:]), rows)

        return map_members(member, execution.sequential)(params, state, hparams)

    return outputs


def check_run(run: Any) -> None:
    """Refuse what is not a run."""
    if not isinstance(run, Run):
        raise UserError(f"the run is {repr_of(run)}: give what fit or load_run returns")


def _as_labels(targets: PyTree, classes: Sequence[str]) -> PyTree:
    """Targets with names of classes replaced by their numbers."""
    if isinstance(targets, list) or hasattr(targets, "dtype"):
        kind = getattr(getattr(targets, "dtype", None), "kind", "O")
        if kind in "OST":  # a list, or of pandas, polars ...
            targets = read(targets, "the targets")
            kind = targets.dtype.kind
        of_bools = kind == "b" and tuple(classes) in (("False", "True"), ("0", "1"))
        if classes and (of_bools or kind in TEXT):
            return as_labels(np.asarray(targets), classes, "the array of targets")
    return targets


def _parts(examples: Batch) -> Parts:
    if examples.weights is not None:
        size = len(checked_weights(examples.weights, "weights"))
        if size != examples.num_examples:
            raise UserError(
                f"there are {size} weights and {examples.num_examples} examples: give "
                "as many of each"
            )
    for first in range(0, examples.num_examples, PREDICT_BATCH):
        part = examples.rows(slice(first, first + PREDICT_BATCH))
        yield part.inputs, *jax.tree.map(np.asarray, part[1:])


def _in_words(run: Run) -> list[str]:
    summary = run.summary
    rows = summary.get("population", [])
    who = f"Run of {summary.get('members', '?')} x {summary.get('model', 'model')}"
    who += f" on {summary.get('dataset', 'data')}"
    hparams = {
        row.get("place", tuple((row.get("hparams") or {}).items())) for row in rows
    }
    seeds = {row.get("seed") for row in rows}
    kinds = ("setting", hparams), ("seed", seeds)
    if several := [count(len(of), noun) for noun, of in kinds if len(of) > 1]:
        who += f" ({' x '.join(several)})"
    who += f", {count(summary.get('steps'), 'step')}"
    scores = [
        f"{split} {said}"
        for split in ("test", "validation")
        if (said := _scores(summary, summary.get(split) or {}))
    ]
    if scores and (setting := settings.in_words(summary)):
        scores[-1] += f", with {setting}"
    where = "in memory" if run.workdir is None else f"in {run.workdir}"
    return [who, "; ".join(scores) or "no scores", f"{_endings(rows)}; {where}"]


def _scores(summary: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """The first metric, the monitored quantity, and the loss."""
    first = next((name for name in found if name != "loss"), "loss")
    said = []
    for name in dict.fromkeys([first, summary.get("monitor", "loss"), "loss"]):
        score = found.get(name) or {}
        if score.get("mean") is not None:
            words = with_error(score["mean"], score.get("sem"), name)
            said.append(f"{humanize(name)} {words}")
    return ", ".join(said)


def _endings(rows: Sequence[Mapping[str, Any]]) -> str:
    """How the members ended, and the common reason where there is one."""
    notes: dict[str, list[str]] = {}
    for row in rows:
        notes.setdefault(row.get("status", "finished"), []).append(row.get("note", ""))
    said = []
    for status, reasons in notes.items():
        why = f" ({reasons[0]})" if reasons[0] and len(set(reasons)) == 1 else ""
        said.append(f"{len(reasons)} {status}{why}")
    return ", ".join(said) or "no members"


def _platform(tree: PyTree) -> str:
    """The platform of these arrays."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    if not leaves:
        return jax.default_backend()
    return next(iter(leaves[0].devices())).platform


def _padded(part: PyTree, size: int) -> PyTree:
    return jax.tree.map(
        lambda leaf: np.pad(leaf, [(0, size - len(leaf))] + [(0, 0)] * (leaf.ndim - 1)),
        part,
    )


def _concatenated(trees: list[PyTree], axis: int) -> PyTree:
    return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis), *trees)


def describe_example(example: PyTree) -> Any:
    """ONE example as JSON: shape and dtype of each array, in dicts and lists.

    >>> describe_example({"x": np.zeros(2, np.uint8)})
    {'x': {'shape': [2], 'dtype': 'uint8'}}
    """
    if isinstance(example, Mapping):
        return {str(k): describe_example(v) for k, v in example.items()}
    if type(example) in (list, tuple):
        return [describe_example(each) for each in example]
    if not hasattr(example, "dtype"):
        return {"other": type(example).__name__}
    shape = list(np.shape(example))
    return {"shape": shape, "dtype": str(np.dtype(example.dtype))}


def example_of(described: Any) -> PyTree:
    """The shapes that `describe_example` recorded.

    Raises:
        UserError: if the example was neither array, dict nor tuple.

    >>> example_of({"x": {"shape": [2], "dtype": "uint8"}})["x"].shape
    (2,)
    """
    if isinstance(described, list):
        return tuple(map(example_of, described))
    if not isinstance(described, Mapping) or set(described) == {"shape", "dtype"}:
        run_files.conforms(described, run_files.schema.Input, "the example of a run")
        return jax.ShapeDtypeStruct(tuple(described["shape"]), described["dtype"])
    if "other" in described and isinstance(described["other"], str):
        raise UserError(
            f"the run learnt from a {described['other']}, which cannot be restored "
            "from a folder: use dicts, tuples and arrays as inputs"
        )
    return {name: example_of(each) for name, each in described.items()}


def metric_name(summary: Mapping[str, Any]) -> str:
    """The first score of a summary; "loss" without metrics.

    >>> metric_name({"test": {"loss": 0.1, "accuracy": 0.9, "balanced_accuracy": 0.9}})
    'accuracy'
    """
    scores = summary.get("test") or summary.get("validation") or {}
    return next((key for key in scores if key != "loss"), "loss")
