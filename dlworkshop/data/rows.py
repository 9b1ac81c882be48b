"""Arrays [N, ...] that are not in memory: rows are read when they are indexed."""

import abc
from typing import Any

import numpy as np


def evenly(size: int, most: int) -> np.ndarray:
    """At most `most` evenly spaced row numbers in [0, size), including both ends.

    >>> evenly(9, 3).tolist(), evenly(2, 3).tolist()
    ([0, 4, 8], [0, 1])
    """
    return np.linspace(0, size - 1, min(size, most)).astype(int)


def native_dtype(dtype: Any) -> np.dtype:
    """A dtype in the byte order of this machine, of at most 64 bits for each real.

    JAX has no others, but files have.

    >>> native_dtype(np.dtype(">f4")), native_dtype(np.longdouble)
    (dtype('float32'), dtype('float64'))
    """
    native = np.dtype(dtype).newbyteorder("=")
    widest = {"f": np.dtype(np.float64), "c": np.dtype(np.complex128)}
    most = widest.get(native.kind, native)
    return min(native, most, key=lambda one: one.itemsize)


class LazyArray(abc.ABC):
    """Some rows of a source that is not in memory, as an array [N, ...].

    The first axis takes the indices that NumPy takes (a number, a slice, an array of
    numbers of any shape), and `np.asarray` reads all rows. It is thread-safe.

    Args:
        index: [N] row numbers in the source.
        shape, dtype: of one row.
    """

    def __init__(self, index: np.ndarray, shape: Any, dtype: Any):
        self._index = index
        self.dtype = np.dtype(dtype)
        self.shape = (len(index), *(int(size) for size in shape))

    @abc.abstractmethod
    def _read(self, numbers: np.ndarray) -> np.ndarray:
        """The rows [n, ...] with these numbers [n], in this order."""

    @property
    def ndim(self) -> int:
        """The number of axes, including that of the rows."""
        return len(self.shape)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, rows: Any) -> np.ndarray:
        if isinstance(rows, tuple):
            raise TypeError("only rows can be indexed: take array[rows] first")
        wanted = self._index[rows]
        values = self._read(np.ravel(wanted))
        return values.reshape(*np.shape(wanted), *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy  # reading always makes a new array
        return self[:] if dtype is None else self[:].astype(dtype)

    def __jax_array__(self) -> Any:
        import jax.numpy as jnp  # noqa: PLC0415

        return jnp.asarray(self[:])


class Rows(LazyArray):
    """Some rows of an array in memory or on disk, in a `native_dtype`.

    >>> rows = Rows(np.arange(10.0), np.array([7, 2, 5]))
    >>> rows.shape, rows[1:].tolist(), rows[[[0, 0]]].tolist()
    ((3,), [2.0, 5.0], [[7.0, 7.0]])
    """

    def __init__(self, source: Any, index: np.ndarray):
        super().__init__(index, source.shape[1:], native_dtype(source.dtype))
        self._source = source

    def _read(self, numbers: np.ndarray) -> np.ndarray:
        if isinstance(self._source, np.ndarray):
            return self._source[numbers].astype(self.dtype, copy=False)
        # h5py only takes increasing numbers
        some, places = np.unique(numbers, return_inverse=True)
        return np.asarray(self._source[some], self.dtype)[places]


def is_lazy(array: Any) -> bool:
    """Whether the rows of an array are not in memory but read by a library.

    >>> is_lazy(np.zeros(3)), is_lazy(Rows(np.zeros(3), np.arange(2)))
    (False, True)
    """
    if isinstance(array, np.memmap):
        return True
    reads_rows = all(hasattr(array, name) for name in ("__getitem__", "__len__"))
    known = isinstance(getattr(array, "dtype", None), np.dtype)
    # NumPy and JAX describe the layout of their memory; pandas indexes by labels
    inside = any(hasattr(array, n) for n in ("__array_interface__", "devices", "iloc"))
    return reads_rows and known and hasattr(array, "shape") and not inside
