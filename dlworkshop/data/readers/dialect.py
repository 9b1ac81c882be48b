"""Detection of a CSV file's dialect: delimiter, header, decimal mark.

csv.Sniffer, which pandas uses too, guesses from the frequency of characters; here the
regularity of the table decides.
"""

import codecs
import csv
import io
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dlworkshop.errors import UserError

DELIMITERS = ",;\t|"
HEAD_BYTES, HEAD_ROWS = 1 << 20, 1000  # from which the dialect is detected
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
DECIMAL_COMMA = r"^([+-]?[0-9]+),([0-9]+([eE][+-]?[0-9]+)?)$"
CURRENCY = r"[$€£¥₹₽₩₺₴₫฿]|(?:USD|EUR|GBP|CHF|JPY|CNY|INR|CAD|AUD|SEK|NOK|DKK|PLN|BRL)"
SPACES = " '\u2019\u00a0\u202f"  # between thousands, with any decimal mark
UNIT = rf"(?:{CURRENCY}|%)?"
# A decimal comma, possibly with points or spaces between thousands; or two such points.
COMMA_NUMBER = (
    rf"^[+-]?{UNIT}\s?-?(?:[0-9]{{1,3}}(?:[.{SPACES}][0-9]{{3}})+,[0-9]+"
    rf"|[0-9]+,[0-9]+|[0-9]{{1,3}}(?:\.[0-9]{{3}}){{2,}})\s?{UNIT}$"
)
# Commas between thousands, and a point or a second comma.
POINT_NUMBER = r"^[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]+|,[0-9]{3})$"
COMMA_THOUSANDS = r"^[+-]?[1-9][0-9]{0,2},[0-9]{3}$"  # may be a decimal comma
POINT_THOUSANDS = r"^[+-]?[1-9][0-9]{0,2}\.[0-9]{3}$"  # may be a decimal point
ROW_NUMBERS = "unnamed: 0"  # name of a first column without a name


class Dialect(NamedTuple):
    """The dialect of a CSV file."""

    delimiter: str
    skip: int  # lines above the first row, including the header
    names: tuple[str, ...]  # of the columns
    decimal: str  # "." or ","
    encoding: str
    notes: tuple[str, ...]  # for the data card


class _Line(NamedTuple):
    end: int  # number of lines of the file up to its end
    cells: list[str]


def understand(path: Path, head: bytes) -> Dialect:
    """Detect the dialect of a file from its first megabyte.

    The delimiter is the one that gives most lines the same number of cells. Lines above
    the first such line are not part of the table. The table has no header if its first
    row has a number in a column of numbers, except for consecutive ones, such as years.

    Raises:
        UserError: if the file is no text, or two columns have the same name.

    >>> found = understand(Path("t"), b"sep=;\\nx;y\\n1,5;a\\n2,5;b\\n")
    >>> found.delimiter, found.skip, found.names, found.decimal
    (';', 2, ('x', 'y'), ',')
    """
    text, encoding = _decoded(path, head)
    lines = list(io.StringIO(text, newline=None))
    if len(head) == HEAD_BYTES and len(lines) > 1:
        lines = lines[:-1]  # the last one is cut in two
    said = re.fullmatch(r"sep=(.)\n?", lines[0]) if lines else None
    lines = lines[bool(said) : HEAD_ROWS]
    delimiter = (
        said[1] if said else max(DELIMITERS, key=lambda each: _regularity(lines, each))
    )
    found = _split(lines, delimiter)
    width = max(_widths(found).items(), key=lambda item: item[1], default=(0, 0))[0]
    start = next((i for i, each in enumerate(found) if len(each.cells) == width), 0)
    above, rows = found[:start], [each.cells for each in found[start:]]
    notes: list[str] = []
    names, above = _short_header(above, rows, width)
    if names is None and rows and not _has_header(rows):
        names = [f"column {i + 1}" for i in range(width)]
        notes.append(
            "The file has no header (its first row has numbers, like the rows below): "
            "its columns are called column 1, column 2, and so on."
        )
    elif names is None and rows:
        names, rows, start = rows[0], rows[1:], start + 1
    if above:
        text = "; ".join(delimiter.join(each.cells).strip() for each in above[:3])
        notes.append(f"Lines above the table were skipped: {text[:200]}")
    decimal = _decimal(path, rows, delimiter)
    if decimal == ",":
        notes.append("Numbers have a decimal comma.")
    skip = (found[start - 1].end if start else 0) + bool(said)
    return Dialect(
        delimiter, skip, _checked(path, names or []), decimal, encoding, tuple(notes)
    )


def is_number(text: str) -> bool:
    """Whether a text is a number; 1_000 is not, although Python accepts it.

    >>> is_number(" -1e3"), is_number("1_000"), is_number("inf")
    (True, False, False)
    """
    return re.match(NUMBER, text.strip()) is not None


def not_text(path: Path) -> UserError:
    return UserError(f"{path} is not UTF-8 text: save it as CSV in UTF-8")


