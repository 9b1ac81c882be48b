"""Fingerprints of data sets: different content, different fingerprint."""

import hashlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from dlworkshop.errors import UserError, repr_of
from dlworkshop.types import Array, Batch, Dataset, PyTree

SPLITS = ("train", "validation", "test")
_PIECE = 1 << 24  # bytes read at a time


def check_kind(dataset: Any) -> None:
    """Check that `dataset` is a `Dataset` of three splits."""
    if not isinstance(dataset, Dataset):
        raise UserError(
            f"the dataset is {repr_of(dataset)}: give what data.load or "
            "data.from_arrays returns"
        )
    for name in SPLITS:
        split = getattr(dataset, name)
        if not isinstance(split, Batch):
            raise UserError(
                f"the {name} split of '{dataset.name}' is {repr_of(split)}: give "
                "Batch(inputs, targets), or let data.from_arrays cut the splits"
            )


def fingerprint(dataset: Dataset) -> str:
    """The content hash of a data set: the one it carries, or one of all its arrays.

    Two data sets with the same classes, groups and, in each split, arrays of the same
    structure, dtype, shape and values have the same fingerprint, whatever their names
    are and wherever the arrays lie: in memory, on a device, or on disk. All of the
    content is read once, in pieces of some megabytes.

    Returns:
        16 hex digits, or `dataset.fingerprint` where it is not "".

    >>> from dlworkshop.types import Batch
    >>> split = Batch(np.arange(4), np.zeros(4))
    >>> one = fingerprint(Dataset(split, split, split))
    >>> one == fingerprint(Dataset(split, split, split, name="another"))
    True
    >>> one == fingerprint(Dataset(split, split, split.rows(slice(3))))
    False
    """
    check_kind(dataset)
    if dataset.fingerprint:
        return dataset.fingerprint
    sha = hashlib.sha256(repr(tuple(map(str, dataset.classes))).encode())
    for split in SPLITS:
        _update(sha, getattr(dataset, split))
    if dataset.groups is not None:
        _update(sha, dataset.groups)
    return sha.hexdigest()[:16]


def pieces(array: Array) -> Iterator[np.ndarray]:
    """The rows of an array [N, ...] in pieces of some megabytes.

    >>> [piece.shape for piece in pieces(np.zeros((3, 2)))]
    [(3, 2)]
    """
    if isinstance(array, jax.Array):
        array = np.asarray(array)  # slicing on a device would compile a program
    row = int(np.prod(array.shape[1:], dtype=np.int64)) * np.dtype(array.dtype).itemsize
    each = max(1, _PIECE // max(1, row))
    for first in range(0, len(array), each):
        yield np.asarray(array[first : first + each])


def _update(sha, split: PyTree) -> None:
    for path, leaf in jax.tree.leaves_with_path(split):
        dtype = np.dtype(leaf.dtype).newbyteorder("<")
        name = jax.tree_util.keystr(path)
        sha.update(f"{name} {dtype} {tuple(leaf.shape)}\n".encode())
        for piece in pieces(leaf):
            same = np.ascontiguousarray(piece, dtype)
            sha.update(same.reshape(-1).view(np.uint8))
