"""Slopes by finite differences, with an estimate of their error.

**Step.** A central difference with step h has a truncation error of h^2 |f'''| / 6 and
a rounding error of eps |f| / h. Steps of h, h / 2 and h / 4 are extrapolated twice, (4
D(h/2) - D(h)) / 3 (Ridders 1982, Advances in Engineering Software 4(2), 75-76). The
remaining error falls like h^4, and the error of the second extrapolation is a fifteenth
of the difference between the two. The optimum is near h = eps^(1/5), about 2^-9 of the
scale on which f changes, where both errors are about 1e-12. This scale is unknown: h
starts at 2^-9 of the entry, or of the root mean square of its array if that is larger.
It grows where rounding dominates, and shrinks where the extrapolations disagree or f
leaves its domain, until they agree to a quarter of the tolerance, or steps twice as
large are too large. The next entry of the array begins with the step that was found.

**Rounding** is measured (`verify.rounding`), in addition to eps |f|.

**Before a slope by autodiff is called wrong**, f is evaluated along the ray at
increasing spacings from 2^-46 of the scale, until f changes by much more than its third
differences. If f rounds a value of size 1 internally (sqrt(1 + x^2) - 1 at 1e-6, or
bfloat16), it is a staircase that is constant between nearby points, and its rounding
shows only at spacings that cross several steps. A slope is no evidence if it is not
confirmed there, or differs at the finest spacing at which f changes (waves, chaos). A
slope of 0 is evidence if f is constant along the whole ray. If rounding is divided by
something that moves, as in (1 - cos x) / x^2, f is a saw: it has a slope between its
jumps, which is no evidence if the slope across them agrees with autodiff.

**Kinks.** J(h) = (f(x+h) - 2 f(x) + f(x-h)) / h falls like h where f is smooth, and
tends to a constant where x is a kink, half of which is added to the doubt. Where the
slopes from the right and from the left both converge, and differ, x is a kink.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dlworkshop.verify.rounding import CLEAR, levels_of, rounding_of

FIRST = {np.dtype(np.float64): -9, np.dtype(np.float32): -4}  # log2, near eps^(1/5)
KINK = 1e-4  # relative uncertainty of one-sided slopes up to which they prove a kink
SMALLEST = -48  # log2 of the smallest step, relative to the entry
# log2 of the largest spacing at which rounding is measured; a function of float32 may
# compute in bfloat16
WIDEST = {np.dtype(np.float64): -8, np.dtype(np.float32): -4}
RUNG = 8  # log2 of the ratio between successive spacings
SAW = (0, 3, 6)  # log2 of the ratios between the largest spacing and others
CONFIRM = 4  # log2 of the factor by which steps shrink to confirm an error
SHRINK, GROW = 6, 4  # log2 of the largest factors between the steps of two rounds


class Probe(NamedTuple):
    """A direction: `vector` is added to the entries from `start` on."""

    part: int  # index of the array that is moved
    name: str  # "[3, 5]", or "direction 1"
    start: int
    vector: np.ndarray  # [n]
    scale: float  # first guess of the scale on which f changes, in steps of the vector
    own: float  # size of the entry, or 0

    @property
    def is_entry(self) -> bool:
        """Whether it moves a single entry."""
        return self.vector.size == 1

    @property
    def natural(self) -> int:
        """log2 of the step that moves an entry by 1."""
        return -int(np.floor(np.log2(np.max(np.abs(self.vector)))))

    def dot(self, row: np.ndarray) -> np.ndarray:
        """Dot products of [..., D] with the vector: [...]."""
        part = row[..., self.start : self.start + self.vector.size]
        part = np.where(self.vector == 0, 0.0, part)  # 0 even if the slope is inf
        with np.errstate(invalid="ignore"):
            return part @ self.vector

    def ray(self, at: np.ndarray) -> np.ndarray:
        """The vector padded with zeros: [D]."""
        made = np.zeros_like(at)
        made[self.start : self.start + self.vector.size] = self.vector
        return made


class Slope(NamedTuple):
    """The slope of each output [Q] along a probe, by differences."""

    central: np.ndarray
    doubt: np.ndarray  # uncertainty of the central slope
    noise: np.ndarray  # part of `doubt` that is due to rounding
    left: np.ndarray
    right: np.ndarray
    apart: np.ndarray  # uncertainty of the slopes from left and right
    moved: np.ndarray  # the largest |f(x+h) - f(x)| / |h|

    @property
    def kink(self) -> np.ndarray:
        """Whether the one-sided slopes are accurate and differ."""
        wide = np.abs(self.right - self.left)
        size = np.maximum(np.abs(self.right), np.abs(self.left))
        return (wide > 8 * self.apart) & (self.apart <= KINK * size)


def central_slopes(value, up, down, h, eps: float, rounding=0.0):
    """Slopes of f by central differences, their uncertainty, and their rounding error.

    Args:
        value: [...], f at the point.
        up, down: [3, ...], f at distances h, h / 2 and h / 4 on both sides.
        h: [3, ...] or [3], these distances.
        eps: of the dtype of f.
        rounding: [...], rounding error of a value in addition to eps times the value.
    """
    h = h.reshape(3, *(h.shape[1:] or (1,) * value.ndim))
    with np.errstate(all="ignore"):
        central = (up - down) / (2 * h)
        jump = (up - 2 * value + down) / h
        jump = 2 * jump[1:] - jump[:-1]  # falls like h^3
        jump = np.abs(8 * jump[1] - jump[0]) / 14
        central = (4 * central[1:] - central[:-1]) / 3
        size = np.maximum(np.abs(value), np.abs([*up, *down]).max(0))
        noise = 4 * (eps * size + rounding) / h[2]
        doubt = np.maximum(np.abs(central[1] - central[0]), jump - noise) + noise
    return central[1], np.where(np.isfinite(doubt), doubt, np.inf), noise


class Differences:
    """Finite-difference slopes of one function at one point."""

    def __init__(
        self,
        values: Callable[[list[np.ndarray]], np.ndarray],
        at: np.ndarray,
        own: np.ndarray,
        rng: np.random.Generator,
    ):
        """Evaluate f at the point, and measure its rounding there.

        Args:
            values: points [D] -> values of f [points, Q].
            at: [D], in the dtype of f.
            own: [D], the sizes of its entries.
            rng: of the directions in which rounding is measured.
        """
        self.values, self.at = values, at
        self.value = values([at])[0]  # [Q]
        self.eps = float(np.finfo(at.dtype).eps)
        self.rounding = rounding_of(values, at, own, rng)  # [Q]
        self._starts: dict[tuple[int, bool], int] = {}  # log2 of earlier good steps

    def along(
        self,
        probe: Probe,
        enough: Callable[[Slope], np.ndarray],
        contradicted: Callable[[np.ndarray, np.ndarray], np.ndarray],
        rounding: np.ndarray,
    ) -> Slope:
        """The slope of f along a probe.

        Args:
            probe: the ray.
            enough: a slope [Q] -> the uncertainty [Q] that is small enough.
            contradicted: a slope [Q] and its uncertainty [Q] -> whether autodiff is off
                [Q].
            rounding: [Q], rounding error of values on this ray, in addition to the
                measured one.
        """
        kind = probe.part, probe.is_entry
        is_remembered = kind in self._starts
        slope = self._search(probe, enough, contradicted, rounding)
        accused = contradicted(slope.central, np.zeros_like(slope.doubt))
        if not accused.any():
            return slope
        if is_remembered and contradicted(slope.central, slope.doubt).any():
            # around a remembered step, few others were tried
            self._starts.pop(kind, None)
            slope = self._search(probe, enough, contradicted, rounding)
        level, seen, unsure = self.climb(probe, accused)
        if np.any(level > 2 * (self.rounding + rounding)):
            rounding = np.maximum(rounding, level)
            slope = self._search(probe, enough, contradicted, rounding)
        if not (accused := contradicted(slope.central, slope.doubt)).any():
            return slope
        with np.errstate(invalid="ignore"):
            apart = np.abs(seen - slope.central)
            vague = (4 * unsure > np.abs(seen)) & ~contradicted(seen, 2 * unsure)
        differ = vague | ~(apart <= 4 * (unsure + slope.doubt))
        saw = self._saw(probe)
        known = self.rounding + rounding + self.eps * np.abs(self.value)
        rough = accused & (saw > CLEAR * known)
        if rough.any():
            across = self._search(probe, enough, contradicted, saw)
            self._starts.pop(kind, None)  # a step that suits this ray only
            differ |= rough & ~contradicted(across.central, across.doubt)
        # autodiff has the same rounding errors by cancellation as f
        doubt = slope.doubt + 4 * (self.rounding + level) / (probe.own or probe.scale)
        doubt = np.where(differ, np.inf, doubt)
        return slope._replace(doubt=np.where(accused, doubt, slope.doubt))

    def climb(self, probe: Probe, wanted: np.ndarray):
        """Changes of f along a ray at increasing spacings.

        The search ends when all `wanted` outputs [Q] have changed clearly.

        Returns:
            The rounding error [Q] of values, up to the spacing at which f first changes
            clearly; the slope [Q] there and its uncertainty [Q]. The slope is nan if f
            changes, but not clearly, and 0 if f is constant.
        """
        scale = int(np.round(np.log2(probe.scale)))
        widest = max(scale, probe.natural) + WIDEST[self.at.dtype]
        level, slope, unsure, wide = np.zeros((4, len(self.value)))
        seen = np.zeros(len(self.value), bool)
        exponent = start = scale + int(np.log2(self.eps)) + 6
        while exponent < widest + RUNG and not seen[wanted].all():
            # a multiple of the entry's last place first, later not
            spacing = 2.0 ** min(exponent, widest)
            spacing *= 1.25 if exponent == start else 1.2
            ray = spacing * probe.ray(self.at)
            y = self.values(
                [(self.at + k * ray).astype(self.at.dtype) for k in range(1, 9)]
            )
            with np.errstate(all="ignore"):
                (rough, mine), extent = levels_of(y), np.ptp(y, axis=0)
                clear = extent > CLEAR * np.maximum(rough, self.eps * abs(self.value))
                parts = np.diff(y[[0, 3, 4, 7]], axis=0) / (3 * spacing)
                rounded = mine + self.eps * np.abs(self.value)
                bend = np.abs(parts[2] - parts[0]) + rounded / spacing
                found = (y[7] - y[0]) / (7 * spacing)
            new = ~seen & np.isfinite(y).all(0)
            level = np.where(new, np.maximum(level, mine), level)
            wide = np.where(new, np.maximum(wide, extent), wide)
            slope = np.where(new & clear, found, slope)
            unsure = np.where(new & clear, bend, unsure)
            seen |= new & clear
            exponent += RUNG
        return level, np.where(seen | (wide == 0), slope, np.nan), unsure

    def _saw(self, probe: Probe) -> np.ndarray:
        """The rounding error [Q] of values that shows at several large spacings."""
        size = np.log2(probe.own or probe.scale) + WIDEST[self.at.dtype]
        found = []
        for spacing in 1.2 * np.exp2(size - np.array(SAW)):
            ray = spacing * probe.ray(self.at)
            # next to the point, sqrt(x^2 + 1e-10) is rough at every spacing
            points = [(self.at + k * ray).astype(self.at.dtype) for k in range(25, 33)]
            with np.errstate(all="ignore"):
                found.append(levels_of(self.values(points))[1])
        return np.nan_to_num(np.min(found, axis=0), posinf=0.0)

    def _search(self, probe, enough, contradicted, rounding) -> Slope:
        first = FIRST[self.at.dtype]
        scale = int(np.round(np.log2(probe.scale)))
        own = int(np.round(np.log2(probe.own))) if probe.own else scale
        least = min(scale, own) + SMALLEST
        most = max(scale + first + 2 * GROW, probe.natural + first)
        kind = probe.part, probe.is_entry
        exponent = start = max(scale + self._starts.get(kind, first), least)
        # near a remembered step, short ways first
        down, up = (1, 1) if kind in self._starts else (SHRINK, GROW)
        rough, crude, smallest = least - 1, most + 1, exponent
        known: dict[tuple[int, int], tuple[float, np.ndarray]] = {}
        held: Slope | None = None  # a good slope that contradicts autodiff
        best = found = self._one_round(probe, exponent, rounding, known)
        while True:
            good = (best.doubt <= enough(best)) | best.kink
            if good.all() and held is not None:
                break
            if (
                good.all()
                and not contradicted(best.central, np.zeros_like(best.doubt)).any()
            ):
                self._starts[kind] = exponent - scale
                break
            if good.all():  # search again with smaller steps than before
                held, crude, rough = best, smallest, least - 1
                exponent = smallest = smallest - CONFIRM
                best = found = self._one_round(probe, exponent, rounding, known)
                continue
            if np.all(found.doubt[~good] <= 8 * found.noise[~good]):
                rough = exponent  # smaller steps have larger rounding errors
            else:
                crude = exponent  # larger steps have larger truncation errors
            if rough < least:  # no step was too small so far
                far = exponent == start and own < scale - SHRINK
                exponent = own + first if far else exponent - down
                down = min(2 * down, SHRINK)
            elif crude > most:  # no step was too large so far
                exponent += up
                up = min(2 * up, GROW)
            else:
                exponent = (rough + crude) // 2
            if not max(least - 1, rough) < exponent < min(most + 1, crude):
                if rough >= least:  # no step is good; this one is nearly the best
                    self._starts[kind] = rough - scale
                break
            found = self._one_round(probe, exponent, rounding, known)
            finer = exponent < smallest
            best = _better(best, found) if finer else _better(found, best)
            smallest = min(smallest, exponent)
        return best if held is None else _better(held, best)

    def _one_round(self, probe, exponent, rounding, known: dict) -> Slope:
        """The slope by steps of 2^exponent, of a half and of a quarter of it.

        `known` has the values of f at the signed steps of earlier rounds on the ray.
        """
        value = self.value
        wanted = [(sign, exponent - i) for sign in (1, -1) for i in range(3)]
        new = [step for step in wanted if step not in known]
        moved = [self._moved(probe, *step) for step in new]
        with np.errstate(all="ignore"):  # f may leave its domain
            if new:
                rows = self.values([point for _, point in moved])
                for step, (distance, _), row in zip(new, moved, rows, strict=True):
                    known[step] = distance, row
            h = np.array([[known[step][0]] for step in wanted])  # [6, 1]
            y = np.array([known[step][1] for step in wanted])  # [6, Q]
            up, down, right, left = y[:3], y[3:], h[:3], h[3:]
            rounding = self.rounding + rounding
            central, doubt, noise = central_slopes(
                value, up, down, (right + left) / 2, self.eps, rounding
            )
            sides = [(up - value) / right, (value - down) / left]  # [3, Q] each
            moved = np.max(np.abs(sides), axis=(0, 1))  # [Q]
            sides = [2 * side[1:] - side[:-1] for side in sides]  # [2, Q]
            slopes = [(4 * side[1] - side[0]) / 3 for side in sides]
            unsure = sum(np.abs(side[1] - side[0]) for side in sides) + 4 * noise
        return Slope(
            central,
            doubt,
            noise,
            slopes[1],
            slopes[0],
            np.where(np.isfinite(unsure), unsure, np.inf),
            np.where(np.isfinite(moved), moved, 0.0),
        )

    def _moved(self, probe: Probe, sign: int, exponent: int):
        """The distance of a point on a ray, as rounded, and the point [D]."""
        point, step = self.at.copy(), 2.0**exponent
        span = slice(probe.start, probe.start + probe.vector.size)
        point[span] = self.at[span] + sign * step * probe.vector
        if probe.is_entry:
            step = float(point[probe.start].astype(np.float64) - self.at[probe.start])
        return abs(step), point


def _better(one: Slope, finer: Slope) -> Slope:
    """For each output the more accurate slope, or the finer one if the two differ.

    Large steps may agree with each other by chance, if f has many waves between them.
    """
    with np.errstate(invalid="ignore"):
        differ = np.abs(finer.central - one.central) > 4 * (finer.doubt + one.doubt)
    finer_is = (finer.doubt < one.doubt) | differ
    sides = finer.apart < one.apart
    which = (finer_is, finer_is, finer_is, sides, sides, sides, finer_is)
    return Slope(*map(np.where, which, finer, one))
