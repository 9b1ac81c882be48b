"""Encoding of the columns of a table as numbers, with statistics of train."""

import datetime
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dlworkshop.data.readers import cards
from dlworkshop.data.readers.cells import MISSING, cell, plain
from dlworkshop.data.readers.csv_file import coded
from dlworkshop.data.readers.dialect import NUMBER, ROW_NUMBERS, is_number
from dlworkshop.data.readers.written import (
    ODD_SHARE,
    are_numbers,
    have_units,
    number_in,
)
from dlworkshop.data.units import spread
from dlworkshop.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

MOST_VALUES = 50  # of a category; a column with more is free text
# Such as user_id, Row Index and CustomerId, not paid; pandas writes Unnamed: 0.
ID_NAME = re.compile(
    r"(?i:(^|[_\s])(id|idx|index|uuid|key))$|[a-z](Id|ID)$|^Unnamed: [0-9.]+$"
)
# How months begin in several languages.
MONTH = (
    r"(?:jan|ene|gen|feb|f[ée]v|m[aäe]r|a[pbv]r|ma[iyg]|mei|juin|ju[iln]|giu|lug|aug"
    r"|ago|ao[uû]|se[pt]|o[ckt]t|out|nov|de[czs]|d[ée]c|dic)[^\W\d_]*\.?"
)
# A date, also with a weekday or a time; or a month, or a time.
DATE = re.compile(
    rf"""(?:[^\W\d_]{{2,10}}\.?,?\s+)?(?:
    \d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}} | \d{{1,2}}[-/.]\d{{1,2}}[-/.]\d{{2,4}}
    | \d{{1,2}}(?:\.|st|nd|rd|th)?[-\s]*(?:de\s|of\s)?{MONTH}(?:\sde)?[-\s,]*\d{{2,4}}
    | \d{{4}}[-\s]{MONTH}[-\s]\d{{1,2}} | {MONTH}\s\d{{1,2}}(?:st|nd|rd|th)?,?\s\d{{4}}
    )(?:[T\s,].*)?
    | {MONTH}[-\s]\d{{4}} | (?:19|20)\d\d[-/](?:0?[1-9]|1[0-2])
    | \d{{1,2}}:\d{{2}}(?::\d{{2}}(?:[.,]\d+)?)?(?:\s?[ap]\.?m\.?)?
    """,
    re.IGNORECASE | re.VERBOSE,
)


class Column(NamedTuple):
    """The cells of a column: numbers, or categories."""

    numbers: np.ndarray | None  # float64 [N], NaN if missing; None for categories
    code: np.ndarray  # int32 [N], index in the words; -1 if missing
    words: tuple[str, ...]  # sorted; () for numbers
    odd: tuple[tuple[str, int], ...] = ()  # words that count as missing numbers
    padded: str = ""  # one of the numbers, if zeros make them equally long

    @property
    def present(self) -> np.ndarray:
        """[N] bool, True if a cell is not missing."""
        return self.code >= 0 if self.numbers is None else ~np.isnan(self.numbers)

    def rows(self, mask: np.ndarray) -> "Column":
        """The rows of a mask [N]."""
        numbers = None if self.numbers is None else self.numbers[mask]
        return self._replace(numbers=numbers, code=self.code[mask])

    def same(self) -> np.ndarray:
        """[N] int >= 0: equal for equal cells; missing cells are equal."""
        if self.numbers is None:
            return self.code + 1
        return np.unique(self.numbers, return_inverse=True)[1]


