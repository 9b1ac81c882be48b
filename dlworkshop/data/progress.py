"""What work that takes its time tells the person who waits: one live line, or plain."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

QUIET_SECONDS = 10.0  # at most one plain line in this time
ROOM_FOR_BAR = 110  # columns of a terminal that has room for a bar beside the text


class Live:
    """A line that changes in a terminal; elsewhere a plain one now and then."""

    def __init__(self, total: int, done: int = 0, text: str = "", quiet: bool = False):
        self.console = Console(stderr=True, highlight=False, quiet=quiet)
        self.total = total
        self._bar = Progress(
            *([BarColumn(20)] if self.console.width >= ROOM_FOR_BAR else []),
            TextColumn("{task.fields[text]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, completed=done, text=text)
        self.started = self._told = time.perf_counter()

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show(self, done: int, text: str) -> None:
        """So far `done` of the total; the last line is always shown."""
        self._bar.update(self._task, completed=done, text=text)
        now = time.perf_counter()
        quiet = now - self._told < QUIET_SECONDS
        if self.console.is_terminal or (quiet and done < self.total):
            return
        self._told = now
        self.console.print(text, soft_wrap=True)


class Count(Live):
    """Progress over `total` things of one kind, to be advanced inside `with`."""

    def __init__(self, total: int, noun: str):
        super().__init__(total, text=f"0 of {total:,} {noun}")
        self._noun, self._done = noun, 0

    def advance(self, count: int) -> None:
        """So many more are done."""
        self._done += count
        rate = self._done / max(time.perf_counter() - self.started, 1e-9)
        text = f"{self._done:,} of {self.total:,} {self._noun}, {rate:,.1f} a second"
        left = (self.total - self._done) / max(rate, 1e-9)
        self.show(self._done, f"{text}, {left:.0f} s left")
