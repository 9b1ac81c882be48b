"""Temperature scaling: one divisor of logits, so that confidence equals accuracy."""

import numpy as np
import scipy

from dlworkshop.learn.metrics import calibration_error, reliability

BINS = 15
DRAWS = 200
NOISE = 0.95  # quantile of the error that a calibrated model has by chance
RANGE = np.log(0.05), np.log(20.0)


def together(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """The mean of the members' probabilities: [P, N, K] logits -> [N, K].

    >>> together(np.array([[[0.0, 2.0]]]), 2.0).round(3).tolist()
    [[0.269, 0.731]]
    """
    return scipy.special.softmax(logits / temperature, -1).mean(0)


def error(chance: np.ndarray, label: np.ndarray) -> float:
    """The expected calibration error of probabilities [N, K], in [0, 1]."""
    return calibration_error(chance.max(-1), chance.argmax(-1) == label, BINS)


def noise(confidence: np.ndarray) -> float:
    """The calibration error that a calibrated model rarely exceeds by chance.

    Args:
        confidence: [N] largest probabilities; each is right with just that probability
            in every one of `DRAWS` draws, of which the 95 % quantile is taken.

    Source: Broecker & Smith (2007), Increasing the reliability of reliability diagrams.

    >>> few, many = noise(np.full(50, 0.8)), noise(np.full(5000, 0.8))
    >>> bool(few > 5 * many)
    True
    """
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(DRAWS):
        right = rng.random(len(confidence)) < confidence
        count, sure, share = reliability(confidence, right, BINS).T
        errors.append(np.nansum(count * np.abs(share - sure)) / len(confidence))
    return float(np.quantile(errors, NOISE))


def fit(logits: np.ndarray, label: np.ndarray) -> float:
    """The temperature with the least cross-entropy of the ensemble.

    One example in N + 2 counts as of any class, as no mistake among few examples does
    not say that there will never be one.

    Args:
        logits: [P, N, K] of members, of examples that they did not learn from.
        label: [N] int.

    Source: Guo et al. (2017), On calibration of modern neural networks, section 4.2;
    here of the mean of the members' probabilities. Of the one example: Platt (1999),
    Probabilistic outputs for support vector machines, section 2.2.

    >>> logits = np.array([[[4.0, 0.0]] * 400])  # 98 % sure, and 75 % right
    >>> round(fit(logits, np.array([0, 0, 0, 1] * 100)), 1)
    3.7
    >>> bool(fit(logits[:, :4], np.zeros(4, int)) > 1)  # all of few are right
    True
    """
    least, any_class = np.finfo(np.float64).tiny, 1 / (len(label) + 2)

    def loss(log_temperature: float) -> float:
        chance = together(logits, float(np.exp(log_temperature)))
        logs = np.log(np.maximum(chance, least))
        true = logs[np.arange(len(label)), label].mean()
        return -float((1 - any_class) * true + any_class * logs.mean())

    return float(np.exp(scipy.optimize.minimize_scalar(loss, bounds=RANGE).x))
