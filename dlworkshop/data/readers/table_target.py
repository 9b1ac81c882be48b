"""The target of a table: classes, numbers, or several labels; decided by its cells."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dlworkshop.data.readers.columns import is_number, number
from dlworkshop.data.readers.csv_file import cell, plain
from dlworkshop.data.units import standardised
from dlworkshop.errors import UserError

TASKS = ("classification", "regression")
MOST_CLASSES = 100  # of a target
MOST_NUMBERED = 30  # different whole numbers that are taken as names of classes


class Target(NamedTuple):
    """What the rows that have a target say; the numbers are not standardised yet."""

    names: tuple[str, ...]  # of the columns
    task: str  # one of TASKS
    classes: list[str]  # [K]; [] where it is not one of several classes
    values: np.ndarray  # int32 [N] in [0, K), or float64 [N], or [N, columns]
    known: np.ndarray  # [rows] bool, which rows have a target

    @property
    def label(self) -> np.ndarray:
        """[N] int to stratify by: the class, or the same for all."""
        return self.values if self.classes else np.zeros(len(self.values), int)

    def is_leak(self, values: Sequence[str]) -> bool:
        """Whether a column [N] says the same in other words, or in another unit."""
        if self.classes:
            pairs = set(zip(values, self.values.tolist(), strict=True))
            return len(pairs) == len(set(values)) == len(np.unique(self.values))
        if not all(map(is_number, values)):
            return False
        mine = np.array([float(value) for value in values])
        columns = self.values.reshape(len(mine), -1).T
        # what follows the target by a straight line to nine digits is the target
        return any(
            column.std() > 0 and abs(np.corrcoef(mine, column)[0, 1]) > 1 - 1e-9
            for column in columns
        )


def read(
    source: str,
    columns: Mapping[str, Sequence[str]],
    target: str | tuple[str, ...],
    task: str | None,
) -> Target:
    """What the target columns hold.

    One column holds classes, unless all its cells are numbers and some are not whole,
    or there are more than MOST_NUMBERED different ones: then it holds numbers to be
    predicted. Several columns hold labels that are there or not if all cells are 0 or
    1 (or true and false), and else numbers. `task` overrides the rule.

    Args:
        source: the file, for messages.
        columns: name -> cells [rows].
        target: names of columns.
        task: one of TASKS, or None.

    Raises:
        UserError: if the cells are not what they must be.

    >>> cells = {"n": ["1", "2"] * 3, "price": ["1.5", "2", "2.5", "3", "", "4"]}
    >>> read("t", cells, "n", None).classes, read("t", cells, "price", None).task
    (['1', '2'], 'regression')
    """
    names = (target,) if isinstance(target, str) else tuple(target)
    numbers = all(
        is_number(value) for name in names for v in columns[name] if (value := cell(v))
    )
    if not numbers and task == "regression":
        name, odd = next(
            (name, v)
            for name in names
            for v in columns[name]
            if cell(v) and not is_number(v)
        )
        raise UserError(
            f"'{odd}' in the target '{name}' of {source} is no number, which "
            "regression wants: mend it, or leave task out"
        )
    if isinstance(target, str):
        chosen = task or ("regression" if _is_real(columns[target]) else TASKS[0])
        if chosen == "classification":
            known = np.array([plain(value) != "" for value in columns[target]])
            texts = [plain(v) for v in columns[target] if plain(v)]
            classes, values = _classes(source, target, texts)
            return Target(names, chosen, classes, values, known)
    else:
        binary = all(_is_flag(v) for name in names for v in columns[name])
        chosen = task or ("classification" if binary else "regression")
        if (chosen == "classification" and not binary) or not (binary or numbers):
            raise UserError(
                f"the targets {', '.join(names)} of {source} are not all 0 or 1: give "
                "such columns for several labels, or columns of numbers"
            )
    known = np.array(
        [all(map(cell, row)) for row in zip(*(columns[n] for n in names), strict=True)]
    )
    kept = {n: [v for v, k in zip(columns[n], known, strict=True) if k] for n in names}
    values = np.array([[_value(v, n) for v in kept[n]] for n in names]).T  # [N, names]
    if len(values) < 3 or (values.std(0) == 0).any():
        raise UserError(
            f"the target {', '.join(names)} of {source} says the same in all of its "
            f"{len(values)} rows: choose another column"
        )
    values = values[:, 0] if isinstance(target, str) else values
    return Target(names, chosen, [], values, known)


def fit(target: Target, train: np.ndarray) -> dict[str, Any]:
    """What is to be known of the target, from the rows `train` [N] bool, as JSON."""
    said: list[dict[str, Any]] = [{"name": name} for name in target.names]
    if target.task == "regression":
        rows = target.values[train].reshape(int(train.sum()), -1)
        for column, values in zip(said, rows.T, strict=True):
            deviation = float(values.std())
            column["mean"] = float(values.mean())
            column["deviation"] = deviation if deviation > 0 else 1.0
    several = target.values.ndim == 2
    return {"task": target.task, "several": several, "columns": said}


def to_target(cells: str | Sequence[str], fitted: Mapping[str, Any]) -> np.ndarray:
    """What the target cells of one row say, as a model learns it: float32.

    Raises:
        UserError: if one is no number.
    """
    texts = [cells] if isinstance(cells, str) else list(cells)
    names = [column["name"] for column in fitted["columns"]]
    row = np.array([_value(text, n) for text, n in zip(texts, names, strict=True)])
    return standardised(row if fitted["several"] else row[0], fitted)


def _is_real(values: Sequence[str]) -> bool:
    """Numbers that are not whole, or many different ones."""
    present = {value for text in values if (value := cell(text))}
    if not present or not all(map(is_number, present)):
        return False
    whole = all(float(value).is_integer() for value in present)
    return not whole or len(present) > MOST_NUMBERED


def _is_flag(value: str) -> bool:
    text = cell(value)
    return text in ("", "True", "False") or (is_number(text) and float(text) in (0, 1))


def _value(text: str, name: str) -> float:
    value = cell(text)
    flags = {"True": 1.0, "False": 0.0}
    return flags[value] if value in flags else number(value, name)


def _classes(
    source: str, target: str, values: list[str]
) -> tuple[list[str], np.ndarray]:
    """The classes of the target, sorted, and the labels [N] int32."""
    counts = Counter(values)
    numeric = all(map(is_number, counts))
    or_numbers = ", or task='regression' to predict its numbers" if numeric else ""
    if len(counts) > MOST_CLASSES:
        raise UserError(
            f"the target '{target}' of {source} has {len(counts)} values, and at most "
            f"{MOST_CLASSES} classes are told apart: choose another column{or_numbers}"
        )
    if len(counts) < 2:
        raise UserError(
            f"the target '{target}' of {source} has {len(counts)} class"
            f"{'es' if len(counts) != 1 else ''}, wanted at least 2: choose another "
            "column"
        )
    rare = [value for value, count in counts.items() if count < 3]
    if rare:
        raise UserError(
            f"the class '{rare[0]}' of target '{target}' in {source} has "
            f"{counts[rare[0]]} rows, wanted at least 3, one for each split: remove or "
            f"join rare classes{or_numbers}"
        )
    classes = sorted(counts, key=lambda v: (float(v) if numeric else 0, v))
    place = {value: i for i, value in enumerate(classes)}
    return classes, np.array([place[value] for value in values], np.int32)
