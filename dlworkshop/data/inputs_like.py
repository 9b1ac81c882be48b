"""Comparison of inputs with the training inputs: shapes, dtypes, range of pixels."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from dlworkshop.data.content import pieces
from dlworkshop.data.leaves import (
    by_place,
    check_dense,
    is_float,
    is_frame,
    is_list,
    place_of,
    read,
)
from dlworkshop.data.rows import evenly
from dlworkshop.errors import UserError, repr_of
from dlworkshop.types import Array, PyTree

LOOKED_AT = 4096  # evenly spaced examples whose range is recorded
SLACK = 1e-3  # beyond [0, 1], for rounding errors of a division by 255


def describe_inputs(
    inputs: PyTree, columns: Mapping[str, list[str]] | None = None
) -> dict[str, Any]:
    """A JSON description of inputs for `check_inputs_like`: one entry per array.

    Args:
        inputs: leaves [N, ...] of the train split.
        columns: `Dataset.columns`.

    Returns:
        The place of each array in the pytree ("" for a single array) -> `shape` and
        `dtype` of one example, for floats the `low` and `high` of some examples, and
        for data frames the names of the `columns`.

    >>> describe_inputs({"a": np.zeros((3, 2), np.uint8)})
    {'a': {'shape': [2], 'dtype': 'uint8'}}
    """
    found = {name: _described(leaf) for name, leaf in _named(inputs).items()}
    for name, names in (columns or {}).items():
        found[name]["columns"] = names
    return found


def columns_of(inputs: PyTree) -> dict[str, list[str]] | None:
    """The place of each data frame in a pytree -> the names of its columns."""
    found = {
        place: list(map(str, leaf.columns))
        for place, leaf in by_place(inputs, is_list).items()
        if is_frame(leaf)
    }
    return found or None


def as_learnt_from(known: Mapping[str, Any], inputs: PyTree) -> PyTree:
    """Inputs as arrays, with the columns of data frames in the order of training.

    Args:
        known: the result of `describe_inputs` for the train split.
        inputs: arrays, lists or data frames [B, ...].

    Raises:
        UserError: if the column names differ, or the run was not trained on a data
            frame.
    """

    def leaf(path, given):
        check_dense(given, "the batch of inputs")
        if hasattr(given, "shape") and hasattr(given, "dtype"):
            return given
        if not is_frame(given):
            return read(given, "the batch of inputs")
        found = {str(name): name for name in given.columns}
        learnt = known.get(place_of(path), {}).get("columns")
        if learnt is None:
            raise UserError(
                "the inputs are a data frame, and the run did not learn from one: give "
                "an array like the training inputs, or, if the run learnt from a file, "
                "use dlworkshop predict RUN FILE"
            )
        if sorted(found) != sorted(learnt):
            raise UserError(
                f"the inputs have the columns {list(found)!r:.200}, and the model "
                f"learnt from {learnt!r:.200}: give the same columns"
            )
        return read(given[[found[name] for name in learnt]], "the batch of inputs")

    return jax.tree.map_with_path(leaf, inputs, is_leaf=is_list)


def check_inputs_like(known: Mapping[str, Any], inputs: PyTree) -> None:
    """Reject inputs that differ from the training inputs in shape, dtype or range.

    A step converts only uint8 to floats in [0, 1], so the same pixels in another dtype
    are different inputs.

    Args:
        known: the result of `describe_inputs` for the train split.
        inputs: leaves [B, ...].

    Raises:
        UserError: if the structure, a shape or a dtype differs, or floats are outside
            [0, 1] and the model learnt from uint8.

    >>> known = describe_inputs(np.zeros((3, 2), np.uint8))
    >>> check_inputs_like(known, np.ones((5, 2)))
    >>> check_inputs_like(known, np.full((5, 2), 255.0))
    Traceback (most recent call last):
    dlworkshop.errors.UserError: the inputs are float64 from 255 to 255, and the model
    learnt from uint8, which becomes floats in [0, 1]: give uint8, or the pixels
    divided by 255
    """
    if not isinstance(known, Mapping):
        raise UserError(
            f"known is {repr_of(known)}: give the result of describe_inputs"
        )
    found = _named(inputs)
    if list(found) != list(known):
        raise UserError(
            f"the inputs are {_listed(found)}, and the model learnt from "
            f"{_listed(known)}: give the same structure"
        )
    for name, array in found.items():
        _check(f"the inputs '{name}'" if name else "the inputs", known[name], array)
    sizes = {name: len(array) for name, array in found.items()}
    if len(set(sizes.values())) > 1:
        raise UserError(
            "the inputs have "
            + " and ".join(f"{size} in '{name}'" for name, size in sizes.items())
            + ": give the same number of examples in each"
        )


def _named(inputs: PyTree) -> dict[str, Array]:
    """The place of each array in the pytree -> the array."""
    return {
        place: leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
        for place, leaf in by_place(inputs, is_list).items()
    }


def _described(array: Array) -> dict[str, Any]:
    if not array.shape:
        raise UserError(f"the inputs are {repr_of(array)}: give arrays [N, ...]")
    said: dict[str, Any] = {
        "shape": [int(size) for size in array.shape[1:]],
        "dtype": str(array.dtype),
    }
    if is_float(array):
        values = np.asarray(array[evenly(len(array), LOOKED_AT)], np.float32)
        if np.isfinite(values).any():
            said["low"] = float(np.nanmin(values))
            said["high"] = float(np.nanmax(values))
    return said


def _check(what: str, known: Mapping[str, Any], array: Array) -> None:
    shape, wanted = list(array.shape), known["shape"]
    if shape[1:] != wanted or not shape:
        alone = shape == wanted
        raise UserError(
            f"{what} have shape {shape}, wanted [B{''.join(f', {n}' for n in wanted)}]"
            + (": for one example give x[None]" if alone else ": give such a batch")
        )
    learnt, kind = np.dtype(known["dtype"]), array.dtype
    if learnt == np.uint8:
        if kind != np.uint8:
            _check_pixels(what, array)
        return
    floats = learnt.kind not in "biu"
    low, high = known.get("low", -np.inf), known.get("high", np.inf)
    if kind == np.uint8 and not (floats and low >= 0 and high <= 1):
        raise UserError(
            f"{what} are uint8, which becomes floats in [0, 1], and the model learnt "
            f"from {learnt}: give {learnt}"
        )
    if is_float(array) and not floats:
        raise UserError(
            f"{what} are {kind}, and the model learnt from {learnt}: give {learnt}"
        )


def _check_pixels(what: str, array: Array) -> None:
    if not len(array):
        return
    ends = [(piece.min(), piece.max()) for piece in pieces(array)]
    low = float(np.min([low for low, _ in ends]))  # np.min propagates NaN
    high = float(np.max([high for _, high in ends]))
    if not is_float(array):
        raise UserError(
            f"{what} are {array.dtype} from {low:g} to {high:g}, and the model learnt "
            "from uint8: give uint8 in 0 to 255"
        )
    if not (low >= -SLACK and high <= 1 + SLACK):
        raise UserError(
            f"{what} are {array.dtype} from {low:.4g} to {high:.4g}, and the model "
            "learnt from uint8, which becomes floats in [0, 1]: give uint8, or the "
            "pixels divided by 255"
        )


def _listed(names: Mapping[str, Any]) -> str:
    said = [f"'{name}'" if name else "one array" for name in names]
    return ", ".join(said) or "nothing"
