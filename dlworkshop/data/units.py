"""Conversion of numeric targets between the user's units and standardised ones."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dlworkshop.data.leaves import as_floats
from dlworkshop.errors import UserError, repr_of


def spread(values: np.ndarray) -> dict[str, float]:
    """Mean and deviation of numbers [n] as JSON; a deviation of 0 counts as 1.

    >>> spread(np.array([1.0, 3.0])), spread(np.array([]))
    ({'mean': 2.0, 'deviation': 1.0}, {'mean': 0.0, 'deviation': 1.0})
    """
    if len(values) and values.min() < values.max():
        unit = np.abs(values).max()
        if 1e-100 < unit < 1e100:  # or squares would overflow, or be 0
            unit = 1.0
        mean, deviation = (values / unit).mean(), (values / unit).std()
        return {"mean": float(mean * unit), "deviation": float(deviation * unit)}
    # rounding of the mean gives equal numbers a deviation, of 1e-17 for 0.1
    return {"mean": float(values[0]) if len(values) else 0.0, "deviation": 1.0}


def standardised(values: np.ndarray, fitted: Mapping[str, Any]) -> np.ndarray:
    """Standardised numbers [...] or [..., columns], float32.

    >>> fitted = {"several": False, "columns": [{"mean": 10.0, "deviation": 2.0}]}
    >>> standardised(np.array([10, 14]), fitted).tolist()
    [0.0, 2.0]
    """
    mean, deviation = scale(fitted)
    return ((values - mean) / deviation).astype(np.float32)


def in_own_units(outputs: np.ndarray, fitted: Mapping[str, Any]) -> np.ndarray:
    """Outputs [...] or [..., columns] of a model in the units of the table.

    This is the inverse of `standardised`; a last axis of one output is kept.
    Differences, such as a mean absolute error, are multiplied by the `deviation` only.

    Args:
        outputs: of a model that predicts numbers.
        fitted: `preprocessing["target"]`.

    Raises:
        UserError: if a target of several columns has another number of outputs.

    >>> fitted = {"several": False, "columns": [{"mean": 10.0, "deviation": 2.0}]}
    >>> in_own_units(np.array([0.0, 2.0]), fitted).tolist()
    [10.0, 14.0]
    """
    mean, deviation = scale(fitted)
    numbers = as_floats(outputs, "outputs")
    if fitted["several"] and numbers.shape[-1:] != mean.shape:
        raise UserError(
            f"the outputs have shape {list(numbers.shape)}, wanted [..., {len(mean)}]: "
            "give a number for each column of the target"
        )
    return numbers * deviation + mean


def scale(fitted: Mapping[str, Any]) -> tuple[Any, Any]:
    """Mean and deviation, [] or [columns], by which targets were standardised.

    They are 0 and 1 for columns that were not standardised.

    >>> scale({"several": True, "columns": [{"mean": 1.0, "deviation": 2.0}, {}]})
    (array([1., 0.]), array([2., 1.]))
    """
    if not isinstance(fitted, Mapping) or "columns" not in fitted:
        raise UserError(
            f"the fitted target is {repr_of(fitted)}: give preprocessing['target']"
        )
    columns = fitted["columns"]
    mean = np.array([column.get("mean", 0.0) for column in columns])
    deviation = np.array([column.get("deviation", 1.0) for column in columns])
    return (mean, deviation) if fitted["several"] else (mean[0], deviation[0])
