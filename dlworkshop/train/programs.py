"""The compiled programs of a population, each compiled once per mesh."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from dlworkshop.data.order import Order, device_order
from dlworkshop.learn import population as pop
from dlworkshop.learn.chunk import gather
from dlworkshop.learn.epochs import Epochs, EvalSplit, make_epochs
from dlworkshop.learn.step import (
    TrainSpec,
    init_state,
    make_eval_step,
    make_new_opt_state,
    make_own_step,
    make_train_step,
)
from dlworkshop.models.convolution import OF_XLA, computed_by, for_cpu
from dlworkshop.models.model import BATCH
from dlworkshop.train import processes, signals
from dlworkshop.train.compiling import compiler_options
from dlworkshop.train.groups import Group
from dlworkshop.train.mesh import MEMBER, shape_structs, shard
from dlworkshop.types import Batch, PyTree

# The most epochs in one call of the device, which returns a row for each.
MOST_EPOCHS = 256

# How the arguments of programs are split over the devices.
MEMBERS = PartitionSpec(MEMBER)  # [P, ...]
WHOLE: Any = PartitionSpec()
ROWS = PartitionSpec(None, MEMBER)  # [S, P, ...]
FED = PartitionSpec(None, MEMBER, BATCH)  # [S, P, B, ...]
SPLIT: Any = PartitionSpec(None, BATCH)  # [T, B, ...]


class ExecutionConfig(NamedTuple):
    """One way to compute a population's step."""

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
    """Bytes that a group needs."""

    running: int  # on each device, with its arguments
    state: int  # of all members together; it includes the next two
    parameters: int  # and running statistics, with the best so far
    optimizer: int


class Whole(NamedTuple):
    """The programs on the whole population, where it is stored."""

    gather: Callable
    scatter: Callable
    keep_best: Callable
    judged: Callable
    copy: Callable


