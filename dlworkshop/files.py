"""Atomic and safe file operations, and the private cache folder."""

import contextlib
import errno
import fcntl
import io
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dlworkshop.errors import UserError


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write, which replaces `path` if the context ends without an error.

    The content is written to a new file with an unpredictable name beside `path`,
    flushed to disk, and then renamed. So readers see either the old content or the new
    one, two writers never mix their contents, a link at `path` is replaced rather than
    followed, and after an error nothing is left behind.

    Raises:
        OSError: if the folder is not writable, the disk is full, or `path` is a folder,
            a pipe or a device, such as /dev/null.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.txt")
    >>> with atomic_file(path) as file:
    ...     _ = file.write(b"whole")
    >>> path.read_text(), os.listdir(path.parent)
    ('whole', ['a.txt'])
    """
    path = Path(path)
    with contextlib.suppress(FileNotFoundError):
        kind = path.lstat().st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISLNK(kind):  # root could replace it
            why = f"{path} is not a regular file"
            raise OSError(errno.EINVAL, why, os.fspath(path))
    # a character has up to 4 bytes, and a name up to 255
    beside = path.with_name(f".{path.name[:50]}.{secrets.token_hex(8)}.tmp")
    new = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    try:
        with os.fdopen(os.open(beside, new, 0o666), "w+b") as file:
            with contextlib.suppress(OSError):  # not all disks have locks
                fcntl.flock(file, fcntl.LOCK_EX)  # for `remove_left_over`
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(beside, path)  # before the lock is gone
    except BaseException as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        own = (None, beside, os.fspath(beside))  # the system names none if it is full
        if isinstance(error, OSError) and error.errno and error.filename in own:
            error.filename = os.fspath(path)
            del error.filename2
        raise


def remove_left_over(folder: Path, older: float = 0) -> None:
    """Remove what killed `atomic_file`s and `partial_folder`s left in a folder.

    Args:
        older: seconds in which nothing of it has changed; 0 is for a locked folder.
    """
    for path in folder.glob(".*"):
        if LEFT_OVER.fullmatch(path.name) and not path.is_symlink():
            with contextlib.suppress(OSError):  # it may be removed by others, too
                if older and _changed(path) > time.time() - older:
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                elif not _is_being_written(path):
                    path.unlink()


LEFT_OVER = re.compile(r"\..*\.[0-9a-f]{16}\.tmp|\.dlworkshop-\w{8}")
DAY = 24 * 3600.0  # after which a file of a process is taken for one that was killed


def _is_being_written(path: Path) -> bool:
    """Whether the process of an `atomic_file` is alive, such as that of a report."""
    with open_own(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a disk without locks
            pass
    return False


def _changed(path: Path) -> float:
    """When a file, or anything in a folder, was changed last."""
    return max(each.lstat().st_mtime for each in (path, *path.rglob("*")))


@contextlib.contextmanager
def partial_folder(root: Path) -> Iterator[Path]:
    """A new folder in `root` to prepare in, to be renamed; see `atomic_rename`.

    It is removed at the end unless it was renamed. Those that processes left that were
    killed, a day ago or longer, are removed, too.
    """
    remove_left_over(root, DAY)
    folder = Path(tempfile.mkdtemp(prefix=".dlworkshop-", dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def atomic_write(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file atomically (see `atomic_file`); text is encoded as UTF-8.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.txt")
    >>> atomic_write(path, "whole")
    >>> path.read_text()
    'whole'
    """
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def open_regular(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open a regular file of the user's for reading.

    Raises:
        OSError: if it cannot be opened, or is a pipe or a device, which could block or
            never end.

    >>> with open_regular(os.devnull):
    ...     pass
    Traceback (most recent call last):
    OSError: [Errno 22] null is not a regular file: '/dev/null'
    """
    return os.fdopen(_regular(path, os.O_RDONLY), "rb")


def open_own(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open a file that this library wrote, such as one of a run folder, for reading.

    Raises:
        OSError: as `open_regular`, and if it is a link: a folder from an untrusted
            source must not show other files of the user.
    """
    return os.fdopen(_regular(path, os.O_RDONLY | _UNLINKED), "rb")


def open_for_update(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for reading and writing, created if missing, never truncated.

    Raises:
        OSError: if it is a link or has another name (a hard link), so that it could be
            another file of the user, or if it is not a regular file.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "log")
    >>> with open_for_update(path) as file:
    ...     file.write(b"line")
    4
    """
    opened = _regular(path, os.O_RDWR | os.O_CREAT | _UNLINKED)
    if os.fstat(opened).st_nlink > 1:
        os.close(opened)
        why = f"{Path(path).name} is a hard link, whose content other names share"
        raise OSError(errno.EMLINK, why, os.fspath(path))
    return os.fdopen(opened, "r+b")


_UNLINKED = getattr(os, "O_NOFOLLOW", 0)


def _regular(path: str | os.PathLike[str], flags: int) -> int:
    path, name = os.fspath(path), Path(path).name
    try:
        opened = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP and os.path.islink(path):
            raise OSError(errno.ELOOP, f"{name} is a link", path) from None
        raise
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise OSError(errno.EINVAL, f"{name} is not a regular file", path)
    return opened


def read_own(path: str | os.PathLike[str], most: int) -> bytes:
    """The contents of a file that this library wrote; see `open_own`.

    Raises:
        OSError: if the file cannot be read, is not regular, is a link, or is larger
            than `most` bytes.
    """
    with open_own(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > most:
            why = f"it has {size:,} bytes, more than {most:,}"
            raise OSError(errno.EFBIG, why, os.fspath(path))
        return file.read()


def refuse_link(path: Path) -> None:
    """Refuse a link in a run folder, through which other files could be changed.

    Raises:
        UserError: if it is a link.
    """
    if path.is_symlink():
        raise UserError(
            f"{path} is a link, and files elsewhere would be changed through it: "
            "replace it by a copy, or choose another workdir (--workdir)"
        )


def atomic_rename(made: Path, final: Path) -> None:
    """Rename a finished folder, unless another process has done the same."""
    try:
        os.rename(made, final)
    except OSError:
        if not final.exists():
            raise


def private_folder(name: str) -> Path:
    """The folder `name` in the user's cache, private, created if missing.

    The cache is $XDG_CACHE_HOME/dlworkshop, by default ~/.cache/dlworkshop. It contains
    compiled programs that will be run, so no other user may write there.

    Raises:
        OSError: if the folder cannot be created, belongs to another user, or there is
            no home folder.
    """
    home = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(home):  # the specification ignores relative paths
        home = os.path.expanduser("~/.cache")
    if not os.path.isabs(home):
        raise FileNotFoundError(errno.ENOENT, "no home folder is known", home)
    folder = Path(home, "dlworkshop", name)
    _make_private(folder)
    for each in (folder.parent, folder):
        found = each.stat()
        if {found.st_uid, each.lstat().st_uid} != {os.geteuid()}:  # folder and link
            raise PermissionError(errno.EPERM, "it belongs to another user", str(each))
        if found.st_mode & 0o077:
            each.chmod(0o700)
    return folder


def _make_private(folder: Path) -> None:
    """Create a folder and its parents with mode 0700, whatever the umask is."""
    if not folder.parent.is_dir():
        _make_private(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
