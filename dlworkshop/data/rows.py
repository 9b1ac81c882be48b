"""Arrays [N, ...] that lie elsewhere: rows are read when they are asked for."""

import abc
from typing import Any

import numpy as np


def evenly(size: int, most: int) -> np.ndarray:
    """At most `most` of the numbers of `size` rows, evenly spread, both ends included.

    >>> evenly(9, 3).tolist(), evenly(2, 3).tolist()
    ([0, 4, 8], [0, 1])
    """
    return np.linspace(0, size - 1, min(size, most)).astype(int)


class LazyArray(abc.ABC):
    """Some rows of what is not in memory, as an array [N, ...].

    It takes what NumPy takes for the first axis (a number, a slice, an array of
    numbers of any shape), and `np.asarray` reads all of it. Threads may share it.

    Args:
        index: [N] numbers of the rows, in what they are read from.
        shape, dtype: of one row.
    """

    def __init__(self, index: np.ndarray, shape: Any, dtype: Any):
        self._index = index
        self.dtype = np.dtype(dtype)
        self.shape = (len(index), *(int(size) for size in shape))

    @abc.abstractmethod
    def _read(self, numbers: np.ndarray) -> np.ndarray:
        """The rows [n, ...] of such numbers [n], in that order."""

    @property
    def ndim(self) -> int:
        """Axes, that of the rows among them."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Of all rows."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, rows: Any) -> np.ndarray:
        if isinstance(rows, tuple):
            raise TypeError("such an array is indexed by rows only: take [rows] first")
        wanted = self._index[rows]
        values = self._read(np.ravel(wanted))
        return values.reshape(*np.shape(wanted), *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy  # what is read is always new
        return self[:] if dtype is None else self[:].astype(dtype)

    def __jax_array__(self) -> Any:
        import jax.numpy as jnp  # noqa: PLC0415

        return jnp.asarray(self[:])


class Rows(LazyArray):
    """Some rows of a memory-mapped array, or of one that a library reads from disk.

    >>> rows = Rows(np.arange(10.0), np.array([7, 2, 5]))
    >>> rows.shape, rows[1:].tolist(), rows[[[0, 0]]].tolist()
    ((3,), [2.0, 5.0], [[7.0, 7.0]])
    """

    def __init__(self, source: Any, index: np.ndarray):
        super().__init__(index, source.shape[1:], source.dtype)
        self._source = source

    def _read(self, numbers: np.ndarray) -> np.ndarray:
        if isinstance(self._source, np.ndarray):
            return self._source[numbers]
        # h5py takes numbers that increase, and no other
        some, places = np.unique(numbers, return_inverse=True)
        return np.asarray(self._source[some])[places]


def is_lazy(array: Any) -> bool:
    """Whether an array is on disk, or wherever a library reads it from.

    >>> is_lazy(np.zeros(3)), is_lazy(Rows(np.zeros(3), np.arange(2)))
    (False, True)
    """
    if isinstance(array, np.memmap):
        return True
    reads_rows = all(hasattr(array, name) for name in ("__getitem__", "__len__"))
    known = isinstance(getattr(array, "dtype", None), np.dtype)
    # what says how its memory is laid out (NumPy, JAX) has it; pandas counts by labels
    inside = any(hasattr(array, n) for n in ("__array_interface__", "devices", "iloc"))
    return reads_rows and known and hasattr(array, "shape") and not inside
