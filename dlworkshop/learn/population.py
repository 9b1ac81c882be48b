"""Lift 4: a step of one model -> a step of P members (seeds x hyper-parameters)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

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


def make_population_step(train_step: Callable, one_by_one: bool = False) -> Callable:
    """(population, batch [P, B, ...], hparams [P]) -> (population, Metrics [P]).

    A member whose loss or update is not finite is frozen at its last finite state and
    quarantined; a member which is not running stays as it is, its metrics are NaN.
    A gradient that is not finite shows in the updated parameters, whatever the
    optimizer, so they are what is checked.
    """

    def member_step(train, status, batch, hparams):
        new, metrics = train_step(train, batch, hparams)
        running = status == RUNNING
        finite = jnp.isfinite(metrics.loss)
        for leaf in jax.tree.leaves(new.params):
            finite &= jnp.isfinite(leaf).all()
        train = select(running & finite, new, train)
        status = jnp.where(running & ~finite, QUARANTINED, status)
        metrics = jax.tree.map(lambda m: jnp.where(running, m, jnp.nan), metrics)
        return train, status, metrics

    lifted = over_members(member_step, one_by_one)

    def population_step(population: Population, batch: Batch, hparams: HParams):
        train, status, metrics = lifted(
            population.train, population.status, batch, hparams
        )
        return population._replace(train=train, status=status), metrics

    return population_step


def make_evaluate(eval_step: Callable, fetch: Callable, one_by_one: bool = False):
    """(params [P, ...], data, feed [T, B]) -> Metrics [T, P, B] of each example."""

    def evaluate(params: PyTree, data: Batch, feed) -> Metrics:
        def batch_metrics(feed):
            batch = fetch(data, feed)
            lifted = over_members(lambda p: eval_step(p, batch), one_by_one)
            return lifted(params)  # [P, B]

        return jax.lax.map(batch_metrics, feed)

    return evaluate


def keep_best(population: Population, loss, patience: int | None) -> Population:
    """Take the validation losses [P] to heart: best parameters, then early stopping.

    A running member with a lower loss than ever becomes its own best; one that has
    not improved for `patience` evaluations is stopped (None: never).
    """
    running = population.status == RUNNING
    better = running & (loss < population.best_loss)
    stale = jnp.where(better, 0, population.stale + running)
    stop = running & (stale >= patience) if patience is not None else running & False
    return population._replace(
        status=jnp.where(stop, STOPPED, population.status),
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
