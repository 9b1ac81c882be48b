"""Second derivatives: both modes of the gradient, and whether they are symmetric."""

import numpy as np

from dlworkshop.errors import UserError
from dlworkshop.verify.functions import Function, gradient, mode_is_missing, tangent
from dlworkshop.verify.modes import Found, check, cotangent_of, noise_of
from dlworkshop.verify.probes import scales_of
from dlworkshop.verify.report import UNCHECKED, Comparison

ROUNDINGS = 64  # of f or its gradient, that a second derivative may be off by
SYMMETRIC = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-3}


def check_next(
    fn: Function, first: Found, tolerance: float, max_entries: int, seed: int
) -> tuple[Function, Found]:
    """Hold the derivatives of a derivative of `fn` against its differences.

    Args:
        fn: the function and the point; of several outputs a random sum is looked at.
        first: of `fn`. If it has no reverse mode, a tangent is derived.
        tolerance, max_entries, seed: as of `modes.check`.

    Returns:
        The derivative, and what a check of it finds; where it is not finite, or has no
        derivative, a note.
    """
    if "rev" in first.modes:
        over, derived = "rev", gradient(fn, cotangent_of(fn, seed))
    else:
        ray = np.random.default_rng(seed).standard_normal(fn.at.size)
        ray = (ray / np.linalg.norm(ray)).astype(fn.at.dtype)
        over, derived = "fwd", tangent(fn, ray)
    suffix = f" over {over}{first.suffix}"
    both = ("fwd", "rev")
    try:
        found = check(derived, both, tolerance, max_entries, seed, suffix)
        lost = any(row.verdict == UNCHECKED for row in found.rows)
        if lost and not found.is_wrong and over == "rev":  # may be all rounding of f
            rounding = _noise(fn, seed) / scales_of(fn.inputs, fn.at)
            found = check(derived, both, tolerance, max_entries, seed, suffix, rounding)
    except UserError as error:
        return derived, Found(
            (), (), (f"further derivatives were not checked: {error}",)
        )
    equal = _symmetric(fn, derived, seed) if over == "rev" else ()
    return derived, found._replace(comparisons=(*found.comparisons, *equal))


def _symmetric(fn: Function, derived: Function, seed) -> tuple[Comparison, ...]:
    """<v, H w> = <w, H v>, in two random directions.

    Where H vanishes because larger numbers cancel, it is held against what rounding of
    f and of its gradient makes of a second derivative.
    """
    rays = np.random.default_rng(seed).standard_normal((2, derived.at.size))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    v, w = rays.astype(derived.at.dtype)
    try:
        hv, hw = (np.asarray(derived.push(derived.at, x), np.float64) for x in (v, w))
    except Exception as error:
        if not mode_is_missing(error):
            raise
        return ()  # noted already
    size = float(np.abs(hv) @ np.abs(w) + np.abs(hw) @ np.abs(v)) / 2
    off = abs(float(hv @ w - hw @ v))
    if off > SYMMETRIC[derived.at.dtype] * size:
        scales = scales_of(fn.inputs, fn.at)  # [D]
        noise = _noise(fn, seed)
        slopes = noise_of(fn, derived.value, seed)  # [D]
        left, right = (float(np.linalg.norm(x / scales)) for x in (v, w))
        both = np.linalg.norm(slopes * v) * right + np.linalg.norm(slopes * w) * left
        noise = noise * left * right + float(both)
        size = max(size, ROUNDINGS * noise / SYMMETRIC[derived.at.dtype])
    off = off / size if size else 0.0
    ok = not off > SYMMETRIC[derived.at.dtype]
    return (Comparison("symmetric Hessian", ok, off, "two random directions"),)


def _noise(fn: Function, seed: int) -> float:
    """How the sum of outputs that is derived twice is rounded."""
    return float(noise_of(fn, fn.value, seed) @ np.abs(cotangent_of(fn, seed)))
