"""Decoded arrays of tfds records, stored beside the records and memory-mapped.

Decoding tens of thousands of PNGs takes seconds, so it is done once.
"""

import contextlib
import functools
import hashlib
import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Required, TypedDict

import numpy as np

from dlworkshop import run_files
from dlworkshop.data.catalogue import ENTRIES
from dlworkshop.errors import UserError
from dlworkshop.files import atomic_rename, open_regular, partial_folder
from dlworkshop.types import Batch, Dataset

ABOUT = "about.json"  # of a folder of arrays
_ROWS = 4096  # records that are decoded at a time


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence tfds, whose caller reports the same progress."""
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        absl.setLevel(level)


def write(name: str, records: Path, folder: Path) -> None:
    """Decode the records of a data set into a new `folder`, atomically.

    Args:
        name: one of `NAMES`.
        records: the tfds folder of the data set, such as .../mnist/3.0.1.
        folder: the new folder of arrays.

    Raises:
        UserError: if the records are not in ArrayRecord format, or a label is out of
            range.
    """
    import tensorflow_datasets as tfds  # noqa: PLC0415

    entry = ENTRIES[name]
    builder = tfds.builder_from_directory(str(records))
    if builder.info.file_format.value != "array_record":
        raise UserError(
            f"{records} is in {builder.info.file_format.value} format, wanted "
            "array_record: prepare it with file_format='array_record'."
        )
    sha = hashlib.sha256()
    with partial_folder(folder.parent) as partial:
        for split in ("train", "test"):
            with quiet():
                image, label = _decode(builder.as_data_source(split))
            if entry.transposed:
                image = image.swapaxes(1, 2).copy()  # [N, H, W, C]
            label -= entry.first_label
            if label.min() < 0 or label.max() >= entry.num_classes:
                raise UserError(
                    f"{records} has labels {label.min()} to {label.max()} in {split}, "
                    f"wanted 0 to {entry.num_classes - 1}: prepare it again."
                )
            for kind, array in (("image", image), ("label", label)):
                np.save(partial / f"{split}_{kind}.npy", array)
                _add(sha, array)
        about = {
            "classes": list(entry.classes or builder.info.features["label"].names),
            "fingerprint": sha.hexdigest()[:16],
        }
        about["digest"] = run_files.digest(ABOUT, about)
        (partial / ABOUT).write_text(json.dumps(about))
        partial.chmod(folder.parent.stat().st_mode & 0o777)  # mkdtemp made it private
        atomic_rename(partial, folder)


def _decode(source) -> tuple[np.ndarray, np.ndarray]:
    """All images [N, H, W, C] uint8 and labels [N] int32 of a tfds data source."""
    image = np.empty((len(source), *source[0]["image"].shape), np.uint8)
    label = np.empty(len(source), np.int32)
    for start in range(0, len(source), _ROWS):
        rows = source.__getitems__(range(start, min(start + _ROWS, len(source))))
        image[start : start + len(rows)] = [row["image"] for row in rows]
        label[start : start + len(rows)] = [row["label"] for row in rows]
    return image, label


class About(TypedDict, total=False):
    """The contents of ABOUT."""

    classes: Required[list[str]]
    fingerprint: Required[str]
    digest: str  # of the other entries; earlier versions wrote none


def _add(sha: Any, array: np.ndarray) -> None:
    """Add the shape, dtype and content of an array to a hash."""
    sha.update(f"{array.shape}{array.dtype}".encode())
    sha.update(np.ascontiguousarray(array))


@functools.lru_cache
def _fingerprint(files: tuple[tuple[Path, int, int, int], ...]) -> str:
    """The fingerprint of the arrays in files, given with their status.

    It is computed once per process, and again if a file changes.
    """
    sha = hashlib.sha256()
    for path, *_ in files:
        _add(sha, np.load(path, mmap_mode="r"))
    return sha.hexdigest()[:16]


def _status(path: Path) -> tuple[Path, int, int, int]:
    with open_regular(path) as file:
        found = os.fstat(file.fileno())
    return path, found.st_ino, found.st_size, found.st_mtime_ns


def read(name: str, folder: Path) -> Dataset:
    """The memory-mapped data set in `folder`, with its validation split cut off.

    The first time in a process, all of it is compared with its fingerprint, which takes
    about a second per GB.

    Raises:
        UserError: if the files in `folder` are damaged.
    """
    entry = ENTRIES[name]
    try:
        about = run_files.parsed(run_files.contents(folder / ABOUT), ABOUT, About)
        files = [
            folder / f"{split}_{kind}.npy"
            for split in ("train", "test")
            for kind in ("image", "label")
        ]
        fingerprint = _fingerprint(tuple(map(_status, files)))
        known = about.pop("digest", None)
        if about["fingerprint"] != fingerprint or (
            known is not None and known != run_files.digest(ABOUT, about)
        ):
            raise ValueError("its files are not as they were written")
        image, label, *of_test = (np.load(file, mmap_mode="r") for file in files)
        train, test = Batch(image, label), Batch(*of_test)
    except (ValueError, TypeError, KeyError, EOFError, FileNotFoundError) as error:
        raise UserError(
            f"{folder} is damaged ({error}): delete that folder and load again."
        ) from error
    num_train = len(train.targets)
    # A subset of the official data set is cut in the same proportion.
    cut = num_train - max(1, num_train * entry.num_validation // entry.num_train)
    return Dataset(
        train=Batch(train.inputs[:cut], train.targets[:cut]),
        validation=Batch(train.inputs[cut:], train.targets[cut:]),
        test=test,
        classes=tuple(about["classes"]),
        name=name,
        fingerprint=fingerprint,
    )
