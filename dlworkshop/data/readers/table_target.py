"""The target of a table: its cells decide on classes, numbers, or several labels."""

import decimal
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dlworkshop.data.readers import cards
from dlworkshop.data.readers.cells import cell, plain
from dlworkshop.data.readers.columns import Column, number
from dlworkshop.data.readers.csv_file import coded
from dlworkshop.data.readers.decimals import is_number
from dlworkshop.data.readers.written import ODD_SHARE, have_units
from dlworkshop.data.units import spread, standardised
from dlworkshop.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

TASKS = ("classification", "regression")
RECUR = 2  # rows of a class on average, at least; fewer are texts or identifiers
LEAST = 3  # rows with a number to predict, or with a class: one for each split
MOST_NUMBERED = 30  # different integers that can be classes
TOTAL = 1e-3  # of the largest target, by which a total may differ, as it is rounded
AS_NUMBERS = "give --task regression (task='regression') to predict its numbers"


class Target(NamedTuple):
    """The targets of the rows that have one; numbers are not standardised yet."""

    names: tuple[str, ...]  # of the columns
    task: str  # one of TASKS
    classes: list[str]  # [K]; [] for numbers or several labels
    values: np.ndarray  # int32 [N] in [0, K), or float64 [N], or [N, columns]
    known: np.ndarray  # [rows] bool, which rows have a target
    said: tuple[str, ...] = ()  # for the data card

    @property
    def label(self) -> np.ndarray:
        """[N] int to stratify by: the class, or 0 for all."""
        return self.values if self.classes else np.zeros(len(self.values), int)

    def is_leak(self, column: Column) -> bool:
        """Whether a column [N] determines the target, by other names or units.

        Missing cells may be a value of their own, or, up to half of the rows, hide it.
        """
        there = column.present
        return self._is_same(column, self.values) or (
            2 * there.sum() > len(there)
            and self._is_same(column.rows(there), self.values[there])
        )

    def _is_same(self, column: Column, values: np.ndarray) -> bool:
        """Whether the cells [n] of some rows are their targets in other words."""
        if self.classes:
            same, num_classes = column.same(), len(np.unique(self.values))
            if len(np.unique(same)) != num_classes:
                return False
            pairs = np.unique(same * len(self.classes) + values)
            return len(pairs) == num_classes == len(np.unique(values))
        if column.numbers is None or not column.present.all():
            return False
        # a column that is a linear function of the target, to nine digits, is a leak
        return any(
            column.numbers.std() > 0
            and target.std() > 0
            and abs(np.corrcoef(column.numbers, target)[0, 1]) > 1 - 1e-9
            for target in values.reshape(len(values), -1).T
        )


class _Cells(NamedTuple):
    """A target column: its distinct texts, and where they occur."""

    words: list[str]  # distinct results of `plain`
    code: np.ndarray  # int [rows], index in the words
    rows: np.ndarray  # int [words], number of rows with each

    @property
    def present(self) -> list[str]:
        """The words that are not missing values, in a column of numbers."""
        return [word for word in self.words if cell(word)]

    def known(self, is_class: bool) -> np.ndarray:
        """[rows] bool: not empty, and for numbers not a missing-value mark."""
        said = [bool(word if is_class else cell(word)) for word in self.words]
        return np.array(said, bool)[self.code]

    def numbers(self, name: str) -> np.ndarray:
        """[rows] float64, NaN for a missing value; `name` is that of the column."""
        column = {"name": name}
        said = [_value(word, column) if cell(word) else np.nan for word in self.words]
        return np.array(said)[self.code]


def _cells(values: "pa.ChunkedArray") -> _Cells:
    found, code = coded(values)
    texts = [plain(word) for word in found.to_pylist()]
    words, place = np.unique(np.array(texts, object), return_inverse=True)
    code = place[code]
    return _Cells(words.tolist(), code, np.bincount(code, minlength=len(words)))


