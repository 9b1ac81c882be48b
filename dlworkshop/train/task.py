"""The task of a run: what it computes, resolved from the arguments of `fit`.

How the task is computed (devices, chunks, groups) is planned afterwards, and does not
change the results beyond rounding.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from dlworkshop import identity
from dlworkshop.data.content import fingerprint
from dlworkshop.data.order import Order
from dlworkshop.errors import UserError
from dlworkshop.learn import losses, schedules
from dlworkshop.learn.checks import checked_metrics
from dlworkshop.learn.hparams import (
    Routes,
    check_required,
    lacks,
    name_of,
    route,
)
from dlworkshop.learn.metrics import (
    Metric,
    cost,
    default_metrics,
)
from dlworkshop.learn.objective import from_loss
from dlworkshop.learn.step import TrainSpec, make_eval_step
from dlworkshop.models.model import stateful
from dlworkshop.train import checks, finite, processes, run_folder
from dlworkshop.train.arguments import Arguments
from dlworkshop.train.batch_use import BatchUse
from dlworkshop.train.flops import has_while
from dlworkshop.train.folds import held_out, pooled
from dlworkshop.train.machine import versions
from dlworkshop.train.members import check_ranges, product
from dlworkshop.train.observers.scheduler import planned_rungs
from dlworkshop.train.orders import EndlessOrder
from dlworkshop.train.predictions import fitted_target
from dlworkshop.train.result import describe_example
from dlworkshop.train.starting import stacked_start
from dlworkshop.train.step_checks import check_step
from dlworkshop.types import Array, Dataset, HParams, PyTree, Start, TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What a run computes."""

    asked: Arguments
    dataset: Dataset  # with folds, train and validation are both pooled
    spec: TrainSpec
    metrics: Mapping[str, Metric]  # all; those of one example are in the spec, too
    outputs: str | None  # what the model's outputs are; see `losses.outputs_of`
    hparams: Mapping[str, np.ndarray]  # name -> [P]
    seeds: list[int]  # [P]
    held_out: np.ndarray | None  # [P, N] bool, the examples of each member's fold
    start: Start | None  # [P, ...] initial values
    order: Order
    observers: Sequence[Callable]
    rungs: Mapping[int, int]  # epochs -> members that run after them, at most
    quiet: bool  # also True in all processes but the first
    settings: dict[str, Any]  # what was asked for, as JSON
    has_while: bool  # whether a step loops until a condition holds
    batch_use: BatchUse  # whether a step looks at other examples of its batch
    num_steps: int
    answer: PyTree  # the outputs for one example, as shapes

    @property
    def example(self) -> PyTree:
        """One input example."""
        return self.dataset.train.rows(0).inputs

    @property
    def folds(self) -> int | None:
        """The number of folds of cross-validation; folds vary fastest among members."""
        return self.settings["folds"]

    @property
    def num_settings(self) -> int:
        """The number of settings; members are [settings, seeds (, folds)]."""
        return len(self.seeds) // (len(set(self.seeds)) * (self.folds or 1))

    @property
    def headline(self) -> str:
        """The first metric; "loss" without metrics."""
        return next(iter(self.metrics), "loss")

    @property
    def has_split_metrics(self) -> bool:
        """Whether a metric needs the outputs of a whole split."""
        return any(metric.split for metric in self.metrics.values())

    @property
    def better(self) -> str:
        """The better direction of the monitored quantity."""
        metric = self.metrics.get(self.asked.monitor)
        return "lower" if metric is None else metric.better

    @property
    def sign(self) -> int:
        """The sign that makes lower better."""
        return 1 if self.better == "lower" else -1

    def cost(self, means: Mapping[str, Array]) -> Array:
        """The monitored quantity [P], signed so that lower is better."""
        monitor = self.asked.monitor
        return cost(self.metrics.get(monitor), means[monitor])


