"""Everything about a run that does not change while it runs."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from dlworkshop.data.order import Order
from dlworkshop.learn.metrics import Metric, cost
from dlworkshop.learn.step import TrainSpec
from dlworkshop.models.model import BATCH, Model, StatefulModel
from dlworkshop.train.feeds import Feed
from dlworkshop.train.groups import Groups
from dlworkshop.train.programs import Programs
from dlworkshop.types import Dataset, PyTree, Start


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What `fit` was asked for, checked, and what was derived from it."""

    # what was asked for
    model: Model | StatefulModel  # as it was given
    dataset: Dataset
    spec: TrainSpec
    metrics: Mapping[str, Metric]  # all of them; those of one example are in the spec
    monitor: str  # "loss" or one of the metrics, on validation
    outputs: str | None  # what the model's outputs are; see `losses.outputs_of`
    hparams: Mapping[str, np.ndarray]  # name -> [P]
    seeds: list[int]  # [P]
    start: Start | None  # [P, ...] to begin with
    num_steps: int
    patience: int | None
    read_test: bool
    observers: Sequence[Callable]
    save_every_steps: int | None
    save_every_seconds: float | None
    quiet: bool
    settings: dict[str, Any]  # all that was asked for, as JSON
    # what was derived
    order: Order
    mesh: Mesh
    programs: Programs
    chunk: int  # steps
    groups: Groups
    feed: Feed
    derived: dict[str, Any]  # as JSON
    started: float  # by time.perf_counter
    placed_hparams: Any = None  # the hyper-parameters, where the population lives

    @property
    def example(self) -> PyTree:
        """One input."""
        return self.dataset.train.rows(0).inputs

    @property
    def headline(self) -> str:
        """The metric that is told first; "loss" where there is none."""
        return next(iter(self.metrics), "loss")

    @property
    def evaluation_batch(self) -> int:
        """Examples evaluated at once: what the cache holds, where that was asked for;
        else not too few, because many tiny batches would take their time."""
        if self.programs.execution.micro_batch is not None:
            return self.programs.execution.micro_batch * self.mesh.shape[BATCH]
        batch = self.order.batch_size
        return batch * max(1, 128 // batch)

    @property
    def better(self) -> str:
        """Which direction of what is monitored is the better one."""
        return "lower" if self.monitor == "loss" else self.metrics[self.monitor].better

    @property
    def sign(self) -> int:
        """What makes lower better."""
        return 1 if self.better == "lower" else -1

    def score(self, means: Mapping[str, np.ndarray]) -> np.ndarray:
        """What is monitored [P], of which lower is better."""
        metric = None if self.monitor == "loss" else self.metrics[self.monitor]
        return np.asarray(cost(metric, means[self.monitor]))
