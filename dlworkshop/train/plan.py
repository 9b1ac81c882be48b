"""The plan of a run: everything that does not change while it runs."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dlworkshop.data.order import Order
from dlworkshop.learn.epochs import EvalSplit
from dlworkshop.learn.metrics import Metric, cost
from dlworkshop.learn.step import TrainSpec
from dlworkshop.models.model import BATCH, Model, StatefulModel, table
from dlworkshop.train.feeds import Feed
from dlworkshop.train.groups import Groups
from dlworkshop.train.observers.scheduler import Scheduler
from dlworkshop.train.programs import Programs, tree_bytes
from dlworkshop.types import Dataset, PyTree, Start

# Of the outputs of an evaluation that are there at a time, of all members.
OUTPUT_BYTES = 2**26


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The checked arguments of `fit`, and what was derived from them."""

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
    scheduler: Scheduler | None  # one of them
    save_every_steps: int | None
    save_every_seconds: float | None
    quiet: bool
    settings: dict[str, Any]  # all that was asked for, as JSON
    # what was derived
    order: Order
    held_out: np.ndarray | None  # [P, N] what validates each member, of its fold
    mesh: Mesh
    programs: Programs
    chunk: int  # steps
    by_epochs: bool  # whether a chunk is of whole epochs; see `Loop.run_epochs`
    groups: Groups
    rungs: Mapping[int, int]  # epochs -> members that run after them, at most
    feed: Feed
    derived: dict[str, Any]  # as JSON
    answer: PyTree  # what is said of one example, as shapes
    flops: float  # operations of a step of all members
    started: float  # by time.perf_counter
    placed_hparams: Any = None  # the hyper-parameters, where the population lives
    placed_seeds: Any = None  # [P] uint32, there

    @property
    def draw(self) -> Callable | None:
        """The function that draws the order on the devices; None where the host does.

        On a CPU both are the same cores, and NumPy sorts sooner.
        """
        on_cpu = self.mesh.devices.flat[0].platform == "cpu"
        return self.programs.order if type(self.order) is Order and not on_cpu else None

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
    def evaluation_batch(self) -> int:
        """Examples per evaluation batch: the micro-batch where one is used, else large
        enough that batches are not tiny.
        """
        if self.programs.execution.micro_batch is not None:
            return self.programs.execution.micro_batch * self.mesh.shape[BATCH]
        batch = self.order.batch_size
        return batch * max(1, 128 // batch)

    def evaluation_batches(self, members: int) -> int:
        """The number of these batches per device call, for a group.

        Each of them leaves the outputs of all members, and the host takes copies of
        what it looks at.
        """
        each = members * self.evaluation_batch * max(1, tree_bytes(self.answer))
        return max(1, OUTPUT_BYTES // each)

    @property
    def validation_split(self) -> EvalSplit:
        """The validation split in one piece, where it is resident."""
        everything = self.dataset.validation.num_examples
        feed, batch = self.feed, self.evaluation_batch
        (piece,) = feed.evaluation("validation", batch, everything)
        return EvalSplit(feed.data("validation"), *piece)

    def found_bytes(self, split: str, members: int, with_outputs: bool) -> int:
        """Bytes that a piece of an evaluation returns on all devices together."""
        size = getattr(self.dataset, split).num_examples
        batches = -(-size // self.evaluation_batch)
        batches = min(batches, self.evaluation_batches(members))
        scores = jnp.result_type(float).itemsize * (1 + len(self.spec.metrics))
        each = scores + with_outputs * tree_bytes(self.answer)
        return members * batches * self.evaluation_batch * each

    @functools.cached_property
    def table(self) -> str:
        """Layers of the model, as text."""
        return table(self.model, self.example)

    @property
    def better(self) -> str:
        """The better direction of the monitored quantity."""
        return "lower" if self.monitor == "loss" else self.metrics[self.monitor].better

    @property
    def sign(self) -> int:
        """The sign that makes lower better."""
        return 1 if self.better == "lower" else -1

    def score(self, means: Mapping[str, np.ndarray]) -> np.ndarray:
        """The monitored quantity [P], signed so that lower is better."""
        metric = None if self.monitor == "loss" else self.metrics[self.monitor]
        return np.asarray(cost(metric, means[self.monitor]))