def resolve(asked: Arguments) -> Task:
    """Resolve checked arguments into the task of the run.

    Raises:
        UserError: if arguments do not fit together, or a step cannot be traced.
    """
    dataset = asked.dataset if asked.folds is None else pooled(asked.dataset)
    hparams, seeds, held = _members(asked, dataset)
    outputs, metrics = _metrics(asked, dataset)
    order = _order(asked, dataset, seeds, held)
    num_steps = checks.checked_steps(asked.num_epochs, order.steps_per_epoch)
    spec = _spec(asked, metrics, list(hparams), num_steps)
    _check_ranges(asked, spec.routes, hparams)
    rungs = planned_rungs(
        asked.scheduler,
        hparams,
        len(set(seeds)) * (asked.folds or 1),
        asked.num_epochs,
        run_folder.read_config(asked.workdir).get("num_epochs"),
    )
    begun, step, batch_use = check_step(
        spec,
        asked.make_step,
        dataset,
        hparams,
        outputs,
        asked.batch_size,
        _later(asked, hparams),
    )
    finite.check_inputs(spec, dataset, hparams)
    start = stacked_start(asked.start, begun, len(seeds))
    settings = _settings(asked, spec, metrics, outputs, hparams, seeds, start)
    if processes.count() > 1:
        alike = run_folder.to_jsonable({**settings, "versions": versions()})
        processes.check_alike(alike)
    return Task(
        asked=asked,
        dataset=dataset,
        spec=spec,
        metrics=metrics,
        outputs=outputs,
        hparams=hparams,
        seeds=seeds,
        held_out=held,
        start=start,
        order=order,
        observers=asked.observers,
        rungs=rungs,
        quiet=asked.quiet or not processes.is_first(),
        settings=settings,
        has_while=has_while(step.jaxpr),
        batch_use=batch_use,
        num_steps=spec.num_steps,
        answer=_answer(spec, dataset, hparams, begun),
    )


def _members(
    asked: Arguments, dataset: Dataset
) -> tuple[dict[str, np.ndarray], list[int], np.ndarray | None]:
    """Hyper-parameters and seed of each member, and the examples that it holds out."""
    hparams = asked.hparams
    if hparams is None:
        wants = lacks(asked.optimizer, "learning_rate")
        hparams = {"learning_rate": 1e-3} if wants else {}
    members, seeds = product(hparams, asked.seeds)
    if asked.folds is None:
        return members, seeds, None
    held = held_out(dataset, asked.folds, seeds)
    members = {name: np.repeat(value, asked.folds) for name, value in members.items()}
    return members, np.repeat(seeds, asked.folds).tolist(), held


def _metrics(
    asked: Arguments, dataset: Dataset
) -> tuple[str | None, dict[str, Metric]]:
    """What the outputs mean, and the metrics."""
    loss = asked.loss if asked.objective is None else None
    checks.check_outputs(asked.outputs, loss)
    outputs = asked.outputs or (None if loss is None else losses.outputs_of(loss))
    wanted = asked.metrics
    if wanted is None:
        wanted = default_metrics(outputs, dataset.classes)
    target = fitted_target(dataset.preprocessing)
    metrics = checked_metrics(wanted, outputs, target)
    checks.check_monitor(asked.monitor, metrics, asked.metrics)
    return outputs, metrics


