"""Lift 4: a chunk of one model -> one of P members (seeds x hyper-parameters)."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dlworkshop.learn.chunk import gather, make_chunk
from dlworkshop.learn.step import TrainStep
from dlworkshop.types import Array, Batch, HParams, Metrics, PyTree, TrainState

RUNNING, STOPPED, QUARANTINED = 0, 1, 2


class Population(NamedTuple):
    """P members side by side, and what early stopping knows of each."""

    train: TrainState  # [P, ...]
    status: Array  # [P] int32: RUNNING, STOPPED or QUARANTINED
    best_params: PyTree  # [P, ...] of the lowest validation loss so far
    best_loss: Array  # [P] that loss
    best_step: Array  # [P] int32 its step
    stale: Array  # [P] int32 evaluations since


def begin(train: TrainState) -> Population:
    """A population of which nothing is known yet; `train` is [P, ...]."""
    zeros = jnp.zeros_like(train.step)  # [P]
    params = jax.tree.map(jnp.copy, train.params)  # buffers of its own, for donation
    loss = jnp.full(zeros.shape, jnp.inf)
    return Population(train, zeros, params, loss, zeros, zeros)


def over_members(function: Callable, one_by_one: bool) -> Callable:
    """Lift `function` over the first axis P of all its arguments.

    Side by side (vmap) is right nearly everywhere. `one_by_one` is for work that
    fills the device already, like convolutions on a CPU, where P working sets would
    push each other out of the cache. One member alone is not lifted at all.
    """

    def lifted(*args):
        size = jax.tree.leaves(args)[0].shape[0]
        if size == 1:
            alone = jax.tree.map(lambda leaf: leaf[0], args)
            return jax.tree.map(lambda leaf: leaf[None], function(*alone))
        if one_by_one:
            return jax.lax.map(lambda member: function(*member), args)
        return jax.vmap(function)(*args)

    return lifted


def take(tree: PyTree, places) -> PyTree:
    """The members of `tree` [P, ...] that `places` [G] names; P names nobody.

    Where nobody is named the last member stands, so that there is something to compute.
    """
    return jax.tree.map(lambda leaf: leaf.at[places].get(mode="clip"), tree)


def put(tree: PyTree, places, part: PyTree) -> PyTree:
    """`tree` [P, ...] with the members of `part` [G, ...] back in their places.

    >>> put(jnp.zeros(3), jnp.array([0, 2, 3]), jnp.array([5.0, 6.0, 7.0])).tolist()
    [5.0, 0.0, 6.0]
    """
    return jax.tree.map(
        lambda leaf, new: leaf.at[places].set(new, mode="drop"), tree, part
    )


def make_population_chunk(
    train_step: TrainStep,
    fetch: Callable = gather,
    one_by_one: bool = False,
    on_cpu: bool = True,
) -> Callable:
    """(population, hparams [P], data, feed [S, P, ...]) -> population, Metrics [S, P].

    S steps of every member. Side by side all members take a step, then the next one;
    one by one a member takes all of its steps before its neighbour, in its place.

    A member whose loss or gradient is not finite is quarantined as it was before that
    gradient; a member which is not running stays as it is, its metrics are NaN.
    """
    chunk = make_member_chunk(train_step, fetch, on_cpu)

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
        elif one_by_one:
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
    train_step: TrainStep, fetch: Callable = gather, on_cpu: bool = True
) -> Callable:
    """((train, status), hparams, data, feed [S, ...]) -> (train, status), Metrics.

    On a CPU the update is in a branch, where the new state takes the place of the old
    one as it is computed; choosing between the two afterwards reads and writes both
    once more. Elsewhere a branch keeps the host waiting, and a choice is part of the
    update: one member's step takes 0.8 times as long (docs/accelerators.md).
    """

    def update(go_on, train, grads, hparams):
        if not on_cpu:
            return select(go_on, train_step.update(train, grads, hparams), train)
        return jax.lax.cond(
            go_on,
            lambda train, grads: train_step.update(train, grads, hparams),
            lambda train, _: train,
            train,
            grads,
        )

    def member_step(state, batch: Batch, hparams: HParams):
        train, status = state
        grads, metrics = train_step.gradient(train, batch, hparams)
        running = status == RUNNING
        finite = jnp.isfinite(metrics.loss) & all_finite(grads, on_cpu)
        train = update(running & finite, train, grads, hparams)
        status = jnp.where(running & ~finite, QUARANTINED, status)
        metrics = jax.tree.map(lambda m: jnp.where(running, m, jnp.nan), metrics)
        return (train, status), metrics

    return make_chunk(member_step, fetch)


def all_finite(tree: PyTree, on_cpu: bool = True) -> Array:
    """Whether every number of every leaf is finite: [] bool.

    On a CPU it is asked of half the means over all axes but the last, which are finite
    where the numbers are: a product with a vector runs on all cores, a reduction on
    one. Elsewhere a product would transpose them first.

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


def make_evaluate(eval_step: Callable, fetch: Callable, one_by_one: bool = False):
    """(params [P, ...], data, feed [T, B]) -> Metrics [P, T, B] of each example."""

    def evaluate(params: PyTree, data: Batch, feed) -> Metrics:
        def member(params):
            return jax.lax.map(lambda now: eval_step(params, fetch(data, now)), feed)

        return over_members(member, one_by_one)(params)

    return evaluate


def keep_best(population: Population, loss, patience: int | None) -> Population:
    """Take the validation losses [P] to heart: best parameters, then early stopping.

    A running member with a lower loss than ever becomes its own best; one that has
    not improved for `patience` evaluations is stopped (None: never). One whose update
    overflowed, though its gradient was finite, is quarantined.
    """
    finite = jax.vmap(all_finite)(population.train.params)
    running = (population.status == RUNNING) & finite
    overflowed = (population.status == RUNNING) & ~finite
    better = running & (loss < population.best_loss)
    stale = jnp.where(better, 0, population.stale + running)
    stop = running & (stale >= patience) if patience is not None else running & False
    return population._replace(
        status=jnp.select(
            [stop, overflowed], [STOPPED, QUARANTINED], population.status
        ),
        best_params=jax.vmap(select)(
            better, population.train.params, population.best_params
        ),
        best_loss=jnp.where(better, loss, population.best_loss),
        best_step=jnp.where(better, population.train.step, population.best_step),
        stale=stale,
    )


def select(condition, new: PyTree, old: PyTree) -> PyTree:
    """`new` where the scalar condition holds, else `old`, leaf by leaf."""
    return jax.tree.map(lambda n, o: jnp.where(condition, n, o), new, old)
