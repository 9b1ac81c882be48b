"""A minimal training loop: lifts 1 to 3, without a population."""

from collections.abc import Callable

import jax
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

    >>> import jax.numpy as jnp
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
        params: to begin with.
        optimizer: of optax; its rate may be traced.
        feed: [T, ...], whatever the loss needs at each step.

    Returns:
        The last params, and the loss [T] before each update.

    >>> import jax.numpy as jnp
    >>> square = lambda x, _: x**2
    >>> x, seen = minimize(square, jnp.ones(()), optax.sgd(0.25), jnp.arange(3))
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
