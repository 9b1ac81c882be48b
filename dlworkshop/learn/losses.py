"""Losses of ONE example: (outputs, target) -> scalar."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


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


def weighted(loss: Callable, weights) -> Callable:
    """`loss` times the weight of its label's class.

    Args:
        loss: function of one example, (outputs, label) -> scalar.
        weights: [K] >= 0, as of `class_weights`.

    >>> loss = weighted(cross_entropy, jnp.array([1.0, 3.0]))
    >>> [round(float(loss(jnp.zeros(2), label)), 4) for label in (0, 1)]  # log 2
    [0.6931, 2.0794]
    """

    @functools.wraps(loss)  # the hyper-parameters that it takes show through
    def weighted_loss(outputs, label, **more):
        return jnp.asarray(weights)[label] * loss(outputs, label, **more)

    weighted_loss.__name__ = f"weighted_{loss.__name__}"
    return weighted_loss


def class_weights(label, num_classes: int) -> np.ndarray:
    """Weights [K] float32 under which all classes count the same; their mean is 1.

    N / (K n_k) for a class of n_k of the N labels, as scikit-learn's "balanced"; the
    mean is over the labels.

    >>> class_weights(np.array([0, 0, 0, 1, 1, 1]), 2).tolist()
    [1.0, 1.0]
    """
    counts = np.bincount(label, minlength=num_classes)  # [K]
    return (len(label) / (num_classes * np.maximum(counts, 1))).astype(np.float32)


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


def outputs_of(loss):
    return getattr(loss, "outputs", None)


def probabilities(kind, outputs):
    return {
        "logits": jax.nn.softmax,
        "binary_logits": jax.nn.sigmoid,
        "probabilities": lambda o: o,
    }.get(kind, lambda o: None)(outputs)


cross_entropy.outputs = "logits"
mean_squared_error.outputs = "values"