def _decoded(path: Path, head: bytes) -> tuple[str, str]:
    """The text of a head, which may end within a character, and its encoding."""
    wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "utf-16" if wide else "utf-8"
    decoder = codecs.getincrementaldecoder("utf-16" if wide else "utf-8-sig")()
    try:
        text = decoder.decode(head, final=len(head) < HEAD_BYTES)
    except UnicodeDecodeError:
        raise not_text(path) from None
    if "\0" in text:
        raise UserError(f"{path} is not text: give a table as CSV in UTF-8")
    return text, encoding


def _split(lines: Sequence[str], delimiter: str) -> list[_Line]:
    reader = csv.reader(lines, delimiter=delimiter)
    try:
        return [_Line(reader.line_num, cells) for cells in reader if cells]
    except csv.Error:  # a cell is too long for the csv module
        return []


def _widths(found: Sequence[_Line]) -> Counter[int]:
    return Counter(len(each.cells) for each in found)


def _regularity(lines: Sequence[str], delimiter: str) -> tuple[float, int]:
    """The share of lines with the most frequent number of cells, and that number."""
    widths = _widths(_split(lines, delimiter))
    [(width, count)] = widths.most_common(1) or [(0, 0)]
    return (count / widths.total(), width) if width > 1 else (0.0, 0)


def _short_header(
    above: list[_Line], rows: Sequence[Sequence[str]], width: int
) -> tuple[list[str] | None, list[_Line]]:
    """A header with one cell less than the rows, and the lines above it.

    R writes row names without a header, and some programs end each row with a
    delimiter.
    """
    short = above and len(above[-1].cells) == width - 1 > 1 and not _has_header(rows)
    if not short:
        return None, above
    names, ends = above[-1].cells, all(not row[-1].strip() for row in rows)
    return ([*names, f"unnamed: {width - 1}"] if ends else ["", *names]), above[:-1]


def _has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row holds column names."""
    first, numbered = rows[0], []
    for i, name in enumerate(first):
        below = [row[i].strip() for row in rows[1:] if len(row) == len(first)]
        some = [text for text in below if _is_numeric(text)]
        if not some or len(some) < 0.9 * sum(map(bool, below)):
            continue
        if name.strip() and not _is_numeric(name):
            return True  # a word above numbers
        if name.strip():
            numbered.append(_with_point(name.strip()))
    steps = {float(b) - float(a) for a, b in itertools.pairwise(numbered)}
    return not numbered or (len(numbered) > 1 and steps == {1.0})


def _decimal(path: Path, rows: Sequence[Sequence[str]], delimiter: str) -> str:
    """The decimal mark: a comma if the numbers of a column prove it, else a point.

    Raises:
        UserError: if 1,234 or 1.234 may be a thousand or little more than one.
    """
    commas = points = False  # whether a number proves a decimal comma, or the opposite
    either: dict[str, list[str]] = {",": [], ".": []}  # by column, ambiguous numbers
    for column in zip(*(row for row in rows if len(row) == len(rows[0])), strict=True):
        present = [_bare(cell) for cell in column if cell.strip()]
        numbers = [t for t in present if _is_numeric(t) or re.match(POINT_NUMBER, t)]
        if len(numbers) < 0.9 * len(present):
            continue
        for sign, weak in ((",", COMMA_THOUSANDS), (".", POINT_THOUSANDS)):
            signed = [t for t in numbers if sign in t]
            strong = [t for t in signed if not re.match(weak, t)]
            if signed and not strong:
                either[sign].append(signed[0])
            commas |= any(_is_comma(t) for t in strong)
            points |= any(not _is_comma(t) for t in strong)
    is_comma = commas and (delimiter == ";" or not points)
    unclear = either["."] if is_comma else either[","]
    if unclear and (is_comma or not (points or delimiter == ",")):
        one = unclear[0]
        wanted = re.sub("[.,]", "", one), re.sub("[.,]", ".", one)
        raise UserError(
            f"'{one}' in {path} may be {wanted[0]} or {wanted[1]}: write the number "
            "without a thousands separator"
        )
    return "," if is_comma else "."


def _bare(text: str) -> str:
    """A cell without its unit."""
    return re.sub(rf"^([+-]?){UNIT}\s?|\s?{UNIT}$", r"\1", text.strip())


def _with_point(text: str) -> str:
    """A number with its decimal comma replaced by a point."""
    return (
        re.sub(f"[.{SPACES}]", "", text).replace(",", ".") if _is_comma(text) else text
    )


def _is_comma(text: str) -> bool:
    """Whether a text is a number only if the comma is its decimal mark."""
    comma = re.match(DECIMAL_COMMA, text) or re.match(COMMA_NUMBER, text)
    return comma is not None


def _is_numeric(text: str) -> bool:
    """Whether a text is a number with a decimal point or a decimal comma."""
    return is_number(text) or _is_comma(text)


def _checked(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Column names, checked to be unique; the first may be missing."""
    names = [unicodedata.normalize("NFC", name.strip()) for name in names]
    if len(names) > 1 and not names[0]:
        names[0] = ROW_NUMBERS
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or "" in names:
        what = f"two columns '{twice[0]}'" if twice else "a column without a name"
        raise UserError(f"{path} has {what}: give each column a different name")
    return tuple(names)
