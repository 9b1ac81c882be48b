"""The compiled programs of a population, each compiled once per mesh."""

import functools
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
    make_own_step,
    make_train_step,
)
from dlworkshop.models.convolution import computed_by
from dlworkshop.models.model import (
    BATCH,
)
from dlworkshop.train import processes, signals
from dlworkshop.train.groups import Group
from dlworkshop.train.mesh import MEMBER, shape_structs, shard
from dlworkshop.types import Batch, PyTree

# Epochs between two looks, where a chunk is of whole ones: there is room for so many
# rows of what they find.
MOST_EPOCHS = 256


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
    state: int  # of all members together; so are the next two, which are part of it
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
        order: Order | None = None,
        score: Callable | None = None,
    ):
        self.execution, self._mesh, self._order = execution, mesh, order
        platform = mesh.devices.flat[0].platform
        model = computed_by(spec.model, execution.convolution, platform)
        spec = spec._replace(model=model)
        self._averages = spec.eval_params is not None
        self.compile_seconds = 0.0
        self._compiled: dict = {}
        train_step: Any = make_train_step(spec, BATCH, execution.micro_batch)
        self.make_step = make_step
        if make_step is not None:
            train_step = make_own_step(make_step, train_step, spec.routes.make_step)
        fetch = _streamed if streamed else gather
        on_cpu = platform == "cpu"
        chunk = pop.make_population_chunk(
            train_step, fetch, execution.sequential, on_cpu
        )
        # check_vma off: gradients are averaged over the batch axis in the step itself
        mapped = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)
        member, split = PartitionSpec(MEMBER), PartitionSpec(None, BATCH)
        whole_data, fed = PartitionSpec(), PartitionSpec(None, MEMBER, BATCH)
        self._chunk = jax.jit(
            mapped(
                chunk,
                in_specs=(member, member, whole_data, fed),
                out_specs=(member, PartitionSpec(None, MEMBER)),
            ),
            donate_argnums=0,
        )
        evaluate = {
            with_outputs: pop.make_evaluate(
                make_eval_step(spec, with_outputs), fetch, execution.sequential, BATCH
            )
            for with_outputs in (False, True)
        }
        self._evaluate = {
            with_outputs: jax.jit(
                mapped(
                    function,
                    in_specs=(*(member,) * 4, whole_data, split, split),
                    out_specs=(member, PartitionSpec(MEMBER, None, BATCH)),
                )
            )
            for with_outputs, function in evaluate.items()
        }
        names = "loss", *spec.metrics  # of an evaluation

        @functools.cache
        def no_totals(members: int) -> dict[str, jax.Array]:
            zeros = np.zeros((members, 2), jnp.result_type(float))
            return shard(mesh, dict.fromkeys(names, zeros), MEMBER)

        self.no_totals = no_totals  # of so many members, to begin an evaluation with

        def draw(seeds, epoch):  # [S, G, B] of each device
            assert order is not None
            indices = device_order(seeds, epoch, order.size, order.batch_size)
            own = order.batch_size // mesh.shape[BATCH]
            first = jax.lax.axis_index(BATCH) * own
            return jax.lax.dynamic_slice_in_dim(indices, first, own, 2)

        def total(value, over):
            return jax.lax.psum(value, BATCH if over == "example" else MEMBER)

        keep_best = functools.partial(
            pop.keep_best, patience=patience, eval_params=spec.eval_params
        )
        judged = functools.partial(pop.judged, eval_params=spec.eval_params)
        self._draw = jax.jit(mapped(draw, in_specs=(member, whole_data), out_specs=fed))
        # the last epoch that was drawn, whose, and its indices
        self._drawn: tuple[Any, Any] = (None, None)

        @functools.cache
        def some(count: int) -> Any:
            cut = functools.partial(
                jax.lax.dynamic_slice_in_dim, slice_size=count, axis=0
            )
            return jax.jit(cut, out_shardings=NamedSharding(mesh, fed))

        self._some = some
        self._epochs = jax.jit(
            mapped(
                make_epochs(
                    chunk,
                    evaluate[False],
                    draw,
                    score=score or (lambda means: means["loss"]),
                    keep_best=keep_best,
                    judged=judged,
                    names=names,
                    room=MOST_EPOCHS,
                    total=total,
                ),
                in_specs=(
                    *(member,) * 3,
                    whole_data,
                    EvalSplit(whole_data, split, split),  # type: ignore[arg-type]
                    *(whole_data,) * 3,
                ),
                out_specs=(member, whole_data, PartitionSpec(None, MEMBER)),
            ),
            donate_argnums=0,
        )

        def begin(seeds, hparams, example, start):
            def one(key, hparams, start):
                return init_state(spec, hparams, key, example, start)

            keys = jax.vmap(jax.random.key)(seeds)
            init = pop.map_members(one, execution.sequential)
            return pop.begin(init(keys, hparams, start))

        # of any number of members, as shapes
        self._begun = functools.partial(jax.eval_shape, begin)
        self._begin = jax.jit(begin, out_shardings=NamedSharding(mesh, member))

        @functools.cache
        def whole(home: Sharding) -> Whole:
            jit = functools.partial(jax.jit, out_shardings=home)
            return Whole(
                jit(pop.gather_members),
                jit(pop.scatter_members, donate_argnums=0),
                jit(keep_best, donate_argnums=0),
                jit(judged),
                jit(pop.copy_members, donate_argnums=0),
            )

        self._whole = whole

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
        """The members of a group [G, ...] on the mesh; `tree` itself if it is all."""
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
        """Indices [S, G, B] of so many steps from `step` on, drawn on the devices.

        They are those of `Order.steps`, of members of these seeds [G].
        """
        assert self._order is not None
        epoch, first = divmod(step, self._order.steps_per_epoch)
        wanted = epoch, seeds.tobytes()
        if self._drawn[0] != wanted:
            self._drawn = None, None  # before the next ones are there
            there = shard(self._mesh, seeds.astype(np.uint32), MEMBER)
            self._drawn = wanted, self._run(self._draw, there, np.uint32(epoch))
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
            fewest: the host is called as soon as no more members than that are running.

        Returns:
            The population, the epoch that is next, and a row for each that was done.
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
        """Put copies of members in the places of others; the old population is donated.

        Both [n] are filled with empty places up to a power of two, for few programs.
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
            seeds, hparams, start: of the members of the group [G], as shapes.
            example: one of the training split.
            training, evaluation: (data, feed) of `chunk` and of `evaluate`.
            held: the validation split, where whole epochs are done at a time.
            with_outputs: whether an evaluation in training brings the outputs.
            more: bytes on each device that another evaluation finds beside that one.
        """
        shapes = seeds, hparams, start
        seeds, hparams, start = shape_structs(self._mesh, shapes, MEMBER)
        begun = self._begun(seeds, hparams, example, start)
        population = shape_structs(self._mesh, begun, MEMBER)
        train = population.train
        if held is None:
            chunk = self._compile(self._chunk, population, hparams, *training)
        else:
            number = np.int32(0)
            chunk = self._compile(
                self._epochs,
                population,
                hparams,
                seeds,
                training[0],
                held,
                number,
                number,
                number,
            )
        data, piece = evaluation
        totals = shape_structs(self._mesh, self.no_totals(seeds.shape[0]), MEMBER)
        evaluate = self._compile(
            self._evaluate[with_outputs],
            train.params,
            train.state,
            hparams,
            totals,
            data,
            *piece,
        )
        begin = self._compile(self._begin, seeds, hparams, example, start)
        zero, one, two = (
            program.memory_analysis() for program in (begin, chunk, evaluate)
        )
        state = tree_bytes(population)
        parameters = tree_bytes((train.params, train.state, population.best))
        held_by = state, parameters, tree_bytes(train.opt_state)
        if zero is None or one is None or two is None:  # this platform does not tell
            return Memory(0, *held_by)
        # the old population is given up, and its memory taken by the new one
        new = one.output_size_in_bytes - one.alias_size_in_bytes
        more = max(
            new + one.temp_size_in_bytes,
            two.output_size_in_bytes + two.temp_size_in_bytes + more,
        )
        first = zero.output_size_in_bytes + zero.temp_size_in_bytes
        return Memory(max(first, one.argument_size_in_bytes + more), *held_by)

    def _run(self, program, *args):
        """Call a program, compiled first for new shapes."""
        return self._compile(program, *args)(*args)

    def _compile(self, program, *args):
        """Compile a program for the shapes of these arguments.

        Each is always given arrays that lie in the same places; JAX refuses others.
        """
        leaves, tree = jax.tree.flatten(args)
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        key = program, tree, shapes
        if key not in self._compiled:
            started = time.perf_counter()
            lowered = program.lower(*args)
            with signals.compiling():
                self._compiled[key] = lowered.compile()
            self.compile_seconds += time.perf_counter() - started
        return self._compiled[key]


def tree_bytes(tree: PyTree) -> int:
    """Bytes of arrays or of their shape structs."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _streamed(_data, batch: Batch) -> Batch:
    """The streamed batch itself."""
    return batch
