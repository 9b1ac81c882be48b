"""Detection of a CSV file's dialect: delimiter and header.

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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dlworkshop.data.readers import decimals
from dlworkshop.data.readers.cells import is_missing, plain
from dlworkshop.errors import UserError

DELIMITERS = ",;\t|"
HEAD_BYTES, HEAD_ROWS = 1 << 20, 1000  # from which the dialect is detected
MOST_TITLES = 20  # rows from the first, within which a blank line may end the title
ROW_NUMBERS = "unnamed: 0"  # name of a first column without a name


class Dialect(NamedTuple):
    """The dialect of a CSV file."""

    delimiter: str
    skip: int  # lines above the first row, including the header
    above: int  # rows above it; a row of cells with line breaks has several lines
    names: tuple[str, ...]  # of the columns
    decimals: tuple[str, ...]  # the mark of each column, "." or ","
    encoding: str
    notes: tuple[str, ...]  # for the data card


class _Line(NamedTuple):
    end: int  # number of lines of the file up to its end
    row: int  # number of rows up to it, also empty ones
    cells: list[str]
    after_blank: bool  # whether a line without text is above it


def understand(path: Path, head: bytes, learnt: Mapping[str, str]) -> Dialect:
    """Detect the dialect of a file from its first megabyte.

    The delimiter is the one that gives most lines the same number of cells. Lines above
    the first such line are not part of the table; nor are comments and a title above a
    blank line. The table has no header if its first row has a number in a column of
    numbers, except for consecutive ones, such as years, or if it has words only, which
    all occur again in their columns.

    Args:
        path: of the file, for messages.
        head: its first bytes.
        learnt: column -> decimal mark in training; it decides where the numbers of the
            file do not.

    Raises:
        UserError: if the file is no text, its columns are separated by blanks, two
            columns have the same name, or numbers are ambiguous.

    >>> found = understand(Path("t"), b"sep=;\\nx;y\\n1,5;a\\n2,5;b\\n", {})
    >>> found.delimiter, found.skip, found.names, found.decimals
    (';', 2, ('x', 'y'), (',', '.'))
    """
    text, encoding = _decoded(path, head)
    lines = list(io.StringIO(text, newline=None))
    if len(head) == HEAD_BYTES and len(lines) > 1:
        lines = lines[:-1]  # the last one is cut in two
    said = re.fullmatch(r"sep=(.)\n?", lines[0]) if lines else None
    lines = lines[bool(said) : HEAD_ROWS]
    comment = next((i for i, line in enumerate(lines) if not line.startswith("#")), 0)
    table = lines[comment:]
    usual = "\t" if path.suffix.lower() == ".tsv" else ","  # of two that fit alike
    delimiter = (
        said[1]
        if said
        else max(DELIMITERS, key=lambda each: (_regularity(table, each), each == usual))
    )
    found, widths = _split(lines, delimiter), _widths(_split(table, delimiter))
    if not found and any(map(str.strip, lines)):
        raise UserError(
            f"{path} has a cell of more than {csv.field_size_limit():,} characters: "
            "close the quote that opens it, or leave that column out"
        )
    width = max(widths.items(), key=lambda item: item[1], default=(0, 0))[0]
    start = _start(found, width)
    _refuse_blanks(path, [each.cells[0] for each in found[start:]])
    above, rows = found[:start], [each.cells for each in found[start:]]
    notes: list[str] = []
    names, above = _other_header(above, rows, width)
    if names is None and rows and not _has_header(rows):
        names = [f"column {i + 1}" for i in range(width)]
        notes.append(
            "The file has no header (its first row is like those below): its columns "
            "are called column 1, column 2, and so on."
        )
    elif names is None and rows:
        names, rows, start = rows[0], rows[1:], start + 1
    elif names and not names[0] and len(names) > len(found[start - 1].cells):
        notes.append(
            "The header has a cell less than the rows, whose first cell was taken for "
            "a name of the row."
        )
    if above:
        text = "; ".join(delimiter.join(each.cells).strip() for each in above[:3])
        notes.append(f"Lines above the table were skipped: {text[:200]}")
    columns = _checked(path, names or [], rows)
    marks = decimals.marks_of(path, columns, rows, delimiter, learnt)
    if "," in marks:
        notes.append("Numbers have a decimal comma.")
    skip, number = found[start - 1][:2] if start else (0, 0)
    skip, number = skip + bool(said), number + bool(said)
    return Dialect(delimiter, skip, number, columns, marks, encoding, tuple(notes))


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
    found, blank = [], False
    try:
        for row, cells in enumerate(reader, 1):
            if is_text := any(map(str.strip, cells)):
                found.append(_Line(reader.line_num, row, cells, blank))
            blank = not is_text
    except csv.Error:  # a cell is too long for the csv module
        return []
    return found


def _start(found: Sequence[_Line], width: int) -> int:
    """The place of the first line of the table.

    It is the first of the usual width. Comments and a title may have that width too;
    they are above a header, which has a word above numbers, and are no table.
    """
    first = next((i for i, each in enumerate(found) if len(each.cells) == width), 0)
    comments = itertools.takewhile(lambda each: each.cells[0].startswith("#"), found)
    number = len(list(comments))
    places = {number, number - 1}  # the last may be a header, such as #x
    places |= {i for i, each in enumerate(found[:MOST_TITLES]) if each.after_blank}
    for i in sorted(places, reverse=True):
        if first < i < len(found) and len(found[i].cells) == width:
            above, rows = ([e.cells for e in p] for p in (found[first:i], found[i:]))
            if _are_below_words(rows) and (i <= number or not _are_below_words(above)):
                return i
    return first


def _refuse_blanks(path: Path, first: Sequence[str]) -> None:
    """Refuse a table whose first cells, with that of a header, are rows of numbers.

    A column of numbers with blanks between them, such as pixels, has another header;
    groups of three digits are a single number.
    """
    split = [cell.split() for cell in first]
    rows = [
        parts
        for parts in split[1:]
        if len(parts) == len(split[0])
        and all(decimals.is_number(part) or is_missing(part) for part in parts)
        and not all(len(part) == 3 for part in parts[1:])
    ]
    if split and len(split[0]) > 2 and rows and len(rows) >= 0.9 * len(split[1:]):
        raise UserError(
            f"{path} separates columns by blanks ('{first[-1][:40]}'): write it with "
            "commas, for example with pandas.read_csv(file, sep=r'\\s+', "
            "header=None).to_csv('table.csv', index=False), without header=None if its "
            "first row has the names"
        )


def _widths(found: Sequence[_Line]) -> Counter[int]:
    return Counter(len(each.cells) for each in found)


def _regularity(lines: Sequence[str], delimiter: str) -> tuple[float, int]:
    """The share of lines with the most frequent number of cells, and that number."""
    widths = _widths(_split(lines, delimiter))
    [(width, count)] = widths.most_common(1) or [(0, 0)]
    return (count / widths.total(), width) if width > 1 else (0.0, 0)


def _other_header(
    above: list[_Line], rows: Sequence[Sequence[str]], width: int
) -> tuple[list[str] | None, list[_Line]]:
    """A header with a cell less than the rows, or an empty one more; the lines above.

    R writes row names without a header, and some programs end each row, or the header
    alone, with a delimiter.
    """
    names = above[-1].cells if above else []
    more = len(names) == width + 1 and not names[-1].strip()
    less = len(names) == width - 1 > 1
    if not (more or less) or _has_header(rows):
        return None, above
    if more:
        return names[:-1], above[:-1]
    ends = all(not row[-1].strip() for row in rows)
    return ([*names, f"unnamed: {width - 1}"] if ends else ["", *names]), above[:-1]


def _has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row holds column names.

    Words that all occur again below, each in its own column, are no names.
    """
    found = _are_below_words(rows)
    if found is not None or any(map(decimals.is_numeric, rows[0])):
        return found is not False
    whole = [row for row in rows[1:] if len(row) == len(rows[0])]
    below = [set(column) for column in zip(*whole, strict=True)]
    again = [name in own for name, own in zip(rows[0], below, strict=bool(below))]
    return not (again and all(again))


