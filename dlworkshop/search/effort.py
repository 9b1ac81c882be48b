"""Cost of an update on this machine, and how many updates fit into a time."""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from dlworkshop.models.convolution import computed_by, has_convolutions
from dlworkshop.models.model import (
    Model,
    StatefulModel,
    as_float,
    input_struct,
    num_params,
    predict,
    shapes,
    stand_ins,
    stateful,
)
from dlworkshop.search.candidates import Candidate, Setting
from dlworkshop.search.task import Task
from dlworkshop.train import folds
from dlworkshop.train.autotune import rule_of_thumb
from dlworkshop.train.compiling import compiler_options
from dlworkshop.train.flops import update_flops
from dlworkshop.types import Dataset, PyTree

LEAST_UPDATES = 300  # below which no network is judged
PASSES = 30  # over the training split, which usually do
UPDATES = (1000, 6000)  # and bounds of what usually does
BATCHES = ((500, 32), (2_000, 64), (20_000, 128))  # below so many examples
LARGE_BATCH = 256
ROUNDS = 20  # looks at validation, at most
LOOK = 10  # times as long as one takes, at least, is trained between two
FOLDS = 8
SMALL = 1000  # examples in train and validation below which folds are cut
SECONDS = 0.5  # of what is measured
OVERHEAD = 20e-6  # seconds of an update, however small
SMALL_PRODUCTS = 0.25  # the rate of small products is about this share of large ones'
PER_PARAMETER = 12  # numbers that an update of one goes over
COMPILING = 6.0  # seconds that the programs of a fit take, about
PROGRAMS = 8  # times as long as that of an answer, where there are convolutions
FORWARD = 1 / 4  # of the cost of an update has an answer
BYTES = 12  # of the sum of two float32 numbers: two are read and one is written


class Cost(NamedTuple):
    """Cost of training on this machine, in seconds."""

    update: float  # of one member among others
    compiling: float = COMPILING  # a fit, and what else it does beside training


