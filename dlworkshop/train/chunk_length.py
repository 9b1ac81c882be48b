"""Chunk length by the clock, for steps whose operations cannot be counted.

The number of iterations of a `lax.while_loop`, and of a `lax.fori_loop` with traced
bounds, depends on the data. Its operations are counted once, so a chunk that is counted
as a second of work may take an hour, during which no signal is handled.
"""

import contextlib
import dataclasses

import jax

from dlworkshop.train import processes
from dlworkshop.train.flops import chunk_steps
from dlworkshop.train.plan import Plan
from dlworkshop.train.programs import MOST_EPOCHS

SECONDS = 1.5  # of a chunk: a signal is handled at its end

# Work of the first call, before anything is measured: any device does it in seconds.
FIRST_FLOPS, FIRST_STEPS = 5e11, 500
MANY = 20  # a run of fewer chunks is not measured
WRONG = 2.5  # times too long or too short: another chunk length is compiled
GROWTH = 16  # the most from one measurement to the next: the first includes warming up


class EpochsPerCall:
    """The number of epochs per device call, so that a call takes a second or two.

    Args:
        flops: operations of a step of all members.
        steps: steps of an epoch.

    >>> ahead = EpochsPerCall(flops=1e9, steps=20)
    >>> ahead.epochs
    25
    >>> ahead.record(25, seconds=0.125)
    >>> ahead.epochs
    256
    """

    def __init__(self, flops: float, steps: int):
        fitting = min(FIRST_FLOPS / max(flops, 1.0), FIRST_STEPS) / steps
        self.epochs = max(1, min(MOST_EPOCHS, int(fitting)))

    def record(self, epochs: int, seconds: float) -> None:
        """Record the time that the last epochs took."""
        wanted = int(min(SECONDS * epochs / max(seconds, 1e-9), GROWTH * self.epochs))
        self.epochs = max(1, min(MOST_EPOCHS, wanted))


def timed(plan: Plan) -> Plan:
    """The plan with chunks that take `SECONDS`, of at least one step."""
    seconds_of_a_step(plan, 1)  # compiles
    wanted = SECONDS / seconds_of_a_step(plan, 1)
    return _with_chunk(plan, chunk_steps(wanted, plan.order.steps_per_epoch))


def adjusted(plan: Plan) -> Plan:
    """The plan with another chunk length if the counted operations were misleading.

    Devices of the same platform differ much in operations per second. The measurement
    takes a chunk, which is not worth it for a run of few chunks.
    """
    if plan.num_steps < MANY * plan.chunk:
        return plan
    wanted = SECONDS / seconds_of_a_step(plan, plan.chunk)
    chunk = chunk_steps(wanted, plan.order.steps_per_epoch)
    near = plan.chunk / WRONG <= chunk <= plan.chunk * WRONG
    return _with_chunk(plan, plan.chunk if near else chunk)


def _with_chunk(plan: Plan, chunk: int) -> Plan:
    derived = plan.derived | {"steps_per_chunk": chunk, "timed": True}
    return dataclasses.replace(plan, chunk=chunk, derived=derived)


def seconds_of_a_step(plan: Plan, steps: int) -> float:
    """Seconds of a step of all members, measured on a chunk of one group."""
    programs = plan.programs
    groups = plan.groups.partition(range(len(plan.seeds)))
    seeds, hparams, start = programs.gather(plan.placed(), groups[0])
    population = programs.begin(seeds, hparams, plan.example, start)
    data, training = plan.feed.data("train"), plan.feed.training
    with contextlib.closing(training(0, steps, steps, groups[:1], plan.draw)) as pieces:
        piece = jax.block_until_ready(next(pieces))  # a streamed chunk has several
        count = len(jax.tree.leaves(piece)[0])
        started = programs.clock()
        found = programs.chunk(population, hparams, data, piece)
        jax.block_until_ready(found)
        seconds = programs.clock() - started
    return processes.broadcast_json(seconds) * len(groups) / count
