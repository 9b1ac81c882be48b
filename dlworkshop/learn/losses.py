"""Losses of ONE example: (outputs, target) -> scalar."""

import jax
import jax.numpy as jnp


def cross_entropy(logits, label, *, label_smoothing=0.0) -> jax.Array:
    """Negative log likelihood of `label` under softmax(`logits`), in nats.

    Args:
        logits: [K] real, unnormalised log probabilities.
        label: [] int in [0, K).
        label_smoothing: [] in [0, 1), the share of the target that is spread evenly
            over all classes (Szegedy et al. 2016, section 7).

    Returns:
        [] real >= 0, in nats (divide by log 2 for bits).

    Raises:
        ValueError: if `logits` is not one vector, e.g. a batch nobody vmapped.

    Source: Bishop (2006), PRML, eq. 4.108, for one example.

    >>> round(float(cross_entropy(jnp.zeros(4), 2)), 4)  # log 4
    1.3863
    """
    if jnp.ndim(logits) != 1:
        raise ValueError(f"logits must be [K], got {jnp.shape(logits)}; vmap me")
    target = (1 - label_smoothing) * logits[label] + label_smoothing * logits.mean()
    return jax.nn.logsumexp(logits) - target


def mean_squared_error(outputs, target) -> jax.Array:
    """Mean of the squared differences, in squared units of the target.

    >>> float(mean_squared_error(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0])))
    2.0
    """
    if jnp.size(outputs) != jnp.size(target):
        raise ValueError(
            f"outputs {jnp.shape(outputs)} and target {jnp.shape(target)} must have "
            "the same size"
        )
    return jnp.square(jnp.ravel(outputs) - jnp.ravel(target)).mean()
