"""Progress display: a live line in a terminal or notebook, plain lines elsewhere."""

import contextlib
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

QUIET_SECONDS = 10.0  # between two plain lines
NOTEBOOK_SECONDS = 0.2  # between two messages to a notebook
ROOM_FOR_BAR = 110  # columns of a terminal with room for a bar beside the text


class Live:
    """A line that is updated in place; without a terminal, plain lines now and then.

    In a notebook the display is not that of rich, whose widget needs another package
    and is not stored in a saved notebook.
    """

    def __init__(self, total: int, done: int = 0, text: str = "", quiet: bool = False):
        self._notebook = None if quiet else Notebook.here()
        shown = not quiet and self._notebook is None
        stream: Any = Lasting()
        self.console = Console(
            file=stream, highlight=False, quiet=not shown, force_jupyter=False
        )
        self.total = total
        self._bar = Progress(
            *([BarColumn(20)] if self.console.width >= ROOM_FOR_BAR else []),
            TextColumn("{task.fields[text]}", markup=False),
            console=self.console,
            disable=not (shown and self.console.is_terminal),
        )
        self._task = self._bar.add_task("", total=total, completed=done, text=text)
        self._untold = ""
        self.started = self._told = time.perf_counter()

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self._untold:  # the last text, if the work ended early
            self._tell(self._untold)

    def log(self, line: str) -> None:
        """Print a permanent line above the live one."""
        if self._notebook is not None:
            self._notebook.log(line)
        else:
            self.console.print(line, soft_wrap=True, markup=False)

    def show(self, done: int, text: str) -> None:
        """Show `done` of the total; the last text is always shown."""
        self._bar.update(self._task, completed=done, text=text)
        now = time.perf_counter()
        often = QUIET_SECONDS if self._notebook is None else NOTEBOOK_SECONDS
        if not self._bar.disable:
            return
        if now - self._told < often and done < self.total:
            self._untold = text
            return
        self._told = now
        self._tell(text)

    def _tell(self, text: str) -> None:
        self._untold = ""
        if self._notebook is not None:
            self._notebook.show(text)
        else:
            self.console.print(text, soft_wrap=True, markup=False)


class Lasting:
    """The stream `sys.stderr`, silent when nobody can read it, as after a logout.

    The work goes on: rich would end the program where a pipe is broken.
    """

    def __init__(self) -> None:
        self._stream = sys.stderr

    def write(self, text: str) -> None:
        """Write, if possible."""
        with contextlib.suppress(OSError, AttributeError):  # it is None if closed
            self._stream.write(text)

    def flush(self) -> None:
        """Flush, if possible."""
        with contextlib.suppress(OSError, AttributeError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Notebook:
    """Displays in the output of a notebook cell."""

    def __init__(self, display: Any):
        self._display = display
        self._live: Any = None

    @classmethod
    def here(cls) -> "Notebook | None":
        """The notebook in which this process runs; None elsewhere."""
        ipython = sys.modules.get("IPython")  # a notebook has imported it already
        shell = ipython.get_ipython() if ipython is not None else None
        if getattr(shell, "kernel", None) is None:
            return None
        from IPython.display import display  # noqa: PLC0415

        return cls(display)

    def log(self, line: str) -> None:
        """Print a permanent line."""
        self._display({"text/plain": line}, raw=True)

    def show(self, text: str) -> None:
        """Update the live line."""
        message = {"text/plain": text}
        if self._live is None:
            self._live = self._display(message, raw=True, display_id=True)
        else:
            self._live.update(message, raw=True)


class Count(Live):
    """Progress over `total` items, advanced inside `with`."""

    def __init__(self, total: int, noun: str):
        super().__init__(total, text=f"0 of {total:,} {noun}")
        self._noun, self._done = noun, 0

    def advance(self, count: int) -> None:
        """Advance by `count` items."""
        self._done += count
        rate = self._done / max(time.perf_counter() - self.started, 1e-9)
        text = f"{self._done:,} of {self.total:,} {self._noun}, {rate:,.1f} a second"
        left = (self.total - self._done) / max(rate, 1e-9)
        self.show(self._done, f"{text}, {left:.0f} s left")
