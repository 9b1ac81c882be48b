"""Readers of your own data: image folders, CSV, .npz and IDX files.

They are prepared once, under a key of their content and of how it is to be prepared,
and read from there; a second load reads no content of theirs. What they have in common
is `reader.Reader`; each form has its module.
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
    table_target,
)
from dlworkshop.data.readers.reader import Options, Reader
from dlworkshop.errors import UserError
from dlworkshop.types import Dataset

log = logging.getLogger(__name__)

# In the order in which they are asked: a folder may hold IDX files or tables. (mypy
# compares a module with a protocol, but not where both are in one cycle of imports.)
READERS = cast(tuple[Reader, ...], (idx, table, folder, npz))


def load(path: Path, root: Path, options: Options) -> Dataset:
    """Load the data at `path`; see `dlworkshop.data.load` for the options.

    `root` is where prepared data are kept.
    """
    if not path.is_dir() and not path.is_file():
        raise UserError(
            f"{path} is neither a file nor a folder, and data are read twice: save "
            "them as a file"
        )
    reader = reader_of(path)
    options = _checked(options)
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
    # prepared by content: another file of the same may have been there before
    about = {**(dataset.card or {}), "source": os.fspath(path)}
    for text in card.warnings(about | {"counts": card.counts(dataset)}):
        log.warning("%s", text)
    return dataset._replace(card=about)


def reader_of(path: Path) -> Reader:
    """The first reader that recognises what is at `path`.

    Raises:
        UserError: if there is none.

    >>> reader_of(Path("penguins.csv")).KINDS
    ('table',)
    """
    for reader in READERS:
        if reader.matches(path):
            return reader
    raise UserError(
        f"{path} is of no kind that is known: give a folder with a folder for each "
        "class, a CSV, an .npz or IDX files"
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
        preprocessing: of a `Dataset`, or what is in a run's `preprocessing.json`.

    Returns:
        [H, W, C] uint8 or [D] float32.

    Raises:
        UserError: if that is no image, or a column is not there, or an array has
            another shape.

    >>> column = {"name": "x", "mean": 2.0, "deviation": 1.0, "missing": False}
    >>> to_example({"x": "3"}, {"kind": "table", "columns": [column]}).tolist()
    [1.0]
    """
    return reader_for(preprocessing).to_example(source, preprocessing)


def unknown_cells(
    source: Any, preprocessing: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Cells of a row whose values do not occur in train: columns and words.

    The word is "" where there is none, and in train always is.
    """
    if not isinstance(source, Mapping):
        return []
    return columns.unknown_cells(source, preprocessing)


def changed(source: Any, preprocessing: Mapping[str, Any]) -> str | None:
    """How an image file of another size or mode is converted, in a sentence."""
    if preprocessing["kind"] != "image" or not isinstance(source, Path):
        return None
    return images.changed(str(source), preprocessing)


def shape_of(preprocessing: Mapping[str, Any]) -> list[int]:
    """The shape of an example that `to_example` makes.

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
    """`Dataset.fingerprint` of `path` prepared in this way, without preparing it.

    Raises:
        UserError: if `path` is no labelled data of the kind that was prepared so.
    """
    reader = reader_of(path)
    options = _checked(Options(target=target, group_by=group_by))
    if not set(reader.KINDS) & {preprocessing["kind"]}:
        return ""  # other data in any case
    return reader.fingerprint(path, preprocessing, options)


def asked(
    path: Path,
    preprocessing: Mapping[str, Any],
    target: str | tuple[str, ...] | None,
    group_by: str | None,
) -> dict[str, Any]:
    """The options of `load` that prepare `path` as `preprocessing` says."""
    known: dict[str, Any] = {"target": target, "group_by": group_by}
    reader = reader_of(path)
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
    target = options.target
    if target is not None and not isinstance(target, str):
        target = tuple(target)
        if len(target) < 2 or len(set(target)) < len(target):
            raise UserError(
                f"target is {target}: give one name, or several that are different"
            )
    return options._replace(image_size=_size(options.image_size), target=target)


def _size(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(s, int) and 1 <= s <= 4096 for s in pair):
        raise UserError(
            f"image_size is {size}: give the pixels of a side, 1 to 4096, or (height, "
            "width)"
        )
    return pair[0], pair[1]
