"""Cross-validation: train and validation together, of which each member holds out."""

import jax
import numpy as np

from dlworkshop.data.order import permutation
from dlworkshop.errors import UserError
from dlworkshop.train.predictions import labels
from dlworkshop.types import Batch, Dataset, PyTree


def pooled(dataset: Dataset) -> Dataset:
    """Train and validation as one split, which is train and validation both."""

    def joined(*leaves):
        return np.concatenate([np.asarray(leaf) for leaf in leaves])

    pool = jax.tree.map(joined, dataset.train, dataset.validation)
    return dataset._replace(train=pool, validation=pool)


def parts(pool: Batch, folds: int, seed: int) -> np.ndarray:
    """The fold [N] in [0, folds) of each example, drawn anew for each seed.

    Classes are in proportion in each, and exact copies in one, unless most examples are
    copies: then the same thing was seen several times.

    >>> pool = Batch(np.arange(8.0)[:, None], np.array([0, 0, 0, 0, 1, 1, 1, 1]))
    >>> part = parts(pool, folds=2, seed=0)
    >>> np.bincount(part).tolist(), np.bincount(pool.targets[part == 1]).tolist()
    ([4, 4], [2, 2])
    """
    first, copy_of = _distinct(pool.inputs)
    label = labels(pool.targets)
    order = permutation(seed, 0, len(first))
    if label is not None:  # dealt class by class
        order = order[np.argsort(label[first][order], kind="stable")]
    part = np.empty(len(first), np.int64)
    part[order] = np.arange(len(first)) % folds
    return part[copy_of]


def held_out(pool: Batch, folds: int, seeds: list[int]) -> np.ndarray:
    """Which examples each member [P, N] holds out; the folds run fastest.

    Args:
        pool: train and validation together.
        folds: how many parts.
        seeds: of the members before they are multiplied by the folds.

    Raises:
        UserError: where a part would be empty.
    """
    of_seed = {seed: parts(pool, folds, seed) for seed in set(seeds)}
    if any(len(np.unique(part)) < folds for part in of_seed.values()):
        raise UserError(
            f"folds is {folds}, and train and validation have too few different "
            "examples for so many parts: ask for fewer"
        )
    return np.stack([of_seed[seed] == fold for seed in seeds for fold in range(folds)])


def _distinct(inputs: PyTree) -> tuple[np.ndarray, np.ndarray]:
    """The first place of each different example, and which of them each [N] is."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(inputs)]
    size = len(leaves[0])
    content = [b"".join(leaf[i].tobytes() for leaf in leaves) for i in range(size)]
    number: dict[bytes, int] = {}
    copy_of = np.array([number.setdefault(each, len(number)) for each in content])
    if len(number) <= size // 2:
        return np.arange(size), np.arange(size)
    return np.unique(copy_of, return_index=True)[1], copy_of