def _order(
    asked: Arguments, dataset: Dataset, seeds: list[int], held: np.ndarray | None
) -> Order:
    """The requested order of examples.

    Raises:
        UserError: if an epoch would have no step.
    """
    size, batch_size = dataset.train.num_examples, asked.batch_size
    if asked.steps_per_epoch is None and held is None:
        checks.check_batch_size(dataset, batch_size)
        return Order(seeds, size, batch_size)
    learnt = size if held is None else size - int(held.sum(1).max())
    steps = asked.steps_per_epoch or max(1, learnt // batch_size)
    return EndlessOrder(seeds, size, batch_size, steps, held)


def _spec(
    asked: Arguments, metrics: Mapping[str, Metric], names: list[str], num_steps: int
) -> TrainSpec:
    """The functions of a step, each with the hyper-parameters that it takes."""
    spec = TrainSpec(
        stateful(asked.model),
        asked.objective or from_loss(asked.loss),
        asked.optimizer,
        {name: m.function for name, m in metrics.items() if not m.split},
        schedule=asked.schedule,
        num_steps=num_steps,
        batch_transform=asked.batch_transform,
        probe=asked.probe,
        eval_params=asked.eval_params,
    )
    readers = {
        "optimizer": spec.optimizer,
        "loss": spec.objective,
        "model": spec.model.apply,
        "schedule": spec.schedule,
        "batch_transform": spec.batch_transform,
        "make_step": asked.make_step,
    }
    routes = route(names, **readers)
    check_required(routes, **readers)
    is_constant = spec.schedule is schedules.constant
    if not is_constant and "learning_rate" not in routes.optimizer:
        raise UserError(
            f"the schedule {name_of(spec.schedule)} has no effect, as "
            f"{name_of(spec.optimizer)} is given no learning_rate: give it in hparams, "
            "or leave the schedule out"
        )
    return spec._replace(routes=routes)


def _check_ranges(asked: Arguments, routes: Routes, hparams: HParams) -> None:
    """Check the values of hyper-parameters, with those that a scheduler may reach."""
    module = asked.model.module
    check_ranges(
        hparams if asked.scheduler is None else asked.scheduler.reached(hparams),
        routes,
        optimizer=asked.optimizer,
        loss=asked.objective or asked.loss,
        model=asked.model.apply if module is None else type(module),
        schedule=asked.schedule,
    )


def _later(asked: Arguments, names: Collection[str]) -> Collection[str]:
    """The hyper-parameters that the initialisation of the optimizer does not see."""
    if isinstance(asked.start, Start) and asked.start.opt_state is not None:
        return names
    return () if asked.scheduler is None else asked.scheduler.limits


def _answer(
    spec: TrainSpec, dataset: Dataset, names: Iterable[str], begun: TrainState
) -> PyTree:
    """The outputs for one example, as shapes."""
    one = dataset.train.rows(slice(0, 1))
    numbers = dict.fromkeys(names, np.ones((), float))
    evaluate = make_eval_step(spec, with_outputs=True)
    return jax.eval_shape(evaluate, begun.params, begun.state, one, numbers).outputs


def _settings(
    asked: Arguments,
    spec: TrainSpec,
    metrics: Mapping[str, Metric],
    outputs: str | None,
    hparams: HParams,
    seeds: list[int],
    start: Start | None,
) -> dict[str, Any]:
    """The config of the run folder."""
    scheduler = asked.scheduler
    return {
        **_described(asked, metrics, start),
        "experiment": asked.experiment,
        "monitor": asked.monitor,
        "outputs": outputs,
        "hparams": hparams,
        "model_hparams": dict(spec.routes.model),
        "seeds": seeds,
        "num_epochs": asked.num_epochs,
        "batch_size": asked.batch_size,
        "steps_per_epoch": asked.steps_per_epoch,
        "folds": asked.folds,
        "patience": asked.patience,
        **({} if scheduler is None else {"scheduler": scheduler.config}),
    }


def _described(
    asked: Arguments, metrics: Mapping[str, Metric], start: Start | None
) -> dict[str, Any]:
    """The data set and the functions: names to read, and contents to compare.

    Two functions may share a name, so the identity compares their code and the data.
    Computing it reads all data, so only runs that compare it have one: those with a
    folder, and those of several processes.
    """
    dataset = asked.dataset
    example = dataset.train.rows(0).inputs
    shape: dict[str, Any] = {"shape": None, "dtype": None}
    if hasattr(example, "dtype"):  # commands on files need it
        shape = {"shape": list(example.shape), "dtype": str(example.dtype)}
    compared = asked.workdir is not None or processes.count() > 1
    settings: dict[str, Any] = {
        "dataset": {
            "name": dataset.name,
            "fingerprint": fingerprint(dataset) if compared else "",
            "classes": list(dataset.classes),
            "example": describe_example(example),
            **shape,
            "train": dataset.train.num_examples,
            "validation": dataset.validation.num_examples,
            "test": dataset.test.num_examples,
        },
        "model": dict(asked.model.config),
        "optimizer": name_of(asked.optimizer),
        "schedule": name_of(asked.schedule),
        "loss": name_of(asked.objective or asked.loss),
        "metric": next(iter(metrics), "loss"),
        "metrics": {name: metric.better for name, metric in metrics.items()},
        "units": {name: metric.unit for name, metric in metrics.items() if metric.unit},
    }
    if compared:
        brought = {"model": asked.model, "optimizer": asked.optimizer}
        settings["identity"] = identity.describe(
            {**brought, "metrics": metrics, **asked.functions}
        )
        settings["start"] = start and identity.digest(start)
    return settings
