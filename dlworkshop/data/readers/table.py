"""A table -> vectors, standardised and one-hot with what train alone says."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlworkshop.data.readers import folder as folders
from dlworkshop.data.readers import split, store
from dlworkshop.data.readers.csv_file import Table, cell
from dlworkshop.errors import UserError, unknown

MOST_CLASSES = 100  # of a target
MOST_VALUES = 50  # of a category; more are words or names, which one-hot cannot use
ID_NAME = re.compile(r"(^|[_\s])(id|idx|index|uuid|key)$|^unnamed: 0$", re.IGNORECASE)


def key(table: Table, target: str | None, group_by: str | None) -> str:
    """Of the content, and of what is made of it."""
    cells = (
        value for name, column in table.columns.items() for value in (name, *column)
    )
    return store.digest([store.VERSION, target, group_by, *cells])


def prepare(
    table: Table, folder: Path, *, target: str | None, group_by: str | None
) -> store.Prepared:
    """Choose columns, cut splits, fit statistics on train, write every row.

    Args:
        table: what was read.
        folder: where the records go.
        target: the column to be told from the others; it has classes.
        group_by: a column; rows with the same value are on one side, and it is no
            feature.

    Raises:
        UserError: if a column is not there, or cannot be what it is wanted for.
    """
    columns = dict(table.columns)
    if target is None:
        raise UserError(
            f"{table.path} needs a target: name one of its columns with --target "
            f"(target=...): {', '.join(columns)}"
        )
    for name in (target, group_by):
        if name is not None and name not in columns:
            raise unknown(f"column of {table.path}", name, columns)
    if target == group_by:
        raise UserError(
            f"'{target}' is target and group_by at once: choose two columns"
        )
    said: list[str] = []
    known = np.array([value != "" for value in columns[target]])
    if not known.all():
        said.append(f"{(~known).sum()} rows have no '{target}' and were left out.")
    columns = {name: _rows(values, known) for name, values in columns.items()}
    classes, label = _classes(table.path, target, columns[target])
    number_of = [f"row {i + 2}" for i in np.flatnonzero(known)]  # as editors count
    by = columns.get(group_by or "")
    group = (
        np.arange(len(label)) if by is None else np.unique(by, return_inverse=True)[1]
    )
    features = _features(columns, {target, group_by}, label, said)
    if not features:
        raise UserError(
            f"{table.path} has no column left to tell '{target}' from "
            f"({' '.join(said)}): add one that says something"
        )
    cells = zip(*(columns[name] for name in features), strict=True)
    content = ["\0".join(row) for row in cells]
    splits = split.complete(
        number_of, label, split.merge(group, content), np.zeros(len(label), np.int8)
    )
    train = splits == 0
    how: dict[str, Any] = {
        "kind": "table",
        "columns": [
            fit(name, _rows(columns[name], train), numeric)
            for name, numeric in features.items()
        ],
    }
    absent = [
        f"'{column['name']}' has no value in train, and was left out."
        for column in how["columns"]
        if not column.get("values", True)
    ]
    said += absent
    examples = transform({name: columns[name] for name in features}, how)
    card = {
        "kind": "table",
        "source": table.path.name,
        "rows": len(number_of),
        "target": target,
        "columns": _column_rows(how, {n: columns[n] for n in features}),
        "prepared": (
            f"{examples.shape[1]} numbers for each row: numbers less their mean, "
            "divided by their standard deviation; categories one-hot; what is missing "
            "is the mean (or no category) and is marked in a column of its own; all "
            "statistics are those of train"
        ),
        "splits": folders.splits_sentence(np.zeros(1)),
        "groups": folders.groups_card(group, group_by, splits),
        "copies": folders.copies_card(number_of, label, splits, content),
        "warnings": said,
    }
    return store.Prepared(
        key(table, target, group_by),
        label,
        splits,
        classes,
        examples.shape[1:],
        "float32",
        store.write_records(folder, examples),
        how,
        card,
    )


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
    columns: Mapping[str, Sequence[str]], how: Mapping[str, Any]
) -> np.ndarray:
    """Vectors [N, D] float32 of the columns' values [N], as `how` (of `fit`) says.

    A category that train does not have is no category: zero in all its columns. What
    is missing is the mean of a number; where train had missing values, a column marks
    them with 1.

    Raises:
        UserError: if a column is absent, or a number is not one.

    >>> how = {"columns": [fit("x", ["1", "3", ""], True), fit("y", ["a", "b"], False)]}
    >>> transform({"x": ["3", "NA"], "y": ["b", "c"]}, how).tolist()
    [[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]]
    """
    parts = []
    for column in how["columns"]:
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
            numbers = [_number(value, name) if value else mean for value in values]
            parts.append((np.array(numbers) - mean) / deviation)
        if column["missing"]:
            parts.append([not value for value in values])
    return np.stack([np.asarray(part, np.float32) for part in parts], axis=1)


def _number(value: str, name: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"'{value}' in column '{name}' is no finite number: mend it")
    return number


def _is_number(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def _rows(values: Sequence[str], mask: np.ndarray) -> list[str]:
    return [value for value, there in zip(values, mask, strict=True) if there]


def _classes(
    path: Path, target: str, values: list[str]
) -> tuple[list[str], np.ndarray]:
    """The classes of the target, sorted, and the labels [N] int32."""
    counts = Counter(values)
    real = all(map(_is_number, counts)) and any(
        not float(v).is_integer() for v in counts
    )
    if len(counts) > MOST_CLASSES or real:
        kind = "real numbers" if real else f"{len(counts)} values"
        raise UserError(
            f"the target '{target}' of {path} has {kind}, and what is learnt of a "
            f"table is a class, at most {MOST_CLASSES} of them: choose another column, "
            "or put its numbers into a few classes"
        )
    if len(counts) < 2:
        raise UserError(
            f"the target '{target}' of {path} has {len(counts)} class"
            f"{'es' if len(counts) != 1 else ''}, wanted at least 2: choose another "
            "column"
        )
    rare = [value for value, count in counts.items() if count < 3]
    if rare:
        raise UserError(
            f"the class '{rare[0]}' of target '{target}' in {path} has "
            f"{counts[rare[0]]} rows, wanted at least 3, one for each split: remove or "
            "join rare classes"
        )
    numeric = all(map(_is_number, counts))
    classes = sorted(counts, key=lambda v: (float(v) if numeric else 0, v))
    place = {value: i for i, value in enumerate(classes)}
    return classes, np.array([place[value] for value in values], np.int32)


def _features(
    columns: Mapping[str, list[str]],
    others: set[str | None],
    label: np.ndarray,
    said: list[str],
) -> dict[str, bool]:
    """The columns to learn from, and whether each has numbers; the rest is said."""
    features = {}
    for name, values in columns.items():
        if name in others:
            continue
        present = [value for value in values if value]
        distinct = set(present)
        numeric = all(map(_is_number, distinct))
        if len(distinct) < 2:
            said.append(f"'{name}' always says the same, and was left out.")
        elif _equals(values, label):
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


def _equals(values: Sequence[str], label: np.ndarray) -> bool:
    """Whether each class has one value of its own, always."""
    pairs = set(zip(values, label.tolist(), strict=True))
    return len(pairs) == len(set(values)) == len(np.unique(label))


def _is_identifier(name: str, present: Sequence[str], numeric: bool) -> bool:
    """Whether no value comes twice: words, counted numbers, or by its name."""
    if len(set(present)) < len(present):
        return False
    if not numeric or ID_NAME.search(name):
        return True
    numbers = [float(value) for value in present]
    whole = all(number.is_integer() for number in numbers)
    return whole and max(numbers) - min(numbers) == len(numbers) - 1


def _column_rows(
    how: Mapping[str, Any], columns: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    rows = []
    for column in how["columns"]:
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
