"""Whether derivatives are linear in the cotangent or tangent that they are given.

Differences are compared with derivatives for cotangents of 1, which cannot show that a
rule forgets its cotangent, clips it, or ignores its sign. Multiplication by a power of
two commutes with rounding, so that the derivative for -1024 u is that for u times
-1024, to the last bit, however rough or ill-conditioned the derivative is.
"""

from collections.abc import Callable, Sequence

import numpy as np

from dlworkshop.verify.functions import Function, Part
from dlworkshop.verify.probes import finite
from dlworkshop.verify.report import Comparison, norm_of
from dlworkshop.verify.rounding import CLEAR, rounding_of

FACTOR = -(2.0**10)  # of the cotangent; large enough for what clips at 1
NONLINEAR = (
    "a derivative is not linear in its {}: a rule forgets it, clips or normalises it, "
    "or depends on its sign"
)
WHAT = {"rev": "cotangent", "fwd": "tangent"}
NAME = {"rev": "reverse", "fwd": "forward"}


def compare_scaled(
    fn: Function,
    modes: Sequence[str],
    own: np.ndarray,
    tolerance: float,
    seed: int,
    size: float = 1.0,
) -> tuple[tuple[Comparison, ...], tuple[str, ...]]:
    """Compare derivatives of `fn` with those for a multiple of the cotangent.

    Args:
        fn: the function and the point.
        modes: of the derivatives: "rev", "fwd" or both.
        own: [D], the sizes of the arguments.
        tolerance: relative to the norm of an array, for rules that iterate.
        seed: of the cotangent and the tangent.
        size: of the smaller cotangent.

    Returns:
        A comparison for each mode, and notes on those that are not linear.
    """
    rng = np.random.default_rng(seed)
    size = float(np.exp2(np.round(np.log2(size)))) if 0 < size < np.inf else 1.0
    compared, notes = [], []
    for mode in modes:
        if mode == "rev":
            given = size * rng.standard_normal(fn.outputs[-1].stop)
            derivative, parts = fn.pull, fn.inputs
        else:
            given = own * rng.standard_normal(fn.at.size)
            derivative, parts = fn.push, fn.outputs
        off, where = _worst(fn, derivative, given, parts, own, tolerance, rng)
        name = f"{NAME[mode]} mode of {FACTOR:g} times its {WHAT[mode]}"
        compared.append(Comparison(name, off <= tolerance, off, where))
        if off > tolerance:
            notes.append(NONLINEAR.format(WHAT[mode]))
    return tuple(compared), tuple(notes)


def _worst(
    fn: Function,
    derivative: Callable,
    given: np.ndarray,
    parts: Sequence[Part],
    own: np.ndarray,
    tolerance: float,
    rng: np.random.Generator,
) -> tuple[float, str]:
    """The largest difference, relative to the norm of its array, and the array."""
    with np.errstate(over="ignore"):
        given = given.astype(fn.at.dtype)

    def of(x, at=fn.at):
        return np.asarray(derivative(at, x), np.float64)

    one = of(given)
    for factor in (FACTOR, -1.0):  # the larger one may overflow
        with np.errstate(all="ignore"):
            scaled = of(given * fn.at.dtype.type(factor)) / factor
        broken = np.isfinite(one) & ~np.isfinite(scaled)
        if not broken.any():
            break
    apart = np.abs(finite(one) - finite(scaled)) * np.isfinite(one)
    apart = np.where(broken, np.inf, apart)
    least = float(np.finfo(fn.at.dtype).tiny) / float(np.finfo(fn.at.dtype).eps)

    def worst(noise):
        found = []
        for part in parts:
            span = slice(part.start, part.stop)
            size = max(norm_of(one[span]), norm_of(scaled[span]))
            off = float(np.max(apart[span] - noise[span] - least, initial=0.0))
            found.append((off / size if size else off, part.path))
        return max(found, key=lambda pair: pair[0])

    off, where = worst(np.zeros_like(one))
    if off > tolerance:  # atomic additions on a GPU round differently each time

        def values(points):
            return np.stack([of(given, point) for point in points])

        off, where = worst(CLEAR * rounding_of(values, fn.at, own, rng))
    return off, where
