"""Decoded arrays of tfds records, stored beside the records and memory-mapped.

Decoding tens of thousands of PNGs takes seconds, so it is done once.
"""

import contextlib
import hashlib
import io
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dlworkshop.data.catalogue import ENTRIES
from dlworkshop.errors import UserError
from dlworkshop.files import atomic_rename
from dlworkshop.types import Batch, Dataset

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
    partial = Path(tempfile.mkdtemp(prefix=".arrays-", dir=folder.parent))
    try:
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
                sha.update(f"{array.shape}{array.dtype}".encode() + array.tobytes())
        about = {
            "classes": entry.classes or builder.info.features["label"].names,
            "fingerprint": sha.hexdigest()[:16],
        }
        (partial / "about.json").write_text(json.dumps(about))
        partial.chmod(folder.parent.stat().st_mode & 0o777)  # mkdtemp made it private
        atomic_rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _decode(source) -> tuple[np.ndarray, np.ndarray]:
    """All images [N, H, W, C] uint8 and labels [N] int32 of a tfds data source."""
    image = np.empty((len(source), *source[0]["image"].shape), np.uint8)
    label = np.empty(len(source), np.int32)
    for start in range(0, len(source), _ROWS):
        rows = source.__getitems__(range(start, min(start + _ROWS, len(source))))
        image[start : start + len(rows)] = [row["image"] for row in rows]
        label[start : start + len(rows)] = [row["label"] for row in rows]
    return image, label


def read(name: str, folder: Path) -> Dataset:
    """The memory-mapped data set in `folder`, with its validation split cut off.

    Raises:
        UserError: if the files in `folder` are damaged.
    """
    entry = ENTRIES[name]
    try:
        train, test = (
            Batch(
                np.load(folder / f"{split}_image.npy", mmap_mode="r"),
                np.load(folder / f"{split}_label.npy", mmap_mode="r"),
            )
            for split in ("train", "test")
        )
        about = json.loads((folder / "about.json").read_text())
        classes, fingerprint = tuple(about["classes"]), about["fingerprint"]
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
        classes=classes,
        name=name,
        fingerprint=fingerprint,
    )
