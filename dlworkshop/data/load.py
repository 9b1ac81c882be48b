"""Loading of a data set by name or path; it is prepared on first use and cached."""

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dlworkshop import errors
from dlworkshop.data import decoded, places
from dlworkshop.data.catalogue import NAMES
from dlworkshop.errors import check_path
from dlworkshop.types import Dataset


def load(
    name: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    *,
    target: str | Sequence[str] | None = None,
    group_by: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    resize: str = "crop",
    task: str | None = None,
) -> Dataset:
    """Load a named data set, or your own from a path.

    For a named data set, validation is the last part of the train split, in the order
    of the tfds records: `train[55000:]` for MNIST, Fashion-MNIST and KMNIST (test:
    10,000), `train[45000:]` for CIFAR, `train[1257:]` for digits (test: 360), and as
    many as in test for EMNIST. EMNIST images are upright and its letters are numbered
    from 0, unlike in the records.

    Your own data are a folder with a folder of images for each class (or such folders
    inside train, validation, test), a CSV file (or a folder with train.csv, test.csv),
    an .npz file with x and y (or x_train, ...), or IDX files. Missing splits are cut
    off train, 15 % each, stratified by class, with exact copies in one split. Warnings
    about the data are logged, and stored in `Dataset.card`.

    Args:
        name: one of `NAMES`, or a path.
        data_dir: a tfds data_dir or a folder of raw files; by default $DLWORKSHOP_DATA,
            or a private folder in the user's cache, which also keeps the prepared files
            of a folder of raw files or a read-only folder. For your own data, the
            folder of the prepared data.
        target: of a table, the column to predict. It holds classes, unless all its
            cells are numbers and some are not whole or more than 30 differ: then it
            holds numbers, which are standardised with the mean and deviation of train
            (stored in `preprocessing`). Several columns of 0 and 1 are labels of which
            an example may have several; other columns are numbers. Of an .npz file,
            the name of the array of labels.
        group_by: defines groups of examples that stay in one split and one fold, such
            as photographs of one person: a regular expression that is searched in each
            path below a folder, or a column of a table.
        image_size: pixels of a side, or (height, width); by default the most frequent
            size of the files if it is at most 256, else 64.
        resize: "crop" fills the frame and cuts the rest evenly on both sides; "pad"
            shows the whole image with black around it.
        task: of a table, "classification" or "regression": overrides that rule.

    Returns:
        Splits of `Batch(image [N, H, W, C] uint8, label [N] int32)`, or [N, D] float32
        for a table; images are read from disk when they are indexed. Numbers to
        predict, and several labels, are float32 [N] or [N, columns], and `classes` is
        ().

    Raises:
        UserError: if `name` is unknown, or files are missing, damaged or unwritable.

    >>> digits = load("digits")
    >>> digits.train.inputs.shape, digits.train.inputs.dtype, digits.test.targets.shape
    ((1257, 8, 8, 1), dtype('uint8'), (360,))
    """
    check_path("the name of a data set", name)
    if data_dir is not None:
        check_path("data_dir", data_dir)
    options = {
        "target": target,
        "group_by": group_by,
        "image_size": image_size,
        "task": task,
    }
    is_named = str(name) in NAMES
    if not is_named or (isinstance(name, os.PathLike) and os.path.exists(name)):
        return _own(name, data_dir, resize=resize, **options)
    odd = None if resize == "crop" else resize
    for option, value in {**options, "resize": odd}.items():
        if value is not None:
            raise errors.UserError(
                f"{option} is '{value}', which is for data of your own: leave it out "
                f"for '{name}'"
            )
    name = str(name)
    with _usable(data_dir):
        return decoded.read(name, _arrays_folder(name, data_dir))