def _are_below_words(rows: Sequence[Sequence[str]]) -> bool | None:
    """Whether the first row has a word above numbers.

    It is False if there are only numbers above numbers, and None if there are none, or
    consecutive ones, such as years, which may be column names.
    """
    first, numbered = rows[0], []
    for i, name in enumerate(map(plain, first)):
        below = [plain(row[i]) for row in rows[1:] if len(row) == len(first)]
        below = [text for text in below if not is_missing(text)]
        some = [text for text in below if decimals.is_numeric(text)]
        if not some or len(some) < 0.9 * len(below) or is_missing(name):
            continue
        if not decimals.is_numeric(name):
            return True
        numbered.append(decimals.with_point(name))
    steps = {float(b) - float(a) for a, b in itertools.pairwise(numbered)}
    return None if not numbered or steps == {1.0} else False


def _checked(
    path: Path, names: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[str, ...]:
    """Column names, checked to be unique.

    The first may be missing, and those of columns without any text.
    """
    names = [unicodedata.normalize("NFC", name.strip()) for name in names]
    for i, name in enumerate(names):
        below = (row[i].strip() for row in rows if len(row) == len(names))
        if not name and len(names) > 1 and (i == 0 or not any(below)):
            names[i] = f"unnamed: {i}"
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or "" in names:
        what = f"two columns '{twice[0]}'" if twice else "a column without a name"
        raise UserError(
            f"{path} has {what}: give each column a different name (or add a header, "
            "if its first row is not one)"
        )
    return tuple(names)
