"""Detection of inputs unlike the training data: extreme numbers, or a high energy.

A network may be just as confident for unknown inputs, and even more for extreme numbers
(Hein, Andriushchenko & Bitterwolf 2019). So each column of a row is compared with
train, and for an image some statistics of its pixels; for classes of images, the energy
of the logits is compared too (Liu et al. 2020).

The distance of a number from the median of train is divided by a distance that nearly
no training example exceeds. The thresholds come from validation.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy

from dlworkshop.answers.conformal import threshold
from dlworkshop.data.readers import columns
from dlworkshop.data.rows import evenly
from dlworkshop.train.predictions import as_learnt
from dlworkshop.types import Array

RATE = 0.01  # of examples like train that are flagged as unlike it
MOST, MOST_NUMBERS = 10_000, 20_000_000  # examples, or numbers, that are used
FAR = 0.99  # quantile of the distances from the median in train
STATISTICS = ("brightness", "contrast", "sharpness", "colour")


def looked_at(inputs: Array) -> np.ndarray:
    """The numbers [B, F] of inputs that are compared: for images, `STATISTICS`."""
    x = as_learnt(np.asarray(inputs))
    if x.ndim != 4:
        return x.reshape(len(x), -1)
    grey = x.mean(-1)  # [B, H, W]
    steps = [np.abs(np.diff(grey, axis=axis)).mean((1, 2)) for axis in (1, 2)]
    colour = np.abs(x - grey[..., None]).mean((1, 2, 3))
    both = np.nan_to_num(np.stack(steps)).mean(0)
    return np.stack([grey.mean((1, 2)), grey.std((1, 2)), both, colour], 1)


def some(inputs: Array) -> np.ndarray:
    """A subset [n, ...] of a split [N, ...], evenly spaced."""
    each = max(1, int(np.prod(inputs.shape[1:])))
    most = min(MOST, max(1, MOST_NUMBERS // each))
    return np.asarray(inputs[evenly(len(inputs), most)])


def scale(train: Array) -> dict[str, list[float]]:
    """The median and the reach of the numbers [F] of a train split [N, ...].

    The reach is a quantile of the nonzero distances from the median, so that it is not
    0 for a number that is nearly constant, such as a rare category.

    >>> found = scale(np.array([[0.0], [0.0], [0.0], [3.0]]))
    >>> found["centre"], found["reach"]
    ([0.0], [3.0])
    """
    numbers = looked_at(some(train))
    centre = np.median(numbers, 0)
    off = np.abs(numbers - centre)
    varied = (off > 0).any(0)
    reach = np.ones(len(centre))
    reach[varied] = np.nanquantile(np.where(off > 0, off, np.nan)[:, varied], FAR, 0)
    return {"centre": centre.tolist(), "reach": reach.tolist()}


def distances(inputs: Array, scaled: Mapping[str, Any]) -> np.ndarray:
    """Distances of the numbers of inputs from the median, divided by the reach: [B, F].

    >>> distances(np.array([[4.0]]), {"centre": [1.0], "reach": [2.0]}).tolist()
    [[1.5]]
    """
    off = np.abs(looked_at(inputs) - np.array(scaled["centre"]))
    return off / np.array(scaled["reach"])


def energy(logits: np.ndarray) -> np.ndarray:
    """-log sum exp of logits [P, B, K], averaged over the members: [B].

    Source: Liu et al. (2020), Energy-based out-of-distribution detection.

    >>> energy(np.array([[[0.0, 0.0]]])).round(3).tolist()
    [-0.693]
    """
    return -scipy.special.logsumexp(logits, -1).mean(0)


def thresholds(scores: Sequence[np.ndarray]) -> tuple[list[float], float]:
    """Thresholds of each kind of score [N], and the rate at which any is exceeded.

    For few examples the threshold is the largest score, and the rate follows from it.

    >>> limits, rate = thresholds([np.arange(9.0)])
    >>> limits, round(rate, 3)
    ([8.0], 0.1)
    """
    limits, rate = [], 0.0
    for each in scores:
        own = max(RATE / len(scores), 1 / (len(each) + 1))
        limits.append(float(threshold(each, 1 - own)))
        rate += own
    return limits, rate


def unlike(inputs: Array, outputs: np.ndarray, known: Mapping[str, Any]) -> list[str]:
    """The names of the numbers in which each example [B] is unlike train; "" for none.

    Args:
        inputs: [B, ...] of the model.
        outputs: [P, B, ...] of the members.
        known: `names` [F], `centre` [F], `reach` [F], the limit `far` of distances, and
            possibly the limit `energy` of the energy of logits.

    >>> known = {"names": ["mass"], "centre": [1.0], "reach": [2.0], "far": 1.2}
    >>> unlike(np.array([[3.0], [9.0]]), np.zeros((1, 2, 3)), known)
    ['', 'mass']
    """
    far = distances(inputs, known) > known["far"]  # [B, F]
    names = known["names"]
    said = [list(dict.fromkeys(names[i] for i in np.flatnonzero(row))) for row in far]
    if "energy" in known:
        for i in np.flatnonzero(energy(outputs) > known["energy"]):
            said[i].append("energy")
    return [", ".join(words) for words in said]


def names_of(inputs: Array, preprocessing: Mapping[str, Any] | None) -> list[str]:
    """Names of the numbers of `looked_at`: [F]."""
    if inputs.ndim == 4:
        return list(STATISTICS)
    size = int(np.prod(inputs.shape[1:]))
    named = widths(preprocessing)
    names = [name for name, width in named for _ in range(width)]
    return names if len(names) == size else [f"number {d}" for d in range(size)]


def widths(preprocessing: Mapping[str, Any] | None) -> list[tuple[str, int]]:
    """The columns of a table, each with the number of inputs that encode it."""
    found = (preprocessing or {}).get("columns") or []
    return [(column["name"], columns.width(column)) for column in found]
