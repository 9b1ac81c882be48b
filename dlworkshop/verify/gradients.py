"""Autodiff against finite differences, array by array, in float64."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from dlworkshop.errors import (
    Range,
    UserError,
    check_function,
    check_number,
    check_whole,
)
from dlworkshop.verify import culprit
from dlworkshop.verify.functions import Function, lift, narrowed
from dlworkshop.verify.modes import Found, check, sizes_of
from dlworkshop.verify.report import WRONG, Culprit, GradientReport, ParameterCheck
from dlworkshop.verify.second import check_next
from dlworkshop.verify.transformations import compare, own_rules

TOLERANCE = {np.dtype(np.float64): 1e-8, np.dtype(np.float32): 1e-3}
NAMES = ("repeat", "jit", "vmap", "checkpoint")  # the transformations
FEW = 8  # entries of an array in the check of a piece of a program


def check_gradients(
    f: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    modes: Sequence[str] = ("fwd", "rev"),
    order: int = 1,
    transformations: Sequence[str] | None = None,
    tolerance: float | None = None,
    max_entries: int = 256,
    seed: int = 0,
    dtype: Any = "float64",
    culprits: bool = True,
) -> GradientReport:
    """Compare derivatives of `f` at `args` with differences of `f`, in float64.

    `f` is traced anew under `jax.enable_x64(True)`, its arguments cast to float64 or
    complex128; the setting and the caches outside are left as they are.

    **What is checked.** Forward mode (`jax.jvp`) and reverse mode (`jax.vjp`), each
    against central differences, and against each other; with `order=2` also both modes
    of the gradient, and so on. Of an output every number, if it has up to 16, otherwise
    6 of them and two random sums of all. Complex numbers count as two real ones, in
    JAX's conventions.

    **What is probed.** Every entry of an array of up to `max_entries`, and two
    directions through all of them. Of a larger one an eighth as many entries, half of
    them those with the largest slopes, and five directions through all n entries, one
    of them the gradient, in which an error of scale shows in full. In a random one an
    error vector e shows as about |e| / sqrt(n). An array is probed no further once 8
    probes are wrong.

    **Verdict.** A slope is wrong if it is off by more than `tolerance` times itself (or
    0.001 of the norm of its array's gradient, if that is more), and by more than twice
    what speaks against the difference (truncation, rounding, kinks: argued in
    `verify.differences`) and against autodiff (its rounding, measured). The report's
    `resolution` says how coarse that made the check. At a kink (ReLU at 0, a tie of
    `max`) a slope is right if it lies between those from both sides. Where differences
    have no slope (the edge of a domain, noise), or could not see an error of a
    thousandth, the array is "not checked", which is neither right nor wrong.

    **Transformations.** Calls are repeated, `f` traced anew; where it holds rules or
    calls that are not JAX's (`custom_vjp`, `custom_jvp`, callbacks, Pallas), `f` and
    its derivatives are compared jitted and not, under `vmap` and one by one, and under
    `jax.checkpoint`.

    **Culprits.** If anything is wrong, the first three equations of `f` whose own
    derivative is wrong are named with file and line. That takes 25 evaluations of `f`
    and of each function it calls, two compilations of each, and a small check of each
    equation under suspicion; while all is right it costs nothing.

    **What cannot be seen**: an error below the resolution; one at another point or in a
    branch that was not taken; one between the slopes of both sides of a kink; and, in
    an array that is not probed entry by entry, one of a single entry that carries less
    than the resolution times sqrt(n) of the gradient.

    Args:
        f: any JAX function of trees; JAX can trace it (as under `jit`).
        args: where to check. Integers, keys, None and whatever JAX does not
            differentiate pass through.
        argnums: the arguments to differentiate by, as in `jax.grad`.
        has_aux: `f` returns a pair; only the first is differentiated, as in `jax.grad`.
        modes: "fwd", "rev" or both; one that `f` does not have is noted.
        order: >= 1, of the highest derivatives that are checked.
        transformations: of "repeat", "jit", "vmap", "checkpoint"; by default the first,
            and all where `f` holds rules of its own.
        tolerance: > 0; 1e-8 by default, in float32 1e-3.
        max_entries: >= 1, entries of one array checked one by one.
        seed: of the random entries and directions.
        dtype: "float64", or "float32" for a function that cannot do more (Pallas
            kernels, callbacks): then the step is 2^-4 of the scale, and the report says
            which errors could not be seen.
        culprits: whether to look for them.

    Returns:
        A report; `report.ok` is the verdict. A wrong gradient does not raise.

    Raises:
        UserError: nothing to differentiate by, or not finite; `f` no function, not
            finite, not computed in `dtype` all the way, or without any derivative.

    >>> import jax.numpy as jnp
    >>> report = check_gradients(lambda w: jnp.sum(jnp.sin(w)), jnp.arange(3.0))
    >>> report.ok, report.rows[0].checked
    (True, 3)
    """
    check_function("f", f)
    check_whole("seed", seed, 0)
    width = _asked(
        args, argnums, modes, order, transformations, tolerance, max_entries, dtype
    )
    bar = tolerance or TOLERANCE[width]
    with _quiet(width):
        fn = _lifted(f, args, argnums, width, has_aux)
        judged = [(fn, check(fn, modes, bar, max_entries, seed))]
        there = judged[0][1].modes
        while len(judged) < order and judged[-1][1].modes:
            judged.append(check_next(*judged[-1], bar, max_entries, seed))
        if transformations is None:
            transformations = NAMES if own_rules(fn.program.jaxpr.eqns) else NAMES[:1]
        compared, missing = compare(fn, transformations, there, seed)
        named, said = _culprits(judged, compared, bar, seed) if culprits else ([], [])
    rows = [row for _, found in judged for row in found.rows]
    comparisons = [one for _, found in judged for one in found.comparisons]
    comparisons += compared
    notes = [note for _, found in judged for note in found.notes]
    notes += [*missing, *said, *([_unseen(rows)] if width == np.float32 else [])]
    return GradientReport(
        tuple(rows), bar, tuple(comparisons), tuple(named), tuple(notes), seed
    )


NARROW = (
    "f does not compute in float64 all the way: {}. Cast the arrays f closes over to "
    "the dtype of params, or make them inside f, and let no layer of it force a dtype; "
    "or check in float32, with dtype='float32'."
)
STOPPED = (
    "if stop_gradient is there on purpose, its derivative is no slope of f: check the "
    "function with that part as an argument that is not differentiated"
)
NO_CULPRIT = (
    "no single equation is wrong by itself: kinks that meet, or an error too small to "
    "show in one of them"
)


def _culprits(judged, compared, tolerance, seed) -> tuple[list[Culprit], list[str]]:
    """The culprits of the first failed check, and notes."""

    def of_derivatives(piece: Function) -> str:
        try:
            return _said(check(piece, found.modes, tolerance, FEW, seed))
        except UserError:
            return ""

    def of_roads(piece: Function) -> str:
        again, _ = compare(piece, bad, there, seed)
        return "; ".join(str(c) for c in again if not c.ok)

    there = judged[0][1].modes
    bad = [c.name for c in compared if not c.ok]
    try:
        for fn, found in judged:
            finite = all(np.isfinite(row.autodiff) for row in found.rows)
            if finite and not found.is_wrong:
                continue
            ray = _wrong_ray(fn, found)
            named = culprit.culprits_of(fn, of_derivatives, found.modes, ray)
            if any(each.name == "stop_gradient" for each in named):
                return named, [STOPPED]
            return named, [] if named or not found.is_wrong else [NO_CULPRIT]
        if bad:
            fn, _ = judged[0]
            named = culprit.culprits_of(fn, of_roads, (), sizes_of(fn))
            return named, [] if named else [NO_CULPRIT]
    except Exception as error:  # of a piece; the verdict stands
        words = str(error).partition("\n")[0]
        return [], [f"the search for the culprit failed: {words:.200}"]
    return [], []


def _wrong_ray(fn: Function, found: Found) -> np.ndarray:
    """A random direction [D] through the arrays that are wrong, or all."""
    wrong = [
        p for p, row in zip(fn.inputs, found.rows, strict=True) if row.verdict == WRONG
    ]
    ray = np.zeros(fn.at.size)
    for part in wrong or fn.inputs:
        ray[part.start : part.stop] = 1.0
    return ray * sizes_of(fn) * np.random.default_rng(0).standard_normal(fn.at.size)


def _asked(
    args, argnums, modes, order, names, tolerance, max_entries, dtype
) -> np.dtype:
    if tolerance is not None:
        check_number("tolerance", tolerance, Range(0, closed=False))
    check_whole("max_entries", max_entries)
    if not args:
        raise UserError(
            "check_gradients(f) came without arguments: say where to check."
        )
    for arg in argnums if np.iterable(argnums) else [argnums]:
        check_whole("argnums", arg, -len(args))
    several = np.iterable(modes) and not isinstance(modes, str)
    if not several or not modes or set(modes) - {"fwd", "rev"}:
        raise UserError(f'modes={modes!r}: wanted ("fwd", "rev") or one of the two.')
    check_whole("order", order, 1)
    several = names is None or (np.iterable(names) and not isinstance(names, str))
    if not several or set(names or ()) - set(NAMES):
        raise UserError(f"transformations={names!r}: wanted some of {NAMES}.")
    try:
        width = np.dtype(dtype)
    except TypeError:
        width = np.dtype(object)
    if width not in TOLERANCE:
        raise UserError(f"dtype={dtype!r}: wanted 'float64' or 'float32'.")
    return width


@contextlib.contextmanager
def _quiet(width: np.dtype) -> Iterator[None]:
    """JAX's settings during a check: NaN outside a domain is not an error."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.debug_nans(False))
        stack.enter_context(jax.debug_infs(False))
        if width == np.float64:
            stack.enter_context(jax.enable_x64(True))
        yield


def _lifted(f, args, argnums, width, has_aux) -> Function:
    try:
        fn = lift(f, args, argnums, width, has_aux=has_aux)
        came = narrowed(fn) if width == np.float64 else ""
    except (TypeError, ValueError) as error:  # no promotion of float64 with float32
        mixed = all(word in str(error) for word in ("float32", "float64"))
        if isinstance(error, UserError) or width != np.float64 or not mixed:
            raise
        words = " ".join(str(error).split())
        raise UserError(NARROW.format(f"{words:.300}")) from error
    if came:
        raise UserError(NARROW.format(came))
    return fn


def _said(found: Found) -> str:
    bad = [row for row in found.rows if row.verdict == WRONG]
    if not bad:
        return "; ".join(str(c) for c in found.comparisons if not c.ok)
    row = max(bad, key=lambda row: row.error)
    return (
        f"{row.mode} slope {row.autodiff:.10g}, by differences {row.difference:.10g}, "
        f"at {row.path.replace('params', 'operand').replace('args', 'operands')} "
        f"{row.worst.replace(' of f[', ' of results[')}"
    )


def _unseen(rows: Sequence[ParameterCheck]) -> str:
    seen = [r.resolution for r in rows if r.resolution < 1]
    coarse = max(seen, default=np.inf)
    return f"float32: errors below {coarse:.0e} of a gradient could not be seen"
