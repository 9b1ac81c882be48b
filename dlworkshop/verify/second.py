"""Second and higher derivatives: both modes of the gradient."""

import numpy as np

from dlworkshop.errors import UserError
from dlworkshop.verify.functions import Function, gradient, tangent
from dlworkshop.verify.modes import Found, check, cotangent_of, noise_of
from dlworkshop.verify.probes import scales_of
from dlworkshop.verify.report import UNCHECKED


def check_next(
    fn: Function, first: Found, tolerance: float, max_entries: int, seed: int
) -> tuple[Function, Found]:
    """Compare the derivatives of a derivative of `fn` with its differences.

    The derivative is the gradient of a random sum of the outputs, or a tangent if
    `first`, the result for `fn`, has no reverse mode. The other arguments are those of
    `modes.check`.

    Returns:
        The derivative and the result for it, which is only a note if the derivative is
        not finite or has no derivatives itself.
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
        if lost and not found.is_wrong and over == "rev":  # possibly by rounding of f
            noise = noise_of(fn, fn.value, seed) @ np.abs(cotangent_of(fn, seed))
            rounding = float(noise) / scales_of(fn.inputs, fn.at)
            found = check(derived, both, tolerance, max_entries, seed, suffix, rounding)
    except Exception as error:  # the verdict on the first order stays
        words = str(error) or type(error).__name__
        if not isinstance(error, UserError):
            words = f"{words.splitlines()[0]:.200}"
        return derived, Found(
            (), (), (f"further derivatives were not checked: {words}",)
        )
    return derived, found
