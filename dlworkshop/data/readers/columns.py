"""Columns of a table -> numbers, with statistics that train alone gives."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dlworkshop.data.readers.csv_file import cell
from dlworkshop.errors import UserError

MOST_VALUES = 50  # of a category; more are words or names, which one-hot cannot use
ID_NAME = re.compile(r"(^|[_\s])(id|idx|index|uuid|key)$|^unnamed: 0$", re.IGNORECASE)


def fit(name: str, values: Sequence[str], numeric: bool) -> dict[str, Any]:
    """What is to be known of a column, from its values [N] in train.

    >>> fit("length", ["1", "3", ""], numeric=True)
    {'name': 'length', 'mean': 2.0, 'deviation': 1.0, 'missing': True}
    >>> fit("island", ["Dream", "Biscoe", "Dream"], numeric=False)
    {'name': 'island', 'values': ['Biscoe', 'Dream'], 'missing': False}
    """
    present = [value for value in values if value]
    missing = len(present) < len(values)
    if not numeric:
        return {"name": name, "values": sorted(set(present)), "missing": missing}
    numbers = np.array([float(value) for value in present] or [0.0])
    deviation = float(numbers.std())
    return {
        "name": name,
        "mean": float(numbers.mean()),
        "deviation": deviation if deviation > 0 else 1.0,
        "missing": missing,
    }


def transform(
    columns: Mapping[str, Sequence[str]], preprocessing: Mapping[str, Any]
) -> np.ndarray:
    """Vectors [N, D] float32 of the columns' values [N], prepared as those of train.

    A category that train does not have is no category: zero in all its columns. What
    is missing is the mean of a number; where train had missing values, a column marks
    them with 1.

    Raises:
        UserError: if a column is absent, or a number is not one.

    >>> columns = [fit("x", ["1", "3", ""], True), fit("y", ["a", "b"], False)]
    >>> preprocessing = {"columns": columns}
    >>> transform({"x": ["3", "NA"], "y": ["b", "c"]}, preprocessing).tolist()
    [[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]]
    """
    parts = []
    for column in preprocessing["columns"]:
        name = column["name"]
        if name not in columns:
            raise UserError(
                f"there is no column '{name}' (there are {', '.join(columns)}): give "
                "the columns the model was trained on"
            )
        values = [cell(value) for value in columns[name]]
        if "values" in column:
            parts += [[value == v for value in values] for v in column["values"]]
        else:
            mean, deviation = column["mean"], column["deviation"]
            numbers = [number(value, name) if value else mean for value in values]
            parts.append((np.array(numbers) - mean) / deviation)
        if column["missing"]:
            parts.append([not value for value in values])
    return np.stack([np.asarray(part, np.float32) for part in parts], axis=1)


def number(value: str, name: str) -> float:
    """The number that a cell of column `name` says; else a mistake of the user's."""
    if not is_number(value):
        raise UserError(f"'{value}' in column '{name}' is no finite number: mend it")
    return float(value)


def is_number(value: str) -> bool:
    """Whether it says a finite number; Python's 1_000 is a name elsewhere.

    >>> is_number(" -1e3"), is_number("1_000"), is_number("inf")
    (True, False, False)
    """
    try:
        return "_" not in value and math.isfinite(float(value))
    except ValueError:
        return False


def choose(
    columns: Mapping[str, list[str]],
    is_leak: Callable[[Sequence[str]], bool],
    said: list[str],
) -> dict[str, bool]:
    """The columns to learn from, and whether each has numbers; the rest is said.

    Args:
        columns: name -> values [N], without the target and what groups the rows.
        is_leak: whether such values say the same as the target.
        said: to be extended by a sentence for each column that is left out.
    """
    features = {}
    for name, values in columns.items():
        present = [value for value in values if value]
        distinct = set(present)
        numeric = all(map(is_number, distinct))
        if len(distinct) < 2:
            said.append(f"'{name}' always says the same, and was left out.")
        elif is_leak(values):
            said.append(
                f"'{name}' is a leak: it says the same as the target in other words, "
                "and was left out."
            )
        elif _is_identifier(name, present, numeric):
            said.append(
                f"'{name}' looks like an identifier (its values name rows, they do not "
                "describe them), and was left out."
            )
        elif not numeric and len(distinct) > MOST_VALUES:
            said.append(
                f"'{name}' has {len(distinct)} different words, more than "
                f"{MOST_VALUES}, and was left out."
            )
        else:
            features[name] = numeric
    return features


def _is_identifier(name: str, present: Sequence[str], numeric: bool) -> bool:
    """Whether no value comes twice: words, counted numbers, or by its name."""
    if len(set(present)) < len(present):
        return False
    if not numeric or ID_NAME.search(name):
        return True
    numbers = [float(value) for value in present]
    whole = all(number.is_integer() for number in numbers)
    return whole and max(numbers) - min(numbers) == len(numbers) - 1


def rows_of_card(
    preprocessing: Mapping[str, Any], columns: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    rows = []
    for column in preprocessing["columns"]:
        values = columns[column["name"]]
        about = (
            f"{len(column['values'])} categories: {', '.join(column['values'][:6])}"
            + (" ..." if len(column["values"]) > 6 else "")
            if "values" in column
            else f"number, {column['mean']:.4g} ± {column['deviation']:.4g} in train"
        )
        missing = sum(not value for value in values)
        rows.append({"name": column["name"], "about": about, "missing": missing})
    return rows
