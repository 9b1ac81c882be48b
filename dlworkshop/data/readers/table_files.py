"""The files of a table: a CSV file, or those of the splits in a folder."""

import re
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dlworkshop.data.readers import cards, csv_file
from dlworkshop.data.readers.class_folders import is_ignored
from dlworkshop.data.readers.split_names import split_of
from dlworkshop.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".tsv", ".txt")


def matches(path: Path) -> bool:
    """Whether `path` is a CSV file, or a folder of files with one for train."""
    if not path.is_dir():
        return path.suffix.lower() in SUFFIXES
    is_flat = not any(each.is_dir() for each in _inside(path))
    return is_flat and any(number == 0 for _, number in split_files(path))


def has_tables(path: Path) -> bool:
    """Whether `path` is a folder with tables, or without folders, as of classes."""
    if not path.is_dir():
        return False
    return bool(split_files(path) or _tables(path)) or not any(
        each.is_dir() for each in _inside(path)
    )


def split_files(path: Path) -> list[tuple[Path, int]]:
    """The files, each with its index in SPLITS."""
    if not path.is_dir():
        return [(path, 0)]
    inside = [file for file in _inside(path) if file.suffix.lower() in SUFFIXES]
    named = [(file, split_of(file.stem)) for file in inside if file.is_file()]
    return sorted(
        [(file, number) for file, number in named if number is not None],
        key=lambda part: part[1],
    )


def checked_files(path: Path, wanted: Container[int]) -> list[tuple[Path, int]]:
    """The files, one of which must be of a `wanted` split."""
    parts = split_files(path)
    if not any(number in wanted for _, number in parts):
        found = [file.name for file in _tables(path) or _inside(path)]
        raise UserError(
            f"target is a column of a table, and {path} has no train.csv (it has "
            f"{cards.some(found, 5) or 'no file'}): give the path of one table, "
            "unpacked, or name the tables train.csv and test.csv, or leave target out"
        )
    return parts


def _tables(path: Path) -> list[Path]:
    """The files of a folder that are tables by their names, possibly compressed."""
    named = re.compile(r"\.(csv|tsv)(\.|$)", re.IGNORECASE)
    return [file for file in _inside(path) if named.search(file.name)]


def _inside(path: Path) -> list[Path]:
    return sorted(each for each in path.iterdir() if not is_ignored(each.name))


def read(
    path: Path, said: list[str]
) -> "tuple[dict[str, pa.ChunkedArray], np.ndarray, np.ndarray, dict[str, str]]":
    """Columns of all files; the name of each row and its index in SPLITS [N]; and the
    decimal mark of each column.
    """
    import pyarrow as pa  # noqa: PLC0415

    parts = split_files(path)
    tables: list[csv_file.Table] = []
    for file, _ in parts:  # where a file leaves its decimal mark open, train decides
        tables.append(csv_file.read(file, tables[0].decimals if tables else {}))
    names = tables[0].columns  # a dict: there may be very many
    number_of, given = [], []
    for (file, number), table in zip(parts, tables, strict=True):
        if lost := [name for name in names if name not in table.columns]:
            raise UserError(
                f"{file} has no column {cards.quoted(lost, 3)}, which {parts[0][0]} "
                f"has: give all files the same columns, including the target, or give "
                f"the path of {parts[0][0].name} alone"
            )
        more = [name for name in table.columns if name not in names]
        if more:
            said.append(f"{file.name} has {cards.quoted(more)}, which train lacks.")
        where = f"{file.name} " if len(parts) > 1 else ""
        size = len(table.numbers)
        number_of += [f"{where}row {number}" for number in table.numbers.tolist()]
        given += [number] * size
        said += [f"{where.strip()}: {note}".removeprefix(": ") for note in table.notes]
    said += cards.joined([(file.name, number) for file, number in parts])
    if path.is_dir():
        used = {file for file, _ in parts}
        if beside := [f.name for f in _inside(path) if f not in used]:
            said.append(f"Other files were not read: {cards.some(beside, 5)}.")
    cells = {
        name: pa.chunked_array(
            [chunk for table in tables for chunk in table.columns[name].chunks]
        )
        for name in names
    }
    numbers, splits = np.array(number_of, object), np.array(given, np.int8)
    return cells, numbers, splits, tables[0].decimals
