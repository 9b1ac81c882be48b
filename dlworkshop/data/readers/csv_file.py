"""Reading of a CSV file with Arrow as cells of text, whole or row by row.

Arrow reports a row that is too short, which pandas and Polars fill silently. The module
`dialect` detects the dialect, which no library does well enough.
"""

import contextlib
import functools
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from dlworkshop.data.readers import cards, dialect
from dlworkshop.data.readers.cells import MINUS
from dlworkshop.data.readers.decimals import (
    COMMA_NUMBER,
    DECIMAL_COMMA,
    POINT_GROUPS,
    SPACES,
)
from dlworkshop.data.readers.dialect import Dialect
from dlworkshop.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 1 << 23  # read at a time; also the longest possible row


class Table(NamedTuple):
    """The columns of a CSV file as stripped text."""

    columns: "dict[str, pa.ChunkedArray]"  # name -> [N] strings
    numbers: np.ndarray  # int [N], numbers of the rows in the file
    notes: tuple[str, ...]  # for the data card: how the file was read
    decimals: dict[str, str]  # column -> its decimal mark


def read(path: Path, learnt: Mapping[str, str]) -> Table:
    """Read a CSV file: comma, semicolon, tab or |; decimal points or commas.

    `learnt` has decimal marks, as in `dialect.understand`.

    Raises:
        UserError: if a row has another number of cells than the header; it is named.
    """
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import compute  # noqa: PLC0415

    ragged: dict[int, UserError] = {}
    with _opened(path, learnt) as (file, found):
        batches = list(_batches(path, file, found, ragged)) if found.names else []
    if ragged:
        raise next(iter(ragged.values()))
    names = found.names
    if len(names) == 1:
        raise UserError(
            f"no comma, semicolon, tab or | separates the cells of {path} (its first "
            f"line is '{names[0][:60]}'): save it as CSV, with at least two columns"
        )
    if not names or not batches:
        raise UserError(
            f"{path} has {len(names)} columns and 0 rows below its header: give a "
            "table with a header, a target and at least one other column"
        )
    whole = pa.Table.from_batches(batches)
    said = functools.reduce(
        compute.or_, (compute.not_equal(column, "") for column in whole.columns)
    )  # False for an empty line
    columns = dict(zip(names, whole.filter(said).columns, strict=True))
    numbers = found.above + 1 + np.flatnonzero(said.to_numpy())
    decimals = dict(zip(names, found.decimals, strict=True))
    return Table(columns, numbers, found.notes, decimals)


def rows(
    path: Path, wanted: Sequence[str], learnt: Mapping[str, str]
) -> Iterator[tuple[str, dict[str, str] | UserError]]:
    """Iterate over the rows of a CSV file as (name, column -> text), in bounded memory.

    A row with another number of cells than the header is yielded as a UserError. A pipe
    is read whole. `learnt` has decimal marks, as in `dialect.understand`.

    Raises:
        UserError: if the file is no CSV file, or lacks one of the `wanted` columns.
    """
    ragged: dict[int, UserError] = {}
    with _opened(path, learnt) as (file, found):
        if not found.names:
            raise UserError(f"{path} is empty: give a table with a header")
        names = cards.some(found.names)
        there = set(found.names)
        if lost := [name for name in wanted if name not in there]:
            raise UserError(
                f"there is no column '{lost[0]}' (there are {names}): give "
                "the columns the model was trained on"
            )
        number = found.above + 1
        for batch in _batches(path, file, found, ragged):
            columns = [column.to_pylist() for column in batch.columns]
            for cells in zip(*columns, strict=True):
                while number in ragged:
                    yield f"{path} row {number}", ragged.pop(number)
                    number += 1
                if any(cells):  # skips empty lines
                    row = dict(zip(found.names, cells, strict=True))
                    yield f"{path} row {number}", row
                number += 1
    yield from ((f"{path} row {number}", error) for number, error in ragged.items())


def coded(values: "pa.ChunkedArray") -> "tuple[pa.Array, Any]":
    """The distinct texts of a column, and the index of each cell in them: int32 [N].

    >>> import pyarrow as pa
    >>> words, code = coded(pa.chunked_array([["b", "a"], ["b"]]))
    >>> words.to_pylist(), code.tolist()
    (['b', 'a'], [0, 1, 0])
    """
    found = values.combine_chunks().dictionary_encode()
    return found.dictionary, found.indices.to_numpy()


@contextlib.contextmanager
def _opened(
    path: Path, learnt: Mapping[str, str]
) -> Iterator[tuple[BinaryIO, Dialect]]:
    """Open a file; yields it at its start, and its dialect."""
    import pyarrow as pa  # noqa: PLC0415

    try:
        with path.open("rb") as opened:
            file: Any = opened if opened.seekable() else io.BytesIO(opened.read())
            found = dialect.understand(path, file.read(dialect.HEAD_BYTES), learnt)
            file.seek(0)
            yield file, found
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}): give a CSV file"
        ) from None
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            raise dialect.not_text(path) from None
        raise UserError(
            f"{path} is no CSV file ({str(error).splitlines()[0]}): save it again"
        ) from None


def _batches(
    path: Path, file: BinaryIO, found: Dialect, ragged: dict[int, UserError]
) -> "Iterator[pa.RecordBatch]":
    """The rows below the header of a file at its start, in batches of clean text.

    `ragged` gets the errors for rows with another number of cells: number -> error.
    """
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import csv  # noqa: PLC0415

    width = len(found.names)

    def skip(row: Any) -> str:
        cells = f"{row.actual_columns} cell{'s' * (row.actual_columns > 1)}"
        number = row.number - found.skip + found.above
        ragged[number] = UserError(
            f"{path} row {number} has {cells} where the table has {width} columns: "
            "fix that row"
        )
        return "skip"

    names = [str(i) for i in range(width)]
    batches = csv.open_csv(
        file,
        csv.ReadOptions(
            use_threads=False,  # with threads, rows have no numbers
            block_size=BLOCK_BYTES,
            column_names=names,
            skip_rows=found.skip,
            encoding=found.encoding,
        ),
        csv.ParseOptions(
            delimiter=found.delimiter,
            newlines_in_values=True,
            ignore_empty_lines=False,  # so that they are counted
            invalid_row_handler=skip,
        ),
        csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    )
    yield from (_clean(batch, found.decimals) for batch in batches)


def _clean(batch: "pa.RecordBatch", decimals: Sequence[str]) -> "pa.RecordBatch":
    """Text stripped, Unicode composed, and decimal commas replaced by points.

    In a column with decimal commas, points are between thousands.
    """
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import compute  # noqa: PLC0415

    columns = []
    for column, decimal in zip(batch.columns, decimals, strict=True):
        text = compute.utf8_trim_whitespace(column)
        if not compute.all(compute.string_is_ascii(text)).as_py():
            text = compute.utf8_normalize(text, "NFC")
            text = compute.replace_substring_regex(text, MINUS, r"-\1")
        if decimal == ",":
            number = f"{COMMA_NUMBER}|{POINT_GROUPS}"
            marked = compute.match_substring_regex(text, number)
            between = rf"\.|([0-9])[{SPACES}]"
            plain = compute.replace_substring_regex(text, between, r"\1")
            plain = compute.replace_substring(plain, ",", ".")
            text = compute.if_else(marked, plain, text)
            text = compute.replace_substring_regex(text, DECIMAL_COMMA, r"\1.\2")
        columns.append(text)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
