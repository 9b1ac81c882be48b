"""The arguments of `fit` as one object, and their checks one by one."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from dlworkshop.errors import (
    Range,
    UserError,
    check_flag,
    check_number,
    check_text,
    repr_of,
)
from dlworkshop.learn import losses
from dlworkshop.models.model import Model, StatefulModel
from dlworkshop.report.words import count
from dlworkshop.train import checks
from dlworkshop.train.observers.scheduler import Scheduler, only_scheduler
from dlworkshop.train.result import Run
from dlworkshop.types import Dataset, PyTree, Start


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments of `fit`, which documents them."""

    model: Model | StatefulModel
    dataset: Dataset
    optimizer: Callable
    hparams: Any
    seeds: int | Sequence[int]
    num_epochs: int
    batch_size: int
    steps_per_epoch: int | None
    folds: int | None
    workdir: str | Path | None
    loss: Callable
    objective: Callable | None
    schedule: Callable
    metrics: Mapping[str, Any] | None
    monitor: str
    patience: int | None
    batch_transform: Callable | None
    make_step: Callable | None
    probe: Callable | None
    eval_params: Callable | None
    observe: Sequence[Callable]
    start: Run | Start | PyTree | None
    outputs: str | None
    read_test: bool
    save_every_steps: int | None
    save_every_seconds: float | None
    steps_per_chunk: int | None
    convolution: str | None
    streamed: bool | None
    members_at_once: int | None
    devices: Sequence[jax.Device] | None
    experiment: str
    quiet: bool

    @property
    def observers(self) -> list[Callable]:
        """The observers; a single one need not be in a list."""
        return observers_in(self.observe)

    @property
    def scheduler(self) -> Scheduler | None:
        """The scheduler among the observers, if any."""
        return only_scheduler(self.observers)

    @property
    def functions(self) -> dict[str, Callable | None]:
        """The functions besides the optimizer and the observers, by name."""
        names = "loss", "objective", "schedule", "batch_transform", "make_step"
        return {name: getattr(self, name) for name in (*names, "probe", "eval_params")}


def in_words(arguments: Mapping[str, Any]) -> dict[str, str]:
    """The arguments that must be the same in all processes: values, or their types.

    Contents of functions and arrays are compared with the settings of the task.
    `quiet` is left out because each process may show or hide its own messages, and the
    path of `workdir` because a shared disk may be mounted in several places.

    >>> in_words({"folds": 5, "hparams": {"b1": 0.9}, "workdir": "a", "quiet": True})
    {'folds': '5', 'hparams': 'a dict', 'workdir': 'a folder'}
    """
    told = {name: repr_of(value) for name, value in arguments.items()}
    told.pop("quiet", None)
    if arguments.get("workdir") is not None:
        told["workdir"] = "a folder"
    if "devices" in arguments:
        told["devices"] = repr(arguments["devices"])
    if "observe" in arguments:  # with and without observers, programs differ
        told["observe"] = count(len(observers_in(arguments["observe"])), "function")
    return told


def observers_in(observe: Any) -> list[Callable]:
    """The observers; a single one need not be in a list."""
    return list(observe) if isinstance(observe, Sequence) else [observe]


def check_arguments(asked: Arguments) -> None:
    """Check each argument by itself, about in the order in which they are documented.

    Raises:
        UserError: for the first argument that is not valid.
    """
    checks.check_types(
        asked.model,
        asked.dataset,
        optimizer=asked.optimizer,
        **asked.functions,
        **{f"observe[{i}]": each for i, each in enumerate(asked.observers)},
    )
    for i, observer in enumerate(asked.observers):
        checks.check_observer(f"observe[{i}]", observer)
    checks.check_dataset(asked.dataset)
    checks.check_numbers(
        num_epochs=asked.num_epochs,
        batch_size=asked.batch_size,
        steps_per_epoch=asked.steps_per_epoch,
        patience=asked.patience,
        save_every_steps=asked.save_every_steps,
        steps_per_chunk=asked.steps_per_chunk,
        members_at_once=asked.members_at_once,
    )
    if asked.folds is not None:
        checks.check_folds(asked.folds, asked.dataset)
    checks.check_places(asked.workdir, asked.devices)
    if asked.objective is not None and asked.loss is not losses.cross_entropy:
        raise UserError("both a loss and an objective are given: give one of them")
    only_scheduler(asked.observers)
    check_flag("read_test", asked.read_test)
    if asked.save_every_seconds is not None:
        check_number("save_every_seconds", asked.save_every_seconds, Range(0))
    if asked.streamed is not None:
        check_flag("streamed", asked.streamed)
    check_text("experiment", asked.experiment)
    check_flag("quiet", asked.quiet)
