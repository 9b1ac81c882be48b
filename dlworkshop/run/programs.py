"""The population's programs, each compiled once for a mesh, with its seconds apart."""

import functools
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from dlworkshop.learn import population as pop
from dlworkshop.learn.chunk import gather
from dlworkshop.learn.step import init_state, make_eval_step, make_train_step
from dlworkshop.models.convolution import computed
from dlworkshop.models.model import Model
from dlworkshop.run.groups import Group
from dlworkshop.run.mesh import BATCH, MEMBER, abstract, place
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


class Memory(NamedTuple):
    """Bytes that a group takes."""

    running: int  # on each device, with its arguments
    state: int  # of all members together


class Whole(NamedTuple):
    """The programs of the whole population, for the place where it lives."""

    take: Callable
    put: Callable
    keep_best: Callable


class Programs:
    """chunk and evaluate of a group on one mesh, and what its whole population needs.

    The whole population is on the mesh too, or in the memory of the host if it is too
    large for that; `take` and `put` are the way between it and the mesh.
    """

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
        self.choice, self._mesh = choice, mesh
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
        on_cpu = mesh.devices.flat[0].platform == "cpu"
        chunk = pop.make_population_chunk(train_step, fetch, choice.one_by_one, on_cpu)
        evaluate = pop.make_evaluate(
            make_eval_step(model, loss, metric), fetch, choice.one_by_one
        )
        # check_vma off: gradients are averaged over the batch axis in the step itself
        member, split = PartitionSpec(MEMBER), PartitionSpec(None, BATCH)
        self._chunk = jax.jit(
            jax.shard_map(
                chunk,
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
                out_specs=PartitionSpec(MEMBER, None, BATCH),
                check_vma=False,
            )
        )

        def begin(seeds, hparams, example):
            keys = jax.vmap(jax.random.key)(seeds)
            init = pop.over_members(
                lambda key, h: init_state(model, make_optimizer, h, key, example),
                choice.one_by_one,
            )
            return pop.begin(init(keys, hparams))

        self._begin = jax.jit(begin, out_shardings=NamedSharding(mesh, member))

        @functools.cache
        def whole(home: Sharding) -> Whole:
            jit = functools.partial(jax.jit, out_shardings=home)
            keep_best = functools.partial(pop.keep_best, patience=patience)
            return Whole(
                jit(pop.take),
                jit(pop.put, donate_argnums=0),
                jit(keep_best, donate_argnums=0),
            )

        self._whole = whole

    def begin(self, seeds, hparams, example) -> pop.Population:
        """A group at step 0."""
        return self._run(self._begin, seeds, hparams, example)

    def empty(self, seeds, hparams, example) -> pop.Population:
        """Room for the whole population, where the seeds are."""
        return jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype, device=seeds.sharding),
            jax.eval_shape(self._begin, seeds, hparams, example),
        )

    def take(self, tree, group: Group):
        """The members of a group [G, ...], on the mesh; `tree` itself if it is all."""
        first = jax.tree.leaves(tree)[0]
        if len(group) == len(first):
            return tree
        places = np.asarray(group, np.int32)
        part = self._run(self._whole(first.sharding).take, tree, places)
        return place(self._mesh, part, MEMBER)

    def put(self, population, group: Group, part):
        """The members of a group are back; the old population is given up."""
        home = population.status.sharding
        if len(group) == len(population.status):
            return part
        places = np.asarray(group, np.int32)
        part = jax.device_put(part, home)
        return self._run(self._whole(home).put, population, places, part)

    def chunk(self, population, hparams, data, indices):
        """Train over indices [S, P, B]; the old population is given up.

        Streamed programs take no data () and, in place of indices, the batches.
        """
        return self._run(self._chunk, population, hparams, data, indices)

    def evaluate(self, params, data, indices):
        """Metrics [P, T, B] of each example in indices [T, B]."""
        return self._run(self._evaluate, params, data, indices)

    def keep_best(self, population, loss):
        """Best parameters and early stopping; the old population is given up."""
        home = population.status.sharding
        loss = jax.device_put(loss.astype(float), home)
        return self._run(self._whole(home).keep_best, population, loss)

    def memory(self, seeds, hparams, example, training, evaluation) -> Memory:
        """What one group needs while it is begun, trained and evaluated.

        Args:
            seeds, hparams: of the members of the group [G], NumPy will do.
            example: one of the training split.
            training, evaluation: (data, feed) of `chunk` and of `evaluate`.
        """
        shapes = jax.eval_shape(self._begin, seeds, hparams, example), hparams, seeds
        population, hparams, seeds = abstract(self._mesh, shapes, MEMBER)
        chunk = self._compile(self._chunk, population, hparams, *training)
        evaluate = self._compile(self._evaluate, population.train.params, *evaluation)
        begin = self._compile(self._begin, seeds, hparams, example)
        zero, one, two = (
            program.memory_analysis() for program in (begin, chunk, evaluate)
        )
        leaves = jax.tree.leaves(population)
        state = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
        if zero is None or one is None or two is None:  # this platform does not tell
            return Memory(0, state)
        # the old population is given up, and its memory taken by the new one
        new = one.output_size_in_bytes - one.alias_size_in_bytes
        more = max(
            new + one.temp_size_in_bytes,
            two.output_size_in_bytes + two.temp_size_in_bytes,
        )
        begun = zero.output_size_in_bytes + zero.temp_size_in_bytes
        return Memory(max(begun, one.argument_size_in_bytes + more), state)

    def _run(self, program, *args):
        """Call the program; compile it first where these shapes are new."""
        return self._compile(program, *args)(*args)

    def _compile(self, program, *args):
        """The program compiled for the shapes of these arguments."""
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(args))
        if (program, shapes) not in self._compiled:
            started = time.perf_counter()
            with computed(self.choice.convolution):
                self._compiled[program, shapes] = program.lower(*args).compile()
            self.compile_seconds += time.perf_counter() - started
        return self._compiled[program, shapes]


