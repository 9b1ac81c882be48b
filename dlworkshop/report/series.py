"""`metrics.jsonl` of a run folder: quantities of all members over time."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dlworkshop.report.lineage import ancestors

SPLITS = "train", "validation", "hparams"  # of a log; the last are no measurements


class Series(NamedTuple):
    """One quantity over time, for all members; NaN where a member has no value."""

    step: np.ndarray  # [T] updates done
    epoch: np.ndarray  # [T] passes over train; NaN if it was not logged
    value: np.ndarray  # [T, P]
    finite: np.ndarray  # [P] bool; the others are left out of means

    def of(self, members: Any) -> "Series":
        """The series of some members, given by an index or a mask [P]."""
        value, finite = self.value[:, members], self.finite[members]
        return self._replace(value=value, finite=finite)

    def averaged(self, most: int) -> "Series":
        """At most `most` points in time, each the mean of a group of points.

        A curve of single chunks of a few steps would be too noisy.
        """
        total = len(self.step)
        if total <= most:
            return self
        parts = np.array_split(np.arange(total), most)
        value = np.full((most, self.value.shape[1]), np.nan)
        for row, part in zip(value, parts, strict=True):
            inside = np.isfinite(self.value[part])  # [part, P]
            some = inside.any(0)
            total_of = np.where(inside, self.value[part], 0).sum(0)
            row[some] = (total_of / np.maximum(inside.sum(0), 1))[some]
        last = [part[-1] for part in parts]
        return Series(self.step[last], self.epoch[last], value, self.finite)


def series_of(
    lines: Sequence[Mapping[str, Any]], finite: Sequence[bool]
) -> dict[tuple[str, str], Series]:
    """(split, quantity) -> Series; if a step was logged twice, the last entry counts.

    Values before a member was replaced by a copy are those of the copied member.

    Args:
        lines: of the log.
        finite: [P], which members stayed finite; empty if all did.
    """
    rows = [row for _, row in sorted({row["step"]: row for row in lines}.items())]
    found = [row.get(split) or {} for row in rows for split in SPLITS]
    known = next((values for each in found for values in each.values()), ())
    places = ancestors(rows, len(known))
    points: dict[tuple[str, str], list[tuple[int, float, list[Any]]]] = {}
    for row, before in zip(rows, places, strict=True):
        time = row["step"], np.nan if row["epoch"] is None else row["epoch"]
        for split in SPLITS:
            for name, values in (row.get(split) or {}).items():
                mine = [values[i] for i in before]
                points.setdefault((split, name), []).append((*time, mine))
    mask = np.array(finite or [True] * len(known), bool)
    return {key: _stack(rows, mask) for key, rows in points.items()}


def _stack(rows: list[tuple[int, float, list[Any]]], finite: np.ndarray) -> Series:
    step, epoch, values = zip(*rows, strict=True)
    value = np.array(values, float)  # [T, P]; null becomes NaN
    value[~np.isfinite(value)] = np.nan
    return Series(np.array(step), np.array(epoch, float), value, finite)
