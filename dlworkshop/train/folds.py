"""Cross-validation: each member holds out one fold of train and validation together."""

import jax
import numpy as np

from dlworkshop.data.order import permutation
from dlworkshop.data.split import are_observations, merge
from dlworkshop.errors import UserError
from dlworkshop.train.predictions import labels
from dlworkshop.types import Array, Batch, Dataset, PyTree


def pooled(dataset: Dataset) -> Dataset:
    """A data set whose train and validation splits are both the two pooled."""

    def joined(*leaves):
        return np.concatenate([np.asarray(leaf) for leaf in leaves])

    pool = jax.tree.map(joined, dataset.train, dataset.validation)
    groups = None if dataset.groups is None else (joined(*dataset.groups),) * 2
    return dataset._replace(
        train=pool, validation=pool, groups=groups, columns=dataset.columns
    )


def parts(
    pool: Batch, folds: int, seed: int, groups: Array | None = None
) -> np.ndarray:
    """The fold [N] in [0, folds) of each example, drawn anew for each seed.

    Exact copies, and examples of one group, are in the same fold. These units are
    sorted by class and size, and of each `folds` consecutive units every fold gets one,
    drawn at random. So folds are stratified by class, and have groups of all sizes.

    Args:
        pool: the N examples.
        folds: the number of folds.
        seed: of the random draw.
        groups: [N] int; examples with the same number are in one fold.

    >>> pool = Batch(np.arange(8.0)[:, None], np.array([0, 0, 0, 0, 1, 1, 1, 1]))
    >>> part = parts(pool, folds=2, seed=0)
    >>> np.bincount(part).tolist(), np.bincount(pool.targets[part == 1]).tolist()
    ([4, 4], [2, 2])
    """
    _, first, unit, size = np.unique(
        units(pool, groups), return_index=True, return_inverse=True, return_counts=True
    )
    label = labels(pool.targets)
    kind = np.zeros(len(first), int) if label is None else label[first]
    chance, deal = (permutation(seed, turn, len(first)) for turn in (0, 1))
    line = np.lexsort((chance, size, kind))
    few = np.arange(len(line)) // folds
    part = np.empty(len(line), np.int64)
    part[line[np.lexsort((deal[line], few))]] = np.arange(len(line)) % folds
    return part[unit]


def units(pool: Batch, groups: Array | None = None) -> np.ndarray:
    """A number [N] per example, equal for exact copies and examples of one group."""
    content = _content(pool.inputs)
    return content if groups is None else merge(np.asarray(groups), content)


def held_out(dataset: Dataset, folds: int, seeds: list[int]) -> np.ndarray:
    """The examples that each member holds out, bool [P, N]; folds vary fastest.

    Args:
        dataset: as returned by `pooled`.
        folds: the number of folds.
        seeds: of the members before they are multiplied by the folds.

    Raises:
        UserError: if a fold would be empty.
    """
    pool, groups = dataset.train, None if dataset.groups is None else dataset.groups[0]
    of_seed = {seed: parts(pool, folds, seed, groups) for seed in set(seeds)}
    if any(len(np.unique(part)) < folds for part in of_seed.values()):
        what = "different examples" if groups is None else "groups"
        raise UserError(
            f"folds is {folds}, but train and validation have too few {what}: use "
            "fewer folds"
        )
    return np.stack([of_seed[seed] == fold for seed in seeds for fold in range(folds)])


def _content(inputs: PyTree) -> np.ndarray:
    """A number [N] per example, equal for exact copies."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(inputs)]
    size = len(leaves[0])
    content = [b"".join(leaf[i].tobytes() for leaf in leaves) for i in range(size)]
    number: dict[bytes, int] = {}
    found = np.array([number.setdefault(each, len(number)) for each in content])
    widest = max((leaf.shape[1:] for leaf in leaves), key=len)
    return np.arange(size) if are_observations(found, widest) else found
