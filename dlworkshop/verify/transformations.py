"""Comparison of a function with itself under jit, vmap, checkpoint and autodiff."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import ad

from dlworkshop.jaxprs import all_equations
from dlworkshop.verify.functions import Function, first_line, mode_is_missing
from dlworkshop.verify.modes import cotangent_of, noise_of
from dlworkshop.verify.probes import finite, scales_of
from dlworkshop.verify.programs import JAX, MODELS, is_of_library, place_of
from dlworkshop.verify.report import Comparison

NUM_EXAMPLES = 3  # points in a batch under vmap
NEAR = 1e-3  # distance between the points, relative to the scale of the arrays
ROUNDINGS = 64  # rounding errors by which two results may differ
LOOSE = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-3}  # relative difference

# Primitives that may be wrong under a transformation, because users define their rules.
OWN = {
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vmap_call",
    "custom_lin",
    "custom_partitioning",
    "pure_callback",
    "io_callback",
    "ffi_call",
    "pallas_call",
}


def compare(
    fn: Function, names: Sequence[str], modes: Sequence[str], seed: int
) -> tuple[list[Comparison], list[str]]:
    """Compare `fn` and its derivatives with themselves under transformations.

    For "repeat", `fn` is traced again, and called again if the program differs.

    Args:
        fn: the function and the point.
        names: some of "repeat", "value_and_grad", "jit", "vmap" and "checkpoint".
        modes: of the derivatives: "rev", "fwd" or both.
        seed: of the points under vmap, and of the directions.

    Returns:
        A comparison for each transformation that JAX supports for `fn`, and notes about
        the others.
    """
    rng = np.random.default_rng(seed)
    u = jnp.asarray(cotangent_of(fn, seed))  # without jit, rules would get NumPy's
    direction = rng.standard_normal(fn.at.size)
    scale = scales_of(fn.inputs, fn.at)  # [D]
    direction *= scale / np.linalg.norm(direction)
    ray = jnp.asarray(direction.astype(fn.at.dtype))
    known = _functions(fn, modes, u, ray)
    steps = NEAR * np.arange(NUM_EXAMPLES)[:, None]
    away = steps * scale * rng.standard_normal((NUM_EXAMPLES, fn.at.size))
    points = (fn.at + away).astype(fn.at.dtype)
    one = {what: np.asarray(function(fn.at)) for what, function in known.items()}
    found, notes = [], []
    for name in names:
        try:
            if name == "value_and_grad":
                others = {"the value": _valued(fn, modes)}
            else:
                others = _functions(_otherwise(name, fn), modes, u, ray)
            pairs = []
            for what in others:
                function = known[what]
                if name == "vmap":
                    theirs = np.stack([np.asarray(function(p)) for p in points])
                    ours = jax.vmap(function)(points)
                else:
                    theirs = one[what]
                    ours = others[what](jnp.asarray(fn.at))
                pairs.append((what, np.asarray(ours), theirs))
            if name == "vmap":
                batched, untried = _batched(fn, modes, u, ray)
                pairs += batched
                notes += untried
        except Exception as error:
            # a rule may close over an array that `f` computes
            closed = isinstance(error, jax.errors.UnexpectedTracerError)
            if not (closed or mode_is_missing(error) or "vmap" in str(error)):
                raise
            notes.append(f"{name} was not compared: {first_line(error)}")
            continue
        compared = _compared(name, fn, pairs, float(scale.max()), {})
        if not compared.ok and name != "repeat":  # two equal calls round equally
            noise = {
                what: np.maximum(
                    *(
                        noise_of(fn, functions[what], seed)
                        for functions in (known, others)
                    )
                )
                for what in others
            }
            value = noise["the value"].max()
            if "the gradient" in noise:
                noise["the gradient"] += value / scale
            if "the tangent" in noise:
                noise["the tangent"] += value
            compared = _compared(name, fn, pairs, float(scale.max()), noise)
        found.append(compared)
    return found, notes


def _functions(fn: Function, modes: Sequence[str], u, ray) -> dict[str, Callable]:
    """The functions of the point that are compared."""
    functions: dict[str, Callable] = {"the value": fn.value}
    if "rev" in modes:
        functions["the gradient"] = lambda v: fn.pull(v, u)
    if "fwd" in modes:
        functions["the tangent"] = lambda v: fn.push(v, ray)
    return functions


def _batched(fn: Function, modes: Sequence[str], u, ray) -> tuple[list, list[str]]:
    """Derivatives for a batch of cotangents or tangents at one point, and one by one.

    `jax.jacrev` and `jax.jacfwd` compute them so; where they raise, a note says it.
    """
    found, notes = [], []
    for what, name, mode, given, derivative in (
        ("the gradient", "jax.jacrev", "rev", u, fn.pull),
        ("the tangent", "jax.jacfwd", "fwd", ray, fn.push),
    ):
        if mode in modes:
            batch = np.stack([given, -2 * given, 4 * given])
            try:
                ours = np.asarray(jax.vmap(lambda x, d=derivative: d(fn.at, x))(batch))
            except Exception as error:  # a rule may know batches of arguments only
                notes.append(f"{name} does not work: {first_line(error)}")
                continue
            theirs = np.stack([np.asarray(derivative(fn.at, x)) for x in batch])
            found.append((what, ours, theirs))
    return found, notes


def _valued(fn: Function, modes: Sequence[str]) -> Callable:
    """The value that comes with a derivative, which a custom rule computes itself."""
    if "rev" in modes:
        return fn.compile(lambda v: jax.vjp(fn.flat, v)[0])
    return fn.compile(lambda v: jax.jvp(fn.flat, (v,), (jnp.zeros_like(v),))[0])


def _otherwise(name: str, fn: Function) -> Function:
    """`fn` under a transformation; for vmap, which needs a batch, `fn` itself."""
    if name == "jit":
        return replace(fn, compile=lambda f: f)
    if name == "checkpoint":
        return replace(fn, flat=jax.checkpoint(fn.flat))
    if name == "vmap":
        return fn

    def flat(v):  # a new function, because JAX caches the traces of functions
        return fn.flat(v)

    anew = replace(fn, flat=flat)
    same = str(anew.program.jaxpr) == str(fn.program.jaxpr)
    both = list(zip(anew.program.consts, fn.program.consts, strict=False))
    return fn if same and all(_are_equal(a, b) for a, b in both) else anew


def _are_equal(a: Any, b: Any) -> bool:
    if a is b or jnp.issubdtype(jnp.result_type(a), jax.dtypes.prng_key):
        return a is b
    return np.array_equal(np.asarray(a), np.asarray(b))


def own_rules(eqns: Sequence[Any]) -> bool:
    """Whether there are custom rules or calls of others than JAX and `models`."""
    return any(
        (eqn.primitive.name in OWN and not _is_tested(eqn))
        or _is_foreign(eqn.primitive)
        for eqn in all_equations(eqns)
    )


def _is_foreign(primitive: Any) -> bool:
    """Whether a primitive is implemented outside of JAX."""
    rules = primitive.impl, ad.primitive_jvps.get(primitive)
    codes = [getattr(getattr(f, "func", f), "__code__", None) for f in rules]
    return any(code and not code.co_filename.startswith(JAX) for code in codes)


def _is_tested(eqn: Any) -> bool:
    """Whether a custom rule, and its function, are of JAX or of `dlworkshop.models`."""
    infos = [
        getattr(param, "debug_info", getattr(param, "debug", None))
        for param in eqn.params.values()
    ]
    # a grid of Pallas has debug=False
    named = [getattr(info, "func_src_info", None) for info in infos]
    sources = [str(source) for source in named if source is not None]
    files = [source.partition(" at ")[2] for source in (rule_of(eqn), *sources)]
    return all(file.startswith((JAX, MODELS)) for file in files)


def rule_of(eqn: Any) -> str:
    """The function that a custom rule belongs to: "name at file:line", or "".

    For a wrapper of a library (`eqx.filter_custom_vjp`) it is the function of the user
    inside the wrapper.
    """
    for param in eqn.params.values():
        inner = getattr(param, "jaxpr", param)
        info = getattr(inner, "debug_info", None)
        if info is None:
            continue
        rule = str(info.func_src_info)
        file = rule.partition(" at ")[2]
        if is_of_library(file) and not file.startswith(JAX):
            outside = place_of(eqn)
            for each in getattr(inner, "eqns", ()):
                place, _, name = place_of(each).rstrip(")").partition(" (")
                if name and place != outside.partition(" (")[0]:
                    return f"{name} at {place}"
        return rule
    return ""


def _compared(name, fn, pairs, scale, noise) -> Comparison:
    loose = LOOSE[fn.at.dtype]
    # the size of a zero gradient after rounding of f
    least = {"the value": 0.0, "the gradient": _top(pairs[0][1]) / scale}
    worst, where = 0.0, "the value"
    for what, ours, theirs in pairs:
        for part in fn.inputs if what == "the gradient" else fn.outputs:
            span = slice(part.start, part.stop)
            a, b = _array(ours, part), _array(theirs, part)
            with np.errstate(all="ignore"):
                known = np.abs(finite(b))
                top = max(_top(theirs), least.get(what, _top(pairs[0][1])))
                size = max(float(known.max(initial=0.0)), 1e-6 * top)
                if what in noise:
                    size = max(size, ROUNDINGS * _top(noise[what][span]) / loose)
                apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, abs(a - b))
                off = float(np.max(apart / size)) if apart.any() else 0.0
                off = off if np.isfinite(off) else np.inf
            if off > worst:
                worst = off
                where = (
                    f"the gradient of {part.path}" if what == "the gradient" else what
                )
    return Comparison(name, worst <= loose, worst, where)


def _array(flat, part):
    return np.asarray(flat[..., part.start : part.stop], np.float64)


def _top(x) -> float:
    x = np.abs(x[np.isfinite(x)])
    return float(x.max(initial=0.0))
