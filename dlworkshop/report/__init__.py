"""Run folder -> one HTML page with figures that opens offline.

`write(workdir)` reads the files of a run folder (`read`), draws the figures
(`figures`), formats the numbers (`words`) and renders the page (`page`, `elements`).
"""

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from dlworkshop.files import atomic_write, open_own

__all__ = ["is_wanted", "is_whole", "left_out", "write"]

FILE = "report.html"
_wanted = ContextVar("report.is_wanted", default=True)


def write(workdir: Path) -> Path:
    """Write `workdir/report.html` atomically, and return its path.

    Args:
        workdir: the folder of a finished run. It must contain config.json and
            summary.json; curves need metrics.jsonl, mistakes need predictions.npz.

    Returns:
        The path of the page, a single file that loads nothing else.

    Raises:
        UserError: if the folder is not the folder of a finished run.
    """
    from dlworkshop.report import page, read  # noqa: PLC0415 (they load matplotlib)

    workdir = Path(workdir)
    text = page.render(read.read_run(workdir))
    target = workdir / FILE
    atomic_write(target, text)
    return target


def is_whole(workdir: Path) -> bool:
    """Whether a folder has a report that is complete up to its end."""
    try:
        with open_own(workdir / FILE) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 100))
            return file.read(100).rstrip().endswith(b"</html>")
    except OSError:
        return False


def is_wanted() -> bool:
    """Whether `fit` writes a report at the end of a run."""
    return _wanted.get()


@contextlib.contextmanager
def left_out() -> Iterator[None]:
    """Make `fit` skip the report inside this context, to save the drawing time.

    >>> with left_out():
    ...     is_wanted()
    False
    """
    token = _wanted.set(False)
    try:
        yield
    finally:
        _wanted.reset(token)
