"""The population's programs, each compiled once for a mesh, with its seconds apart."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dlworkshop.learn import population as pop
from dlworkshop.learn.chunk import gather, make_chunk
from dlworkshop.learn.step import init_state, make_eval_step, make_train_step
from dlworkshop.models.convolution import computed
from dlworkshop.models.model import Model
from dlworkshop.run.mesh import BATCH, MEMBER
from dlworkshop.types import Array, Batch

# Floating-point operations between two looks of the host at the program: one or two
# seconds on a few cores or on one accelerator, so that a signal is answered soon.
CHUNK_FLOPS = {"cpu": 1e11, "gpu": 1e13, "tpu": 1e13}


class Choice(NamedTuple):
    """One way to run a population's step."""

    convolution: str | None  # one of models.convolution.HOWS; None: rule of thumb
    one_by_one: bool  # members one after the other, or side by side
    micro_batch: int | None = None  # examples at a time; None: the whole batch

    def __str__(self) -> str:
        members = "one by one" if self.one_by_one else "side by side"
        at_a_time = "the whole batch" if self.micro_batch is None else self.micro_batch
        return (
            f"convolutions by {self.convolution}, members {members}, "
            f"{at_a_time} at a time"
        )


class Programs:
    """init, chunk, evaluate and keep_best of one population on one mesh."""

    def __init__(
        self,
        model: Model,
        make_optimizer: Callable,
        schedule: Callable,
        loss: Callable,
        metric: Callable,
        mesh: Mesh,
        *,
        choice: Choice,
        patience: int | None,
        streamed: bool = False,
    ):
        self.choice = choice
        self.compile_seconds = 0.0
        self._compiled: dict = {}
        batch_axis = BATCH if mesh.shape[BATCH] > 1 else None
        train_step = make_train_step(
            model,
            make_optimizer,
            schedule,
            loss,
            metric,
            batch_axis,
            choice.micro_batch,
        )
        fetch = take if streamed else gather
        step = pop.make_population_step(train_step, choice.one_by_one)
        evaluate = pop.make_evaluate(
            make_eval_step(model, loss, metric), fetch, choice.one_by_one
        )
        # check_vma off: gradients are averaged over the batch axis in the step itself
        member, split = PartitionSpec(MEMBER), PartitionSpec(None, BATCH)
        self._chunk = jax.jit(
            jax.shard_map(
                make_chunk(step, fetch),
                mesh=mesh,
                in_specs=(
                    member,
                    member,
                    PartitionSpec(),
                    PartitionSpec(None, MEMBER, BATCH),
                ),
                out_specs=(member, PartitionSpec(None, MEMBER)),
                check_vma=False,
            ),
            donate_argnums=0,
        )
        self._evaluate = jax.jit(
            jax.shard_map(
                evaluate,
                mesh=mesh,
                in_specs=(member, PartitionSpec(), split),
                out_specs=PartitionSpec(None, MEMBER, BATCH),
                check_vma=False,
            )
        )

        def begin(seeds, hparams, example):
            keys = jax.vmap(jax.random.key)(seeds)
            states = jax.vmap(
                lambda key, h: init_state(model, make_optimizer, h, key, example)
            )(keys, hparams)
            return pop.begin(states)

        by_member = NamedSharding(mesh, member)
        self._begin = jax.jit(begin, out_shardings=by_member)
        self._keep_best = jax.jit(
            lambda population, loss: pop.keep_best(population, loss, patience),
            donate_argnums=0,
            out_shardings=by_member,
        )

    def begin(self, seeds, hparams, example) -> pop.Population:
        """The population at step 0."""
        return self._run(self._begin, seeds, hparams, example)

    def chunk(self, population, hparams, data, indices):
        """Train over indices [S, P, B]; the old population is given up.

        Streamed programs take no data () and, in place of indices, the batches.
        """
        return self._run(self._chunk, population, hparams, data, indices)

    def evaluate(self, params, data, indices):
        """Metrics [T, P, B] of each example in indices [T, B]."""
        return self._run(self._evaluate, params, data, indices)

    def keep_best(self, population, loss):
        """Best parameters and early stopping; the old population is given up."""
        return self._run(self._keep_best, population, loss)

    def _run(self, program, *args):
        """Call the program; compile it first where these shapes are new."""
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(args))
        if (program, shapes) not in self._compiled:
            started = time.perf_counter()
            with computed(self.choice.convolution):
                self._compiled[program, shapes] = program.lower(*args).compile()
            self.compile_seconds += time.perf_counter() - started
        return self._compiled[program, shapes](*args)


def take(_data, batch: Batch) -> Batch:
    """The streamed batch itself."""
    return batch


def update_flops(model: Model, example: Array) -> float:
    """Floating-point operations of one example's update, about.

    An update costs some three forward passes (Griewank & Walther 2008, section 4.4).
    """
    params = jax.eval_shape(model.init, jax.random.key(0), example)
    cost = jax.jit(model.apply).lower(params, example).cost_analysis() or {}
    return 3 * cost.get("flops", 0.0)


def chunk_steps(flops_per_step: float, steps_per_epoch: int) -> int:
    """Steps per chunk: about CHUNK_FLOPS of work, dividing the epoch where it can.

    It depends on the work and not on the clock, so that the same run has the same
    chunks and the same log lines everywhere.

    >>> chunk_steps(flops_per_step=1e10, steps_per_epoch=429)
    11
    """
    budget = CHUNK_FLOPS.get(jax.default_backend(), 1e11)
    wanted = max(1, min(steps_per_epoch, round(budget / max(flops_per_step, 1.0))))
    divisors = [
        steps
        for steps in range(max(1, wanted // 2), min(2 * wanted, steps_per_epoch) + 1)
        if steps_per_epoch % steps == 0
    ]
    return min(divisors, key=lambda steps: abs(steps - wanted), default=wanted)


def batched_indices(size: int, batch_size: int) -> jnp.ndarray:
    """Every example once, in batches [T, B]; the last is padded with example 0."""
    batches = -(-size // batch_size)
    index = jnp.arange(batches * batch_size)
    return jnp.where(index < size, index, 0).reshape(batches, batch_size)
