"""Slopes by differences, each with what speaks against it.

**Step.** A central difference at step h is off by h^2 |f'''| / 6 from truncation and by
eps |f| / h from rounding. Three steps, h, h / 2 and h / 4, cancel the h^2 term twice,
(4 D(h/2) - D(h)) / 3 (Ridders 1982, Advances in Engineering Software 4(2), 75-76): what
is left falls like h^4, and where the two agree the later one is right to a fifteenth of
what they differ by. The error is then least near eps^(1/5), some 2^-9 of the scale on
which f changes, where both parts are some 1e-12. That scale is not known: h begins at
2^-9 of the entry, or of its array's root mean square if that is larger, and is made
larger where rounding is in the way, smaller where the estimates disagree or f leaves
its domain, until they agree to a fourth of the tolerance.

**Rounding** is measured: third differences of f at eight points so near to each other
that f itself does not bend between them (More & Wild 2011, SIAM J. Sci. Comput. 33(3),
1292-1314), beside eps |f|.

**Kinks.** J(h) = (f(x+h) - 2 f(x) + f(x-h)) / h falls like h where f is smooth, and
stays where x is a kink; half of its limit counts as doubt about a central slope. Where
the slopes from the right and from the left each converge, and differ, it is a kink.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

FIRST = {np.dtype(np.float64): -9, np.dtype(np.float32): -4}  # log2, near eps^(1/5)
KINK = 1e-4  # to which one-sided slopes agree where they make a kink
SMALLEST = -48  # log2 of the smallest step, relative to the entry
CONFIRM = 4  # log2 of how much smaller the step is that confirms an error
SHRINK, GROW = 6, 4  # log2 of the ratio of one round's steps to the next one's


class Probe(NamedTuple):
    """A ray through the point: `vector` is added to the entries from `start` on."""

    part: int  # the array that is moved
    name: str  # "[3, 5]", or "direction 1"
    start: int
    vector: np.ndarray  # [n]
    scale: float  # on which f is first thought to change, in steps of the vector
    own: float  # the entry's own size, 0 if it has none

    @property
    def is_entry(self) -> bool:
        """Whether it moves one number alone."""
        return self.vector.size == 1

    def dot(self, row: np.ndarray) -> np.ndarray:
        """[..., D] -> its products [...] with the vector."""
        part = row[..., self.start : self.start + self.vector.size]
        part = np.where(self.vector == 0, 0.0, part)  # also where a slope is inf
        with np.errstate(invalid="ignore"):
            return part @ self.vector

    def ray(self, at: np.ndarray) -> np.ndarray:
        """[D], the vector among zeros."""
        made = np.zeros_like(at)
        made[self.start : self.start + self.vector.size] = self.vector
        return made


class Slope(NamedTuple):
    """What differences say along a probe, for each output [Q]."""

    central: np.ndarray
    doubt: np.ndarray  # about the central slope
    noise: np.ndarray  # what of the doubt is rounding
    left: np.ndarray
    right: np.ndarray
    apart: np.ndarray  # doubt about the slopes from left and right

    @property
    def kink(self) -> np.ndarray:
        """Whether the slopes from both sides are known, and differ."""
        wide = np.abs(self.right - self.left)
        size = np.maximum(np.abs(self.right), np.abs(self.left))
        return (wide > 8 * self.apart) & (self.apart <= KINK * size)


class Differences:
    """Slopes of one function at one point."""

    def __init__(
        self,
        values: Callable[[list[np.ndarray]], np.ndarray],
        at: np.ndarray,
        own: np.ndarray,
        rng: np.random.Generator,
    ):
        """What all slopes need.

        Args:
            values: points [D] -> f there, [points, Q].
            at: [D], in the dtype that f computes in.
            own: [D], the sizes of its entries.
            rng: of the directions in which rounding is measured.
        """
        self.values, self.at = values, at
        self.value = values([at])[0]  # [Q]
        self.eps = float(np.finfo(at.dtype).eps)
        self.rounding = _rounding(values, at, own, self.eps, rng)  # [Q]
        self._starts: dict[tuple[int, bool], int] = {}  # what served before

    def along(
        self,
        probe: Probe,
        enough: Callable[[np.ndarray], np.ndarray],
        contradicted: Callable[[np.ndarray], bool],
        rounding: np.ndarray,
    ) -> Slope:
        """The slope of f along a probe.

        Args:
            probe: the ray.
            enough: a slope [Q] -> the doubt [Q] with which it is as good as wanted.
            contradicted: whether a slope [Q] is to be confirmed, at a smaller step.
            rounding: [Q], of a value along this ray, beside that measured.
        """
        first = FIRST[self.at.dtype]
        scale = int(np.round(np.log2(probe.scale)))
        own = int(np.round(np.log2(probe.own))) if probe.own else scale
        least, most = min(scale, own) + SMALLEST, max(scale + first + 2 * GROW, first)
        kind = probe.part, probe.is_entry
        exponent = start = max(scale + self._starts.get(kind, first), least)
        rough, crude, smallest = least - 1, most + 1, exponent
        held: Slope | None = None  # what autodiff contradicts
        best = found = self._one_round(probe, exponent, rounding)
        while True:
            good = (best.doubt <= enough(best.central)) | best.kink
            if good.all() and held is not None:
                break
            if good.all() and not contradicted(best.central):
                self._starts[kind] = exponent - scale
                break
            if good.all():  # all over again, with steps that are finer than these
                held, crude, rough = best, smallest, least - 1
                exponent = smallest = smallest - CONFIRM
                best = found = self._one_round(probe, exponent, rounding)
                continue
            if np.all(found.doubt[~good] <= 8 * found.noise[~good]):
                rough = exponent  # smaller steps are rougher still
            else:
                crude = exponent  # larger steps are cruder still
            if rough < least:  # no step was small enough
                far = exponent == start and own < scale - SHRINK
                exponent = own + first if far else exponent - SHRINK
            elif crude > most:  # nor large enough
                exponent += GROW
            else:
                exponent = (rough + crude) // 2
            if not max(least - 1, rough) < exponent < min(most + 1, crude):
                break
            found = self._one_round(probe, exponent, rounding)
            if exponent < smallest:
                best, smallest = _better(best, found), exponent
            else:
                best = _better(found, best)
        return best if held is None else _better(held, best)

    def _one_round(self, probe, exponent, rounding) -> Slope:
        at, value = self.at, self.value
        steps = np.ldexp(1.0, exponent - np.arange(3))  # [3]
        points, moved = [], []
        span = slice(probe.start, probe.start + probe.vector.size)
        for sign in (1, -1):
            for step in steps:
                point = at.copy()
                point[span] = at[span] + sign * step * probe.vector
                points.append(point)
                real = (point[span].astype(np.float64) - at[span]) * sign
                moved.append(float(real[0]) if probe.is_entry else step)
        with np.errstate(all="ignore"):  # f may leave its domain
            y = self.values(points)  # [6, Q]
            h = np.array(moved)[:, None]  # [6, 1]
            up, down, right, left = y[:3], y[3:], h[:3], h[3:]
            central = (up - down) / (right + left)  # [3, Q]
            jump = (up - 2 * value + down) / ((right + left) / 2)
            jump = 2 * jump[1:] - jump[:-1]  # falls like h^3
            jump = np.abs(8 * jump[1] - jump[0]) / 14
            central = (4 * central[1:] - central[:-1]) / 3
            size = np.maximum(np.abs(value), np.abs(y).max(0))
            noise = 4 * (self.eps * size + self.rounding + rounding) / steps[2]  # [Q]
            apart = np.abs(central[1] - central[0])
            doubt = np.maximum(apart, jump - noise) + noise
            sides = [(up - value) / right, (value - down) / left]  # [3, Q] each
            sides = [2 * side[1:] - side[:-1] for side in sides]  # [2, Q]
            slopes = [(4 * side[1] - side[0]) / 3 for side in sides]
            unsure = sum(np.abs(side[1] - side[0]) for side in sides) + 4 * noise
        return Slope(
            central[1],
            np.where(np.isfinite(doubt), doubt, np.inf),
            noise,
            slopes[1],
            slopes[0],
            np.where(np.isfinite(unsure), unsure, np.inf),
        )


def _better(one: Slope, finer: Slope) -> Slope:
    """Of each output the slope in less doubt; if they differ, that of finer steps.

    Large steps may agree by chance with each other, over many waves of f.
    """
    with np.errstate(invalid="ignore"):
        differ = np.abs(finer.central - one.central) > 4 * (finer.doubt + one.doubt)
    finer_is = (finer.doubt < one.doubt) | differ
    sides = finer.apart < one.apart
    which = (finer_is, finer_is, finer_is, sides, sides, sides)
    return Slope(*map(np.where, which, finer, one))


def _rounding(values, at, own, eps, rng) -> np.ndarray:
    """The rounding [Q] of a value of f near `at`, which may be a kink: a step aside."""
    direction, aside = own * rng.choice([-1.0, 1.0], (2, at.size))  # [D] each
    levels = []
    for spacing in (2**6 * eps, np.sqrt(eps) / 16):
        start = at + 16 * np.sqrt(eps) * aside
        y = values(
            [(start + k * spacing * direction).astype(at.dtype) for k in range(8)]
        )
        with np.errstate(all="ignore"):
            third = np.diff(y, 3, axis=0)  # [5, Q]; of white noise, 20 times its square
            levels.append(np.sqrt(np.mean(third**2, axis=0) / 20))
    return np.nan_to_num(np.max(levels, axis=0), nan=0.0, posinf=0.0)