@dataclasses.dataclass(frozen=True)
class Effort:
    """The size of one fit: settings, seeds, folds and updates."""

    settings: tuple[Setting, ...]
    seeds: int
    folds: int | None
    updates: int
    batch_size: int
    held: int = 0  # examples of which each look at validation takes the loss
    answered: int = 0  # examples that each member answers when it is trained
    views: int = 1  # forward passes of an answer; see `views_of`

    @property
    def members(self) -> int:
        """The number of members P."""
        return len(self.settings) * self.seeds * (self.folds or 1)

    @property
    def num_epochs(self) -> int:
        """The number of evaluations on validation, which take little of the time."""
        least = max(1.0, LOOK * self.views * self.held / self.batch_size * FORWARD)
        return max(1, min(ROUNDS, int(self.updates / least)))

    @property
    def steps_per_epoch(self) -> int:
        """Updates between two evaluations."""
        return max(1, round(self.updates / self.num_epochs))

    def seconds(self, cost: Cost) -> float:
        """Estimated time, including compilation."""
        answers = self.views * (self.num_epochs * self.held + self.answered)
        work = self.updates + answers / self.batch_size * FORWARD
        return cost.compiling + self.members * work * cost.update

    def within(
        self,
        seconds: float,
        cost: Cost,
        least_seeds: int = 1,
        least_updates: int = LEAST_UPDATES,
    ) -> "Effort":
        """As much as fits into a time, with at least so many seeds and updates.

        Fewer updates come first, down to a third of them; then, where folds tell what
        is chance, fewer seeds, and else half of the settings; then the rest of both,
        and updates again. The smallest effort may take longer than the time.

        >>> settings = tuple({"learning_rate": rate} for rate in (0.1, 0.2, 0.3, 0.4))
        >>> whole = Effort(settings, 2, None, 1200, 32)
        >>> whole.within(1e9, Cost(0.01)) == whole
        True
        >>> few = whole.within(20.0, Cost(0.01))
        >>> few.members, few.updates
        (2, 400)
        """

        def shrunk(now: Effort, updates: int) -> Effort:
            fixed = dataclasses.replace(now, updates=0).seconds(cost)
            each = (now.seconds(cost) - fixed) / now.updates
            possible = int(max(0.0, seconds - fixed) / max(each, 1e-12))
            return dataclasses.replace(
                now, updates=max(min(now.updates, possible), updates)
            )

        least_updates = min(least_updates, self.updates)
        third = max(least_updates, self.updates // 3)
        now = shrunk(self, third)
        most = len(self.settings)
        turns = [(least_seeds, most), (least_seeds, 1)]  # seeds and settings, at least
        if not self.folds:
            turns.insert(0, (self.seeds, (most + 1) // 2))
        for few_seeds, few_settings in turns:
            while now.seconds(cost) > seconds:
                if now.seeds > few_seeds:
                    less = dataclasses.replace(now, seeds=now.seeds - 1)
                elif len(now.settings) > few_settings:
                    less = dataclasses.replace(now, settings=now.settings[:-1])
                else:
                    break
                now = shrunk(less, third)
        return shrunk(now, least_updates)


def views_of(model: Model | StatefulModel) -> int:
    """Forward passes of an answer.

    >>> from dlworkshop.models import logistic, mirrored
    >>> views_of(logistic(2)), views_of(mirrored(logistic(2)))
    (1, 2)
    """
    return 2 if "mirrored" in model.config else 1


def usual(
    dataset: Dataset, folds: int | None, batch_size: int | None, updates: int | None
) -> tuple[int, int]:
    """The usual number of updates and batch size for so many examples.

    >>> from dlworkshop.types import Batch
    >>> split = Batch(np.zeros((105, 4)), np.zeros(105, int))
    >>> usual(Dataset(split, split, split), None, None, None)
    (1000, 32)
    """
    size = dataset.train.num_examples
    if folds:
        size = (size + dataset.validation.num_examples) * (folds - 1) // folds
    batch = batch_size or next((b for n, b in BATCHES if size < n), LARGE_BATCH)
    low, high = UPDATES
    return updates or int(np.clip(PASSES * size / batch, low, high)), min(batch, size)


def cost_of(
    candidate: Candidate, task: Task, dataset: Dataset, batch_size: int
) -> Cost:
    """Estimate the cost of an update of one member in a population, on this machine.

    Where there are convolutions, answers to a batch are timed: the program of an update
    takes many times as long to compile. Elsewhere even that would take longer than many
    a search, so that the operations and the parameters are counted, and what the
    machine does of both is timed.
    """
    model = stateful(candidate.model)
    example = jax.tree.map(lambda leaf: np.asarray(leaf[:1])[0], dataset.train.inputs)
    params, state = shapes(model, example)
    flops, more = update_flops(model, example), stand_ins(model)
    if not has_convolutions(model.apply, params, state, input_struct(example), **more):
        products, numbers = machine()
        size = num_params(params)
        seconds = batch_size * flops / products + PER_PARAMETER * size / numbers
        return Cost(OVERHEAD + seconds)
    platform = jax.default_backend()
    execution = rule_of_thumb(batch_size, flops, convolutions=True, platform=platform)
    chosen = computed_by(model, execution.convolution, platform)
    part = execution.micro_batch or batch_size  # of the batch, at a time

    def answers(params: PyTree, state: PyTree, batch: PyTree) -> PyTree:
        parts = jax.tree.map(
            lambda leaf: leaf.reshape(-1, part, *leaf.shape[1:]), batch
        )
        return jax.lax.map(
            lambda each: predict(chosen, params, each, state, **more), parts
        )

    rng = np.random.default_rng(0)  # an own draw of the model would be compiled, too
    params = jax.tree.map(
        lambda leaf: rng.uniform(0, 0.1, leaf.shape).astype(leaf.dtype), params
    )
    if jax.tree.leaves(state):  # which may hold anything
        state = jax.jit(lambda: model.init(jax.random.key(0), as_float(example))[1])()
    batch = jax.tree.map(  # with folds, it may have more examples than train alone
        lambda leaf: np.resize(leaf, (batch_size, *leaf.shape[1:])),
        dataset.train.rows(slice(0, batch_size)).inputs,
    )
    begun = time.perf_counter()
    lowered = jax.jit(answers).lower(params, state, batch)
    program = lowered.compile(compiler_options=compiler_options(platform))
    compiled = time.perf_counter() - begun
    jax.block_until_ready(program(params, state, batch))  # the first time is longer
    count, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < SECONDS:
        jax.block_until_ready(program(params, state, batch))
        count += 1
    return Cost(spent / count / FORWARD, max(COMPILING, PROGRAMS * compiled))


def costs_of(
    sizes: Sequence[Candidate],
    task: Task,
    dataset: Dataset,
    batch_size: int,
    fits: Callable[[Cost], bool],
) -> list[Cost]:
    """Estimate the costs of several networks, of which one is measured.

    It is the first that is likely to fit by its estimate, and the estimates of the
    others relative to its own say what they take. The largest come first; `fits` says
    whether there is time for a network of such a cost.
    """
    seconds = estimates(sizes, dataset)
    likely = (i for i, each in enumerate(seconds) if fits(Cost(batch_size * each)))
    tried = next(likely, len(sizes) - 1)
    known = cost_of(sizes[tried], task, dataset, batch_size)
    return [
        known._replace(update=known.update * each / seconds[tried]) for each in seconds
    ]


def estimates(sizes: Sequence[Candidate], dataset: Dataset) -> list[float]:
    """Estimated seconds of an update of each network of images, per example.

    The operations of matrix products and the memory traffic of everything else, with
    convolutions as products of patches, at the rates of this machine. Narrow networks
    are limited by the latter: with half the channels, a quarter of the operations, they
    take 0.4 to 0.5 times as long.
    """
    products, numbers = machine()
    example = jax.tree.map(lambda leaf: np.asarray(leaf[:1])[0], dataset.train.inputs)
    found = []
    for candidate in sizes:
        model = stateful(candidate.model)
        params, state = shapes(model, example)
        traced = jax.jit(functools.partial(model.apply, **stand_ins(model))).trace(
            params, state, input_struct(example)
        )
        moved = (traced.lower().cost_analysis() or {}).get("bytes accessed", 0.0)
        flops = update_flops(model, example)
        found.append(
            flops * SMALL_PRODUCTS / products + moved / FORWARD / BYTES / numbers
        )
    return found


@functools.cache
def machine() -> tuple[float, float]:
    """Rate of small matrix products in FLOP/s, and of elementwise work in numbers/s.

    A share of what it does of large products and of sums of large arrays, measured.
    """
    rng = np.random.default_rng(0)
    a = rng.normal(size=(512, 512)).astype(np.float32)
    b = np.ones(1 << 22, np.float32)
    products, numbers = _times(lambda: a @ a), _times(lambda: b + b)
    return SMALL_PRODUCTS * 2 * 512**3 / products, b.size / numbers


def _times(work: Callable[[], object]) -> float:
    """The shortest of a few times, in seconds."""
    found = []
    for _ in range(5):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


def cuts_folds(dataset: Dataset) -> bool:
    """Whether train and validation together are small, and were split at random.

    A validation split that was given is a reason to leave the splits as they are, and
    so are weights of one of them alone, and fewer than two different examples, or
    groups, for a fold.
    """
    splits = str((dataset.card or {}).get("splits", ""))
    given = splits.partition(" as given")[0] if " as given" in splits else ""
    both = dataset.train, dataset.validation
    few = sum(split.num_examples for split in both) < SMALL
    alike = len({split.weights is None for split in both}) == 1
    if "validation" in given or not few or not alike:
        return False
    pool = folds.pooled(dataset)
    groups = None if pool.groups is None else pool.groups[0]
    return len(np.unique(folds.units(pool.train, groups))) >= 2 * FOLDS
