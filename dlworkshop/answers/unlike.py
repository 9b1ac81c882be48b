"""Detection of inputs unlike the training data: extreme numbers, or a high energy.

A network is as sure of what it never saw, and of numbers far off it is even surer
(Hein, Andriushchenko & Bitterwolf 2019). So the columns of a row are compared with
those of train, one by one, and of an image some statistics of its pixels; of images in
classes the energy of the logits counts too (Liu et al. 2020).

What is looked at has a distance of 1 where it is as far from the median of train as
nearly all of train is at most. The thresholds come from validation.
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

RATE = 0.01  # of examples like those of train that are said to be unlike them
MOST, MOST_NUMBERS = 10_000, 20_000_000  # examples, or numbers, that are looked at
FAR = 0.99  # quantile of what differs from the median in train
STATISTICS = ("brightness", "contrast", "sharpness", "colour")


def looked_at(inputs: Array) -> np.ndarray:
    """The numbers [B, F] of inputs that are compared: for images their `STATISTICS`.

    Args:
        inputs: [B, ...] as the model takes them.
    """
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
    """The median and the spread of the numbers [F] of a train split [N, ...].

    What nearly always says the same, as a rare category, reaches as far as it differs
    where it does.

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
    """Distances of the numbers of inputs [B, ...] from the median, in spreads: [B, F].

    >>> distances(np.array([[4.0]]), {"centre": [1.0], "reach": [2.0]}).tolist()
    [[1.5]]
    """
    off = np.abs(looked_at(inputs) - np.array(scaled["centre"]))
    return off / np.array(scaled["reach"])


def energy(logits: np.ndarray) -> np.ndarray:
    """-log sum exp of logits [P, B, K], averaged over the members: [B].

    Source: Liu et al. (2020), Energy-based out-of-distribution detection, equation 4.

    >>> energy(np.array([[[0.0, 0.0]]])).round(3).tolist()
    [-0.693]
    """
    return -scipy.special.logsumexp(logits, -1).mean(0)


def thresholds(scores: Sequence[np.ndarray]) -> tuple[list[float], float]:
    """Thresholds of each kind of score [N], and the rate at which any is exceeded.

    Of few examples the largest is taken, and the rate is what that says.

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
    """How each example [B] differs from train, in words; "" where it does not.

    Args:
        inputs: [B, ...] as the model takes them.
        outputs: [P, B, ...] of the members.
        known: `names` [F], `centre` [F], `reach` [F] and the limit `far`; with an
            `energy`, the limit of that of logits.

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
