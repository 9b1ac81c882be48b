"""The amount of work of a run, and choices that follow from it."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from jax.sharding import Mesh

from dlworkshop.errors import UserError
from dlworkshop.learn.step import TrainSpec
from dlworkshop.models.convolution import CONV_IMPLS
from dlworkshop.models.model import BATCH
from dlworkshop.train import autotune, checks
from dlworkshop.train.flops import chunk_flops, chunk_steps, update_flops
from dlworkshop.train.mesh import MEMBER
from dlworkshop.train.programs import ExecutionConfig
from dlworkshop.types import PyTree


@dataclasses.dataclass(frozen=True)
class Workload:
    """The work of all steps of all members."""

    spec: TrainSpec
    example: PyTree
    batch_size: int
    members: int
    at_once: int  # of them, on all devices
    num_steps: int
    mesh: Mesh

    @property
    def platform(self) -> str:
        """cpu, gpu or tpu."""
        return self.mesh.devices.flat[0].platform

    @property
    def draws_on_devices(self) -> bool:
        """Whether the order of examples is drawn on the training devices.

        On a CPU both are the same cores, and NumPy sorts faster.
        """
        return self.platform != "cpu"

    @functools.cached_property
    def update_flops(self) -> float:
        """Floating-point operations of one example's update."""
        return update_flops(self.spec.model, self.example)

    @property
    def flops(self) -> float:
        """Floating-point operations of a step of all members."""
        return self.update_flops * self.batch_size * self.members

    def chunk(
        self, has_while: bool, steps_per_epoch: int, derived: Mapping[str, Any]
    ) -> int | None:
        """Steps per chunk, so that a chunk takes a second or two on such devices.

        Args:
            has_while: whether a step loops until a condition holds, so that its
                operations cannot be counted.
            steps_per_epoch: the most steps of a chunk.
            derived: the choices of the run that continues, if any.

        Returns:
            None if the operations cannot be counted and nothing was measured before.
        """
        if has_while or self.timed(derived):
            return derived.get("steps_per_chunk")
        wanted = chunk_flops(self.platform) / max(self.flops, 1.0)
        return chunk_steps(wanted, steps_per_epoch)

    def timed(self, derived: Mapping[str, Any]) -> bool:
        """Whether the chunk of a continued run was measured on such a device."""
        return derived.get("timed", False) and derived["platform"] == self.platform

    def chunks(self) -> float:
        """The whole run of one member, in chunks of work."""
        return self.flops / self.members * self.num_steps / chunk_flops(self.platform)

    def execution(
        self,
        convolution: str | None,
        derived: Mapping[str, Any],
        measure: Callable[[], ExecutionConfig],
    ) -> ExecutionConfig:
        """How to compute a step: as requested, as before, or the fastest way here.

        Args:
            convolution: as requested; None leaves the choice open.
            derived: the choices of the run that continues, if any.
            measure: measures the fastest way, for runs that are long enough.
        """
        found = autotune.convolves(self.spec.model, self.example)
        by_rule = autotune.rule_of_thumb(
            self.batch_size // self.mesh.shape[BATCH],
            self.update_flops,
            self.at_once // self.mesh.shape[MEMBER],
            convolutions=found,
            platform=self.platform,
            strided=autotune.strided(self.spec.model, self.example),
        )
        if convolution is not None:
            checks.check_convolution(convolution, found)
            return by_rule._replace(convolution=convolution)
        before = derived.get("execution", {})
        here = derived.get("platform") == self.platform
        if here and set(before) == set(ExecutionConfig._fields):
            if before["convolution"] not in (None, *CONV_IMPLS):
                raise UserError(
                    f"the run computes convolutions by {before['convolution']}, which "
                    "this version does not have: train in another folder"
                )
            return ExecutionConfig(**before)
        least = autotune.WORTH.get(self.platform, autotune.WORTH_ELSEWHERE)
        if found and self.flops * self.num_steps > least:
            return measure()
        return by_rule
