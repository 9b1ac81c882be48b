"""Whether derivatives are linear in the cotangent or tangent that they are given.

Differences are compared with derivatives for cotangents of 1, which cannot show that a
rule forgets its cotangent, clips it, ignores its sign, or keeps its largest entries
only. Multiplication by a power of two commutes with rounding, so that the derivative
for -1024 u is that for u times -1024, to the last bit, however rough or ill-conditioned
the derivative is; -2^40 u shows what clips the small cotangents behind a mean, and
-u / 1024 what drops small ones. The derivative for u + v is the sum of those for u and
v up to rounding.
"""

from collections.abc import Callable, Sequence

import numpy as np

from dlworkshop.verify.functions import Function, Part
from dlworkshop.verify.probes import finite
from dlworkshop.verify.report import Comparison, norm_of
from dlworkshop.verify.rounding import CLEAR, rounding_of
from dlworkshop.verify.terms import terms_of

# Multiples of a cotangent that are compared: of the others than the first a derivative
# may be approximate, as that of a solver with an absolute tolerance is.
FACTOR, LARGE, SMALL = -(2.0**10), -(2.0**40), -(2.0**-10)
NONLINEAR = (
    "a derivative is not linear in its {}: a rule forgets it, clips or normalises it, "
    "keeps a part of it, drops small ones, or depends on its sign"
)
WHAT = {"rev": "cotangent", "fwd": "tangent"}
NAME = {"rev": "reverse", "fwd": "forward"}
ADDITIVE = 1e-6  # relative to the norm: a solver's derivative is not additive exactly
ROUGH = 1e-3  # the same for the small multiple: an absolute tolerance weighs 1024 times


def compare_linear(
    fn: Function,
    modes: Sequence[str],
    own: np.ndarray,
    tolerance: float,
    seed: int,
    size: float,
    cotangents: np.ndarray,
    grads: np.ndarray,
    additive: float,
) -> tuple[tuple[Comparison, ...], tuple[str, ...]]:
    """Compare derivatives of `fn` with those for multiples and sums of cotangents.

    Sums of tangents need no comparison: forward mode is compared with differences along
    random tangents. Reverse mode is compared with those of up to 16 outputs one by one.

    Args:
        fn: the function and the point.
        modes: of the derivatives: "rev", "fwd" or both.
        own: [D], the sizes of the arguments.
        tolerance: relative to the norm of an array, for rules that iterate.
        seed: of the cotangents and the tangent.
        size: of the smaller cotangent.
        cotangents: [Q, M], which were compared with differences.
        grads: [Q, D], the derivatives for them.
        additive: the same as `tolerance`, for sums and large multiples.

    Returns:
        A comparison for each mode and for the sum, and notes on what is not linear.
    """
    rng = np.random.default_rng(seed)
    size = float(np.exp2(np.round(np.log2(size)))) if 0 < size < np.inf else 1.0
    compared, notes = [], []
    for mode in modes:
        if mode == "rev":
            given = size * rng.standard_normal(fn.outputs[-1].stop)
            linear = _Linear(fn, fn.pull, fn.inputs, own, rng)
        else:
            given = own * rng.standard_normal(fn.at.size)
            linear = _Linear(fn, fn.push, fn.outputs, own, rng)
        bar = max(tolerance, additive)
        scaled = linear.scaled(given, FACTOR, tolerance)
        for factor, rough in ((LARGE, bar), (SMALL, max(bar, ROUGH))):
            if scaled[2]:
                more = linear.scaled(given, factor, rough)
                scaled = max(scaled, more, key=lambda x: (not x[2], x[0]))
        made = {f"a multiple of its {WHAT[mode]}": scaled}
        if mode == "rev" and len(grads) > 1:
            weights = size * rng.standard_normal(len(grads))
            sums = linear.added(weights, cotangents, grads, bar, modes)
            made["a sum of cotangents"] = sums
        for what, (off, where, ok) in made.items():
            compared.append(Comparison(f"{NAME[mode]} mode of {what}", ok, off, where))
            if not ok:
                notes.append(NONLINEAR.format(WHAT[mode]))
    return tuple(compared), tuple(dict.fromkeys(notes))


class _Linear:
    """A derivative of `fn`, and differences between what should be equal."""

    def __init__(
        self,
        fn: Function,
        derivative: Callable,
        parts: Sequence[Part],
        own: np.ndarray,
        rng: np.random.Generator,
    ):
        self.fn, self.derivative, self.parts = fn, derivative, parts
        self.own, self.rng = own, rng

    def __call__(self, given: np.ndarray, at: np.ndarray | None = None) -> np.ndarray:
        at = self.fn.at if at is None else at
        return np.asarray(self.derivative(at, given), np.float64)

    def scaled(self, given, factor: float, tolerance: float) -> tuple[float, str, bool]:
        """Compare with a multiple of what is given."""
        given, dtype = self._narrow(given), self.fn.at.dtype
        one = self(given)
        for multiple in (factor, -1.0):
            with np.errstate(all="ignore"):
                other = self(given * dtype.type(multiple)) / multiple
            if not (np.isfinite(one) & ~np.isfinite(other)).any():
                break  # nothing has overflowed
        return self._apart(one, other, given, tolerance)

    def added(
        self, weights, cotangents, grads, tolerance: float, modes: Sequence[str]
    ) -> tuple[float, str, bool]:
        """Compare the derivative for a sum of cotangents with the sum of theirs."""
        with np.errstate(all="ignore"):
            given = self._narrow(weights @ cotangents)
            other = weights @ grads
        one = self(given)
        other = np.where(np.isfinite(other), other, one)  # it overflowed

        def terms():  # [D], which may cancel, such as 1 - 1
            largest = np.abs(weights) @ np.abs(finite(grads))
            inside = terms_of(self.fn, modes)(self._narrow(self.own), given)
            return largest + inside / self.own

        return self._apart(one, other, given, tolerance, terms)

    def _narrow(self, given: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return given.astype(self.fn.at.dtype)

    def _apart(
        self, one, other, given, tolerance: float, terms: Callable | None = None
    ) -> tuple[float, str, bool]:
        """The largest difference relative to the norm of its array, and the array.

        A difference is counted if it exceeds the rounding errors of the derivative and
        of `terms`.
        """
        width = np.finfo(self.fn.at.dtype)
        broken = np.isfinite(one) & ~np.isfinite(other)
        apart = np.abs(finite(one) - finite(other)) * np.isfinite(one)
        apart = np.where(broken, np.inf, apart)
        least = float(width.tiny) / float(width.eps)

        def worst(noise):
            found = []
            for part in self.parts:
                span = slice(part.start, part.stop)
                size = max(norm_of(one[span]), norm_of(other[span]))
                off = float(np.max(apart[span] - noise[span] - least, initial=0.0))
                found.append((off / size if size else off, part.path))
            return max(found, key=lambda pair: pair[0])

        off, where = worst(np.zeros_like(one))
        if off > tolerance:  # atomic additions on a GPU round differently each time
            rounding = self._rounding(given)
            if terms is not None:
                rounding = rounding + float(width.eps) * terms()
            off, where = worst(CLEAR * rounding)
        return off, where, off <= tolerance

    def _rounding(self, given: np.ndarray) -> np.ndarray:
        def values(points):
            return np.stack([self(given, point) for point in points])

        return rounding_of(values, self.fn.at, self.own, self.rng)
