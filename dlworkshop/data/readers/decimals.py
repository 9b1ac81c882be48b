"""Numbers in the cells of a table: their forms, and the decimal mark of each column."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dlworkshop.data.readers.cells import is_missing, plain
from dlworkshop.errors import UserError

NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
DECIMAL_COMMA = r"^([+-]?[0-9]+),([0-9]+([eE][+-]?[0-9]+)?)$"
CURRENCY = r"[$€£¥₹₽₩₺₴₫฿]|(?:USD|EUR|GBP|CHF|JPY|CNY|INR|CAD|AUD|SEK|NOK|DKK|PLN|BRL)"
SPACES = " '\u2019\u00a0\u202f"  # between thousands, with any decimal mark
UNIT = rf"(?:{CURRENCY}|%)?"
# What may be around the digits of a number; brackets are a minus.
BEFORE, AFTER = rf"^\(?[+-]?{UNIT}\s?\(?-?", rf"\)?\s?{UNIT}\)?$"
# A decimal comma, possibly with points or spaces between thousands; or two such points.
COMMA_NUMBER = (
    rf"{BEFORE}(?:[0-9]{{1,3}}(?:[.{SPACES}][0-9]{{3}})+,[0-9]+"
    rf"|[0-9]+,[0-9]+|[0-9]{{1,3}}(?:\.[0-9]{{3}}){{2,}}){AFTER}"
)
# Commas between thousands, and a point or a second comma.
POINT_NUMBER = r"^[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]+|,[0-9]{3})$"
COMMA_THOUSANDS = r"^[+-]?[1-9][0-9]{0,2},[0-9]{3}$"  # may be a decimal comma
POINT_THOUSANDS = r"^[+-]?[1-9][0-9]{0,2}\.[0-9]{3}$"  # may be a decimal point
# Points between thousands, where the decimal mark is a comma.
POINT_GROUPS = rf"{BEFORE}[1-9][0-9]{{0,2}}(?:\.[0-9]{{3}})+{AFTER}"


def is_number(text: str) -> bool:
    """Whether a text is a number; 1_000 is not, although Python accepts it.

    >>> is_number(" -1e3"), is_number("1_000"), is_number("inf")
    (True, False, False)
    """
    return re.match(NUMBER, text.strip()) is not None


def marks_of(
    path: Path,
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    delimiter: str,
    learnt: Mapping[str, str],
) -> tuple[str, ...]:
    """The decimal mark of each column.

    It is the one that the numbers of the column prove, or that of training, unless
    another column proves another one than in training; or that of other columns.

    Raises:
        UserError: if 1,234 or 1.234 may be a thousand or little more than one.
    """
    whole = [row for row in rows if len(row) == len(names)]
    seen = [_decimal(cells) for cells in zip(*whole, strict=True)]
    seen = seen or [_Decimal("")] * len(names)
    pairs = list(zip(names, seen, strict=True))
    proven = {each.mark for each in seen} - {""}
    is_comma = "," in proven and (delimiter == ";" or "." not in proven)
    is_learnt = all(each.mark in ("", learnt.get(n, each.mark)) for n, each in pairs)
    marks = []
    for name, each in pairs:
        unclear = each.point if is_comma else each.comma
        if each.mark:
            marks.append("," if each.mark == "," and is_comma else ".")
        elif is_learnt and name in learnt:
            marks.append(learnt[name])
        elif unclear and (is_comma or not (proven or delimiter == ",")):
            large, small = (re.sub("[.,]", mark, unclear) for mark in ("", "."))
            other = re.sub("[.,]", "," if is_comma else ".", unclear)
            raise UserError(
                f"'{unclear}' in {path} may be {large} or {small}: write {large}, or "
                f"{other} with a decimal {'comma' if is_comma else 'point'}"
            )
        else:
            marks.append("," if is_comma and not each.is_text else ".")
    return tuple(marks)


class _Decimal(NamedTuple):
    mark: str  # that the numbers of a column prove, or ""
    comma: str = ""  # a number whose comma may be a decimal mark, if there is one
    point: str = ""  # a number whose point may be one
    is_text: bool = False  # most cells are no numbers


def _decimal(cells: Sequence[str]) -> _Decimal:
    """What the numbers of a column say about their decimal mark."""
    present = [_bare(text) for text in cells if not is_missing(plain(text))]
    numbers = [t for t in present if is_numeric(t) or re.match(POINT_NUMBER, t)]
    if 2 * len(numbers) < len(present):
        return _Decimal("", is_text=True)
    comma, point = (
        next((text for text in numbers if re.match(form, text)), "")
        for form in (COMMA_THOUSANDS, POINT_THOUSANDS)
    )
    either = f"{COMMA_THOUSANDS}|{POINT_THOUSANDS}"
    clear = [t for t in numbers if re.search("[.,]", t) and not re.match(either, t)]
    mark = "," if any(map(_is_comma, clear)) else "." if clear else ""
    return _Decimal(mark, comma, point)


def _bare(text: str) -> str:
    """A cell without its unit and brackets."""
    around = rf"^\(?([+-]?){UNIT}\s?\(?|\)?\s?{UNIT}\)?$"
    return re.sub(around, r"\1", plain(text))


def with_point(text: str) -> str:
    """A number with its decimal comma replaced by a point, without unit."""
    if not _is_comma(text):
        return text
    return re.sub(f"[.{SPACES}]", "", _bare(text)).replace(",", ".")


def _is_comma(text: str) -> bool:
    """Whether a text is a number only if the comma is its decimal mark."""
    comma = re.match(DECIMAL_COMMA, text) or re.match(COMMA_NUMBER, text)
    return comma is not None


def is_numeric(text: str) -> bool:
    """Whether a text is a number with a decimal point or a decimal comma."""
    return is_number(text) or _is_comma(text)
