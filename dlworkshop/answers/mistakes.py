"""Sources of the worst mistakes, and similar training examples."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dlworkshop.data.pixels import coarse
from dlworkshop.data.rows import evenly
from dlworkshop.train.predictions import as_learnt
from dlworkshop.types import Array

WORST = 12
NEAREST = 3
MOST_NUMBERS = 20_000_000  # of train that are compared
SIDE = 16  # pixels, at most, of a side of the images that are compared
PIECE = 2048  # examples at a time


def nearest(train: Array, inputs: Array) -> tuple[np.ndarray, np.ndarray, int]:
    """The NEAREST training examples of each of M inputs, and their distances.

    The distance is the root mean squared difference of the numbers of a row, or of the
    pixels of downscaled images. A large train split is subsampled evenly.

    Returns:
        Indices in train [M, NEAREST], distances [M, NEAREST], and the number of
        training examples that were compared.

    >>> train = np.array([[0.0], [5.0], [6.0], [9.0]])
    >>> places, far, _ = nearest(train, np.array([[6.0]]))
    >>> places.tolist(), far.tolist()
    ([[2, 1, 3]], [[0.0, 1.0, 3.0]])
    """
    wanted = _numbers(np.asarray(inputs))  # [M, F]
    most = max(1, MOST_NUMBERS // wanted.shape[1])
    index = evenly(len(train), most)
    squares = []
    for first in range(0, len(index), PIECE):
        known = _numbers(np.asarray(train[index[first : first + PIECE]]))
        cross = wanted @ known.T
        own, other = (wanted**2).sum(-1)[:, None], (known**2).sum(-1)
        squares.append(np.maximum(own + other - 2 * cross, 0) / wanted.shape[1])
    distance = np.sqrt(np.concatenate(squares, 1))  # [M, N]
    order = np.argsort(distance, 1, kind="stable")[:, :NEAREST]
    return index[order], np.take_along_axis(distance, order, 1), len(index)


def _numbers(inputs: np.ndarray) -> np.ndarray:
    """The numbers [B, F] float64 that are compared: rows, or downscaled images."""
    if inputs.ndim == 4:
        return coarse(inputs, SIDE)
    return as_learnt(inputs).astype(np.float64).reshape(len(inputs), -1)


def names(split: str, inputs: Array, index: Sequence[int]) -> list[str]:
    """Sources of examples in the user's data, in words.

    >>> names("test", np.zeros(3), [2])
    ['example 2 of test']
    """
    known: Any = getattr(inputs, "names", None)
    if known is not None:
        return known(np.asarray(index, int))
    return [f"example {i} of {split}" for i in index]
