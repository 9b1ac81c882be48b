"""The shortest training there is: lifts 2 and 3 in one scan, without a population."""

from collections.abc import Callable

import jax
import optax

from dlworkshop.types import Array, PyTree


def descend(
    loss: Callable[[PyTree, PyTree], Array],
    params: PyTree,
    optimizer: optax.GradientTransformation,
    feed: PyTree,
) -> tuple[PyTree, jax.Array]:
    """One network, an update for each entry of `feed`: lifts 2 and 3 in one scan.

    Args:
        loss: (params, entry of the feed) -> scalar.
        params: to begin with.
        optimizer: of optax; its rate may be traced.
        feed: [T, ...], whatever the loss needs at each step.

    Returns:
        The last params, and the loss [T] before each update.

    >>> import jax.numpy as jnp
    >>> square = lambda x, _: x**2
    >>> x, seen = descend(square, jnp.ones(()), optax.sgd(0.25), jnp.arange(3))
    >>> x.item(), seen.tolist()
    (0.125, [1.0, 0.25, 0.0625])
    """

    def step(state, entry):
        params, opt_state = state
        now, grads = jax.value_and_grad(loss)(params, entry)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), now

    (params, _), seen = jax.lax.scan(step, (params, optimizer.init(params)), feed)
    return params, seen