def take(_data, batch: Batch) -> Batch:
    """The streamed batch itself."""
    return batch


def update_flops(model: Model, example: Array) -> float:
    """Floating-point operations of one example's update, about.

    An update costs some three forward passes (Griewank & Walther 2008, section 4.4).
    """
    params = jax.eval_shape(model.init, jax.random.key(0), example)
    cost = jax.jit(model.apply).lower(params, example).cost_analysis()
    if cost is None:  # CUDA does not tell before it has compiled
        return 3 * products(jax.make_jaxpr(model.apply)(params, example).jaxpr)
    return 3 * cost.get("flops", 0.0)


def products(jaxpr) -> float:
    """Floating-point operations of its matrix products and convolutions.

    >>> product = jax.make_jaxpr(jnp.matmul)(jnp.ones((2, 3)), jnp.ones((3, 5)))
    >>> products(product.jaxpr)
    60.0
    """
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        outputs = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2.0 * outputs * math.prod(shape[axis] for axis in contracted)
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            features = kernel[params["dimension_numbers"].rhs_spec[0]]
            total += 2.0 * outputs * math.prod(kernel) / features
        inner = [
            getattr(value, "jaxpr", value)  # a closed one holds one
            for value in jax.tree.leaves(list(params.values()))
        ]
        times = params.get("length", 1) if name == "scan" else 1
        total += times * sum(products(each) for each in inner if hasattr(each, "eqns"))
    return total


def chunk_flops() -> float:
    """Floating-point operations of a chunk on this kind of device."""
    return CHUNK_FLOPS.get(jax.default_backend(), 1e11)


def chunk_steps(flops_per_step: float, steps_per_epoch: int) -> int:
    """Steps per chunk: about CHUNK_FLOPS of work, dividing the epoch where it can.

    It depends on the work and not on the clock, so that the same run has the same
    chunks and the same log lines everywhere.

    >>> chunk_steps(flops_per_step=1e10, steps_per_epoch=429)
    11
    """
    wanted = round(chunk_flops() / max(flops_per_step, 1.0))
    wanted = max(1, min(steps_per_epoch, wanted))
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
