"""Split conformal prediction: sets of classes and intervals with a given coverage.

Predictions for examples that the model was not trained on are scored by their distance
from the truth. For any model, the score of the next such example is at most the
threshold with a probability of at least the level.

Source: Vovk, Gammerman & Shafer (2005), Algorithmic learning in a random world; for
intervals Lei et al. (2018), Distribution-free predictive inference for regression; for
sets Sadinle, Lei & Wasserman (2019), Least ambiguous set-valued classifiers.
"""

import math
from typing import Any

import numpy as np
import scipy

LEVEL = 0.9
CONFIDENCE = 0.95  # of the interval of a proportion


def threshold(scores: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """The conformal quantile: exceeded by a new score with probability 1 - `level`.

    Args:
        scores: [N, ...] of examples that were not trained on.
        level: in (0, 1).

    Returns:
        [...], infinite if N is below level / (1 - level).

    >>> threshold(np.arange(19.0)), threshold(np.arange(8.0))
    (array(17.), array(inf))
    """
    size = len(scores)
    rank = math.ceil((size + 1) * level - 1e-9)
    if rank > size:
        return np.full(scores.shape[1:], np.inf)
    return np.asarray(np.sort(scores, 0)[rank - 1])


def sets(chance: np.ndarray, most: float) -> np.ndarray:
    """Membership of classes [..., K] in each example's set; the likeliest is always in.

    Args:
        chance: [..., K] probabilities.
        most: the `threshold` of 1 minus the probability of the true class.

    >>> sets(np.array([[0.6, 0.3, 0.1], [0.4, 0.3, 0.3]]), 0.7).tolist()
    [[True, True, False], [True, True, True]]
    """
    inside = 1 - chance <= most
    best = chance.argmax(-1)[..., None]
    np.put_along_axis(inside, best, True, -1)
    return inside


def wilson(share: float, size: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion of `size` independent examples.

    Source: Wilson (1927), Probable inference, the law of succession.

    >>> [round(each, 3) for each in wilson(1.0, 20)]
    [0.839, 1.0]
    """
    counted = scipy.stats.binomtest(round(share * size), size)
    found = counted.proportion_ci(CONFIDENCE, "wilson")
    return float(found.low), float(found.high)


def counted(hits: np.ndarray) -> dict[str, Any]:
    """The proportion of `hits` [N] bool, with its interval, as JSON.

    >>> counted(np.array([True, False]))["share"]
    0.5
    """
    share = float(hits.mean())
    low, high = wilson(share, len(hits))
    return {"share": share, "low": low, "high": high, "examples": len(hits)}
