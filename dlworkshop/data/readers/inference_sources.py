"""Files, rows and arrays that no run has seen, one after the other, in little memory.

What they yield is what `data.readers.to_example` makes an example of.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dlworkshop.data.readers import arrays, csv_file, folder
from dlworkshop.errors import UserError

NO_LABEL = -1


class Source(NamedTuple):
    """What an example is to be made of, or the mistake that says why it cannot be."""

    name: str  # the file, or the file and the row
    content: Path | Mapping[str, str] | np.ndarray | UserError
    label: int = NO_LABEL  # place in the classes


def sources(paths: Iterable[Path], how: Mapping[str, Any]) -> Iterator[Source]:
    """What is in files, and in all files below folders, in the order of their names.

    A table yields its rows, an .npz file those of its array x, and any other file
    itself, if `how` (of `Dataset.preprocessing`) is that of images.
    """
    for path in paths:
        for file in _files(path):
            try:
                yield from _inside(file, how)
            except UserError as error:
                yield Source(str(file), error)


def labelled(
    path: Path, how: Mapping[str, Any], classes: Sequence[str], target: str | None
) -> Iterator[Source]:
    """The examples at `path` with their labels: of its test split, if it has one.

    Args:
        path: whatever `data.load` takes.
        how: of `Dataset.preprocessing`.
        classes: [K] names; what is at `path` has no others.
        target: of a table or an .npz file, the column or array of the labels.

    Raises:
        UserError: if there are no labelled data at `path`, or a class is none of them.
    """
    place = {name: k for k, name in enumerate(classes)}

    def label(name: str) -> int:
        if name not in place:
            raise UserError(
                f"{path} has a class '{name}', and the run knows "
                f"{folder.some(classes)}: give data with these classes"
            )
        return place[name]

    if how["kind"] == "table":
        return _rows(path, target, label)
    if idx := arrays.idx_files(path):
        return _examples(arrays.read_idx(idx), path, label)
    if path.suffix == ".npz":
        return _examples(arrays.read_npz(path, target), path, label)
    if not path.is_dir():
        raise UserError(f"{path} has no labels: give a folder with one for each class")
    found = folder.listing(path)
    labels = [label(name) for name in found.classes]
    files = found.files
    return (
        Source(files[i], Path(files[i]), labels[found.label[i]])
        for i in np.flatnonzero(_tested(found.given))
    )


def _rows(
    path: Path, target: str | None, label: Callable[[str], int]
) -> Iterator[Source]:
    if target is None:
        raise UserError(f"{path} needs a target: name its column with --target")
    for name, row in csv_file.rows(path):
        if isinstance(row, UserError):
            yield Source(name, row)
            continue
        if target not in row:
            raise UserError(
                f"{path} has no column '{target}' (it has {', '.join(row)}): name the "
                "column of the classes with --target"
            )
        value = csv_file.cell(row[target])
        if value:
            yield Source(name, row, label(value))
        else:
            yield Source(name, UserError(f"{name} has no '{target}'"))


def _examples(
    parts: arrays.Parts, path: Path, label: Callable[[str], int]
) -> Iterator[Source]:
    inputs, labels, given = arrays.join(parts, path)
    names = {value: label(str(value)) for value in np.unique(labels).tolist()}
    return (
        Source(f"{path} row {i}", inputs[i], names[labels[i].item()])
        for i in np.flatnonzero(_tested(given))
    )


def _tested(given: np.ndarray) -> np.ndarray:
    """Which are of the test split; all, where there is none."""
    test = given == folder.SPLIT_FOLDERS["test"]
    return test if test.any() else np.ones_like(test)


def _inside(file: Path, how: Mapping[str, Any]) -> Iterator[Source]:
    if how["kind"] == "table":
        yield from (Source(name, row) for name, row in csv_file.rows(file))
    elif file.suffix == ".npz":
        for i, row in enumerate(arrays.read_inputs(file)):
            yield Source(f"{file} row {i}", row)
    elif how["kind"] == "array":
        raise UserError(f"{file} is no .npz file: give one with an array x")
    else:
        yield Source(str(file), file)


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for home, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and name.lower() not in folder.IGNORED:
                yield Path(home, name)
