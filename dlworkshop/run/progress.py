"""What a run tells the person who watches it: one live line, or plain lines."""

import time
from types import TracebackType

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

QUIET_SECONDS = 10.0  # at most one plain line in this time


class Watch:
    """Progress over `total` steps."""

    def __init__(self, total: int, done: int, metric: str):
        self.console = Console(stderr=True, highlight=False)
        self._total, self._first = total, done
        self._metric = metric
        self._started = self._told = time.perf_counter()
        self._bar = Progress(
            *([BarColumn(20)] if self.console.width >= 110 else []),
            TextColumn("{task.fields[text]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task(
            "train", total=total, completed=done, text="compiling"
        )

    def __enter__(self) -> "Watch":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def tell(self, step: int, rate: float, train, validation) -> None:
        """Examples/s of all members, and metrics [P] of chunk and evaluation."""
        seconds = time.perf_counter() - self._started
        left = seconds * (self._total - step) / max(step - self._first, 1)
        text = f"step {step}/{self._total}, {left:.0f} s left, {rate:,.0f} examples/s"
        text += f", train {self._say(train)}"
        if validation is not None:
            text += f", validation {self._say(validation)}"
        self._bar.update(self._task, completed=step, text=text)
        quiet = time.perf_counter() - self._told < QUIET_SECONDS
        if self.console.is_terminal or (quiet and step < self._total):
            return
        self._told = time.perf_counter()
        self.console.print(text, soft_wrap=True)

    def say(self, line: str) -> None:
        """One line of its own, above the live one."""
        self.console.print(line, soft_wrap=True)

    def _say(self, metrics) -> str:
        loss, score = (_mean(values) for values in metrics)
        if self._metric == "accuracy":
            return f"loss {loss:.4f} accuracy {100 * score:.2f} %"
        return f"loss {loss:.4f} {self._metric} {score:.4g}"


def _mean(values) -> float:
    finite = np.asarray(values)[np.isfinite(values)]
    return float(finite.mean()) if finite.size else np.nan


class Count:
    """Progress over `total` things of one kind, to be advanced inside `with`."""

    def __init__(self, total: int, noun: str):
        self._console = Console(stderr=True, highlight=False)
        self._total, self._noun, self._done = total, noun, 0
        self._bar = Progress(
            BarColumn(20),
            TextColumn("{task.fields[text]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("count", total=total, text="compiling")

    def __enter__(self) -> "Count":
        self._started = self._told = time.perf_counter()
        self._bar.start()
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
        text = f"{self._done:,} of {self._total:,} {self._noun}, {rate:,.1f} a second"
        text += f", {(self._total - self._done) / rate:.0f} s left"
        self._bar.update(self._task, completed=self._done, text=text)
        quiet = now - self._told < QUIET_SECONDS
        if self._console.is_terminal or (quiet and self._done < self._total):
            return
        self._told = now
        self._console.print(text, soft_wrap=True)