def read(values: "pa.ChunkedArray") -> Column:
    """A column of text [N] as numbers if `are_numbers`, else as categories.

    >>> import pyarrow as pa
    >>> column = read(pa.chunked_array([["1", "2.5", "#N/A", "1e3"]]))
    >>> column.numbers.tolist(), column.odd
    ([1.0, 2.5, nan, 1000.0], (('#N/A', 1),))
    >>> column = read(pa.chunked_array([["TRUE", "false", "true", "n/a"]]))
    >>> column.words, column.code.tolist()
    (('False', 'True'), [1, 0, 1, -1])
    """
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import compute  # noqa: PLC0415

    words, code = coded(values)
    count = np.bincount(code, minlength=len(words))
    missing = compute.match_substring_regex(words, f"^(?:{MISSING})$")
    missing = missing.to_numpy(zero_copy_only=False)
    written = compute.match_substring_regex(words, NUMBER)
    texts = compute.if_else(written, words, "nan")
    numbers = texts.cast(pa.float64()).to_numpy(zero_copy_only=False)
    numbers = np.where(np.isfinite(numbers), numbers, np.nan)  # 1e999 is infinite
    is_odd = np.isnan(numbers) & ~missing
    if are_numbers(numbers[~missing], count[~missing]):
        error = compute.match_substring_regex(words, "^(#|Err:)").to_numpy(False)
        named = is_odd | (missing & error)
        odd = [(words[int(i)].as_py(), int(count[i])) for i in np.flatnonzero(named)]
        padded = _padded(words.filter(pa.array(~missing)))
        no_code = np.zeros(len(code), np.int8)
        return Column(numbers[code], no_code, (), tuple(odd), padded)
    said = zip(words.to_pylist(), missing, strict=True)
    texts = ["" if not_there else plain(word) for word, not_there in said]
    names = sorted({text for text in texts if text})
    place = {name: i for i, name in enumerate(names)} | {"": -1}
    places = np.array([place[text] for text in texts], np.int32)
    return Column(None, places[code], tuple(names))


def _padded(words: "pa.Array") -> str:
    """A word that begins with 0, if all are equally many digits, as in postal codes.

    >>> import pyarrow as pa
    >>> _padded(pa.array(["90210", "02134"])), _padded(pa.array(["10", "02"]))
    ('02134', '')
    """
    from pyarrow import compute  # noqa: PLC0415

    zero = words.filter(compute.match_substring_regex(words, "^0[0-9]{3,}$"))
    if not len(zero):
        return ""
    first = zero[0].as_py()
    alike = compute.match_substring_regex(words, f"^[0-9]{{{len(first)}}}$")
    return first if compute.all(alike).as_py() else ""


def choose(
    columns: Mapping[str, Column], is_leak: Callable[[Column], bool], said: list[str]
) -> dict[str, Column]:
    """Choose the feature columns.

    Args:
        columns: all columns but the target and the groups.
        is_leak: whether a column determines the target.
        said: gets a sentence for each reason to drop columns.
    """
    features: dict[str, Column] = {}
    left_out: dict[str, list[str]] = {}
    for name, column in columns.items():
        why = _useless(name, column, is_leak)
        if why is None:
            features[name] = column
        else:
            left_out.setdefault(why, []).append(name)
    for why, names in left_out.items():
        were = "were" if len(names) > 1 else "was"
        said.append(f"{cards.quoted(names)} {were} left out: {why}.")
    for name, column in features.items():
        if column.odd:
            cells = [f"'{word}' ({count})" for word, count in column.odd]
            said.append(
                f"'{name}' is a column of numbers, and other cells count as missing: "
                f"{cards.some(cells, 5)}."
            )
        if column.padded:
            said.append(
                f"'{name}' is a column of numbers, although some begin with 0, such as "
                f"{column.padded}: if they are codes, put a letter before each."
            )
        said += cards.spelled_alike(name, column.words, "categories")
    return features


def _useless(
    name: str, column: Column, is_leak: Callable[[Column], bool]
) -> str | None:
    """The reason why a column cannot be a feature, or None."""
    present = column.present
    if column.numbers is None:
        distinct = len(column.words)
    else:
        distinct = len(np.unique(column.numbers[present]))
    marked = min(present.sum(), (~present).sum())  # rows that missing cells set apart
    if distinct < 2 and (distinct == 0 or marked < 2):
        return "always the same"
    if is_leak(column):
        return "a leak, which determines the target"
    if name == ROW_NUMBERS or _is_identifier(name, column, distinct):
        return "like an identifier, which names rows and does not describe them"
    if _are_dates(column):
        return "dates or times; give numbers instead, such as the days since another"
    if column.numbers is None and distinct > min(MOST_VALUES, present.sum() - 1):
        with_unit = f"numbers with a unit, such as '{column.words[0]}'; give them alone"
        text = f"text, more than {MOST_VALUES} different words"
        return with_unit if have_units(column.words) else text
    return None


