"""A CSV file -> cells of text, whole or row by row."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dlworkshop.errors import UserError

# In small letters; the last ones are what spreadsheets write for an error.
MISSING = {"", "na", "n/a", "nan", "null", "none", "?", "-", ".", "<na>", "nat"}
MISSING |= {"#n/a", "#value!", "#div/0!", "#ref!", "#name?", "#num!", "#null!"}


class Table(NamedTuple):
    """The columns of a CSV file as text; `cell` says what is missing."""

    path: Path
    columns: dict[str, list[str]]  # name -> [N]


def read(path: Path) -> Table:
    """Read a CSV file with a header; comma, semicolon, tab or |.

    Raises:
        UserError: naming the line that is wrong.
    """
    lines = list(_lines(path))
    names = _names(lines[0]) if lines else []
    wide = [
        number for number, row in enumerate(lines, 1) if row and len(row) != len(names)
    ]
    rows = [row for row in lines[1:] if row]
    if len(names) < 2 or not rows:
        raise UserError(
            f"{path} has {len(names)} columns and {len(rows)} rows below its header: "
            "give a table with a header, a target and something to tell it from"
        )
    if wide:
        raise _ragged(f"{path} row {wide[0]}", names)
    _check_names(path, names)
    columns = {name: [row[i].strip() for row in rows] for i, name in enumerate(names)}
    return Table(path, columns)


def rows(path: Path) -> Iterator[tuple[str, dict[str, str] | UserError]]:
    """Each row of a CSV file as column -> text, by its name; memory does not grow.

    A row with another number of cells than the header is the mistake that it is.

    Raises:
        UserError: if that is no CSV file with a header.
    """
    lines = _lines(path)
    names = _names(next(lines, []))
    if not names:
        raise UserError(f"{path} is empty: give a table with a header")
    _check_names(path, names)
    for number, line in enumerate(lines, 2):
        name = f"{path} row {number}"
        if line and len(line) == len(names):
            yield name, dict(zip(names, line, strict=True))
        elif line:
            yield name, _ragged(name, names)


def cell(value: str) -> str:
    """Its text; "" where it says that there is none.

    >>> cell(" 3 "), cell("NA"), cell("TRUE")
    ('3', '', 'True')
    """
    value = plain(value)
    return "" if value.lower() in MISSING else value


def plain(value: str) -> str:
    """Its text where every word counts, as in a target; true and false are one each.

    >>> plain(" None "), plain("FALSE")
    ('None', 'False')
    """
    value = str(value).strip()
    return value.capitalize() if value.lower() in ("true", "false") else value


def _lines(path: Path) -> Iterator[list[str]]:
    """The cells of each line, as they are read; the header is the first."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            delimiter = max(",;\t|", key=head.count)
            yield from csv.reader(file, delimiter=delimiter, strict=True)
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: save it as CSV in UTF-8") from None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): give a CSV file"
        ) from None
    except csv.Error as error:
        raise UserError(
            f"{path} is no CSV file ({error}): save the table anew"
        ) from None


def _names(head: Sequence[str]) -> list[str]:
    """Of the columns; the first has none where a library wrote its row numbers."""
    names = [name.strip() for name in head]
    return ["unnamed: 0", *names[1:]] if len(names) > 1 and not names[0] else names


def _check_names(path: Path, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or "" in names:
        what = f"two columns '{twice[0]}'" if twice else "a column without a name"
        raise UserError(f"{path} has {what}: give each column a name of its own")


def _ragged(name: str, names: Sequence[str]) -> UserError:
    return UserError(
        f"{name} has another number of cells than the header ({len(names)}): mend that "
        "row"
    )
