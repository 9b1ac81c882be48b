"""A name -> a Dataset, prepared on first use and mapped into memory afterwards."""

import os
from pathlib import Path

from dlworkshop import errors
from dlworkshop.data import arrays, places
from dlworkshop.data.catalogue import NAMES
from dlworkshop.types import Dataset


def load(name: str, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Load a data set by name.

    Validation is the last part of the train split, in the order of the tfds records:
    `train[:55000]` and `train[55000:]` for MNIST, Fashion-MNIST and KMNIST (test:
    10,000), `train[:45000]` for CIFAR, `train[:1257]` for digits (test: 360), and as
    many as in test for EMNIST. EMNIST images are upright and its letters are numbered
    from 0, unlike in the records.

    Args:
        name: one of `NAMES`.
        data_dir: a tfds data_dir, prepared by anyone, or a folder of raw files; by
            default $DLWORKSHOP_DATA, or a private folder in the user's cache. Raw
            files are prepared in that cache, and so is what a folder that cannot be
            written needs.

    Returns:
        Splits of `Batch(image [N, H, W, C] uint8, label [N] int32)`, memory-mapped.

    Raises:
        UserError: if the name is unknown, raw files are missing or damaged, or a
            folder cannot be written.

    >>> digits = load("digits")
    >>> digits.train.image.shape, digits.validation.label.shape, digits.test.image.dtype
    ((1257, 8, 8, 1), (180,), dtype('uint8'))
    """
    if name not in NAMES:
        raise errors.unknown("data set", name, NAMES)
    try:
        return arrays.read(name, _arrays_folder(name, data_dir))
    except OSError as error:
        where = error.filename or data_dir or "the data cache"
        raise errors.UserError(
            f"{where} cannot be used ({error.strerror or error}): give a folder "
            "with room to write in, by --data-dir (data_dir=...) or DLWORKSHOP_DATA."
        ) from error


def _arrays_folder(name: str, data_dir: str | os.PathLike[str] | None) -> Path:
    """The folder of decoded arrays; everything slow happens on the way to it."""
    given = places.cache_dir() if data_dir is None else Path(data_dir).expanduser()
    home = places.cache_dir() if places.read_only(given) else given
    for root in (given, home):
        if records := places.newest(root, name):
            return _decoded(name, records)
    from dlworkshop.data import checksums, prepare, sources  # noqa: PLC0415

    source = None
    if name != "digits" and (paths := sources.find(name, given)):
        # Keyed by content: two folders of files with the same names do not collide.
        source, home = given, places.cache_dir() / "from" / checksums.key(paths)
    records = places.newest(home, name) or prepare.prepare(name, home, source)
    return _decoded(name, records)


def _decoded(name: str, records: Path) -> Path:
    from dlworkshop.data import prepare  # noqa: PLC0415

    return prepare.arrays_of(name, records)
