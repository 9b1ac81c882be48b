"""Numbers with thousands separators, a unit or brackets: $1,234.50, 12 %, (3)."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dlworkshop.data.readers.cells import cell
from dlworkshop.data.readers.csv_file import coded
from dlworkshop.data.readers.decimals import CURRENCY, NUMBER, SPACES
from dlworkshop.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

ODD_SHARE = 0.05  # of the cells of a column of numbers may be no numbers, and missing
MOST_CODES = 30  # different whole numbers that may be codes of categories
MOST_ODD, LEAST_DIFFERENT = 3, 8  # words or values; see `are_numbers`
LOOKED_AT = 100  # texts that are checked before the whole column
WRITTEN = re.compile(
    rf"(?P<sign>[+-]?)(?P<before>{CURRENCY})?\s?(?P<minus>-?)"
    rf"(?P<whole>[1-9][0-9]{{0,2}}(?P<mark>[,{SPACES}])[0-9]{{3}}(?:(?P=mark)[0-9]{{3}})*"
    r"|[0-9]*)(?P<part>\.[0-9]*)?(?P<power>[eE][+-]?[0-9]+)?"
    rf"\s?(?P<after>{CURRENCY}|%)?"
)
# A number and a unit that is no currency, which stays text.
WITH_UNIT = re.compile(r"[+-]?[0-9][0-9.,]*\s?([^\W\d_]+[^\d]*)")
# A negative number, as accountants write it.
BRACKETS = re.compile(
    rf"(?P<before>{CURRENCY})?\s?\((?P<inside>[^()+-]+)\)\s?(?P<after>{CURRENCY}|%)?"
)


class Written(NamedTuple):
    """A parsed number of a cell."""

    plain: str  # digits without unit and thousands separators
    unit: str  # of a currency, or "%"; "" if there is none
    mark: str  # thousands separator; "" if there is none
    in_brackets: bool = False  # a negative number


def parse(text: str) -> Written | None:
    """The number in a cell with a decimal point; None if it is not a number.

    >>> parse("$1,234.50")[:3], parse("-12 %")[:2]
    (('1234.50', '$', ','), ('-12', '%'))
    >>> parse("1,23"), parse("$"), parse("3 kg")
    (None, None, None)
    >>> parse("$(1,234)")
    Written(plain='-1234', unit='$', mark=',', in_brackets=True)
    """
    negative = BRACKETS.fullmatch(text.strip())
    if negative:
        parts = negative["before"], negative["inside"].strip(), negative["after"]
        text = "-" + "".join(part or "" for part in parts)
    found = WRITTEN.fullmatch(text.strip())
    if not found or not re.search("[0-9]", found["whole"] + (found["part"] or "")):
        return None
    twice = ("before", "after"), ("sign", "minus")
    if any(found[one] and found[other] for one, other in twice):
        return None
    mark = found["mark"] or ""
    whole = found["whole"].replace(mark, "") if mark else found["whole"]
    number = f"{found['sign']}{found['minus']}{whole}{found['part'] or ''}"
    unit = found["before"] or found["after"] or ""
    return Written(number + (found["power"] or ""), unit, mark, bool(negative))


def are_numbers(values: np.ndarray, count: np.ndarray) -> bool:
    """Whether a column holds numbers; cells that are not are odd, and count as missing.

    At most ODD_SHARE of the cells may be odd. More may be if they are at most MOST_ODD
    words and the numbers look measured, or if one cell is odd and LEAST_DIFFERENT
    numbers differ.

    Args:
        values: [words] float, of the different words that are present; NaN if odd.
        count: [words] int, number of cells with each.

    >>> are_numbers(np.array([1.5, 2.0, np.nan]), np.array([5, 5, 3]))
    True
    >>> are_numbers(np.array([1, 2, 3, np.nan]), np.array([5, 5, 5, 3]))
    False
    """
    odd = np.isnan(values)
    num_odd = count[odd].sum()
    if num_odd <= ODD_SHARE * count.sum():
        return True
    numbers = np.unique(values[~odd])
    if num_odd == 1 and len(numbers) >= LEAST_DIFFERENT:
        return True
    measured = len(numbers) > MOST_CODES or bool((numbers % 1 != 0).any())
    few = odd.sum() <= MOST_ODD and 2 * num_odd <= count.sum()
    return bool(measured and few)


def as_plain(
    name: str, values: "pa.ChunkedArray"
) -> "tuple[pa.ChunkedArray, dict[str, str]]":
    """A column of text [N] with plain numbers, and their original notation.

    The notation has `unit` and `thousands` if the numbers have them, and `negative` if
    some are in brackets; it is {} if the numbers were plain, or the cells are no
    numbers; see `are_numbers`.

    Raises:
        UserError: if the numbers have several units, or only some have a "%".

    >>> import pyarrow as pa
    >>> column, how = as_plain("price", pa.chunked_array([["$1,200", "$3.5", "NA"]]))
    >>> column.to_pylist(), how
    (['1200', '3.5', 'NA'], {'unit': '$', 'thousands': ','})
    """
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import compute  # noqa: PLC0415

    words, code = coded(values)
    odd = words.filter(compute.invert(compute.match_substring_regex(words, NUMBER)))
    some = [text for text in odd[:LOOKED_AT].to_pylist() if cell(text)]
    if not some or 2 * sum(parse(text) is not None for text in some) < len(some):
        return values, {}  # early, because there may be very many texts
    texts = words.to_pylist()
    count = np.bincount(code, minlength=len(texts))
    present = np.array([bool(cell(text)) for text in texts], bool)
    found = [parse(text) for text in texts]
    numbers = np.array([float(each.plain) if each else np.nan for each in found])
    numbers[~np.isfinite(numbers)] = np.nan  # 1e999 is infinite
    if not are_numbers(numbers[present], count[present]):
        return values, {}
    pairs = [(t, w) for t, w in zip(texts, found, strict=True) if w and cell(t)]
    units = {written.unit: text for text, written in pairs}
    marks = {written.mark: text for text, written in pairs}
    named = sorted(set(units) - {""})
    if len(named) > 1 or ("%" in units and len(units) > 1):
        one, other = (units[unit] for unit in sorted(units, key=lambda u: u == "")[:2])
        raise UserError(
            f"'{one}' and '{other}' in column '{name}' have different units: convert "
            "all of its numbers to one unit, or remove the column"
        )
    how = {"unit": named[0]} if named else {}
    if mark := "".join(sorted(set(marks) - {""})):
        how["thousands"] = mark
    bracketed = {written.in_brackets for _, written in pairs}
    if bracketed == {True, False}:
        how["negative"] = "()"
    elif True in bracketed:  # all of them: a label such as (1)
        return values, {}
    if not how:
        return values, {}
    plain = pa.array([w.plain if w else t for t, w in zip(texts, found, strict=True)])
    return pa.chunked_array([plain.take(pa.array(code))]), how


def have_units(words: Sequence[str]) -> bool:
    """Whether nearly all words are a number and one of a few units, such as 5 kg.

    >>> have_units(["5 kg", "12.5kg"]), have_units(["5 kg", "Mr. 12"])
    (True, False)
    """
    found = [WITH_UNIT.fullmatch(word) for word in words]
    units = {each[1] for each in found if each}
    few = 0 < len(units) <= MOST_ODD
    return few and found.count(None) <= ODD_SHARE * len(words)


def number_in(text: str, column: Mapping[str, Any]) -> str:
    """The plain number in a cell of a column with `name` and a notation of `as_plain`.

    Raises:
        UserError: if the number has another unit.

    >>> number_in("$1,200", {"name": "price", "unit": "$", "thousands": ","})
    '1200'
    """
    found = parse(text)
    if found is None or (found.mark and found.mark not in column.get("thousands", "")):
        return text
    if found.in_brackets and "negative" not in column:
        return text
    if found.unit and found.unit != column.get("unit"):
        wanted = f"in {column['unit']}" if "unit" in column else "without a unit"
        raise UserError(
            f"'{text}' in column '{column['name']}' is in {found.unit}, and the "
            f"numbers of train are {wanted}: convert it"
        )
    return found.plain


def sentence(name: str, how: dict[str, str]) -> str:
    """The sentence about a notation in the data card.

    >>> sentence("price", {"unit": "$", "thousands": ","})
    "'price' is read as numbers in $, with ',' between thousands."
    """
    unit = f" in {how['unit']}" if "unit" in how else ""
    marks = ""
    if "thousands" in how:
        said = " or ".join(f"'{mark}'" for mark in how["thousands"])
        marks = f", with {said} between thousands"
    if "negative" in how:
        marks += ", negative ones in brackets"
    return f"'{name}' is read as numbers{unit}{marks}."