def read(
    source: str,
    columns: "Mapping[str, pa.ChunkedArray]",
    names: tuple[str, ...],
    task: str | None,
) -> Target:
    """Read the target columns.

    One column holds classes, unless all its cells are numbers and some are not
    integers, or more than MOST_NUMBERED differ: then it holds numbers to predict.
    Several columns hold labels (present or not) if all cells are 0 or 1 (or true and
    false), else numbers. `task` overrides the rule.

    Args:
        source: the file, for messages.
        columns: name -> cells [rows].
        names: of the target columns.
        task: as in `data.load`.

    Raises:
        UserError: if the cells do not allow the task.

    >>> import pyarrow as pa
    >>> cells = {"n": ["1", "2"] * 3, "price": ["1.5", "2", "2.5", "3", "", "4"]}
    >>> cells = {name: pa.chunked_array([column]) for name, column in cells.items()}
    >>> read("t", cells, ("n",), None).classes, read("t", cells, ("price",), None).task
    (['1', '2'], 'regression')
    """
    cells = {name: _cells(columns[name]) for name in names}
    target, alone = names[0], len(names) == 1
    odd = [
        (name, word)
        for name, own in cells.items()
        for word in own.present
        if not is_number(word)
    ]
    if odd and task == "regression":
        raise UserError(
            f"'{odd[0][1]}' in the target '{odd[0][0]}' of {source} is no number, "
            "which regression needs: fix it, or leave task out"
        )
    if alone:
        if odd and task is None:
            _check_slip(source, target, cells[target])
        chosen = task or ("regression" if _is_real(cells[target]) else TASKS[0])
        if chosen == "classification":
            known = cells[target].known(is_class=True)
            classes, label, said = _classes(source, target, cells[target])
            return Target(names, chosen, classes, label[known], known, tuple(said))
    else:
        binary = all(_is_flag(word) for own in cells.values() for word in own.words)
        chosen = task or ("classification" if binary else "regression")
        if not binary and (odd or chosen == "classification"):
            raise UserError(
                f"the targets {', '.join(names)} of {source} are not all 0 or 1: give "
                "such columns for several labels, or columns of numbers"
            )
    known = np.all([own.known(is_class=False) for own in cells.values()], axis=0)
    rows = np.stack(
        [own.numbers(n)[known] for n, own in cells.items()], 1
    )  # [N, names]
    if len(rows) < LEAST:
        raise UserError(
            f"{source} has {len(rows)} row{'s' * (len(rows) != 1)} with a target "
            f"{', '.join(names)}: wanted at least {LEAST}, one for each split"
        )
    # exact, unlike a deviation, which is not 0 for equal numbers such as 0.1
    if same := [
        n for n, column in zip(names, rows.T, strict=True) if not np.ptp(column)
    ]:
        raise UserError(
            f"the target '{same[0]}' of {source} is the same in all of its "
            f"{len(rows)} rows: choose another column"
        )
    notes: list[str] = []
    if alone:
        rows = rows[:, 0]
        largest = rows.max()
        if np.isclose(rows.sum() - largest, largest, TOTAL, 0):
            notes.append(
                f"The largest '{target}' is the sum of all others: remove its row if "
                "it is a total."
            )
        if task is None and _may_be_classes(rows):
            notes.append(
                f"'{target}' has {len(np.unique(rows))} different whole numbers, which "
                "are predicted as numbers; --task classification "
                "(task='classification') takes them for classes."
            )
    return Target(names, chosen, [], rows, known, tuple(notes))


def fit(target: Target, train: np.ndarray) -> dict[str, Any]:
    """Statistics of the target over the rows `train` [N] bool, as JSON."""
    said: list[dict[str, Any]] = [{"name": name} for name in target.names]
    if target.task == "regression":
        rows = target.values[train].reshape(int(train.sum()), -1)
        for column, values in zip(said, rows.T, strict=True):
            column.update(spread(values))
    several = target.values.ndim == 2
    return {"task": target.task, "several": several, "columns": said}


def to_target(cells: str | Sequence[str], fitted: Mapping[str, Any]) -> np.ndarray:
    """The target of one row, standardised as in training: float32.

    Raises:
        UserError: if a cell is no number.
    """
    texts = [cells] if isinstance(cells, str) else list(cells)
    columns = fitted["columns"]
    row = np.array([_value(text, c) for text, c in zip(texts, columns, strict=True)])
    return standardised(row if fitted["several"] else row[0], fitted)


