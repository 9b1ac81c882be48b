"""Rules for elementwise primitives, whose inputs ONNX broadcasts.

A primitive without an ONNX operation is written in JAX with primitives that have one.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from dlworkshop.serve.onnx.graph import INT64, described
from dlworkshop.serve.onnx.translate import Program, Rule, Step

ALIKE = (  # primitives with the same name in ONNX, but for the capital letter
    "abs acos acosh add asin asinh atan atanh ceil cos cosh div erf exp floor log max "
    "min mul neg pow sign sin sinh sqrt sub tan tanh"
)
SAME = {name: name.capitalize() for name in ALIKE.split()} | {
    "add_any": "Add",
    "eq": "Equal",
    "eq_to": "Equal",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "le_to": "LessOrEqual",
    "logistic": "Sigmoid",
    "lt": "Less",
    "lt_to": "Less",
}
# Primitives that do nothing in inference on one device.
AS_IT_IS = (
    "copy",
    "device_put",
    "name",
    "optimization_barrier",
    "reduce_precision",
    "sharding_constraint",
    "stop_gradient",
)


def same(op: str) -> Rule:
    """The rule for a primitive that is one ONNX operation."""

    def rule(graph: Program, at: Step, *xs: str) -> str:
        if wide := at.params.get("out_dtype"):  # from JAX 0.12 on
            xs = tuple(graph.cast(x, wide) for x in xs)
        return graph.add(op, *xs, dtype=at.out.dtype)

    return rule


def by(function: Callable) -> Rule:
    """The rule for a primitive written in JAX: (*arrays, **params of the primitive)."""

    def rule(graph: Program, at: Step, *xs: str) -> list[str]:
        return graph.trace(functools.partial(function, **at.params), *xs)

    return rule


def logical(word: str) -> Rule:
    """The rule for a logical operation of booleans, or of the bits of integers."""

    def rule(graph: Program, at: Step, *xs: str) -> str:
        op = word if at.out.dtype == bool else f"Bitwise{word}"
        return graph.add(op, *xs)

    return rule


def _log1p(x, **_):
    """log(1 + x) = 2 atanh(x / (2 + x)), which is accurate near 0."""
    small = abs(x) < 0.5
    near = 2 * jnp.arctanh(jnp.where(small, x, 0) / (2 + jnp.where(small, x, 0)))
    return jnp.where(small, near, jnp.log(1 + x))


def _expm1(x, **_):
    """exp(x) - 1 = tanh(x / 2) (exp(x) + 1), which is accurate near 0."""
    return jnp.tanh(x / 2) * (jnp.exp(x) + 1)


def _arctan2(y, x, **_):
    """The angle from that of y / x in the right half-plane."""
    turned = jnp.arctan(y / jnp.where(x == 0, 1, x))
    left = turned + jnp.where(y < 0, -np.pi, np.pi).astype(x.dtype)
    upright = jnp.sign(y) * (np.pi / 2)
    return jnp.where(x > 0, turned, jnp.where(x < 0, left, upright)).astype(x.dtype)


def _horner(x, *terms, **_):
    """a + x (b + x (c + ...)), with coefficients from the lowest degree on."""
    return functools.reduce(lambda sum, term: sum * x + term, reversed(terms))


def _round(graph: Program, at: Step, x: str) -> Any:
    if at.params["rounding_method"] == lax.RoundingMethod.TO_NEAREST_EVEN:
        return graph.add("Round", x)
    return graph.trace(lambda x: jnp.sign(x) * jnp.floor(abs(x) + 0.5), x)


def _power(graph: Program, at: Step, x: str) -> str:
    exponent = graph.constant(at.params["y"], graph.known[x].dtype)
    return graph.add("Pow", x, exponent)


def _select(graph: Program, at: Step, which: str, *cases: str) -> str:
    if at.of(0).dtype != bool:
        chosen = cases[0]
        for i, case in enumerate(cases[1:], 1):
            number = graph.constant(i, graph.known[which].dtype)
            equal = graph.add("Equal", which, number, dtype=bool)
            chosen = where(graph, equal, case, chosen)
        return chosen
    no, yes = cases
    return where(graph, which, yes, no)


def where(graph: Program, which: str, yes: str, no: str) -> str:
    """Entries of `yes` where the condition holds, else of `no`."""
    dtype = graph.known[yes].dtype
    has_where = dtype.kind in "fi" and dtype.itemsize >= 4  # in all runtimes
    wide = dtype if has_where else INT64
    yes, no = graph.cast(yes, wide), graph.cast(no, wide)
    return graph.cast(graph.add("Where", which, yes, no, dtype=wide), dtype)


def _broadcast(graph: Program, at: Step, x: str, *sizes: str) -> str:
    del sizes  # the batch size, which is known
    there = set(at.params["broadcast_dimensions"])
    rank = len(at.params["shape"])
    return graph.unsqueeze(x, [axis for axis in range(rank) if axis not in there])


def _iota(graph: Program, at: Step) -> str:
    axis, dtype = at.params["dimension"], at.params["dtype"]
    shape = at.params["shape"]
    size = shape[axis]
    if isinstance(size, int):
        x = graph.constant(np.arange(size), dtype)
    else:
        limit = graph.add(
            "Squeeze",
            graph.sizes([size]),
            graph.integers([0]),
            out=described((), INT64),
        )
        ends = graph.constant(np.int64(0)), limit, graph.constant(np.int64(1))
        x = graph.cast(graph.add("Range", *ends, out=described([size], INT64)), dtype)
    return graph.unsqueeze(x, [i for i in range(len(shape)) if i != axis])


RULES: dict[str, Rule] = {
    **{name: same(op) for name, op in SAME.items()},
    **{name: lambda graph, at, *xs: list(xs) for name in AS_IT_IS},
    "and": logical("And"),
    "atan2": by(_arctan2),
    "broadcast_in_dim": _broadcast,
    "cbrt": by(lambda x, **_: jnp.sign(x) * abs(x) ** (1 / 3)),
    "clamp": by(lambda low, x, high: jnp.minimum(jnp.maximum(x, low), high)),
    "convert_element_type": lambda graph, at, x: graph.cast(x, at.params["new_dtype"]),
    "erfc": by(lambda x, **_: 1 - lax.erf(x)),
    "exp2": by(lambda x, **_: jnp.asarray(2, x.dtype) ** x),
    "expm1": by(_expm1),
    "integer_pow": _power,
    "iota": _iota,
    "is_finite": by(lambda x, **_: abs(x) < jnp.inf),
    "log1p": by(_log1p),
    "log2": by(lambda x, **_: jnp.log(x) / np.float32(np.log(2))),
    "ne": lambda graph, at, *xs: graph.add("Not", graph.add("Equal", *xs, dtype=bool)),
    "not": logical("Not"),
    "one_minus_square": by(lambda x: (1 + x) * (1 - x)),
    "or": logical("Or"),
    "polynomial": by(_horner),
    "rem": lambda graph, at, *xs: graph.add("Mod", *xs, fmod=1),
    "round": _round,
    "rsqrt": by(lambda x, **_: 1 / jnp.sqrt(x)),
    "select_n": _select,
    "square": by(lambda x, **_: x * x),
    "transpose": lambda graph, at, x: graph.transpose(x, at.params["permutation"]),
    "xor": logical("Xor"),
}
