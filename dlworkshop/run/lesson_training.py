"""For lessons: the shortest training there is, and a choice made on validation."""

from collections.abc import Callable

import jax
import numpy as np
import optax

from dlworkshop.run.result import Run
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


def chosen(run: Run) -> tuple[float, np.ndarray]:
    """The learning rate that validation prefers, and the numbers of its members.

    Every rate was tried with the same seeds; the one with the lowest mean of their
    lowest validation losses is taken. The test split has no say in it.

    >>> rows = [(0.1, 0.5), (0.2, 0.3), (0.1, 0.6), (0.2, 0.4)]
    >>> rows = [{"hparams": {"learning_rate": r}, "best_validation_loss": v}
    ...         for r, v in rows]
    >>> chosen(Run(None, None, {"population": rows}, None))
    (0.2, array([1, 3]))
    """
    rows = run.summary["population"]
    rates = np.array([row["hparams"]["learning_rate"] for row in rows])
    loss = np.array([row["best_validation_loss"] for row in rows])
    best = min(rates.tolist(), key=lambda rate: loss[rates == rate].mean())
    return best, np.flatnonzero(rates == best)
