"""The plan of a run: everything that does not change while it runs."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, Sharding

from dlworkshop.data.order import Order
from dlworkshop.learn.epochs import EvalSplit
from dlworkshop.models.model import BATCH, table
from dlworkshop.train import processes
from dlworkshop.train.feeds import Feed
from dlworkshop.train.groups import Groups
from dlworkshop.train.mesh import population_sharding
from dlworkshop.train.programs import Programs, tree_bytes
from dlworkshop.train.task import Task

# Outputs of an evaluation that are in memory at a time, of all members together.
OUTPUT_BYTES = 2**26


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan(Task):
    """The task of a run, and how it is computed."""

    mesh: Mesh
    programs: Programs
    chunk: int  # steps
    by_epochs: bool  # whether a chunk is of whole epochs; see `Loop.run_epochs`
    groups: Groups
    feed: Feed
    derived: dict[str, Any]  # these choices as JSON
    flops: float  # operations of a step of all members
    started: float  # by time.perf_counter
    placed_hparams: Any = None  # the hyper-parameters, where the population lives
    placed_seeds: Any = None  # [P] uint32, there

    @property
    def sharding(self) -> Sharding:
        """Where the whole population lives: on the mesh, or in host memory."""
        return population_sharding(self.mesh, fits=self.groups.all_at_once)

    def placed(self) -> tuple[Any, Any, Any]:
        """Seeds, hyper-parameters and start [P, ...], where the population lives."""
        seeds = np.asarray(self.seeds, np.uint32)
        return processes.put((seeds, dict(self.hparams), self.start), self.sharding)

    @property
    def explored(self) -> dict[str, np.ndarray]:
        """The hyper-parameters that change during the run, name -> [P]."""
        planned = self.asked.scheduler.limits if self.asked.scheduler else ()
        return {
            name: values
            for name, values in self.hparams.items()
            if name in planned
            or not np.array_equal(values, self.settings["hparams"][name])
        }

    def with_hparams(self, hparams: Mapping[str, Any]) -> "Plan":
        """The plan with other hyper-parameters of the members, name -> [P]."""
        known = {name: np.asarray(hparams[name], float) for name in self.hparams}
        placed = processes.put(dict(known), self.sharding)
        return dataclasses.replace(self, hparams=known, placed_hparams=placed)

    @property
    def draw(self) -> Callable | None:
        """The function that draws the order on the devices; None if the host draws it.

        On a CPU both are the same cores, and NumPy sorts faster.
        """
        on_cpu = self.mesh.devices.flat[0].platform == "cpu"
        return self.programs.order if type(self.order) is Order and not on_cpu else None

    @property
    def evaluation_batch(self) -> int:
        """Examples per evaluation batch.

        It is the micro-batch if there is one, else large enough to be efficient.
        """
        if self.programs.execution.micro_batch is not None:
            return self.programs.execution.micro_batch * self.mesh.shape[BATCH]
        batch = self.order.batch_size
        return batch * max(1, 128 // batch)

    def evaluation_batches(self, members: int) -> int:
        """The number of evaluation batches per device call, for a group.

        Each batch returns the outputs of all members, and the host copies those that it
        reads.
        """
        each = members * self.evaluation_batch * max(1, tree_bytes(self.answer))
        return max(1, OUTPUT_BYTES // each)

    @property
    def validation_split(self) -> EvalSplit:
        """The validation split in one piece, if it is resident."""
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
        """The layers of the model, as text."""
        return table(self.asked.model, self.example)
