"""What a search has found so far, kept in `search.json` of the run folder."""

import contextlib
import dataclasses
import logging
import time
from pathlib import Path
from typing import Any

from dlworkshop import run_files
from dlworkshop.errors import UserError
from dlworkshop.train import run_folder
from dlworkshop.train.progress import log_level

log = logging.getLogger(__name__)

FILE = "search.json"


@dataclasses.dataclass
class SearchState:
    """The state of a search, from which it can be resumed.

    `found` is the content of the file: the arguments ("asked"), the candidates that
    were tried with their scores ("searched"), sentences on what was left out for lack
    of time, the decisions that are made only once, and the seconds used so far.
    """

    workdir: Path | None  # None keeps the state in memory
    quiet: bool
    found: dict[str, Any] = dataclasses.field(default_factory=dict)
    started: float = dataclasses.field(default_factory=time.perf_counter)
    lock: contextlib.ExitStack = dataclasses.field(default_factory=contextlib.ExitStack)
    locked: bool = False

    def begin(self, asked: dict[str, Any]) -> None:
        """Start a new search, or resume the one in the run folder.

        Raises:
            UserError: if the folder holds another search, or a run of another kind.
        """
        asked = run_folder.to_jsonable(asked)
        self.found = {"asked": asked, "searched": {}, "left_out": [], "seconds": 0.0}
        folder = self.workdir
        if folder is None:
            return
        if not (folder / FILE).is_file():
            if (folder / "config.json").is_file():
                raise UserError(
                    f"{folder} holds a run of another kind: choose another workdir "
                    "(--workdir)"
                )
            return
        before = run_files.read(folder, FILE)
        then, now = (run_folder.flatten(each) for each in (before["asked"], asked))
        if differ := run_folder.changes(then, now):
            raise UserError(
                f"{folder} holds a search with other arguments ({'; '.join(differ)}): "
                "give the same arguments or choose another workdir (--workdir)"
            )
        self.found = before

    @property
    def used(self) -> float:
        """Seconds used, including earlier sessions of the same search."""
        return self.found["seconds"] + time.perf_counter() - self.started

    def log(self, text: str, *args: Any) -> None:
        """Log a message, unless the search is quiet."""
        log.log(log_level(self.quiet, logging.INFO), text, *args)

    def leave_out(self, text: str) -> None:
        """Record and log something that was left out for lack of time."""
        self.found["left_out"].append(text)
        self.log(text)

    def save(self) -> None:
        """Write the file; the first call makes the folder and locks it."""
        if self.workdir is None:
            return
        if not self.workdir.is_dir() or not self.locked:
            self.lock.enter_context(run_folder.lock_run_dir(self.workdir))
            self.locked = True
        content = {**self.found, "seconds": self.used}
        run_folder.write_digested(self.workdir / FILE, content)
