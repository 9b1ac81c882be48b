"""What preparing tells the person who waits: one live line, or a plain one."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

QUIET_SECONDS = 10.0  # at most one plain line in this time


class Progress:
    """Progress over `total` files, to be advanced inside `with`."""

    def __init__(self, total: int, noun: str):
        self._console = Console(stderr=True, highlight=False)
        self._total, self._noun, self._done = total, noun, 0
        self._bar = Bar(
            BarColumn(20),
            TextColumn("{task.fields[text]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )

    def __enter__(self) -> "Progress":
        self._started = self._told = time.perf_counter()
        self._task = self._bar.add_task("prepare", total=self._total, text="")
        self._bar.start()
        self.advance(0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def advance(self, count: int) -> None:
        """So many more are done."""
        self._done += count
        now = time.perf_counter()
        rate = self._done / max(now - self._started, 1e-9)
        text = f"prepared {self._done:,} of {self._total:,} {self._noun}"
        if self._done:
            left = (self._total - self._done) / rate
            text += f", {rate:,.0f} a second, {left:.0f} s left"
        self._bar.update(self._task, completed=self._done, text=text)
        whole = self._done == self._total
        quiet = now - self._told < QUIET_SECONDS
        if self._console.is_terminal or (quiet and not whole):
            return
        self._told = now
        self._console.print(text, soft_wrap=True)
