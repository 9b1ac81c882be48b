"""The size of the terms that cancel in a derivative, which bounds its rounding error.

Every value y of a program has a slope t_y along a ray and a cotangent c_y. Where the
program is cut, the derivative is the sum of c_y t_y over the values at the cut. So the
largest sum of |c_y t_y| over the numbers of one value is the size of terms which cancel
if the derivative is smaller, as in the gradient of a confident softmax, p - 1.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from dlworkshop.jaxprs import CALLS, carry_of_scan, opened
from dlworkshop.verify.functions import Function, is_inexact, mode_is_missing
from dlworkshop.verify.programs import function_of, is_named

STEP = 2.0**-12  # of a difference, whose slope needs to be about right only


def terms_of(
    fn: Function, modes: Sequence[str] = ("fwd", "rev")
) -> Callable[[np.ndarray, np.ndarray], float]:
    """The largest terms of a derivative of `fn` at its point.

    Values inside of while loops and branches are not considered.

    Args:
        fn: the function and the point.
        modes: that exist for it; without "fwd" the slopes are differences.

    Returns:
        A function of a ray [D] and a cotangent [M]; it returns 0 if JAX cannot
        differentiate a value.
    """
    jaxpr, consts = fn.program.jaxpr, fn.program.consts

    def values(v, more=None):  # [D] -> [M], and all values in between
        (out,), made = _run(jaxpr, consts, [v], more)
        return out, made

    @jax.jit
    def slopes(ray):
        if "fwd" in modes:
            return jax.jvp(lambda v: values(v)[1], (fn.at,), (ray,))[1]
        step = np.asarray(STEP, fn.at.dtype)
        near, here = values(fn.at + step * ray)[1], values(fn.at)[1]
        return jax.tree.map(lambda y, x: (y - x) / step, near, here)

    @jax.jit
    def cotangents(u):
        none = jax.tree.map(jnp.zeros_like, values(fn.at)[1])
        return jax.vjp(lambda more: values(fn.at, more)[0], none)[1](u)[0]

    def largest(ray, u):
        try:
            both = slopes(ray), cotangents(u)
        except Exception as error:  # of a value that nothing differentiable depends on
            if not mode_is_missing(error):
                raise
            return 0.0
        pairs = zip(*map(jax.tree.leaves, both), strict=True)
        with np.errstate(all="ignore"):
            sums = [float(np.sum(np.abs(np.multiply(t, c)))) for t, c in pairs]
        return max(filter(np.isfinite, sums), default=0.0)

    return largest


def _run(jaxpr, consts, args: Sequence[Any], more: Any) -> tuple[list[Any], list[Any]]:
    """The results of a program, and the numbers that each equation computes.

    `more` is added to these numbers; None is nothing.
    """
    known = [*jaxpr.constvars, *jaxpr.invars]
    value = dict(zip(known, [*consts, *args], strict=True))
    numbers = []

    def read(variables):
        return [v.val if isinstance(v, core.Literal) else value[v] for v in variables]

    for eqn, added in zip(jaxpr.eqns, more or [None] * len(jaxpr.eqns), strict=True):
        name, to = eqn.primitive.name, eqn.outvars
        if name == "scan":
            results, made = _scanned(eqn, read(eqn.invars), added)
        elif name in CALLS and CALLS[name] in eqn.params:
            body, its = opened(eqn.params[CALLS[name]])
            results, made = _run(body, its, read(eqn.invars), added)
        else:
            to = [v for v in to if is_named(v)]
            needed = [v for v in eqn.invars if not isinstance(v, core.Literal)]
            needed = list(dict.fromkeys(needed))
            results = function_of(jaxpr, [eqn], needed, to)(*read(needed))
            made = [y if is_inexact(y) else None for y in results]
            if added is not None:
                made = [
                    a if a is None else a + b for a, b in zip(made, added, strict=True)
                ]
                results = [
                    a if b is None else b for a, b in zip(results, made, strict=True)
                ]
        numbers.append(made)
        value |= dict(zip(to, results, strict=True))
    return read(jaxpr.outvars), numbers


def _scanned(eqn, given, more) -> tuple[list[Any], Any]:
    place = carry_of_scan(eqn.invars, eqn.outvars, eqn.params["jaxpr"])
    consts, start, scanned = given[: place.start], given[place], given[place.stop :]
    body, its = opened(eqn.params["jaxpr"])

    def step(carry, rows):
        rows, more = rows
        out, made = _run(body, its, [*consts, *carry, *rows], more)
        return out[: len(carry)], (out[len(carry) :], made)

    carry, (stacked, made) = jax.lax.scan(
        step,
        start,
        (scanned, more),
        length=eqn.params["length"],
        reverse=eqn.params["reverse"],
    )
    return [*carry, *stacked], made