def _is_identifier(name: str, column: Column, distinct: int) -> bool:
    """Whether all values differ, and are words, or whole numbers that are consecutive
    or named an id.
    """
    if distinct < column.present.sum():
        return False
    if column.numbers is None:
        return not _are_dates(column) and not have_units(column.words)
    numbers = column.numbers[column.present]
    if not (numbers == np.floor(numbers)).all():
        return False
    if ID_NAME.search(name):
        return not _are_dates(column)
    return numbers.max() - numbers.min() == len(numbers) - 1


def _are_dates(column: Column) -> bool:
    """Whether nearly all words are dates or times, or all numbers are like 20240131."""
    if column.numbers is not None:
        return all(map(_is_date, np.unique(column.numbers[column.present]).tolist()))
    dates = np.array([bool(DATE.fullmatch(word)) for word in column.words])
    known = column.code[column.code >= 0]
    return bool(len(dates)) and dates[known].mean() >= 1 - ODD_SHARE


def _is_date(number: float) -> bool:
    """Whether a number is a date in YYYYMMDD.

    >>> _is_date(20240229.0), _is_date(20230229.0), _is_date(2024.0)
    (True, False, False)
    """
    if not (number.is_integer() and 1900_00_00 < number < 2101_00_00):
        return False
    try:
        datetime.date(int(number) // 10000, int(number) // 100 % 100, int(number) % 100)
    except ValueError:
        return False
    return True


def fit(name: str, column: Column) -> dict[str, Any]:
    """Statistics of a column, from its cells in train.

    >>> fit("length", Column(np.array([1, 3, np.nan]), np.zeros(3), ()))
    {'name': 'length', 'mean': 2.0, 'deviation': 1.0, 'missing': True}
    >>> fit("island", Column(None, np.array([1, 0, 1]), ("Biscoe", "Dream", "Gough")))
    {'name': 'island', 'values': ['Biscoe', 'Dream'], 'missing': False}
    """
    present = column.present
    missing = not bool(present.all())
    if column.numbers is None:
        there = np.unique(column.code[present])
        values = [column.words[i] for i in there]
        return {"name": name, "values": values, "missing": missing}
    fitted = {"name": name, **spread(column.numbers[present]), "missing": missing}
    odd = [cell(word) for word, _ in column.odd if cell(word)]
    return fitted | ({"odd": odd} if odd else {})


def width(fitted: Mapping[str, Any]) -> int:
    """The number of inputs that encode a column."""
    return len(fitted.get("values", "1")) + fitted["missing"]


def encode(
    columns: Mapping[str, Column], preprocessing: Mapping[str, Any]
) -> np.ndarray:
    """Encode columns as vectors [N, D] float32; see `transform`."""
    fitted = preprocessing["columns"]
    size = len(columns[fitted[0]["name"]].code)
    vectors = np.zeros((size, sum(map(width, fitted))), np.float32)
    end = 0
    for each in fitted:
        column = columns[each["name"]]
        here = vectors[:, end : end + width(each)]
        end += width(each)
        if column.numbers is None:
            place = {word: i for i, word in enumerate(each["values"])}
            places = np.array([place.get(word, -1) for word in column.words] + [-1])
            at = places[column.code]
            here[at >= 0, at[at >= 0]] = 1
        else:
            scaled = (column.numbers - each["mean"]) / each["deviation"]
            here[:, 0] = np.nan_to_num(scaled)
        if each["missing"]:
            here[:, -1] = ~column.present
    return vectors


def transform(
    columns: Mapping[str, Sequence[str]], preprocessing: Mapping[str, Any]
) -> np.ndarray:
    """Encode cells [N] of columns as vectors [N, D] float32, with train's statistics.

    An unknown category is zero in all its columns, and a missing number is the mean.
    If train had missing values in a column, another column marks them with 1. A word
    that counted as a missing number when the columns were fitted still does.

    Raises:
        UserError: if a column is absent, or a cell of a number is not a number.

    >>> columns = [
    ...     {"name": "x", "mean": 2.0, "deviation": 1.0, "missing": True},
    ...     {"name": "y", "values": ["a", "b"], "missing": False},
    ... ]
    >>> preprocessing = {"columns": columns}
    >>> transform({"x": ["3", "NA"], "y": ["b", "c"]}, preprocessing).tolist()
    [[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]]
    """
    parsed = {}
    for fitted in preprocessing["columns"]:
        name = fitted["name"]
        if name not in columns:
            raise UserError(
                f"there is no column '{name}' (there are {cards.some(list(columns))}): "
                "give the columns the model was trained on"
            )
        values = [cell(value) for value in columns[name]]
        if "values" in fitted:
            words = tuple(dict.fromkeys(filter(None, values)))
            place = {word: i for i, word in enumerate(words)} | {"": -1}
            code = np.array([place[value] for value in values], np.int32)
            parsed[name] = Column(None, code, words)
        else:
            missing = {"", *fitted.get("odd", ())}
            numbers = [np.nan if v in missing else number(v, fitted) for v in values]
            code = np.zeros(len(values), np.int8)
            parsed[name] = Column(np.array(numbers, np.float64), code, ())
    return encode(parsed, preprocessing)


def unknown_cells(
    row: Mapping[str, str], preprocessing: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """The columns whose value does not occur in train, each with that value.

    It is an unknown category, or "" if the cell is empty and never was in train.

    >>> column = {"name": "y", "values": ["a", "b"], "missing": False}
    >>> unknown_cells({"y": "c"}, {"columns": [column]})
    [('y', 'c')]
    >>> unknown_cells({"y": "NA"}, {"columns": [column]})
    [('y', '')]
    """
    found = []
    for column in preprocessing["columns"]:
        word = cell(row.get(column["name"], ""))
        word = "" if word in column.get("odd", ()) else word
        strange = word not in column.get("values", [word])
        if strange if word else not column["missing"]:
            found.append((column["name"], word))
    return found


def number(value: str, column: Mapping[str, Any]) -> float:
    """The number in a cell, in the notation of train.

    Raises:
        UserError: if the cell is no finite number.
    """
    plain = value if is_number(value) else number_in(value, column)
    if not is_number(plain) or not math.isfinite(float(plain)):
        name = column["name"]
        raise UserError(f"'{value}' in column '{name}' is no finite number: fix it")
    return float(plain)


def equal_rows(columns: Mapping[str, Column]) -> np.ndarray:
    """A number per row [N]: equal for rows with equal cells."""
    codes = (column.same() for column in columns.values())
    found = np.unique(next(codes), return_inverse=True)[1]
    for same in codes:
        if found.max() + 1 == len(found):  # all rows differ already
            break
        pairs = found.astype(np.int64) * (int(same.max()) + 1) + same
        found = np.unique(pairs, return_inverse=True)[1]
    return found


def rows_of_card(
    preprocessing: Mapping[str, Any], columns: Mapping[str, Column]
) -> list[dict[str, Any]]:
    """Entries of the data card: kind and number of missing cells of each column."""
    rows = []
    for fitted in preprocessing["columns"]:
        column = columns[fitted["name"]]
        about = (
            f"{len(fitted['values'])} categor"
            f"{'y' if len(fitted['values']) == 1 else 'ies'}: "
            + ", ".join(fitted["values"][:6])
            + (" ..." if len(fitted["values"]) > 6 else "")
            if "values" in fitted
            else f"number{' in ' * ('unit' in fitted)}{fitted.get('unit', '')}, "
            f"{fitted['mean']:.4g} ± {fitted['deviation']:.4g} in train"
        )
        missing = int((~column.present).sum())
        rows.append({"name": fitted["name"], "about": about, "missing": missing})
    return rows
