"""The history of a run: its curves, in memory."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from dlworkshop.errors import check_known
from dlworkshop.report.lineage import ancestors
from dlworkshop.report.words import count

# step, epoch; train, validation and hparams: name -> [P]; source: [P], see `lineage`
Line = Mapping[str, Any]


class History:
    """Curves of a population: `history["validation/loss"]` is [T, P].

    There is an entry at the end of each chunk of steps. A value that was not measured
    there is NaN, such as validation between two epochs, or a stopped member. Infinite
    values are NaN, too, because `metrics.jsonl`, from which a resumed run reads its
    beginning, cannot represent them.

    >>> lines = [{"step": 2, "epoch": 1.0, "train": {"loss": [0.5, None]}}]
    >>> history = History(lines)
    >>> history.names, history["train/loss"].tolist(), history.step.tolist()
    (['train/loss'], [[0.5, nan]], [2])
    >>> history
    History of 1 entry, steps 2 to 2 (1 epoch), 2 members: train/loss
    """

    def __init__(self, lines: Iterable[Line] | Callable[[], Iterable[Line]] = ()):
        """The entries, or a function that reads them when they are first needed."""
        self._source = lines

    @functools.cached_property
    def _lines(self) -> list[Line]:
        return list(self._source() if callable(self._source) else self._source)

    def append(self, line: Line) -> None:
        """Append an entry."""
        self._lines.append(line)

    def __len__(self) -> int:
        return len(self._lines)

    def __repr__(self) -> str:
        if not self._lines:
            return "History of 0 entries"
        first, last = self._lines[0], self._lines[-1]
        return (
            f"History of {count(len(self), 'entry', 'entries')}, steps "
            f"{first['step']:,} to {last['step']:,} "
            f"({last['epoch']:.4g} epoch{'s' if last['epoch'] != 1 else ''}), "
            f"{count(self.members, 'member')}: {', '.join(self.names)}"
        )

    @property
    def names(self) -> list[str]:
        """Names of the curves: "train/loss", "validation/accuracy", ...

        They include "hparams/learning_rate" if an observer changes it during the run.
        """
        found = {
            f"{split}/{name}": None
            for line in self._lines
            for split in ("train", "validation", "hparams")
            for name in line.get(split) or ()
        }
        return list(found)

    @property
    def step(self) -> np.ndarray:
        """[T] number of updates."""
        return np.array([line["step"] for line in self._lines], int)

    @property
    def epoch(self) -> np.ndarray:
        """[T] passes over the training split."""
        return np.array([line["epoch"] for line in self._lines], float)

    @property
    def members(self) -> int:
        """The number of members P."""
        return max(
            (len(v) for line in self._lines for v in line["train"].values()), default=0
        )

    def __iter__(self) -> Iterator[str]:
        """Iterate over the `names`."""
        return iter(self.names)

    def __getitem__(self, name: str) -> np.ndarray:
        check_known("curve", name, self.names)
        split, _, key = name.partition("/")
        unknown = [np.nan] * self.members
        rows = [(line.get(split) or {}).get(key, unknown) for line in self._lines]
        values = np.array([np.asarray(row, float) for row in rows])  # null becomes NaN
        return np.where(np.isfinite(values), values, np.nan)

    def lineage(self, name: str) -> np.ndarray:
        """A curve [T, P] of each final member and its ancestors.

        If a member was replaced by a copy, its past is that of the source of the copy:
        `lineage("hparams/learning_rate")` is the schedule that each final member was
        trained with.
        """
        places = ancestors(self._lines, self.members)  # [T, P]
        return np.take_along_axis(self[name], places, axis=1)

    def table(self) -> dict[str, np.ndarray]:
        """One row per entry and member, for `pandas.DataFrame`.

        >>> lines = [{"step": 2, "epoch": 1.0, "train": {"loss": [0.5, 0.25]}}]
        >>> table = History(lines).table()
        >>> list(table), table["train/loss"].tolist()
        (['step', 'epoch', 'member', 'train/loss'], [0.5, 0.25])
        """
        members = self.members
        columns = {name: self[name].reshape(-1) for name in self.names}
        return {
            "step": np.repeat(self.step, members),
            "epoch": np.repeat(self.epoch, members),
            "member": np.tile(np.arange(members), len(self)),
            **columns,
        }