class Programs:
    """The compiled programs of a group on one mesh.

    The whole population is on the mesh, too, or in host memory if it is too large for
    that; `gather` and `scatter` move members between it and the mesh.
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
        order: Order | None = None,
        score: Callable | None = None,
    ):
        self.execution, self._mesh, self._order = execution, mesh, order
        self._averages = spec.eval_params is not None
        # the epoch that was drawn last with the seeds, and its indices
        self._drawn: tuple[Any, Any] = (None, None)
        self.compile_seconds = 0.0
        self._compiled: dict = {}
        platform, sequential = mesh.devices.flat[0].platform, execution.sequential
        convolves = platform == "cpu" and execution.convolution in OF_XLA
        self._options = compiler_options(platform)
        model = computed_by(spec.model, execution.convolution, platform)
        spec = spec._replace(model=model)
        names = "loss", *spec.metrics  # of an evaluation
        train_step: Any = make_train_step(spec, BATCH, execution.micro_batch)
        if convolves:
            gradient = for_cpu(train_step.gradient)
            train_step = dataclasses.replace(train_step, gradient=gradient)
        if make_step is not None:
            train_step = make_own_step(make_step, train_step, spec.routes.make_step)
            train_step = for_cpu(train_step) if convolves else train_step
        fetch = _streamed if streamed else gather
        chunk = pop.make_population_chunk(
            train_step,
            fetch,
            sequential,
            on_cpu=platform == "cpu",
            new_opt_state=make_new_opt_state(spec),
        )
        evaluate = {
            with_outputs: pop.make_evaluate(
                make_eval_step(spec, with_outputs), fetch, sequential, BATCH
            )
            for with_outputs in (False, True)
        }
        if patience is not None:  # the epochs that it is compared with are int32
            patience = min(patience, np.iinfo(np.int32).max)
        keep_best = functools.partial(
            pop.keep_best, patience=patience, eval_params=spec.eval_params
        )
        judged = functools.partial(pop.judged, eval_params=spec.eval_params)
        draw_epoch = functools.partial(draw, mesh, order)
        epochs = make_epochs(
            chunk,
            evaluate[False],
            draw_epoch,
            score=score or (lambda means: means["loss"]),
            keep_best=keep_best,
            judged=judged,
            names=names,
            room=MOST_EPOCHS,
            total=_total,
        )
        init = functools.partial(begin, spec, sequential)

        on_mesh = functools.partial(_on_mesh, mesh)
        self._chunk = on_mesh(
            chunk, (MEMBERS, MEMBERS, WHOLE, FED), (MEMBERS, ROWS), donate_argnums=0
        )
        self._epochs = on_mesh(
            epochs,
            # population, hparams, seeds, data, held, first, last, fewest
            (*(MEMBERS,) * 3, WHOLE, EvalSplit(WHOLE, SPLIT, SPLIT), *(WHOLE,) * 3),
            (MEMBERS, WHOLE, ROWS),
            donate_argnums=0,
        )
        self._evaluate = {
            with_outputs: on_mesh(
                function,
                # params, state, hparams, totals, data, feed, share
                (*(MEMBERS,) * 4, WHOLE, SPLIT, SPLIT),
                (MEMBERS, PartitionSpec(MEMBER, None, BATCH)),
            )
            for with_outputs, function in evaluate.items()
        }
        self._draw = on_mesh(draw_epoch, (MEMBERS, WHOLE), FED)
        self._begin = jax.jit(init, out_shardings=NamedSharding(mesh, MEMBERS))
        self._begun = functools.partial(jax.eval_shape, init)  # of any size, as shapes
        # not methods, whose reference to self would keep the programs alive
        self.no_totals = functools.cache(functools.partial(_no_totals, mesh, names))
        self._some = functools.cache(functools.partial(_some, mesh))
        self._whole = functools.cache(functools.partial(_whole, keep_best, judged))

    def begin(self, seeds, hparams, example, start=None) -> pop.Population:
        """Initialise a group; `start` may hold its parameters and state [G, ...]."""
        return self._run(self._begin, seeds, hparams, example, start)

    def empty(self, seeds, hparams, example, start=None) -> pop.Population:
        """Allocate the whole population, where the seeds are."""
        return jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype, device=seeds.sharding),
            self._begun(seeds, hparams, example, start),
        )

    def gather(self, tree, group: Group):
        """The members of a group [G, ...] on the mesh; `tree` itself if it is whole."""
        leaves = jax.tree.leaves(tree)
        if not leaves or len(group) == len(leaves[0]):
            return tree
        places = np.asarray(group, np.int32)
        part = self._run(self._whole(leaves[0].sharding).gather, tree, places)
        return shard(self._mesh, part, MEMBER)

    def scatter(self, population, group: Group, part):
        """Write the members of a group back; the old population is donated."""
        home = population.status.sharding
        if len(group) == len(population.status):
            return part
        places = np.asarray(group, np.int32)
        part = processes.put(part, home)
        return self._run(self._whole(home).scatter, population, places, part)

    def chunk(self, population, hparams, data, indices):
        """Run steps on the devices; the old population is donated."""
        return self._run(self._chunk, population, hparams, data, indices)

    def order(self, seeds: np.ndarray, step: int, count: int) -> jax.Array:
        """Indices [S, G, B] of `count` steps from `step` on, drawn on the devices.

        They equal `Order.steps` for the members with these seeds [G].
        """
        assert self._order is not None
        epoch, first = divmod(step, self._order.steps_per_epoch)
        wanted = epoch, seeds.tobytes()
        if self._drawn[0] != wanted:
            self._drawn = None, None  # frees them before the next are made
            placed = shard(self._mesh, seeds.astype(np.uint32), MEMBER)
            self._drawn = wanted, self._run(self._draw, placed, np.uint32(epoch))
        indices = self._drawn[1]
        if count == len(indices):
            return indices
        return self._run(self._some(count), indices, np.int32(first))

    def epochs(
        self,
        population,
        hparams,
        seeds,
        data,
        held: EvalSplit,
        first: int,
        last: int,
        fewest: int,
    ) -> tuple[pop.Population, int, Epochs]:
        """Run whole epochs on the devices; the old population is donated.

        Args:
            population, hparams, seeds: of a group [G].
            data: the training split.
            held: the validation split.
            first, last: epochs first ... last - 1, at most `MOST_EPOCHS`.
            fewest: the call returns when at most this many members are running.

        Returns:
            The population, the next epoch, and a row for each finished epoch.
        """
        numbers = (np.int32(number) for number in (first, last, fewest))
        population, epoch, rows = self._run(
            self._epochs, population, hparams, seeds, data, held, *numbers
        )
        return population, int(epoch), rows

    def evaluate(self, params, state, hparams, totals, data, piece, with_outputs=False):
        """Totals including a piece, and the values of each example [G, T, B].

        A piece is what `Feed.evaluation` gives; see `learn.population.make_evaluate`.
        """
        program = self._evaluate[with_outputs]
        return self._run(program, params, state, hparams, totals, data, *piece)

    def judged(self, population):
        """Params and state [P, ...] that are evaluated."""
        if not self._averages:
            return population.train.params, population.train.state
        home = population.status.sharding
        return self._run(self._whole(home).judged, population)

    def keep_best(self, population, score):
        """Update best parameters and early stopping; the old population is donated."""
        home = population.status.sharding
        score = processes.put(score.astype(float), home)
        return self._run(self._whole(home).keep_best, population, score)

    def copy(self, population, sources: np.ndarray, places: np.ndarray):
        """Copy members to the places of others; the old population is donated.

        Both [n] are padded with empty places to a power of two, for few programs.
        """
        empty = np.full(1 << (len(places) - 1).bit_length(), len(population.status))
        program = self._whole(population.status.sharding).copy
        filled = (
            np.concatenate([some, empty[len(some) :]]).astype(np.int32)
            for some in (sources, places)
        )
        return self._run(program, population, *filled)

    def memory(
        self,
        seeds,
        hparams,
        example,
        start,
        training,
        evaluation,
        held: EvalSplit | None = None,
        *,
        with_outputs: bool = False,
        more: int = 0,
    ) -> Memory:
        """Memory for initialising, training and evaluating one group.

        Args:
            seeds, hparams, start: of the group [G], as shapes.
            example: one input of the training split.
            training, evaluation: (data, feed) of `chunk` and of `evaluate`.
            held: the validation split, if whole epochs run in one call.
            with_outputs: whether an evaluation during training returns the outputs.
            more: bytes on each device that another evaluation returns beyond this one.
        """
        shapes = seeds, hparams, start
        seeds, hparams, start = shape_structs(self._mesh, shapes, MEMBER)
        begin = self._compile(self._begin, seeds, hparams, example, start)
        begun = self._begun(seeds, hparams, example, start)
        population = shape_structs(self._mesh, begun, MEMBER)
        state = population.train
        steps: tuple = (self._chunk, population, hparams, *training)
        if held is not None:
            split, numbers = training[0], [np.int32(0)] * 3
            steps = (self._epochs, population, hparams, seeds, split, held, *numbers)
        train = self._compile(*steps)
        data, piece = evaluation
        totals = shape_structs(self._mesh, self.no_totals(seeds.shape[0]), MEMBER)
        evaluate = self._compile(
            self._evaluate[with_outputs],
            state.params,
            state.state,
            hparams,
            totals,
            data,
            *piece,
        )
        held_by = (
            tree_bytes(population),
            tree_bytes((state.params, state.state, population.best)),
            tree_bytes(state.opt_state),
        )
        needs = [each.memory_analysis() for each in (begin, train, evaluate)]
        if any(each is None for each in needs):  # this platform does not report it
            return Memory(0, *held_by)
        at_first, in_training, in_evaluation = needs
        # the new population takes the memory of the old one
        new = in_training.output_size_in_bytes - in_training.alias_size_in_bytes
        rest = max(
            new + in_training.temp_size_in_bytes,
            in_evaluation.output_size_in_bytes
            + in_evaluation.temp_size_in_bytes
            + more,
        )
        first = at_first.output_size_in_bytes + at_first.temp_size_in_bytes
        return Memory(max(first, in_training.argument_size_in_bytes + rest), *held_by)

    def clock(self) -> float:
        """`time.perf_counter` without the seconds of compilation."""
        return time.perf_counter() - self.compile_seconds

    def _run(self, program, *args):
        """Call a program; it is compiled first for new shapes."""
        return self._compile(program, *args)(*args)

    def _compile(self, program, *args):
        """Compile a program for the shapes of these arguments.

        A program always gets arrays with the same sharding; JAX rejects others.
        """
        leaves, tree = jax.tree.flatten(args)
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        key = program, tree, shapes
        if key not in self._compiled:
            started = time.perf_counter()
            lowered = program.lower(*args)
            with signals.compiling():
                self._compiled[key] = lowered.compile(compiler_options=self._options)
            self.compile_seconds += time.perf_counter() - started
        return self._compiled[key]


def tree_bytes(tree: PyTree) -> int:
    """Bytes of arrays, in memory or on disk, or of their shape structs."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def _streamed(_data, batch: Batch) -> Batch:
    """The streamed batch itself."""
    return batch


