"""Lift 4: a chunk of one model -> one of P members (seeds x hyper-parameters)."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dlworkshop.learn.chunk import gather, make_chunk
from dlworkshop.learn.step import TrainStep, is_split
from dlworkshop.types import Array, Batch, HParams, PyTree, TrainState

RUNNING, STOPPED, QUARANTINED = 0, 1, 2  # the next four are quarantined, too
LOSS, GRADIENT, PARAMETERS, OPTIMIZER = 3, 4, 5, 6
FAULTS = {
    QUARANTINED: "the loss, the gradient or the parameters were",  # not distinguished
    LOSS: "the loss was",
    GRADIENT: "the gradient was",
    PARAMETERS: "the parameters were",
    OPTIMIZER: "the optimizer's state was",
}


class Population(NamedTuple):
    """P members with the state of early stopping."""

    train: TrainState  # [P, ...]
    status: Array  # [P] int32: RUNNING, STOPPED or why it is quarantined
    best: tuple[PyTree, PyTree]  # params and state [P, ...] of the best score so far
    best_score: Array  # [P] that score on validation; lower is better
    best_step: Array  # [P] int32 its step
    epochs_without_improvement: Array  # [P] int32


def begin(train: TrainState) -> Population:
    """A new population; `train` is [P, ...]."""
    zeros = jnp.zeros_like(train.step)  # [P]
    # buffers of its own, for donation
    best = jax.tree.map(jnp.copy, (train.params, train.state))
    score = jnp.full(zeros.shape, jnp.inf)
    return Population(train, zeros, best, score, zeros, zeros)


def map_members(function: Callable, sequential: bool) -> Callable:
    """Lift `function` over the first axis P of all its arguments.

    Side by side (vmap) is nearly always the right choice. `sequential` is for work that
    fills the device already, such as convolutions on a CPU, where P working sets would
    not fit into the cache. A single member is not lifted at all.
    """

    def lifted(*args):
        size = jax.tree.leaves(args)[0].shape[0]
        if size == 1:
            alone = jax.tree.map(lambda leaf: leaf[0], args)
            return jax.tree.map(lambda leaf: leaf[None], function(*alone))
        if sequential:
            return jax.lax.map(lambda member: function(*member), args)
        return jax.vmap(function)(*args)

    return lifted


def gather_members(tree: PyTree, places) -> PyTree:
    """The members of `tree` [P, ...] at `places` [G]; P is an empty place.

    An empty place gets the last member, whose results are discarded.
    """
    return jax.tree.map(lambda leaf: leaf.at[places].get(mode="clip"), tree)


def scatter_members(tree: PyTree, places, part: PyTree) -> PyTree:
    """`tree` [P, ...] with the members of `part` [G, ...] written back.

    >>> part = jnp.array([5.0, 6.0, 7.0])
    >>> scatter_members(jnp.zeros(3), jnp.array([0, 2, 3]), part).tolist()
    [5.0, 0.0, 6.0]
    """
    return jax.tree.map(
        lambda leaf, new: leaf.at[places].set(new, mode="drop"), tree, part
    )


def copy_members(population: Population, sources, places) -> Population:
    """Copies of the members at `sources` [G] in the `places` [G] of others.

    Everything is copied but the key, which belongs to the seed. P is an empty place.
    """
    part = gather_members(population, sources)
    train = part.train._replace(key=gather_members(population.train.key, places))
    return scatter_members(population, places, part._replace(train=train))


def make_population_chunk(
    train_step: Callable,
    fetch: Callable = gather,
    sequential: bool = False,
    on_cpu: bool = True,
    new_opt_state: Callable | None = None,
) -> Callable:
    """(population, hparams [P], data, feed [S, P, ...]) -> population, metrics [S, P].

    S steps of every member. Side by side, all members do one step, then the next;
    sequentially, a member does all of its steps before the next member, in place.

    A member whose loss or gradient is not finite is quarantined in its state before
    that gradient. If the update, or the optimizer's state, overflowed although the
    gradient was finite, the member is reset to its parameters at the beginning of the
    chunk. A member that is not running does not change, and its metrics are NaN.

    `new_opt_state`, from `step.make_new_opt_state`, tells which arrays of an optimizer
    are infinite on purpose; without it, its state is not checked.
    """
    chunk = make_member_chunk(train_step, fetch, on_cpu, new_opt_state)

    def alone(state, hparams, data, feed, member):
        own, numbers = jax.tree.map(lambda leaf: leaf[member], (state, hparams))
        feed = jax.tree.map(lambda leaf: leaf[:, member], feed)
        own, metrics = chunk(own, numbers, data, feed)
        put = partial(jax.lax.dynamic_update_index_in_dim, index=member, axis=0)
        return jax.tree.map(put, state, own), metrics

    def population_chunk(population: Population, hparams: HParams, data, feed):
        state = population.train, population.status
        size = len(population.status)
        if size == 1:
            state, metrics = alone(state, hparams, data, feed, 0)
            metrics = jax.tree.map(lambda m: m[:, None], metrics)
        elif sequential:
            state, metrics = jax.lax.scan(
                lambda state, member: alone(state, hparams, data, feed, member),
                state,
                jnp.arange(size),
            )
            metrics = jax.tree.map(jnp.transpose, metrics)
        else:
            lifted = jax.vmap(chunk, in_axes=(0, 0, None, 1), out_axes=(0, 1))
            state, metrics = lifted(state, hparams, data, feed)
        train, status = state
        return population._replace(train=train, status=status), metrics

    return population_chunk


def make_member_chunk(
    train_step: Callable,
    fetch: Callable = gather,
    on_cpu: bool = True,
    new_opt_state: Callable | None = None,
) -> Callable:
    """((train, status), hparams, data, feed [S, ...]) -> (train, status), metrics."""
    guarded = guard(train_step, on_cpu)

    def member_step(state, batch: Batch, hparams: HParams):
        train, status = state
        running = status == RUNNING
        train, fault, metrics = guarded(train, batch, hparams, running)
        status = jnp.where(running & (fault != RUNNING), fault, status)
        metrics = {
            k: jnp.where(running, value, jnp.nan) for k, value in metrics.items()
        }
        return (train, status), metrics

    chunk = make_chunk(member_step, fetch)

    def member_chunk(state, hparams: HParams, data, feed):
        before, was = state
        (train, status), metrics = chunk(state, hparams, data, feed)
        # checked once per chunk: in every step it cost 4 to 11 % of an MLP's time
        finite = all_finite(train.params, on_cpu)
        parts = (train.params, train.state, train.step)
        first = (before.params, before.state, before.step)
        sound = jnp.array(True)
        if new_opt_state is not None:
            fresh = new_opt_state(before, hparams)
            sound = (was != RUNNING) | opt_state_sound(train.opt_state, fresh, on_cpu)
        params, kept, step = select(finite & sound, parts, first)
        train = train._replace(params=params, state=kept, step=step)
        # if a later step found a loss that is not finite, these caused it
        status = jnp.where(sound, status, OPTIMIZER)
        return (train, jnp.where(finite, status, PARAMETERS)), metrics

    return member_chunk


def guard(train_step: Callable, on_cpu: bool = True) -> Callable:
    """(train, batch, hparams, running) -> train, fault [], metrics.

    The step is not taken if the member is not running, or if its loss or gradient is
    not finite. The fault is LOSS, GRADIENT or PARAMETERS, or RUNNING if there is none.
    `train_step` is a `TrainStep`, or a function of the user, whose loss and new
    parameters are checked.

    On a CPU the update is in a branch, where the new state overwrites the old one while
    it is computed; selecting one of the two afterwards would read and write both again.
    Elsewhere a branch makes the host wait, and selecting is fused with the update: one
    member's step takes 0.8 times as long (docs/accelerators.md).
    """
    if not isinstance(train_step, TrainStep):

        def whole(train, batch, hparams, running):
            new, metrics = train_step(train, batch, hparams)
            moved = all_finite(new.params, on_cpu)
            fault = _fault(metrics["loss"], jnp.where(moved, RUNNING, PARAMETERS))
            return select(running & (fault == RUNNING), new, train), fault, metrics

        return whole

    def in_parts(train: TrainState, batch, hparams, running):
        grads, state, metrics = train_step.gradient(train, batch, hparams)
        known = all_finite(grads, on_cpu)
        fault = _fault(metrics["loss"], jnp.where(known, RUNNING, GRADIENT))
        taken = running & (fault == RUNNING)

        def advance(train: TrainState, grads, state):
            new, probed = train_step.advance(train, grads, state, metrics, hparams)
            # as floats, which can be NaN where no step is taken
            return new, jax.tree.map(lambda leaf: leaf * 1.0, probed)

        if not on_cpu:
            new, probed = advance(train, grads, state)
            return select(taken, new, train), fault, metrics | probed
        like = jax.eval_shape(advance, train, grads, state)[1]
        unknown = jax.tree.map(
            lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), like
        )
        train, probed = jax.lax.cond(
            taken,
            advance,
            lambda train, grads, state: (train, unknown),
            train,
            grads,
            state,
        )
        return train, fault, metrics | probed

    return in_parts


def _fault(loss: Array, of_the_rest: Array) -> Array:
    """The first of loss, gradient and parameters that is not finite."""
    return jnp.where(jnp.isfinite(loss), of_the_rest, LOSS)


def all_finite(tree: PyTree, on_cpu: bool = True) -> Array:
    """Whether every number of every leaf is finite: [] bool.

    On a CPU this checks half the means over all axes but the last, which are finite if
    all numbers are: a product with a vector runs on all cores, a reduction on one core.
    Elsewhere a product would transpose the leaves first.

    >>> bool(all_finite({"w": jnp.ones((2, 3)), "b": jnp.array(1e38)}))
    True
    >>> bool(all_finite({"w": jnp.array([[3e38, 3e38], [jnp.inf, -jnp.inf]])}))
    False
    """
    finite = jnp.array(True)
    for leaf in filter(jnp.size, jax.tree.leaves(tree)):
        if not on_cpu:
            finite &= jnp.isfinite(leaf).all()
            continue
        rows = leaf.reshape(-1, leaf.shape[-1] if leaf.ndim > 1 else 1)
        weights = jnp.full(len(rows), 0.5 / len(rows), leaf.dtype)
        finite &= jnp.isfinite(weights @ rows).all()
    return finite


def opt_state_sound(opt_state: PyTree, fresh: PyTree, on_cpu: bool = True) -> Array:
    """Whether no array of an optimizer's state has overflowed: [] bool.

    A second moment that is infinite makes updates of 0, so that a member would stand
    still for ever. An array that is infinite in a `fresh` state is so on purpose, such
    as the best loss of a plateau, and is not judged.

    >>> fresh = {"best": jnp.array(jnp.inf), "nu": jnp.zeros(2)}
    >>> bool(opt_state_sound(fresh, fresh))
    True
    >>> bool(opt_state_sound(fresh | {"nu": jnp.array([1.0, jnp.inf])}, fresh))
    False
    """
    sound = jnp.array(True)
    pairs = zip(jax.tree.leaves(opt_state), jax.tree.leaves(fresh), strict=True)
    for now, new in pairs:
        if jnp.issubdtype(now.dtype, jnp.inexact):  # no key and no count
            sound &= all_finite(now, on_cpu) | ~jnp.isfinite(new).all()
    return sound


def make_evaluate(
    eval_step: Callable,
    fetch: Callable,
    sequential: bool = False,
    batch_axis: str | None = None,
):
    """(params, state, hparams, totals [P], data, feed, share [T, B]) -> totals, found.

    The scores of each example, times its share, are added to the totals, name -> [P, 2]
    (see `add_exactly`), which do not depend on how a split is cut into pieces. `found`
    is `Evaluated` [P, T, B, ...]. An example with a share of 0 does not count.
    """

    def evaluate(params, state, hparams: HParams, totals, data: Batch, feed, share):
        def member(params, state, hparams, totals):
            def batch(totals, now):
                feed, share = now
                found = eval_step(params, state, fetch(data, feed), hparams)
                sums = {
                    name: jnp.where(share > 0, share * score, 0).sum()
                    for name, score in found.scores.items()
                }
                if is_split(batch_axis):
                    sums = jax.lax.psum(sums, batch_axis)
                totals = {k: add_exactly(totals[k], sums[k]) for k in totals}
                return totals, found

            return jax.lax.scan(batch, totals, (feed, share))

        return map_members(member, sequential)(params, state, hparams, totals)

    return evaluate


def mean_of_finite(values: Array) -> Array:
    """Mean [P] of the finite rows of `values` [S, P]; NaN if there are none.

    >>> mean_of_finite(jnp.array([[1.0, jnp.nan], [2.0, jnp.nan]])).tolist()
    [1.5, nan]
    """
    finite = jnp.isfinite(values)
    total = jnp.where(finite, values, 0).sum(0)
    return total / finite.sum(0)


def add_exactly(total: Array, value: Array) -> Array:
    """Compensated summation: add to a sum [2] of value and rounding error.

    Source: Knuth (1969), The art of computer programming 2, section 4.2.2 (TwoSum).

    >>> total = jnp.zeros(2)
    >>> for value in (1e8, 1.0, 1.0, 1.0, -1e8):
    ...     total = add_exactly(total, jnp.float32(value))
    >>> float(total.sum())
    3.0
    """
    before, rest = total[0], total[1]
    after = before + value
    part = after - before
    lost = (before - (after - part)) + (value - part)
    rest = jnp.where(jnp.isfinite(lost), rest + lost, rest)
    return jnp.stack([after, rest])


def judged(population: Population, eval_params: Callable | None) -> tuple:
    """Params and state [P, ...] to evaluate: those of training, or an average."""
    train = population.train
    if eval_params is None:
        return train.params, train.state
    return jax.vmap(eval_params)(train.opt_state, train.params), train.state


def keep_best(
    population: Population, score, patience: int | None, eval_params: Callable | None
) -> Population:
    """Update best parameters and early stopping by scores [P], lower is better.

    If a running member has its lowest score so far, its parameters become its best. A
    member that has not improved for `patience` evaluations stops (None: never).
    """
    running = population.status == RUNNING
    better = running & (score < population.best_score)
    waited = jnp.where(better, 0, population.epochs_without_improvement + running)
    stop = running & (waited >= patience) if patience is not None else running & False
    now = judged(population, eval_params)
    return population._replace(
        status=jnp.where(stop, STOPPED, population.status),
        best=jax.vmap(select)(better, now, population.best),
        best_score=jnp.where(better, score, population.best_score),
        best_step=jnp.where(better, population.train.step, population.best_step),
        epochs_without_improvement=waited,
    )


def select(condition, new: PyTree, old: PyTree) -> PyTree:
    """`new` where the scalar condition holds, else `old`, leaf by leaf."""
    return jax.tree.map(lambda n, o: jnp.where(condition, n, o), new, old)
