"""The population's programs, each compiled once for a mesh, with its seconds apart."""

import functools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from dlworkshop.learn import population as pop
from dlworkshop.learn.chunk import gather
from dlworkshop.learn.step import (
    TrainSpec,
    init_state,
    make_eval_step,
    make_own_step,
    make_train_step,
)
from dlworkshop.models.convolution import computed_by
from dlworkshop.models.model import (
    BATCH,
    Model,
    StatefulModel,
    as_float,
    shapes,
    stand_ins,
    stateful,
)
from dlworkshop.train.groups import Group
from dlworkshop.train.mesh import MEMBER, shape_structs, shard
from dlworkshop.types import Batch, PyTree

# Floating-point operations between two looks of the host at the program: one or two
# seconds on a few cores or on one accelerator, so that a signal is answered soon.
CHUNK_FLOPS = {"cpu": 1e11, "gpu": 1e13, "tpu": 1e13}


class ExecutionConfig(NamedTuple):
    """One way to run a population's step."""

    convolution: str | None  # one of models.convolution.CONV_IMPLS; None: rule of thumb
    sequential: bool  # members one after the other, or side by side
    micro_batch: int | None = None  # examples at a time; None: the whole batch

    def __str__(self) -> str:
        members = "one by one" if self.sequential else "side by side"
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

    gather: Callable
    scatter: Callable
    keep_best: Callable
    judged: Callable


class Programs:
    """chunk and evaluate of a group on one mesh, and what its whole population needs.

    The whole population is on the mesh too, or in the memory of the host if it is too
    large for that; `gather` and `scatter` are the way between it and the mesh.
    """

    def __init__(
        self,
        spec: TrainSpec,
        mesh: Mesh,
        *,
        execution: ExecutionConfig,
        patience: int | None = None,
        streamed: bool = False,
        make_step: Callable | None = None,
    ):
        self.execution, self._mesh = execution, mesh
        platform = mesh.devices.flat[0].platform
        model = computed_by(spec.model, execution.convolution, platform)
        spec = spec._replace(model=model)
        self._averages = spec.eval_params is not None
        self.compile_seconds = 0.0
        self._compiled: dict = {}
        train_step: Any = make_train_step(spec, BATCH, execution.micro_batch)
        if make_step is not None:
            train_step = make_own_step(make_step, train_step, spec.routes.make_step)
        fetch = _streamed if streamed else gather
        on_cpu = platform == "cpu"
        chunk = pop.make_population_chunk(
            train_step, fetch, execution.sequential, on_cpu
        )
        # check_vma off: gradients are averaged over the batch axis in the step itself
        member, split = PartitionSpec(MEMBER), PartitionSpec(None, BATCH)
        whole_data = PartitionSpec()
        self._chunk = jax.jit(
            jax.shard_map(
                chunk,
                mesh=mesh,
                in_specs=(
                    member,
                    member,
                    whole_data,
                    PartitionSpec(None, MEMBER, BATCH),
                ),
                out_specs=(member, PartitionSpec(None, MEMBER)),
                check_vma=False,
            ),
            donate_argnums=0,
        )
        self._evaluate = {
            with_outputs: jax.jit(
                jax.shard_map(
                    pop.make_evaluate(
                        make_eval_step(spec, with_outputs), fetch, execution.sequential
                    ),
                    mesh=mesh,
                    in_specs=(member, member, member, whole_data, split),
                    out_specs=PartitionSpec(MEMBER, None, BATCH),
                    check_vma=False,
                )
            )
            for with_outputs in (False, True)
        }

        def begin(seeds, hparams, example, start):
            def one(key, hparams, start):
                return init_state(spec, hparams, key, example, start)

            keys = jax.vmap(jax.random.key)(seeds)
            init = pop.map_members(one, execution.sequential)
            return pop.begin(init(keys, hparams, start))

        self._begin = jax.jit(begin, out_shardings=NamedSharding(mesh, member))

        @functools.cache
        def whole(home: Sharding) -> Whole:
            jit = functools.partial(jax.jit, out_shardings=home)
            keep_best = functools.partial(
                pop.keep_best, patience=patience, eval_params=spec.eval_params
            )
            judged = functools.partial(pop.judged, eval_params=spec.eval_params)
            return Whole(
                jit(pop.gather_members),
                jit(pop.scatter_members, donate_argnums=0),
                jit(keep_best, donate_argnums=0),
                jit(judged),
            )

        self._whole = whole

    def begin(self, seeds, hparams, example, start=None) -> pop.Population:
        """A group at step 0; `start` may have its parameters and state [G, ...]."""
        return self._run(self._begin, seeds, hparams, example, start)

    def empty(self, seeds, hparams, example, start=None) -> pop.Population:
        """Room for the whole population, where the seeds are."""
        return jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype, device=seeds.sharding),
            jax.eval_shape(self._begin, seeds, hparams, example, start),
        )

    def gather(self, tree, group: Group):
        """The members of a group [G, ...], on the mesh; `tree` itself if it is all."""
        leaves = jax.tree.leaves(tree)
        if not leaves or len(group) == len(leaves[0]):
            return tree
        places = np.asarray(group, np.int32)
        part = self._run(self._whole(leaves[0].sharding).gather, tree, places)
        return shard(self._mesh, part, MEMBER)

    def scatter(self, population, group: Group, part):
        """The members of a group are back; the old population is given up."""
        home = population.status.sharding
        if len(group) == len(population.status):
            return part
        places = np.asarray(group, np.int32)
        part = jax.device_put(part, home)
        return self._run(self._whole(home).scatter, population, places, part)

    def chunk(self, population, hparams, data, indices):
        """Steps on the devices; the old population is given up."""
        return self._run(self._chunk, population, hparams, data, indices)

    def evaluate(self, params, state, hparams, data, indices, with_outputs=False):
        """`Evaluated` [P, T, B] of every example that is fed."""
        program = self._evaluate[with_outputs]
        return self._run(program, params, state, hparams, data, indices)

    def judged(self, population):
        """Params and state [P, ...] that are evaluated."""
        if not self._averages:
            return population.train.params, population.train.state
        home = population.status.sharding
        return self._run(self._whole(home).judged, population)

    def keep_best(self, population, score):
        """Best parameters and early stopping; the old population is given up."""
        home = population.status.sharding
        score = jax.device_put(score.astype(float), home)
        return self._run(self._whole(home).keep_best, population, score)

    def memory(self, seeds, hparams, example, start, training, evaluation) -> Memory:
        """What one group needs while it is begun, trained and evaluated.

        Args:
            seeds, hparams, start: of the members of the group [G], NumPy will do.
            example: one of the training split.
            training, evaluation: (data, feed) of `chunk` and of `evaluate`.
        """
        shapes = (
            jax.eval_shape(self._begin, seeds, hparams, example, start),
            hparams,
            seeds,
            start,
        )
        population, hparams, seeds, start = shape_structs(self._mesh, shapes, MEMBER)
        train = population.train
        chunk = self._compile(self._chunk, population, hparams, *training)
        evaluate = self._compile(
            self._evaluate[False], train.params, train.state, hparams, *evaluation
        )
        begin = self._compile(self._begin, seeds, hparams, example, start)
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
            self._compiled[program, shapes] = program.lower(*args).compile()
            self.compile_seconds += time.perf_counter() - started
        return self._compiled[program, shapes]


