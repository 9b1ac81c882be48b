"""Temperature scaling: dividing logits so that confidence matches accuracy."""

import numpy as np
import scipy

from dlworkshop.learn.metrics import calibration_error, reliability

BINS = 15
DRAWS = 200
NOISE = 0.95  # quantile of the calibration error by chance
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

    It is the 95 % quantile of the error over `DRAWS` simulations, in which a prediction
    is correct with exactly its confidence.

    Args:
        confidence: [N] largest probabilities.

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

    A weight of 1 / (N + 2) is spread over all classes, because a few examples without a
    mistake do not prove that there are none.

    Args:
        logits: [P, N, K] of members, for examples that they were not trained on.
        label: [N] int.

    Source: Guo et al. (2017), On calibration of modern neural networks, section 4.2;
    here for the mean of the members' probabilities. For the weight: Platt (1999),
    Probabilistic outputs for support vector machines.

    >>> logits = np.array([[[4.0, 0.0]] * 400])  # confidence 98 %, accuracy 75 %
    >>> round(fit(logits, np.array([0, 0, 0, 1] * 100)), 1)
    3.7
    >>> bool(fit(logits[:, :4], np.zeros(4, int)) > 1)  # few examples, all correct
    True
    """
    least, any_class = np.finfo(np.float64).tiny, 1 / (len(label) + 2)

    def loss(log_temperature: float) -> float:
        chance = together(logits, float(np.exp(log_temperature)))
        logs = np.log(np.maximum(chance, least))
        true = logs[np.arange(len(label)), label].mean()
        return -float((1 - any_class) * true + any_class * logs.mean())

    return float(np.exp(scipy.optimize.minimize_scalar(loss, bounds=RANGE).x))