def _on_mesh(mesh: Mesh, function: Callable, in_specs, out_specs, **options) -> Any:
    """`function` of each device's part, compiled for all devices."""
    # check_vma off: gradients are averaged over the batch axis in the step itself
    mapped = jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )
    return jax.jit(mapped, **options)


def begin(spec: TrainSpec, sequential: bool, seeds, hparams, example, start):
    """A population at step 0; of any number of members."""

    def one(key, hparams, start):
        return init_state(spec, hparams, key, example, start)

    keys = jax.vmap(jax.random.key)(seeds)
    return pop.begin(pop.map_members(one, sequential)(keys, hparams, start))


def draw(mesh: Mesh, order: Order | None, seeds, epoch):
    """The indices [S, G, B] of an epoch, for each device its part of the batch."""
    assert order is not None
    indices = device_order(seeds, epoch, order.size, order.batch_size)
    own = order.batch_size // mesh.shape[BATCH]
    first = jax.lax.axis_index(BATCH) * own
    return jax.lax.dynamic_slice_in_dim(indices, first, own, 2)


def _total(value, over: str):
    """The sum over the devices which share the examples of a batch, or the members."""
    return jax.lax.psum(value, BATCH if over == "example" else MEMBER)


def _no_totals(mesh: Mesh, names: tuple[str, ...], members: int) -> dict:
    """The totals [G, 2] at the beginning of an evaluation."""
    zeros = np.zeros((members, 2), jnp.result_type(float))
    return shard(mesh, dict.fromkeys(names, zeros), MEMBER)


def _some(mesh: Mesh, count: int) -> Any:
    """(indices, first) -> `count` rows of the indices of an epoch."""
    cut = functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=count, axis=0)
    return jax.jit(cut, out_shardings=NamedSharding(mesh, FED))


def _whole(keep_best: Callable, judged: Callable, home: Sharding) -> Whole:
    """The programs on the whole population, which is stored at `home`."""
    jit = functools.partial(jax.jit, out_shardings=home)
    return Whole(
        jit(pop.gather_members),
        jit(pop.scatter_members, donate_argnums=0),
        jit(keep_best, donate_argnums=0),
        jit(judged),
        jit(pop.copy_members, donate_argnums=0),
    )
