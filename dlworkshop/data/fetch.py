"""The official raw files from the network, with bounded patience."""

import hashlib
import logging
import os
import threading
import urllib.request
from pathlib import Path

from dlworkshop.data.checksums import official
from dlworkshop.errors import UserError

log = logging.getLogger(__name__)
PROBE_SECONDS = 5.0  # a server that answers does so at once
READ_SECONDS = 30.0  # between two pieces of a download
_PIECE = 1 << 20  # bytes


def fetch(name: str, folder: Path) -> None:
    """Download the official raw files of `name` that `folder` lacks.

    Raises:
        UserError: in two lines, if there is no answer within seconds or a file is not
            the official one; the second line says which files to put where.
    """
    infos = official(name)
    wanted = {
        url: info for url, info in infos.items() if not _path(folder, url).exists()
    }
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _probe(next(iter(wanted)))
        for url, info in wanted.items():
            _download(url, _path(folder, url), info.checksum, int(info.size))
    except (OSError, ValueError) as error:
        files = ", ".join(_path(folder, url).name for url in infos)
        raise UserError(
            f"{name} is not in {folder.parents[1]} and cannot be fetched: {error}.\n"
            f"Put {files} into {folder} and run again, or give a folder that has them "
            "with --data-dir (data_dir=...)."
        ) from error


def _path(folder: Path, url: str) -> Path:
    return folder / url.rsplit("/", 1)[-1]


def _probe(url: str) -> None:
    """Raise OSError unless `url` answers soon; looking up a name has no timeout."""
    failure: list[Exception] = [TimeoutError(f"no answer in {PROBE_SECONDS:g} s")]

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=PROBE_SECONDS).close()
            failure.clear()
        except Exception as error:
            failure[0] = error

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS + 1)
    if failure:
        raise OSError(f"{url} does not answer ({failure[0]})")


def _download(url: str, path: Path, checksum: str, size: int) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    sha, done = hashlib.sha256(), 0
    try:
        with (
            urllib.request.urlopen(url, timeout=READ_SECONDS) as answer,
            partial.open("wb") as file,
        ):
            while piece := answer.read(_PIECE):
                file.write(piece)
                sha.update(piece)
                done += len(piece)
                log.info("%s: %d of %d MB", path.name, done >> 20, size >> 20)
        if sha.hexdigest() != checksum:
            raise OSError(f"{url} has sha256 {sha.hexdigest()}, wanted {checksum}")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
