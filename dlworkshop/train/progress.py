"""Progress of a run, shown in the terminal."""

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
        """Show examples/s of all members, and metrics name -> [P]."""
        seconds = time.perf_counter() - self.started
        left = seconds * (self.total - step) / max(step - self._first, 1)
        text = f"step {step}/{self.total}, {left:.0f} s left, {rate:,.0f} examples/s"
        text += f", train {self._in_words(train)}"
        if validation is not None:
            text += f", validation {self._in_words(validation)}"
        self.show(step, text)

    def _in_words(self, metrics) -> str:
        text = f"loss {_range(metrics['loss'], '.4f')}"
        if self._metric == "loss" or self._metric not in metrics:
            return text
        if self._metric == "accuracy":
            return f"{text} accuracy {_range(100 * metrics['accuracy'], '.2f')} %"
        return f"{text} {self._metric} {_range(metrics[self._metric], '.4g')}"


def log_level(quiet: bool, level: int) -> int:
    """The level of a message; a quiet run logs at DEBUG.

    >>> log_level(False, logging.INFO) == logging.INFO
    True
    """
    return logging.DEBUG if quiet else level


@contextlib.contextmanager
def logging_kept() -> Iterator[None]:
    """Keep libraries from configuring the root logger while inside.

    absl, which orbax uses, calls `logging.basicConfig` if the root logger has no
    handler. So the root logger gets Python's handler of last resort, with which all
    messages look the same as without a handler.
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


def _range(values: np.ndarray, form: str) -> str:
    """The lowest and the highest value of the members.

    >>> _range(np.array([0.5, np.nan, 0.25]), ".2f"), _range(np.array([0.5]), ".2f")
    ('0.25 to 0.50', '0.50')
    """
    finite = values[np.isfinite(values)]
    ends = (finite.min(), finite.max()) if finite.size else (np.nan,)
    return " to ".join(dict.fromkeys(f"{end:{form}}" for end in ends))
