"""What a run tells the person who watches it."""

import time

import numpy as np

from dlworkshop.data.progress import Live


class Watch(Live):
    """Progress over `total` steps."""

    def __init__(self, total: int, done: int, metric: str):
        super().__init__(total, done, text="compiling")
        self._first, self._metric = done, metric

    def tell(self, step: int, rate: float, train, validation) -> None:
        """Examples/s of all members, and metrics [P] of chunk and evaluation."""
        seconds = time.perf_counter() - self.started
        left = seconds * (self.total - step) / max(step - self._first, 1)
        text = f"step {step}/{self.total}, {left:.0f} s left, {rate:,.0f} examples/s"
        text += f", train {self._say(train)}"
        if validation is not None:
            text += f", validation {self._say(validation)}"
        self.show(step, text)

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
