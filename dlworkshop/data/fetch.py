"""Download of official files, with timeouts."""

import contextlib
import hashlib
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from dlworkshop.data.checksums import official
from dlworkshop.data.progress import Live
from dlworkshop.errors import UserError
from dlworkshop.files import atomic_file

PROBE_SECONDS = 5.0  # for the first answer of a server
READ_SECONDS = 30.0  # between two pieces of a download
_PIECE = 1 << 20  # bytes


def fetch(name: str, folder: Path) -> None:
    """Download the official raw files of `name` that are missing in `folder`.

    Raises:
        UserError: if the server does not answer within seconds, or a file is not the
            official one. The second line says which files to put where.
    """
    infos = official(name)
    paths = {url: folder / url.rsplit("/", 1)[-1] for url in infos}
    wanted = {url: path for url, path in paths.items() if not path.exists()}
    files = ", ".join(path.name for path in paths.values())
    with _explained(
        f"{name} is not in {folder.parents[1]}",
        f"Put {files} into {folder} and run again, or give a folder that has them "
        "with data_dir (--data-dir).",
    ):
        folder.mkdir(parents=True, exist_ok=True)
        _probe(next(iter(wanted)))
        for url, path in wanted.items():
            _download(url, path, f"sha256:{infos[url].checksum}")


def fetch_file(url: str, path: Path, checksum: str, what: str) -> None:
    """Download one file unless it exists; verify its checksum in both cases.

    Args:
        url: of the file.
        path: where the file is stored.
        checksum: method and digest, such as "md5:6d6b...".
        what: the content of the file, for messages.

    Raises:
        UserError: if the file cannot be downloaded (the message says which file to put
            where), or its checksum differs.
    """
    if not path.exists():
        with _explained(
            f"{what} are not in {path.parent}",
            f"Put {path.name} from {url} into {path.parent} and run again.",
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            _probe(url)
            _download(url, path, checksum)
        return  # `_download` has verified the checksum
    with path.open("rb") as file:
        method, _, wanted = checksum.partition(":")
        digest = hashlib.file_digest(file, method).hexdigest()
    if digest != wanted:
        raise UserError(
            f"{path} has {method} {digest}, wanted {wanted} of the official file: "
            f"delete it and run again, or fetch it from {url}"
        )


@contextlib.contextmanager
def _explained(lacking: str, advice: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise UserError(
            f"{lacking} and cannot be fetched: {error}.\n{advice}"
        ) from error


def _probe(url: str) -> None:
    """Raise OSError unless `url` responds in time.

    The request runs in a thread because name resolution has no timeout.
    """
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


def _download(url: str, path: Path, checksum: str) -> None:
    """Download `url` to `path` atomically and verify its checksum."""
    method, _, wanted = checksum.partition(":")
    digest = hashlib.new(method)
    with (
        urllib.request.urlopen(url, timeout=READ_SECONDS) as answer,
        atomic_file(path) as file,
        Live(
            int(answer.headers["Content-Length"] or sys.maxsize), text=path.name
        ) as live,
    ):
        done = 0
        whole = "" if live.total == sys.maxsize else f" of {live.total / 1e6:.1f}"
        while piece := answer.read(_PIECE):
            file.write(piece)
            digest.update(piece)
            done += len(piece)
            live.show(done, f"{path.name}: {done / 1e6:.1f}{whole} MB")
        if digest.hexdigest() != wanted:
            raise OSError(f"{url} has {method} {digest.hexdigest()}, wanted {wanted}")
