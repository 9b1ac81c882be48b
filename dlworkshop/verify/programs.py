"""Programs under test (jaxprs): where they are from, their parts, and their dtypes."""

import os
import sysconfig
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core, source_info_util

from dlworkshop.jaxprs import CALLS, bodies_of
from dlworkshop.models import convolution

# Folders end in a separator: "jaxopt" begins with "jax".
HERE, JAX, MODELS = (
    os.path.join(os.path.dirname(file), "")
    for file in (__file__, jax.__file__, convolution.__file__)
)
STDLIB = sysconfig.get_path("stdlib")


def function_of(jaxpr: Any, eqns: Any, given: Any, wanted: Any) -> Callable:
    """Some equations of a jaxpr as a function of given variables."""
    piece = jaxpr.replace(
        constvars=[], invars=list(given), outvars=list(wanted), eqns=list(eqns)
    )
    run = core.jaxpr_as_fun(core.ClosedJaxpr(piece, ()))

    def cast(x, v):  # the function may compute in a lower precision
        narrow = _bits(v) and hasattr(x, "dtype") and x.dtype != v.aval.dtype
        return x.astype(v.aval.dtype) if narrow else x

    return lambda *args: run(*map(cast, args, given))


def is_named(v: Any) -> bool:
    """Whether an equation's result is an array that is used."""
    return type(v).__name__ != "DropVar" and hasattr(v.aval, "dtype")


def is_of_library(file: str) -> bool:
    """Whether a file belongs to an installed library, Python or this package."""
    is_installed = "site-packages" in file or "dist-packages" in file
    return is_installed or file.startswith((HERE, JAX, STDLIB, "<frozen"))


def place_of(eqn: Any) -> str:
    """The line of the user's code that made an equation, "file:12 (function)", or "".

    It is the innermost line outside this package and installed libraries, or if there
    is none, the innermost line that JAX reports.
    """
    trace = eqn.source_info.traceback
    for frame in trace.frames if trace else []:
        if not is_of_library(frame.file_name):
            return relative(
                f"{frame.file_name}:{frame.line_num} ({frame.function_name})"
            )
    place = source_info_util.summarize(eqn.source_info)
    return "" if place.startswith(HERE) else relative(place)


def relative(place: str) -> str:
    """The path relative to the working directory if it is below it."""
    return place.removeprefix(os.getcwd() + os.sep)


def narrowed(program: Any) -> str:
    """The first equation that computes in less than float64, or "" if there is none."""
    jaxpr, out = program.jaxpr, program.out_avals[0].dtype
    found = _narrowed(jaxpr, jaxpr.invars, jaxpr.outvars)
    return found or ("" if out == np.float64 else f"it returns {out}")


def _narrowed(jaxpr: Any, moving: Any, wanted: Any) -> str:
    needed = set(map(id, wanted))
    for eqn in reversed(jaxpr.eqns):
        if not needed.isdisjoint(map(id, eqn.outvars)):
            needed |= set(map(id, eqn.invars))
    moves = set(map(id, moving))
    for eqn in jaxpr.eqns:
        hit = [id(v) in moves for v in eqn.invars]
        kept = [id(v) in needed for v in eqn.outvars]
        if not any(hit) or not any(kept):  # an auxiliary output, for example
            continue
        moves |= set(map(id, eqn.outvars))
        bodies = bodies_of(eqn)
        for body in bodies:
            moving, wanted = body.invars, body.outvars
            if len(hit) == len(moving) and eqn.primitive.name != "scan":  # a plain call
                moving = [v for v, h in zip(moving, hit, strict=True) if h]
            if eqn.primitive.name in CALLS:
                wanted = [v for v, k in zip(wanted, kept, strict=True) if k]
            if found := _narrowed(body, moving, wanted):
                return found
        came = {_bits(v) for v, h in zip(eqn.invars, hit, strict=True) if h}
        for v in [] if bodies or 64 not in came else eqn.outvars:
            if 0 < _bits(v) < 64:
                place = place_of(eqn)
                at = f" at {place}" if place else ""
                return f"{eqn.primitive.name} makes {v.aval.dtype} of float64{at}"
    return ""


def _bits(v: Any) -> int:
    """The bits of a floating-point variable; 0 for others."""
    dtype = getattr(v.aval, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
        return 0
    return int(jnp.finfo(dtype).bits)
