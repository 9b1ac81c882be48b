"""Encoding of the columns of a table as numbers, with statistics of train."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dlworkshop.data.readers import cards
from dlworkshop.data.readers.cells import MISSING, cell, plain
from dlworkshop.data.readers.csv_file import coded
from dlworkshop.data.readers.decimals import NUMBER, is_number
from dlworkshop.data.readers.written import are_numbers, number_in
from dlworkshop.data.units import spread
from dlworkshop.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa


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
    names = tuple(sorted(set(texts) - {""}))
    return Column(None, _places(texts, names)[code], names)


def _places(words: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """The index of each word in the known ones: int32 [words]; -1 for others."""
    place = {word: i for i, word in enumerate(known)}
    return np.array([place.get(word, -1) for word in words], np.int32)


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
            at = _places([*column.words, ""], each["values"])[column.code]
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
            parsed[name] = Column(None, _places(values, words), words)
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
        missing = int((~columns[fitted["name"]].present).sum())
        if "values" in fitted:
            values, more = fitted["values"], " ..." * (len(fitted["values"]) > 6)
            noun = "category" if len(values) == 1 else "categories"
            about = f"{len(values)} {noun}: {', '.join(values[:6])}{more}"
        else:
            unit = f" in {fitted['unit']}" if "unit" in fitted else ""
            spread = f"{fitted['mean']:.4g} ± {fitted['deviation']:.4g}"
            about = f"number{unit}, {spread} in train"
        rows.append({"name": fitted["name"], "about": about, "missing": missing})
    return rows