def values(words: Sequence[str]) -> list[Hashable]:
    """The value of each word of a target: the number, if only numbers are among them.

    >>> values(["1", "01", "1.0"]) == [1, 1, 1], values(["1", "01", "x"])
    (True, ['1', '01', 'x'])
    """
    if not all(is_number(word) or not cell(word) for word in words):
        return list(words)
    return [_exact(word) if is_number(word) else word for word in words]


def _exact(word: str) -> Hashable:
    """A number, which is rounded by no float; or the word, if its exponent is huge."""
    try:
        return decimal.Decimal(word)
    except decimal.InvalidOperation:
        return word


def _is_real(cells: _Cells) -> bool:
    """Whether all cells are numbers, not all integers or with many distinct values."""
    present = cells.present
    if not present or not all(map(is_number, present)):
        return False
    numbers = set(map(float, present))
    whole = all(number.is_integer() for number in numbers)
    return not whole or len(numbers) > MOST_NUMBERED


def _may_be_classes(rows: np.ndarray) -> bool:
    """Whether numbers [N] are whole and each has a row for every split."""
    return bool((rows % 1 == 0).all() and np.unique_counts(rows).counts.min() >= LEAST)


def _check_slip(source: str, target: str, cells: _Cells) -> None:
    """Reject a stray word among real numbers, which would make them classes."""
    is_odd = np.array([bool(cell(w)) and not is_number(w) for w in cells.words])
    others = [w for w, odd in zip(cells.words, is_odd, strict=True) if not odd]
    numbers = cells._replace(words=others)
    if cells.rows[is_odd].sum() <= ODD_SHARE * cells.rows.sum() and _is_real(numbers):
        word = cells.words[int(is_odd.argmax())]
        raise UserError(
            f"'{word}' in the target '{target}' of {source} is no number, and nearly "
            "all others are: fix or empty it, or give --task classification "
            "(task='classification')"
        )


def _is_flag(value: str) -> bool:
    text = cell(value)
    return text in ("", "True", "False") or (is_number(text) and float(text) in (0, 1))


def _value(text: str, column: Mapping[str, Any]) -> float:
    value = cell(text)
    flags = {"True": 1.0, "False": 0.0}
    return flags[value] if value in flags else number(value, column)


def _classes(
    source: str, target: str, cells: _Cells
) -> tuple[list[str], np.ndarray, list[str]]:
    """The classes of the target, sorted; the labels int32 [rows], -1 for none; and
    sentences about numbers in several spellings, of which the shortest is the name.
    """
    words = [word for word in cells.words if word]
    spelled: dict[Hashable, list[str]] = {}
    for word, value in zip(words, values(words), strict=True):
        spelled.setdefault(value, []).append(word)
    named = {min(each, key=lambda w: (len(w), w)): each for each in spelled.values()}
    numeric = all(map(is_number, named))
    or_numbers = f", or {AS_NUMBERS}" if numeric else ""
    rows = int(cells.rows[[bool(word) for word in cells.words]].sum())
    if len(named) > max(2, rows // RECUR):
        if have_units(words):
            raise UserError(
                f"the target '{target}' of {source} has numbers with a unit, such as "
                f"'{words[0]}': give the numbers alone"
            )
        raise UserError(
            f"the target '{target}' of {source} has {len(named)} different values in "
            f"{rows} rows, like an identifier or free text, and classes have to recur: "
            f"choose another column{or_numbers}"
        )
    if len(named) < 2:
        raise UserError(
            f"the target '{target}' of {source} has {len(named)} class"
            f"{'es' if len(named) != 1 else ''}, wanted at least 2: choose another "
            "column"
        )
    classes = sorted(named, key=lambda v: (float(v) if numeric else 0, v))
    place = {word: i for i, name in enumerate(classes) for word in named[name]}
    places = np.array([place.get(word, -1) for word in cells.words], np.int32)
    said = [
        f"{cards.quoted(named[name])} in '{target}' are one number, so the class "
        f"'{name}'."
        for name in classes
        if len(named[name]) > 1
    ]
    marks = [name for name in classes if not cell(name)]
    numbers = [name for name in classes if name not in marks]
    if marks and numbers and all(map(is_number, numbers)):
        said.append(
            f"{cards.quoted(marks)} beside numbers in '{target}' counts as a class: "
            "empty such cells if their class is not known."
        )
    said += cards.spelled_alike(target, classes, "classes")
    return classes, places[cells.code], said
