"""Directions through the arguments, and selected numbers of the outputs."""

from collections.abc import Sequence

import numpy as np

from dlworkshop.verify.differences import Probe
from dlworkshop.verify.functions import Part

SHARE = 8  # `max_entries` / SHARE entries of a larger array are probed one by one
NUM_OUTPUTS = 16  # all numbers of an output of at most this size are checked
NUM_MIXED = 2  # random sums of a larger output ...
NUM_PICKED = 6  # ... and random numbers of it


def probes_of(
    parts: Sequence[Part],
    at: np.ndarray,
    grads: np.ndarray,
    max_entries: int,
    rng: np.random.Generator,
) -> list[Probe]:
    """The directions for every array.

    In an array of up to `max_entries` numbers, each entry is moved alone, and all
    entries together in two directions: along the gradient, where an error of scale
    shows in full, and in a random direction. In a larger array, an eighth of
    `max_entries` entries are moved alone, half of them the ones with the largest slopes
    and half of them random. All entries together are moved along the gradient, in two
    random directions, and in two directions in which each entry moves in proportion to
    its size, so that small entries of badly scaled arrays count too. `grads` [Q, D] are
    gradients by autodiff at the point [D], or 0 if there are none.
    """
    steep = np.max(np.abs(finite(grads)), axis=0)  # [D]
    steep = np.where(np.isfinite(grads).all(0), steep, np.inf)
    probes = []
    for i, part in enumerate(parts):
        span = slice(part.start, part.stop)
        x, slopes = at[span].astype(np.float64), steep[span]
        spread = scale_of(x)
        entries = np.arange(x.size)
        if x.size > max_entries:
            few = max(1, max_entries // SHARE)
            largest = np.argsort(-slopes, kind="stable")[: few // 2]
            others = np.setdiff1d(entries, largest)
            picked = rng.choice(others, few - few // 2, replace=False)
            entries = np.sort(np.concatenate([largest, picked]))
        for j in entries:
            scale = max(abs(float(x[j])), spread)
            name, one = part.entry(int(j)), np.ones(1)
            place = part.start + int(j)
            probes.append(Probe(i, name, place, one, scale, abs(float(x[j]))))
        own = np.where(x != 0, np.abs(x), spread)  # [n]
        whole = np.full(x.size, spread)
        rays = {"the gradient": own * _unit(grads[0][span], own)}
        rays["direction 1"] = whole * rng.standard_normal(x.size)
        if x.size > max_entries:
            rays["direction 2"] = whole * rng.standard_normal(x.size)
            rays["direction 3"] = own * rng.standard_normal(x.size)
            rays["direction 4"] = own * rng.standard_normal(x.size)
        for name, ray in rays.items():
            top = np.max(np.abs(ray / own), initial=0.0)
            if x.size > 1 and np.isfinite(top) and top > 0:
                probes.append(Probe(i, name, part.start, ray / top, 1.0, 0.0))
    return probes


def scales_of(parts: Sequence[Part], at: np.ndarray) -> np.ndarray:
    """The scale of the array of each entry: [D]."""
    return np.concatenate(
        [np.full(p.stop - p.start, scale_of(at[p.start : p.stop])) for p in parts]
    )


def scale_of(x: np.ndarray) -> float:
    """The root mean square of the finite entries of an array, or 1 if it is 0."""
    x = finite(x.astype(np.float64))
    top = float(np.max(np.abs(x), initial=0.0))
    return top * float(np.sqrt(np.mean((x / top) ** 2))) if top else 1.0


class Selection:
    """The numbers [Q] of the outputs [M] that are checked.

    All numbers of a small output are checked; for a large one random numbers and sums.
    """

    def __init__(self, parts: Sequence[Part], rng: np.random.Generator):
        self.size = max(part.stop for part in parts)
        self.names: list[str] = []
        self._picked: list[int] = []
        self._mixed: list[tuple[slice, np.ndarray]] = []
        for part in parts:
            n = part.stop - part.start
            entries = np.arange(n)
            if n > NUM_OUTPUTS:
                entries = np.sort(rng.choice(n, NUM_PICKED, replace=False))
                rows = rng.standard_normal((NUM_MIXED, n)) / np.sqrt(n)
                self._mixed.append((slice(part.start, part.stop), rows))
            alone = self.size == 1
            self.names += [
                "" if alone else part.path + part.entry(int(j)) for j in entries
            ]
            self._picked += [part.start + int(j) for j in entries]
        for part in parts:
            if part.stop - part.start > NUM_OUTPUTS:
                self.names += [f"a sum of {part.path}"] * NUM_MIXED

    def __call__(self, outputs: np.ndarray) -> np.ndarray:
        """Select the numbers: [M] -> [Q]."""
        wide = np.asarray(outputs, np.float64)
        with np.errstate(all="ignore"):
            sums = [rows @ wide[span] for span, rows in self._mixed]
        return np.concatenate([wide[self._picked], *sums])

    def cotangents(self) -> np.ndarray:
        """The cotangent [Q, M] of each selected number."""
        made = np.zeros((len(self.names), self.size))
        made[np.arange(len(self._picked)), self._picked] = 1.0
        start = len(self._picked)
        for span, rows in self._mixed:
            made[start : start + NUM_MIXED, span] = rows
            start += NUM_MIXED
        return made


def _unit(slopes: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The change of f by each entry, relative to the largest: [n]."""
    with np.errstate(all="ignore"):
        moved = finite(finite(slopes) * own)
        return finite(moved / np.max(np.abs(moved), initial=0.0))


def finite(x: np.ndarray) -> np.ndarray:
    """The array with non-finite entries replaced by 0.

    >>> finite(np.array([1.0, np.nan, -np.inf])).tolist()
    [1.0, 0.0, 0.0]
    """
    return np.where(np.isfinite(x), x, 0.0)
