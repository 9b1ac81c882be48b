"""Conversion of a user's arrays, lists and data frames to arrays [N, ...]."""

from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlworkshop.data.content import pieces
from dlworkshop.data.rows import Rows, is_lazy, native_dtype
from dlworkshop.errors import UserError, repr_of
from dlworkshop.types import Array, PyTree

TEXT = "SU"  # kinds of dtype


def as_arrays(given: PyTree, what: str) -> PyTree:
    """Convert a pytree to one of arrays [N, ...].

    A list is always one array; tuples, dicts and other pytrees hold several. Data
    frames become [N, D] float32. Arrays on disk, memory-mapped or of a library such as
    h5py, are returned unchanged.

    Args:
        given: the pytree.
        what: its name in messages, such as "x" or "validation y".

    Raises:
        UserError: if a leaf is not an array [N, ...] of numbers or text.

    >>> as_arrays(([[1, 2], [3, 4]], {"z": np.ones(2)}), "x")[0].dtype
    dtype('int32')
    """

    def leaf(path, value):
        return _as_array(value, what + jax.tree_util.keystr(path))

    return jax.tree.map_with_path(leaf, given, is_leaf=is_list)


def as_floats(given: Any, what: str) -> np.ndarray:
    """Numbers of any shape as float64.

    Raises:
        UserError: if `given` cannot be converted to numbers.
    """
    try:
        return np.asarray(given, np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{what} is {repr_of(given)}: give numbers") from None


def is_float(array: Array) -> bool:
    """Whether the dtype is a real floating-point type, including bfloat16."""
    return bool(jnp.issubdtype(array.dtype, jnp.floating))


def at_least_float32(array: Array) -> jax.Array:
    """Numbers of fewer bits promoted to float32.

    bfloat16 has 8 significant bits: a loss that is summed in it is wrong by percents.
    """
    array = jnp.asarray(array)
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def keeps_kind(now: Any, before: Array) -> bool:
    """Whether the dtype of `before` can hold `now`, apart from rounding.

    >>> keeps_kind(jnp.ones(2), jnp.ones(2, "bfloat16")), keeps_kind(0.5, jnp.array(0))
    (True, False)
    """
    kinds = jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating
    of_now, of_before = (
        [jnp.issubdtype(jnp.result_type(x), kind) for kind in kinds]
        for x in (now, before)
    )
    return True not in of_now or of_now.index(True) <= of_before.index(True)


def check_finite(array: Array, what: str) -> None:
    """Reject NaN and infinity, naming the first example that has one."""
    rows = not_finite(array)
    if len(rows):
        kind = (
            "NaN" if np.isnan(np.asarray(array[rows], np.float32)).any() else "infinity"
        )
        raise UserError(
            f"{what} has {kind} in example {rows[0]}: leave such examples out, or "
            "replace the number by 0 and give the example a weight of 0"
        )


def not_finite(array: Array) -> np.ndarray:
    """Indices of the examples of floats [N, ...] that are not all finite.

    >>> not_finite(np.array([[1.0, 2.0], [3.0, np.nan]])).tolist()
    [1]
    """
    found, first = [np.zeros(0, int)], 0
    for piece in pieces(array):
        with np.errstate(all="ignore"):
            suspect = not np.isfinite(piece.sum())  # three times faster than isfinite
        if suspect:
            wide = piece.astype(np.float32) if piece.itemsize < 4 else piece
            good = np.isfinite(wide).reshape(len(piece), -1).all(1)  # [n]
            found.append(first + np.flatnonzero(~good))
        first += len(piece)
    return np.concatenate(found)


def is_list(value: Any) -> bool:
    return isinstance(value, list)


def place_of(path: tuple) -> str:
    """The path of a leaf in a pytree as text, such as "a/0"; "" for a single leaf."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def by_place(tree: PyTree, is_leaf: Any = None) -> dict[str, Any]:
    """The place of each leaf in a pytree -> the leaf.

    >>> by_place({"a": (1, 2), "b": 3})
    {'a/0': 1, 'a/1': 2, 'b': 3}
    """
    leaves = jax.tree.leaves_with_path(tree, is_leaf=is_leaf)
    return {place_of(path): leaf for path, leaf in leaves}


def check_dense(given: Any, what: str) -> None:
    """Refuse a sparse matrix of SciPy."""
    if hasattr(given, "toarray") and hasattr(given, "nnz"):
        raise UserError(f"{what} is a sparse matrix: give its .toarray()")


def _as_array(given: Any, what: str) -> Array:
    check_dense(given, what)
    many = is_lazy(given) and len(given.shape) > 1 and given.shape[1:] != (1,)
    array = given if many else read(given, what)
    if not array.ndim:
        raise UserError(
            f"{what} is {str(given)[:40]!r}, one value: give an array [N, ...], a "
            "row for each example"
        )
    if 0 in array.shape:
        raise UserError(
            f"{what} has shape {list(array.shape)}, which is empty: give at least one "
            "example, and numbers in it"
        )
    if is_lazy(array) and array.dtype.kind in "fciu":
        foreign = array.dtype != native_dtype(array.dtype)
        return Rows(array, np.arange(len(array))) if foreign else array
    if array.dtype.kind in TEXT or is_lazy(array):
        return array
    return _canonical(array, what)


def is_frame(given: Any) -> bool:
    """Whether `given` is a data frame of pandas, polars or a similar library."""
    return hasattr(given, "columns") and hasattr(given, "dtypes")


def read(given: Any, what: str) -> np.ndarray:
    """Convert an array, a list or a data frame to a NumPy array of numbers or text.

    Raises:
        UserError: if `given` cannot be converted.
    """
    if is_frame(given):
        return _frame(given, what)
    if np.ma.is_masked(given):
        raise UserError(
            f"{what} has masked values: fill them, for example with x.filled(0), or "
            "leave those examples out"
        )
    try:
        array = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{what} is no array ({reason}): give numbers with the same shape for all "
            "examples"
        ) from None
    if array.dtype.kind in "OT":
        array = _plain(array, what)
    try:
        return np.char.decode(array) if array.dtype.kind == "S" else array
    except UnicodeDecodeError as error:
        raise UserError(
            f"{what} has bytes that are not UTF-8 ({error}): decode them, as "
            "np.char.decode(array, 'latin-1') does"
        ) from None


def _plain(array: np.ndarray, what: str) -> np.ndarray:
    """An object array as an array of text, or of numbers."""
    values = array.ravel().tolist()
    if values and all(isinstance(value, str) for value in values):
        return array.astype(str)
    if values and all(isinstance(value, bool | int | float) for value in values):
        return np.array(values).reshape(array.shape)
    odd = next((v for v in values if not isinstance(v, str | int | float)), "a mixture")
    raise UserError(
        f"{what} has Python objects ({str(odd)[:40]!r} is one): give numbers only, or "
        "text only, or a tuple or dict of arrays for several inputs"
    )


def _frame(frame: Any, what: str) -> np.ndarray:
    """A data frame of several columns as [N, D] float32, of one column as [N].

    A single column keeps its dtype, because it may hold classes.
    """
    names = list(frame.columns)
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(
            f"{what} is a data frame with two columns {twice[0]!r}: give each column a "
            "different name"
        )
    columns = [read(frame[name], f"{what}[{name!r}]") for name in names]
    if len(columns) == 1:
        return columns[0]
    text = [
        n for n, c in zip(names, columns, strict=True) if c.dtype.kind not in "biuf"
    ]
    if text or not names:
        raise UserError(
            f"{what} is a data frame whose column {str((text or names or [''])[0])!r} "
            "has no numbers: encode it or leave it out, or save a CSV for data.load, "
            "which encodes its columns"
        )
    return np.stack([column.astype(np.float32) for column in columns], axis=1)


def _canonical(array: np.ndarray, what: str) -> np.ndarray:
    """Cast to the dtype that JAX would use; raise if a number does not fit."""
    if array.dtype.kind not in "biufc" and not is_float(array):
        raise UserError(
            f"{what} has {array.dtype}: give numbers, for times for example the "
            "seconds since a fixed moment"
        )
    dtype = jax.dtypes.canonicalize_dtype(native_dtype(array.dtype))
    if array.dtype.kind in "iu" and dtype != array.dtype:
        known = np.iinfo(dtype)
        low, high = array.min(), array.max()
        if low < known.min or high > known.max:
            raise UserError(
                f"{what} has integers from {low} to {high}, beyond {dtype}: use "
                "smaller ones, or JAX_ENABLE_X64=1"
            )
    try:
        with np.errstate(over="raise"):
            return array.astype(dtype, copy=False)
    except FloatingPointError:
        raise UserError(
            f"{what} has numbers beyond {dtype}: give smaller ones, or set "
            "JAX_ENABLE_X64=1"
        ) from None
