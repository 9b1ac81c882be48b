"""Preparation of a named data set: raw files -> tfds records and decoded arrays."""

import logging
import sys
from pathlib import Path

from dlworkshop.data import checksums, decoded, fetch, places, sources
from dlworkshop.data.builders import builder_class
from dlworkshop.errors import UserError
from dlworkshop.files import atomic_rename, partial_folder

log = logging.getLogger(__name__)


def prepare(name: str, root: Path, source: Path | None = None) -> Path:
    """Prepare one of `NAMES` below `root`, atomically.

    Two processes may prepare the same data set at once, and either may be killed.

    Args:
        name: one of `NAMES`.
        root: a tfds data_dir, created if missing.
        source: a folder of raw files; None downloads them to `root`/downloads.

    Returns:
        The tfds folder of the data set, such as `root`/mnist/3.0.1.

    Raises:
        UserError: if raw files are missing or damaged.
        OSError: if `root` cannot be written.
    """
    import tensorflow_datasets as tfds  # noqa: PLC0415

    root.mkdir(parents=True, exist_ok=True)
    raw = None if name == "digits" else _read(name, root, source)
    log.info("preparing %s in %s", name, root)
    if sys.stderr is None or not sys.stderr.isatty():
        tfds.disable_progress_bar()
    with partial_folder(root) as partial:
        config = name.partition("/")[2] or None
        builder = builder_class(name)(data_dir=str(partial), config=config)
        builder.raw = raw
        with decoded.quiet():
            builder.download_and_prepare(
                file_format="array_record", download_dir=f"{partial}/downloads"
            )
        made = Path(builder.data_dir)
        log.info("decoding %s once", name)
        decoded.write(name, made, made / "arrays")
        final = root / made.relative_to(partial)
        final.parent.mkdir(parents=True, exist_ok=True)
        atomic_rename(made, final)
    return final


def _read(name: str, root: Path, source: Path | None) -> sources.Raw:
    if source is None:
        source = root / "downloads" / name.partition("/")[0]
        if sources.locate(name, source)[1]:
            fetch.fetch(name, source)
    paths = sources.find(name, source)
    if not paths:
        missing = sources.locate(name, source)[1]
        raise UserError(
            f"{source} has no raw files of {name}: put {', '.join(missing)} there."
        )
    log.info("reading %s", ", ".join(str(path) for path in paths))
    checksums.check_official(name, paths)
    return sources.read(name, paths)


def arrays_of(name: str, records: Path) -> Path:
    """The folder of decoded arrays of prepared `records`, created if missing.

    It is inside the folder of the records, or in the cache if that is read-only.
    """
    folder = records / "arrays"
    if not folder.exists() and places.read_only(records):
        key = checksums.key([records / "dataset_info.json"])
        folder = places.cache_dir() / "arrays" / f"{name.replace('/', '-')}-{key}"
        folder.parent.mkdir(exist_ok=True)
    if not folder.exists():
        decoded.write(name, records, folder)
    return folder
