"""Raw files or a download -> tfds records and arrays, made visible by one rename."""

import logging
import sys
import tempfile
from pathlib import Path

from dlworkshop.data import arrays, checksums, fetch, places, sources
from dlworkshop.data.builders import make_builder
from dlworkshop.errors import UserError
from dlworkshop.files import atomic_rename

log = logging.getLogger(__name__)


def prepare(name: str, root: Path, source: Path | None = None) -> Path:
    """Prepare one of `NAMES` below `root`, a tfds data_dir that is made if missing.

    Two processes may do it at once; one that is killed leaves nothing that counts.
    `source` is a folder of raw files; None means `root`/downloads, filled if need be.

    Returns:
        The tfds folder of the data set, as `root`/mnist/3.0.1.

    Raises:
        UserError: if raw files are missing or damaged.
        OSError: if `root` cannot be written.
    """
    import tensorflow_datasets as tfds  # noqa: PLC0415

    root.mkdir(parents=True, exist_ok=True)
    raw = None if name == "digits" else _read(name, root, source)
    log.info("preparing %s in %s", name, root)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix=".incomplete-", dir=root) as partial:
        builder = make_builder(name, partial)
        builder.raw = raw
        with arrays.quiet():
            builder.download_and_prepare(
                file_format="array_record", download_dir=f"{partial}/downloads"
            )
        made = Path(builder.data_dir)
        log.info("decoding %s once", name)
        arrays.write(name, made, made / "arrays")
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

    It lies beside the records, or in the cache where those cannot be written.
    """
    folder = records / "arrays"
    if not folder.exists() and places.read_only(records):
        key = checksums.key([records / "dataset_info.json"])
        folder = places.cache_dir() / "arrays" / f"{name.replace('/', '-')}-{key}"
        folder.parent.mkdir(exist_ok=True)
    if not folder.exists():
        arrays.write(name, records, folder)
    return folder