def _streamed(_data, batch: Batch) -> Batch:
    """The streamed batch itself."""
    return batch


def update_flops(model: Model | StatefulModel, example: PyTree) -> float:
    """Floating-point operations of one example's update, about.

    An update costs some three forward passes (Griewank & Walther 2008, section 4.4).
    """
    params, state = shapes(model, example)
    lifted = stateful(model)
    more = stand_ins(lifted)

    def apply(params, state, inputs):
        return lifted.apply(params, state, as_float(inputs), **more)

    # CUDA does not tell before it has compiled, and XLA counts a loop once
    cost = jax.jit(apply).lower(params, state, example).cost_analysis() or {}
    traced = jax.make_jaxpr(apply)(params, state, example)
    return 3 * max(cost.get("flops", 0.0), products(traced.jaxpr))


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
        times = params.get("length", 1) if name == "scan" else 1
        total += times * sum(map(products, inner_jaxprs(equation)))
    return total


def inner_jaxprs(equation) -> list:
    """The jaxprs that an equation holds, as those of its branches or of its loop."""
    values = jax.tree.leaves(list(equation.params.values()))
    found = [getattr(value, "jaxpr", value) for value in values]  # of a closed one
    return [each for each in found if hasattr(each, "eqns")]


def chunk_flops(platform: str) -> float:
    """Floating-point operations of a chunk on this kind of device."""
    return CHUNK_FLOPS.get(platform, 1e11)


def chunk_steps(wanted: float, steps_per_epoch: int) -> int:
    """Steps per chunk: about so many, dividing the epoch where it can.

    >>> chunk_steps(10.2, steps_per_epoch=429)
    11
    """
    wanted = max(1, min(steps_per_epoch, round(wanted)))
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
