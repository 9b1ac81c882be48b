"""Metrics of ONE example, and the statistics of a number over a population."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Metric(NamedTuple):
    function: Callable
    better: str = "higher"
    split: bool = False
    unit: str = ""


def as_metrics(metrics):
    return {n: m if isinstance(m, Metric) else Metric(m) for n, m in metrics.items()}


def default_metrics(outputs, classes):
    return {"accuracy": Metric(accuracy)} if outputs == "logits" and classes else {}


def accuracy(logits, label) -> jax.Array:
    """1.0 if the largest logit is the label's, else 0.0; the first wins a tie.

    >>> float(accuracy(jnp.array([0.1, 2.0, -1.0]), 1))
    1.0
    """
    return (jnp.argmax(logits) == label).astype(float)


def balanced_accuracy(correct, label) -> np.ndarray:
    """Mean over the classes of the accuracy on each: every class counts the same.

    Args:
        correct: [..., N] 1 where an example was classified rightly, else 0.
        label: [N] int; classes without an example do not count.

    Returns:
        [...] in [0, 1].

    >>> float(balanced_accuracy(np.array([1, 1, 1, 0]), np.array([0, 0, 0, 1])))
    0.5
    """
    correct, label = np.asarray(correct, np.float64), np.asarray(label)
    return np.mean([correct[..., label == k].mean(-1) for k in np.unique(label)], 0)


def nearest_mean(train, label, test, truth, num_classes: int = 10) -> jax.Array:
    """Share of the test features that are nearest to the mean of their own class.

    Args:
        train: [N, ...] features to take the means of.
        label: [N] int in [0, K), their classes; each is there.
        test: [M, ...] features.
        truth: [M] int, their classes.
        num_classes: K.

    >>> seen, unseen = jnp.array([0.0, 2.0, 8.0, 10.0]), jnp.array([3.0, 4.0, 6.0])
    >>> labels = jnp.array([0, 0, 1, 1]), jnp.array([0, 1, 1])
    >>> round(float(nearest_mean(seen, labels[0], unseen, labels[1], 2)), 4)
    0.6667
    """
    train, test = (features.reshape(len(features), -1) for features in (train, test))
    own = jax.nn.one_hot(label, num_classes, axis=0)  # [K, N]
    means = own @ train / own.sum(1, keepdims=True)  # [K, D]
    squares = ((test[:, None] - means) ** 2).sum(-1)  # [M, K]
    return (squares.argmin(1) == truth).mean()


def reliability(confidence, correct, num_bins: int = 15) -> np.ndarray:
    """How sure and how right, where equally sure: [num_bins, 3].

    Args:
        confidence: [N] in [0, 1], the largest probability of each example.
        correct: [N] 1 where it was right, else 0.
        num_bins: of equal width; a bin has its upper and not its lower end.

    Returns:
        The number of examples, their mean confidence and their accuracy in each bin;
        NaN for both where a bin is empty.

    Source: Guo et al. (2017), On calibration of modern neural networks, section 2.

    >>> reliability([0.9, 0.8, 0.3], [1, 0, 0], num_bins=2).round(2).tolist()
    [[1.0, 0.3, 0.0], [2.0, 0.85, 0.5]]
    """
    confidence, correct = np.asarray(confidence, float), np.asarray(correct, float)
    edges = np.linspace(0, 1, num_bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, None)
    place = np.minimum(place, num_bins - 1)  # rounding may leave 1 + 1e-7
    count, sure, right = (
        np.bincount(place, weights, num_bins) for weights in (None, confidence, correct)
    )
    with np.errstate(invalid="ignore"):
        return np.stack([count, sure / count, right / count], axis=1)


def calibration_error(confidence, correct, num_bins: int = 15) -> float:
    """Expected calibration error: |accuracy - confidence|, mean over all examples.

    Source: Guo et al. (2017), equation 3; arguments as of `reliability`.

    >>> round(calibration_error([0.9, 0.8, 0.3], [1, 0, 0], num_bins=2), 4)
    0.3333
    """
    count, sure, right = reliability(confidence, correct, num_bins).T
    return float(np.nansum(count * np.abs(right - sure)) / count.sum())


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
