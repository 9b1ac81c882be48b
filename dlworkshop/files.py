"""Atomic writing of files, and the private cache folder."""

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write, which replaces `path` when the block ends without an error.

    It is written beside `path`, under a name that nobody can guess and that must be
    new, is brought to the disk, and takes the place of what was there. So readers see
    the old content or the new one, two writers never mix theirs, a link at `path` is
    replaced rather than followed, and a block that raises leaves nothing behind.

    Raises:
        OSError: if the folder cannot be written, or the disk is full.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.txt")
    >>> with atomic_file(path) as file:
    ...     _ = file.write(b"whole")
    >>> path.read_text(), os.listdir(path.parent)
    ('whole', ['a.txt'])
    """
    path = Path(path)
    beside = path.with_name(f".{path.name[:80]}.{secrets.token_hex(8)}.tmp")
    new = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    try:
        with os.fdopen(os.open(beside, new, 0o666), "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def remove_left_over(folder: Path) -> None:
    """Remove what killed `atomic_file`s left in a folder that is locked."""
    for path in folder.glob(".*.tmp"):
        if re.fullmatch(r"\..*\.[0-9a-f]{16}\.tmp", path.name):
            path.unlink()


def atomic_write(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file atomically, as `atomic_file`; text is UTF-8.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.txt")
    >>> atomic_write(path, "whole")
    >>> path.read_text()
    'whole'
    """
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def open_for_update(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for reading and writing, created if missing, never truncated.

    Raises:
        OSError: if it is a link, which could lead to somebody's other file, or is not
            a regular file.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "log")
    >>> with open_for_update(path) as file:
    ...     file.write(b"line")
    4
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
    return os.fdopen(descriptor, "r+b")


def read_regular(path: str | os.PathLike[str], most: int) -> bytes:
    """The contents of a regular file; pipes and devices are refused.

    Raises:
        OSError: if it cannot be read, is another kind of file, or is larger than
            `most` bytes.
    """
    unwaited = getattr(os, "O_NONBLOCK", 0)
    with open(path, "rb", opener=lambda p, flags: os.open(p, flags | unwaited)) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
        if found.st_size > most:
            why = f"it has {found.st_size:,} bytes, more than {most:,}"
            raise OSError(errno.EFBIG, why, os.fspath(path))
        return file.read()


def atomic_rename(made: Path, final: Path) -> None:
    """Rename a finished folder, unless another process was faster."""
    try:
        os.rename(made, final)
    except OSError:
        if not final.exists():
            raise


def private_folder(name: str) -> Path:
    """The folder `name` in the user's cache, private, created if missing.

    The cache is $XDG_CACHE_HOME/dlworkshop, by default ~/.cache/dlworkshop. What is in
    it may be run (compiled programs), so nobody else may write there.

    Raises:
        OSError: if it cannot be made, is somebody else's, or there is no home.
    """
    home = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(home):  # such a one is to be ignored, says its specification
        home = os.path.expanduser("~/.cache")
    if not os.path.isabs(home):
        raise FileNotFoundError(errno.ENOENT, "no home folder is known", home)
    folder = Path(home, "dlworkshop", name)
    _make_private(folder)
    for each in (folder.parent, folder):
        found = each.stat()
        if {found.st_uid, each.lstat().st_uid} != {os.geteuid()}:  # or of a link
            raise PermissionError(errno.EPERM, "it is somebody else's", str(each))
        if found.st_mode & 0o077:
            each.chmod(0o700)
    return folder


def _make_private(folder: Path) -> None:
    """Create a folder and its parents with mode 0700, whatever the umask is."""
    if not folder.parent.is_dir():
        _make_private(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
