"""Comparison of autodiff with finite differences, array by array, in float64."""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from dlworkshop.errors import (
    Range,
    UserError,
    check_flag,
    check_function,
    check_number,
    check_whole,
)
from dlworkshop.verify import culprit
from dlworkshop.verify.constants import own_constants
from dlworkshop.verify.functions import Function, lift
from dlworkshop.verify.modes import Found, check, sizes_of
from dlworkshop.verify.programs import narrowed
from dlworkshop.verify.report import WRONG, Culprit, GradientReport, ParameterCheck
from dlworkshop.verify.second import check_next
from dlworkshop.verify.transformations import compare, own_rules

TOLERANCE = {np.dtype(np.float64): 1e-8, np.dtype(np.float32): 1e-3}
NAMES = ("repeat", "value_and_grad", "jit", "vmap", "checkpoint")
FEW = 8  # `max_entries` in the check of a single equation


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

    `f` is traced again under `jax.enable_x64(True)`, with its arguments cast to float64
    or complex128. The setting and the caches of JAX outside are not changed.

    **Checks.** Forward mode (`jax.jvp`) and reverse mode (`jax.vjp`) are compared with
    central differences and with each other. They must be linear: the derivative for
    -1024 times a random cotangent or tangent is -1024 times its derivative, and up to a
    millionth the same for -2^40, and for the sum of cotangents; up to a thousandth, the
    same for -2^-10. With `order=2`, both modes of the gradient are checked too, and so
    on. Of an output with up to 16 numbers all are checked, of a larger one 6 numbers
    and two random sums of all. A complex number counts as two real ones, in JAX's
    conventions.

    **Probes.** In an array of up to `max_entries` numbers, every entry is probed, and
    two directions through all entries. In a larger array, `max_entries` / 8 entries are
    probed, half of them the ones with the largest slopes, and five directions through
    all n entries. One of the directions is the gradient, in which an error of scale
    shows in full; in a random direction an error vector e shows as about |e| / sqrt(n).
    After 8 wrong probes an array is not probed any further.

    **Verdict.** A slope is wrong if its error exceeds `tolerance` times the slope (or
    times 0.001 of the norm of its array's gradient, if that is larger), and twice the
    uncertainty of the difference (truncation, rounding, kinks: see
    `verify.differences`) and of autodiff (its rounding error, which is measured). The
    `resolution` in the report is the smallest error that could be detected. At a kink
    (ReLU at 0, a tie of `max`) a slope is right if it lies between the one-sided
    slopes. An array is "not checked" if differences have no slope (at the edge of a
    domain, or with noise), or could not detect an error of 0.001.

    **Transformations.** Calls are repeated with a new trace. If `f` contains rules or
    calls other than those of JAX and `models` (`custom_vjp`, `custom_jvp`, callbacks,
    Pallas), `f` and its derivatives are also compared with and without `jit`, `vmap`
    and `jax.checkpoint`, and its value with that of `jax.value_and_grad`, which the
    rule computes.

    **Culprits.** If anything is wrong, the first three equations of `f` with a wrong
    derivative are named with file and line. The search needs 25 evaluations and two
    compilations of `f` and of each function it calls, and a small check of each suspect
    equation. It is skipped if everything is right.

    **Limits.** The check cannot detect an error below the resolution, at another point,
    in a branch that was not taken, or between the one-sided slopes of a kink. In an
    array that is not probed entry by entry, it cannot detect an error of a single entry
    that is smaller than the resolution times sqrt(n) of the gradient.

    Args:
        f: any function of pytrees that JAX can trace, as under `jit`.
        args: the arguments of `f`. Integers, keys, None and other leaves that JAX does
            not differentiate are not changed.
        argnums: the arguments to differentiate by, as in `jax.grad`.
        has_aux: whether `f` returns a pair of which only the first is differentiated,
            as in `jax.grad`.
        modes: "fwd", "rev" or both; a note is added if `f` lacks one of them.
        order: >= 1, of the highest derivatives to check.
        transformations: some of "repeat", "value_and_grad", "jit", "vmap",
            "checkpoint"; by default only "repeat", or all if `f` contains custom rules.
        tolerance: in (0, 1); by default 1e-8, or 1e-3 in float32.
        max_entries: >= 1, largest size of an array whose entries are all probed.
        seed: of the random entries and directions.
        dtype: "float64", or "float32" for functions that do not support more (Pallas
            kernels, callbacks). In float32 the step is 2^-4 of the scale, and the
            report says which errors could not be detected.
        culprits: whether to search for culprits.

    Returns:
        A report; `report.ok` is the verdict. A wrong gradient does not raise an error.

    Raises:
        UserError: if there are no numbers to differentiate by, a number is not finite
            or closer to 0 than 2e-305 (1e-35 in float32), JAX does not support an
            array or is tracing it, or `f` is not a function, returns anything but
            arrays, does not compute in `dtype` throughout, or has no derivative.

    >>> import jax.numpy as jnp
    >>> report = check_gradients(lambda w: jnp.sum(jnp.sin(w)), jnp.arange(3.0))
    >>> report.ok, report.rows[0].checked
    (True, 3)
    """
    check_function("f", f)
    check_whole("seed", seed, 0)
    check_flag("has_aux", has_aux)
    check_flag("culprits", culprits)
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
    notes = list(dict.fromkeys(notes))  # several orders may say the same
    return GradientReport(
        tuple(rows), bar, tuple(comparisons), tuple(named), tuple(notes), seed
    )


NARROW = (
    "f does not compute in float64 all the way: {}. Cast the arrays that f closes over "
    "to the dtype of params, or create them inside f, and do not force a dtype in its "
    "layers; or check in float32, with dtype='float32'"
)
STOPPED = (
    "if stop_gradient is there on purpose, the derivative is not the slope of f: check "
    "the function with that part as an argument that is not differentiated"
)
NO_CULPRIT = (
    "no single equation is wrong by itself: several kinks meet, or the error is too "
    "small to show in one equation"
)

NO_RULE = (
    "no rule differs by itself: f itself computes something else if it is transformed "
    "or traced again"
)


def _culprits(judged, compared, tolerance, seed) -> tuple[list[Culprit], list[str]]:
    """The culprits of the first failed check, and notes on them."""

    def of_derivatives(piece: Function, size: float) -> str:
        try:
            made = check(
                piece, found.modes, tolerance, FEW, seed, size=size, additive=tolerance
            )
            return _said(made)
        except UserError:
            return ""

    def of_transformations(piece: Function, _: float) -> str:
        again = compare(piece, bad, there, seed)[0]
        return "; ".join(str(c) for c in again if not c.ok)

    there = judged[0][1].modes
    bad = [c.name for c in compared if not c.ok]
    try:
        for fn, found in judged:
            finite = all(np.isfinite(row.autodiff) for row in found.rows)
            if finite and not found.is_wrong:
                continue
            ray = _wrong_ray(fn, found)
            named = culprit.culprits_of(
                fn, of_derivatives, found.modes, ray, is_finite=finite
            )
            stopped = any(each.name == "stop_gradient" for each in named)
            if fn is not judged[0][0]:
                named = [culprit.in_rules(each, judged[0][0]) for each in named]
            if stopped:
                return named, [STOPPED]
            random = "repeat" in bad
            unnamed = found.is_wrong and not named and not random
            return named, [NO_CULPRIT] if unnamed else []
        if bad:
            fn, _ = judged[0]
            named = culprit.culprits_of(fn, of_transformations, (), sizes_of(fn))
            return named, [] if named else [NO_RULE]
    except Exception as error:  # the verdict does not depend on the search
        words = str(error).partition("\n")[0]
        return [], [f"the search for the culprit failed: {words:.200}"]
    return [], []


def _wrong_ray(fn: Function, found: Found) -> np.ndarray:
    """A random direction [D] through the wrong arrays, or through all."""
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
        check_number("tolerance", tolerance, Range(0, 1, closed=False))
    check_whole("max_entries", max_entries)
    if not args:
        raise UserError("check_gradients(f) has no arguments: give the arguments of f")
    several = isinstance(argnums, Sequence) and not isinstance(argnums, str)
    for arg in argnums if several else [argnums]:
        check_whole("argnums", arg, -len(args))
    if not _is_some_of(modes, ("fwd", "rev")) or not len(modes):
        wanted = 'a tuple of names: ("fwd", "rev"), ("fwd",) or ("rev",)'
        raise UserError(f"modes={modes!r}: give {wanted}")
    check_whole("order", order)
    if names is not None and not _is_some_of(names, NAMES):
        raise UserError(f"transformations={names!r}: give a tuple with some of {NAMES}")
    try:
        width = np.dtype(object if dtype is None else dtype)  # NumPy's None is float64
    except TypeError:
        width = np.dtype(object)
    if width not in TOLERANCE:
        raise UserError(f"dtype={dtype!r}: give 'float64' or 'float32'")
    return width


def _is_some_of(given: Any, known: Sequence[str]) -> bool:
    """Whether it is a collection of known names, each of them once."""
    if isinstance(given, str | Mapping) or not isinstance(given, Collection):
        return False
    are_known = all(isinstance(name, str) and name in known for name in given)
    return are_known and len(set(given)) == len(given)


@contextlib.contextmanager
def _quiet(width: np.dtype) -> Iterator[None]:
    """Settings during a check: NaN outside the domain of f is not an error."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(np.errstate(all="ignore"))
        stack.enter_context(jax.debug_nans(False))
        stack.enter_context(jax.debug_infs(False))
        stack.enter_context(jax.transfer_guard("allow"))
        if width == np.float64:
            stack.enter_context(jax.enable_x64(True))
            stack.enter_context(own_constants())
        yield


def _lifted(f, args, argnums, width, has_aux) -> Function:
    try:
        fn = lift(f, args, argnums, width, has_aux=has_aux)
        came = narrowed(fn.program) if width == np.float64 else ""
    except (TypeError, ValueError) as error:  # float64 and float32 are not promoted
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
        return _of_equation("; ".join(str(c) for c in found.comparisons if not c.ok))
    row = max(bad, key=lambda row: row.error)
    return (
        f"{row.mode} slope {row.autodiff:.10g}, by differences {row.difference:.10g}, "
        f"at {_of_equation(row.path)} {row.worst.replace(' of f[', ' of results[')}"
    )


def _of_equation(path: str) -> str:
    return path.replace("params", "operand").replace("args", "operands")


def _unseen(rows: Sequence[ParameterCheck]) -> str:
    seen = [r.resolution for r in rows if r.resolution < 1]
    coarse = max(seen, default=np.inf)
    return f"float32: errors below {coarse:.0e} of a gradient could not be detected"
