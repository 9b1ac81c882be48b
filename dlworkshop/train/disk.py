"""Disk errors of a run folder, in one sentence."""

import contextlib
import errno
import os
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

from dlworkshop.errors import UserError

DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EFBIG: "a file became larger than this system allows",
    errno.EIO: "the disk does not work",
    errno.EROFS: "it cannot be written",
    errno.EACCES: "it cannot be written",
    errno.EPERM: "it cannot be written",
    errno.ESTALE: "its disk was removed",
    errno.ENOENT: "it was moved or removed",
    errno.ENOTDIR: "it was moved or removed",
    errno.EMFILE: "too many files are open (ulimit -n)",
    errno.ENFILE: "too many files are open",
}


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a disk error raised inside into a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = _disk_error(error, folder)
        if reason is None:
            raise
        raise UserError(
            f"writing the run folder {folder} failed because {reason}: make room or "
            "choose another workdir (--workdir); earlier checkpoints are intact"
        ) from error


def _disk_error(error: BaseException, folder: Path) -> str | None:
    """The reason why the disk under a folder failed; None for other errors.

    Threads and libraries wrap the error of the system, and some keep only its number.
    """
    each: BaseException | None = error
    seen: set[int] = set()
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        said = re.search(r"os_error_code='(\d+)'", str(each))  # TensorStore's format
        number = int(said[1]) if said else getattr(each, "errno", None)
        if number in DISK and _is_below(each, folder):
            return DISK[number]
        if (name := getattr(each, "filename", None)) and _is_below(each, folder):
            why = str(getattr(each, "strerror", each))
            return why if str(name) in why else f"{name} is refused ({why})"
        each = each.__cause__ or each.__context__
    return None if (folder / ".lock").exists() else DISK[errno.ENOENT]


def _is_below(error: BaseException, folder: Path) -> bool:
    """Whether the error names a file in the folder."""
    name = getattr(error, "filename", None)
    if name is None or Path(os.path.abspath(name)).is_relative_to(folder.absolute()):
        return True
    # orbax has the folder open and names its files relative to it
    frames = traceback.walk_tb(error.__traceback__)
    checkpoint = any("orbax" in frame.f_code.co_filename for frame, _ in frames)
    return checkpoint and not os.path.isabs(name)
