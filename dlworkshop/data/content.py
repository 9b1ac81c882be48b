"""Fingerprints of data sets, computed from their content."""

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
            f"the dataset is {repr_of(dataset)}: give the result of data.load or "
            "data.from_arrays"
        )
    for name in SPLITS:
        split = getattr(dataset, name)
        if not isinstance(split, Batch):
            raise UserError(
                f"the {name} split of '{dataset.name}' is {repr_of(split)}: give "
                "Batch(inputs, targets), or let data.from_arrays cut the splits"
            )


def fingerprint(dataset: Dataset) -> str:
    """The fingerprint of a data set: its own, or else a hash of all its arrays.

    Two data sets have the same fingerprint if their classes, groups and the structure,
    dtypes, shapes and values of the arrays in each split are the same. Names do not
    count, nor does it matter whether arrays are in memory, on a device or on disk. All
    content is read once, in pieces of 16 MiB.

    Returns:
        16 hex digits, or `dataset.fingerprint` unless that is "".

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
    """Yield the rows of an array [N, ...] in pieces of 16 MiB.

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
