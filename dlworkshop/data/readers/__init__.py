"""Readers of your own data: image folders, CSV, .npz and IDX files.

Data are prepared once and stored under a hash of their content and of the options; a
second load does not read the original files. Each format has its module, which
implements the protocol `reader.Reader`.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from dlworkshop.data import card
from dlworkshop.data.readers import (
    columns,
    folder,
    idx,
    images,
    npz,
    store,
    table,
    table_files,
    table_target,
)
from dlworkshop.data.readers.reader import Options, Reader
from dlworkshop.errors import UserError, check_text
from dlworkshop.types import Dataset

log = logging.getLogger(__name__)

# The first reader that matches is used: a folder may hold IDX files or tables. (mypy
# cannot compare a module with a protocol within a cycle of imports.)
READERS = cast(tuple[Reader, ...], (idx, table, folder, npz))

# What to do with files of formats that are not read.
INSTEAD = {
    "unpack it first": (".gz", ".xz", ".bz2", ".zst", ".zip", ".7z", ".tar", ".tgz"),
    "save it as CSV": (
        *(".parquet", ".feather", ".xlsx", ".xls", ".ods", ".json", ".jsonl", ".arff"),
        *(".sav", ".dta", ".rds", ".rdata", ".db", ".sqlite", ".h5", ".mat", ".pkl"),
    ),
}


def load(path: Path, root: Path, options: Options) -> Dataset:
    """Load the data at `path`; see `dlworkshop.data.load` for the options.

    `root` is the folder of prepared data.
    """
    if not path.is_dir() and not path.is_file():
        raise UserError(
            f"{path} is neither a file nor a folder, and the data must be read twice: "
            "save them as a file"
        )
    options = _checked(options)
    reader = reader_of(path, options.target)
    for name, value in options._asdict().items():
        if name not in reader.OPTIONS and value != getattr(Options(), name):
            raise UserError(
                f"{name} is '{value}', which {path} does not need: leave it out"
            )
    try:
        files, names = reader.files(path)
    except RecursionError:
        raise UserError(
            f"{path} has folders in folders, too deep to be walked: give another folder"
        ) from None
    where = {"path": str(path.absolute()), "names": list(names)}
    signed = store.signature(files, options._asdict() | where)
    prepared = store.find(root, signed)
    if prepared is None:
        with store.partial(root) as partial:
            made = reader.prepare(path, partial, options)
            prepared = store.commit(root, partial, made, signed)
    dataset = store.read(prepared, path.absolute().stem)
    # the prepared data may come from another file with the same content
    about = {**(dataset.card or {}), "source": os.fspath(path)}
    for text in card.warnings(about | {"counts": card.counts(dataset)}):
        log.warning("%s", text)
    return dataset._replace(card=about)


def reader_of(path: Path, target: str | tuple[str, ...] | None = None) -> Reader:
    """The first reader that recognises the format of `path`.

    With a `target`, that of tables, if there are any in the folder, or if no reader
    knows the suffix of the file, such as .data.

    Raises:
        UserError: if there is none.

    >>> reader_of(Path("penguins.csv")).KINDS
    ('table',)
    """
    if target is not None and table_files.has_tables(path):
        return cast(Reader, table)
    for reader in READERS:
        if reader.matches(path):
            return reader
    for do, suffixes in INSTEAD.items():
        if path.suffix.lower() in suffixes:
            raise UserError(f"{path} is {path.suffix}, which is not read: {do}")
    if target is not None:
        return cast(Reader, table)
    raise UserError(
        f"{path} has an unknown format: give a folder with a folder for each class, a "
        "CSV, an .npz or IDX files (or, for a table with another suffix, its target)"
    )


def reader_for(preprocessing: Mapping[str, Any]) -> Reader:
    """The reader for this kind of `preprocessing`."""
    return next(r for r in READERS if preprocessing["kind"] in r.KINDS)


def to_example(
    source: Path | Mapping[str, str] | np.ndarray, preprocessing: Mapping[str, Any]
) -> np.ndarray:
    """One file, row or array as model input, preprocessed as in training.

    Args:
        source: an image file; a row, column -> text; or an array.
        preprocessing: of a `Dataset`, or from `preprocessing.json` of a run.

    Returns:
        [H, W, C] uint8 or [D] float32.

    Raises:
        UserError: if the file is no image, a column is missing, or an array has another
            shape.

    >>> column = {"name": "x", "mean": 2.0, "deviation": 1.0, "missing": False}
    >>> to_example({"x": "3"}, {"kind": "table", "columns": [column]}).tolist()
    [1.0]
    """
    return reader_for(preprocessing).to_example(source, preprocessing)


def unknown_cells(
    source: Any, preprocessing: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """The (column, word) of each cell of a row that does not occur in train.

    The word is "" if the cell is empty and train has no empty cell in that column.
    """
    if not isinstance(source, Mapping):
        return []
    return columns.unknown_cells(source, preprocessing)


def changed(source: Any, preprocessing: Mapping[str, Any]) -> str | None:
    """A sentence on how an image file is converted; None if it is not."""
    if preprocessing["kind"] != "image" or not isinstance(source, Path):
        return None
    return images.changed(str(source), preprocessing)


def shape_of(preprocessing: Mapping[str, Any]) -> list[int]:
    """The shape of the examples of `to_example`.

    >>> shape_of(images.as_shaped((28, 28, 1)))
    [28, 28, 1]
    """
    return reader_for(preprocessing).shape(preprocessing)


def fingerprint(
    path: Path,
    preprocessing: Mapping[str, Any],
    target: str | tuple[str, ...] | None,
    group_by: str | None,
) -> str:
    """The `Dataset.fingerprint` that `load` would give `path`, without preparing it.

    Raises:
        UserError: if `path` has no labelled data.
    """
    reader = reader_of(path, target)
    options = _checked(Options(target=target, group_by=group_by))
    if preprocessing["kind"] not in reader.KINDS:
        return ""  # the data are of another kind
    return reader.fingerprint(path, preprocessing, options)


def asked(
    path: Path,
    preprocessing: Mapping[str, Any],
    target: str | tuple[str, ...] | None,
    group_by: str | None,
) -> dict[str, Any]:
    """The options with which `load` prepares `path` by this `preprocessing`."""
    known: dict[str, Any] = {"target": target, "group_by": group_by}
    reader = reader_of(path, target)
    if "image_size" in reader.OPTIONS:
        known["image_size"] = preprocessing["height"], preprocessing["width"]
        known["resize"] = preprocessing["resize"]
    if "task" in reader.OPTIONS:
        known["task"] = preprocessing["target"]["task"]
    return known


def _checked(options: Options) -> Options:
    if options.resize not in images.RESIZES:
        raise UserError(
            f"resize is '{options.resize}': choose one of {', '.join(images.RESIZES)}"
        )
    if options.task not in (None, *table_target.TASKS):
        raise UserError(
            f"task is '{options.task}': choose one of {', '.join(table_target.TASKS)}"
        )
    if options.group_by is not None:
        check_text("group_by", options.group_by)
    target = options.target
    if target is not None and not isinstance(target, str):
        target = tuple(target) if np.iterable(target) else (target,)
        for name in target:
            check_text("target", name)
        if len(target) < 2 or len(set(target)) < len(target):
            raise UserError(
                f"target is {target}: give one name, or several different names"
            )
    return options._replace(image_size=_size(options.image_size), target=target)


def _size(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(pair) != 2 or not all(type(s) is int and 1 <= s <= 4096 for s in pair):
        raise UserError(
            f"image_size is {size}: give the pixels of a side, 1 to 4096, or (height, "
            "width)"
        )
    return pair[0], pair[1]
