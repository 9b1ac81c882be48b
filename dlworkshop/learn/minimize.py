"""A minimal training loop: lifts 1 to 3, without a population."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlworkshop.models.model import Model, predict
from dlworkshop.types import Array, Batch, PyTree


def batch_mean(
    model: Model, function: Callable[..., Array]
) -> Callable[[PyTree, Batch], jax.Array]:
    """Lift 1 of a loss or a metric: (params, batch) -> its mean over the batch.

    Args:
        model: pair of pure functions of one example.
        function: of one example, (outputs, label) -> scalar.

    >>> from dlworkshop.learn.losses import cross_entropy
    >>> from dlworkshop.models import logistic
    >>> model, batch = logistic(), Batch(jnp.zeros((5, 64)), jnp.arange(5))
    >>> params = model.init(jax.random.key(0), batch.inputs[0])
    >>> round(float(batch_mean(model, cross_entropy)(params, batch)), 3)  # log 10
    2.303
    """

    def mean(params, batch):
        outputs = predict(model, params, batch.inputs)  # [B, K]
        return jax.vmap(function)(outputs, batch.targets).mean()

    return mean


def minimize(
    loss: Callable[[PyTree, PyTree], Array],
    params: PyTree,
    optimizer: optax.GradientTransformation,
    feed: PyTree,
) -> tuple[PyTree, jax.Array]:
    """Train one network, with an update for each entry of `feed`, in one scan.

    Args:
        loss: (params, entry of the feed) -> scalar.
        params: initial parameters.
        optimizer: of optax; its learning rate may be traced.
        feed: [T, ...], whatever the loss needs at each step.

    Returns:
        The last params, and the loss [T] before each update.

    >>> square = lambda x, _: x**2
    >>> x, seen = minimize(square, jnp.ones(()), optax.sgd(0.25), jnp.arange(3))
    >>> x.item(), seen.tolist()
    (0.125, [1.0, 0.25, 0.0625])
    """
    steps = _steps(loss, optimizer)
    (params, _), seen = jax.lax.scan(steps, (params, optimizer.init(params)), feed)
    return params, seen


def trajectory(
    loss: Callable[[PyTree, PyTree], Array],
    params: PyTree,
    optimizer: optax.GradientTransformation,
    feed: PyTree,
    looks: Array,
) -> PyTree:
    """Train as `minimize` does, and return the params during training.

    Args:
        loss, params, optimizer, feed: as in `minimize`.
        looks: [S] numbers of updates, in [0, T].

    Returns:
        The params [S, ...] after these numbers of updates.

    >>> square = lambda x, _: x**2
    >>> feed, looks = jnp.arange(3), [0, 1, 3]
    >>> trajectory(square, jnp.ones(()), optax.sgd(0.25), feed, looks).tolist()
    [1.0, 0.5, 0.125]
    """
    steps = _steps(loss, optimizer)
    looks, again = np.unique(looks, return_inverse=True)
    num_steps = len(jax.tree.leaves(feed)[0])
    # each update overwrites the params of the next look, until it is reached
    places = np.searchsorted(looks, np.arange(1, num_steps + 1))
    kept = jax.tree.map(lambda leaf: jnp.stack([leaf] * (len(looks) + 1)), params)

    def keep(state, entry):
        (training, kept), (now, place) = state, entry
        training, _ = steps(training, now)
        kept = jax.tree.map(lambda old, new: old.at[place].set(new), kept, training[0])
        return (training, kept), None

    start = (params, optimizer.init(params)), kept
    (_, kept), _ = jax.lax.scan(keep, start, (feed, places))
    return jax.tree.map(lambda leaf: leaf[again], kept)


def _steps(loss: Callable, optimizer: optax.GradientTransformation) -> Callable:
    """(params and opt_state, entry) -> new params and opt_state, loss."""

    def step(state, entry):
        params, opt_state = state
        now, grads = jax.value_and_grad(loss)(params, entry)
        grads = jax.tree.map(jnp.conj, grads)  # the steepest ascent, if complex
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), now

    return step
