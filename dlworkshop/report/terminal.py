"""Output to the terminal: tables, log messages, and rows as they are computed."""

import contextlib
import csv
import io
import itertools
import json
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table

from dlworkshop.errors import UserError

AT_ONCE = 64  # rows that are laid out together
WORD, LEAST_WORD = 14, 8  # width of text columns other than the name
NAME = 24  # width that is kept for the name, if possible
WIDE = 10**6  # columns of what is no terminal

Rows = Iterable[Any]  # NamedTuples of one type; a dict field becomes several columns

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    r"""Text with escaped control characters, which a file name may contain.

    >>> print(visible("a\x1b[2Jb"))
    a\x1b[2Jb
    """
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _cell(text: str) -> str:
    """Text that stays in its row: newlines are escaped, too."""
    return visible(text).replace("\n", "\\n")


def show(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a small table; without a header if it is empty."""
    table = Table(box=None, show_header=any(head), pad_edge=False)
    for title in head:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    _console().print(table)


def open_streams() -> None:
    """Make every output possible.

    A stream that the shell has closed (`>&-`), which is None, discards its output, and
    letters that the encoding of a stream lacks are escaped.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (to the end)
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class Messages(logging.Handler):
    """Logging handler that writes to the current `sys.stderr`."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(visible(self.format(record)), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


@contextlib.contextmanager
def messages() -> Iterator[None]:
    """Show the library's log on stderr in this context, for scripts and commands.

    The library itself prints nothing: other programs configure the logger "dlworkshop"
    as they like.

    >>> with messages():
    ...     logging.getLogger("dlworkshop.train").isEnabledFor(logging.INFO)
    True
    """
    library, handler = logging.getLogger("dlworkshop"), Messages()
    if any(isinstance(each, Messages) for each in library.handlers):
        yield  # inside a command that runs a script
        return
    before = library.level, library.propagate
    library.addHandler(handler)
    library.propagate = False  # the root logger would print them again
    if library.level == logging.NOTSET:  # keep a level that the user chose
        library.setLevel(logging.INFO)
    try:
        yield
    finally:
        library.removeHandler(handler)
        library.setLevel(before[0])
        library.propagate = before[1]


def print_line(line: str) -> None:
    """Print one line of text."""
    print(visible(line))


def print_error(error: object) -> None:
    """Print an error on stderr."""
    print(f"error: {visible(str(error))}", file=sys.stderr)


def as_table(rows: Rows) -> None:
    """Print rows as a table of the terminal's width, in chunks as they arrive.

    In a file, every row is one line.
    """
    rows = iter(rows)
    console, widths = _console(), dict[str, int]()
    narrow = console.width < WIDE
    while chunk := [columns(row) for row in itertools.islice(rows, AT_ONCE)]:
        first, before = chunk[0], widths
        widths = before or _widths(chunk, console.width)  # the same for all chunks
        table = Table(box=None, show_header=not before, expand=narrow, pad_edge=False)
        for name, value in first.items():
            if narrow and name == "name":
                table.add_column(name, ratio=1, overflow="fold")
            elif narrow and isinstance(value, str):
                table.add_column(name, width=widths[name], overflow="fold")
            else:
                sizes = (cell_len(_short(row[name])) for row in chunk)
                wide = max(widths[name], *sizes)
                side: JustifyMethod = "left" if isinstance(value, str) else "right"
                table.add_column(name, width=wide, justify=side)
        for row in chunk:
            table.add_row(*map(_short, row.values()))
        console.print(table)


def _widths(chunk: Sequence[Mapping[str, Any]], most: int) -> dict[str, int]:
    """Widths of all columns; at a terminal except the name, which gets the rest."""
    longest = {
        name: max(len(name), *(cell_len(_short(row[name])) for row in chunk))
        for name in chunk[0]
    }
    if most == WIDE:
        return longest
    del longest["name"]
    texts = {name for name, value in chunk[0].items() if isinstance(value, str)}
    widths: dict[str, int] = {}
    for word in range(WORD, LEAST_WORD - 1, -1):
        widths = {
            name: max(len(name), min(size, word) if name in texts else size)
            for name, size in longest.items()
        }
        if sum(widths.values()) + 2 * len(widths) + NAME <= most:
            break
    return widths


def as_json(rows: Rows) -> None:
    """Print one JSON object per line; null for a missing number."""
    for row in rows:
        print(json.dumps(_finite(row._asdict())))


def _finite(value: Any) -> Any:
    """A value with None in place of numbers that JSON does not have."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_csv(rows: Rows) -> None:
    """Print CSV with a header; an empty field for a missing number.

    Control characters are escaped: a terminal would obey them.
    """
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for number, row in enumerate(rows):
        lines = columns(row), columns(row).values()
        for line in lines[number > 0 :]:
            writer.writerow(_cell(v) if isinstance(v, str) else v for v in line)


def columns(row: Any) -> dict[str, Any]:
    """Column -> value of a row; each key of a dict field becomes a column.

    >>> import typing
    >>> Row = typing.NamedTuple("Row", [("name", str), ("probability", dict)])
    >>> columns(Row("a.png", {"cat": 0.9, "dog": 0.2}))
    {'name': 'a.png', 'probability cat': 0.9, 'probability dog': 0.2}
    """
    found: dict[str, Any] = {}
    for name, value in row._asdict().items():
        if isinstance(value, dict):
            found |= {f"{name} {key}": each for key, each in value.items()}
        else:
            found[name] = value
    return found


WRITERS: dict[str, Callable[[Rows], None]] = {
    "table": as_table,
    "json": as_json,
    "csv": as_csv,
}


def _console() -> Console:
    """A console that prints text literally, without markup, and wraps no file."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not (console.is_terminal or console.is_jupyter or "COLUMNS" in os.environ):
        console.width = WIDE
    return console


def _short(value: Any) -> str:
    if isinstance(value, str) or value is None:
        return _cell(value or "")
    return f"{value:.4f}" if abs(value) < 10_000 else f"{value:,.0f}"


@contextlib.contextmanager
def flags() -> Iterator[None]:
    """While flags are parsed: the error box of tyro becomes a `UserError`."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            yield
    except SystemExit as left:
        if not left.code:  # --help
            raise
        lines = [line.strip("│ .") for line in said.getvalue().splitlines()[1:-1]]
        words = " ".join(s if any(map(str.isalnum, s)) else ";" for s in lines)
        raise UserError(words.replace(" ;", ";").strip("; ")) from None
