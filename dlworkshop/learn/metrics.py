"""Metrics of ONE example, and the statistics of a number over a population."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def accuracy(logits, label) -> jax.Array:
    """1.0 if the largest logit is the label's, else 0.0; the first wins a tie.

    >>> float(accuracy(jnp.array([0.1, 2.0, -1.0]), 1))
    1.0
    """
    return (jnp.argmax(logits) == label).astype(float)


def mean_and_error(values) -> dict[str, Any]:
    """Mean, standard error of the mean, and n of the finite values of a population.

    The standard error is s / sqrt(n) with Bessel's correction; None where n < 2.

    >>> mean_and_error([1.0, 2.0, 3.0])
    {'mean': 2.0, 'sem': 0.5773502691896258, 'n': 3}
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    n = values.size
    return {
        "mean": float(values.mean()) if n else None,
        "sem": float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else None,
        "n": n,
    }
