"""What a run tells the person who watches it."""

import contextlib
import logging
import time
from collections.abc import Iterator

import numpy as np

from dlworkshop.data.progress import Live


class Watch(Live):
    """Progress over `total` steps; silent where `quiet`."""

    def __init__(self, total: int, done: int, metric: str, quiet: bool = False):
        super().__init__(total, done, text="compiling", quiet=quiet)
        self._first, self._metric = done, metric

    def update(self, step: int, rate: float, train, validation) -> None:
        """Examples/s of all members; metrics name -> [P] of chunk and evaluation."""
        seconds = time.perf_counter() - self.started
        left = seconds * (self.total - step) / max(step - self._first, 1)
        text = f"step {step}/{self.total}, {left:.0f} s left, {rate:,.0f} examples/s"
        text += f", train {self._in_words(train)}"
        if validation is not None:
            text += f", validation {self._in_words(validation)}"
        self.show(step, text)

    def _in_words(self, metrics) -> str:
        text = f"loss {_mean(metrics['loss']):.4f}"
        score = _mean(metrics[self._metric]) if self._metric in metrics else None
        if self._metric == "loss" or score is None:
            return text
        if self._metric == "accuracy":
            return f"{text} accuracy {100 * score:.2f} %"
        return f"{text} {self._metric} {score:.4g}"


def log_level(quiet: bool, level: int) -> int:
    """The level at which a message is logged: of a quiet run nobody is told.

    >>> log_level(False, logging.INFO) == logging.INFO
    True
    """
    return logging.DEBUG if quiet else level


@contextlib.contextmanager
def logging_kept() -> Iterator[None]:
    """Keep others from configuring the process's logging while inside.

    absl, by which orbax logs, calls `logging.basicConfig` where the root logger has no
    handler. It is given the one that Python itself falls back on, so that all looks as
    without any.
    """
    root, handler = logging.getLogger(), logging.lastResort
    if root.handlers or handler is None:
        yield
        return
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


def _mean(values) -> float:
    finite = np.asarray(values)[np.isfinite(values)]
    return float(finite.mean()) if finite.size else np.nan