def prepare_from(
    name: str, source: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None
) -> None:
    """Prepare one of `NAMES` from a folder of raw files, for `load` with `data_dir`.

    Raises:
        UserError: if the name is unknown, the data set is already prepared, or the
            files are missing or damaged.
    """
    from dlworkshop.data import prepare  # noqa: PLC0415

    if name not in NAMES:
        raise errors.unknown("data set", name, NAMES)
    if name == "digits":
        raise errors.UserError(
            f"digits is part of scikit-learn, so {source} has no effect: leave it out"
        )
    root = _root(data_dir).absolute()
    if there := places.newest(root, name):
        raise errors.UserError(
            f"{name} is prepared already in {there}: leave {source} out, or delete "
            "that folder to prepare it again"
        )
    with _usable(data_dir):
        prepare.prepare(name, root, Path(source).expanduser())


def reload(
    name: str, fingerprint: str, data_dir: str | os.PathLike[str] | None = None
) -> Dataset:
    """The data set of a run, whose fingerprint must be the one in its config.

    Raises:
        UserError: if the data set is missing, or its content has changed.
    """
    from dlworkshop.data.readers import store  # noqa: PLC0415

    prepared = _root(data_dir) / "own" / fingerprint
    if fingerprint.isalnum() and prepared.is_dir():  # isalnum excludes a path
        return store.read(prepared, name)
    if name not in NAMES:
        raise errors.UserError(
            f"the data '{name}' of the run are not in {prepared.parent}: give labelled "
            "data (--data PATH) or the folder of the prepared data (--data-dir), or in "
            "Python the arrays to load_run(folder).evaluate"
        )
    dataset = load(name, data_dir)
    if dataset.fingerprint != fingerprint:
        raise errors.UserError(
            f"the data set '{name}' differs from the one that the run learnt from, or "
            "is only a part of it: give labelled data (--data PATH)"
        )
    return dataset


def folder_of(dataset: Dataset, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder of the prepared data set that `load` returns for this `data_dir`."""
    own = _root(data_dir) / "own" / dataset.fingerprint
    if own.is_dir():
        return own
    arrays_folder = _arrays_folder(dataset.name, data_dir)
    records = arrays_folder.parent  # unless the records are read-only
    return records if (records / "dataset_info.json").is_file() else arrays_folder


def _root(data_dir: str | os.PathLike[str] | None) -> Path:
    return places.cache_dir() if data_dir is None else Path(data_dir).expanduser()


def _own(
    path: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None,
    **options: Any,
) -> Dataset:
    from dlworkshop.data import readers  # noqa: PLC0415
    from dlworkshop.data.readers.reader import Options  # noqa: PLC0415

    given = Path(path).expanduser()
    if not given.exists():
        if len(given.parts) == 1 and not given.suffix:
            raise errors.unknown("data set", str(path), NAMES)
        raise errors.UserError(f"{path} is not there: give the path of your data")
    with _usable(data_dir):
        return readers.load(given, _root(data_dir) / "own", Options(**options))


_FULL = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)]


@contextlib.contextmanager
def _usable(data_dir: str | os.PathLike[str] | None) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        where = getattr(error, "filename", None) or data_dir or "the data cache"
        why = getattr(error, "strerror", None)
        if isinstance(error, RuntimeError):  # of ArrayRecord, which keeps the reason
            why = next((each for each in _FULL if each in str(error)), None)
            if why is None:
                raise
        raise errors.UserError(
            f"{where} cannot be used ({why or error}): give a writable "
            "folder with enough room by data_dir (--data-dir) or DLWORKSHOP_DATA"
        ) from error


def _arrays_folder(name: str, data_dir: str | os.PathLike[str] | None) -> Path:
    """The folder of decoded arrays, prepared if necessary."""
    from dlworkshop.data import checksums, prepare, sources  # noqa: PLC0415

    given = _root(data_dir)
    home = places.cache_dir() if places.read_only(given) else given
    records = places.newest(given, name) or places.newest(home, name)
    if records is None:
        source = None
        if name != "digits" and (paths := sources.find(name, given)):
            # keyed by content, because file names are the same in every folder
            source, home = given, places.cache_dir() / "from" / checksums.key(paths)
        records = places.newest(home, name) or prepare.prepare(name, home, source)
    return prepare.arrays_of(name, records)
