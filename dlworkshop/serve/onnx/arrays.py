"""Rules for primitives on whole arrays: shapes, reductions, products, sorting."""

import string
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from dlworkshop.serve.onnx.elementwise import by
from dlworkshop.serve.onnx.graph import INT64, LAST, UntranslatableError, described
from dlworkshop.serve.onnx.translate import Program, Rule, Step


def _reshape(graph: Program, at: Step, x: str, *sizes: str) -> str:
    del sizes  # the batch size, which is known
    if order := at.params.get("dimensions"):
        x = graph.transpose(x, order)
    return graph.reshape(x, at.out.shape)


def _concatenate(graph: Program, at: Step, *xs: str) -> str:
    return graph.add("Concat", *xs, out=at.out, axis=at.params["dimension"])


def _stack(graph: Program, at: Step, *xs: str) -> str:
    axis = at.params["axis"]
    rows = [graph.unsqueeze(x, [axis]) for x in xs]
    return graph.add("Concat", *rows, out=at.out, axis=axis)


def _unstack(graph: Program, at: Step, x: str) -> list[str]:
    axis, known = int(at.params["axis"]), graph.known[x]
    sizes = [1 if i == axis else size for i, size in enumerate(known.shape)]
    outs = [described(sizes, known)] * len(at.outputs)
    one_each = graph.integers([1] * len(outs))
    rows = graph.add_several("Split", [x, one_each], outs, axis=axis)
    return [graph.reshape(row, at.out.shape) for row in rows]


def _split(graph: Program, at: Step, x: str) -> list[str]:
    outs = [value.aval for value in at.outputs]
    inputs = [x, graph.integers(at.params["sizes"])]
    return graph.add_several("Split", inputs, outs, axis=at.params["axis"])


def _tile(graph: Program, at: Step, x: str) -> str:
    return graph.add("Tile", x, graph.integers(at.params["reps"]), out=at.out)


def _slice(graph: Program, at: Step, x: str) -> str:
    starts, ends = at.params["start_indices"], at.params["limit_indices"]
    steps = at.params["strides"] or (1,) * len(starts)
    sizes = at.of(0).shape
    axes = {
        i: (start, LAST if end == size else end, step)
        for i, (start, end, step, size) in enumerate(
            zip(starts, ends, steps, sizes, strict=True)
        )
        if (start, step) != (0, 1) or end != size
    }
    return graph.slice(x, axes, at.out)


def _reverse(graph: Program, at: Step, x: str) -> str:
    axes = {int(axis): (-1, -LAST, -1) for axis in at.params["dimensions"]}
    return graph.slice(x, axes, at.out)


def _pad(graph: Program, at: Step, x: str, fill: str) -> str:
    lows, highs, between = zip(*at.params["padding_config"], strict=True)
    return graph.pad(spread(graph, x, between, fill), lows, highs, fill)


def spread(graph: Program, x: str, between, fill: str) -> str:
    """Insert `between` entries of `fill` between the entries of each axis."""
    for axis, extra in enumerate(between):
        shape = list(graph.known[x].shape)
        if extra and shape[axis] > 1:
            apart = graph.unsqueeze(x, [axis + 1])
            high = [0] * len(shape)
            high.insert(axis + 1, extra)
            apart = graph.pad(apart, [0] * (len(shape) + 1), high, fill)
            shape[axis] *= extra + 1
            x = graph.reshape(apart, shape)
            high = [-extra if i == axis else 0 for i in range(len(shape))]
            x = graph.pad(x, [0] * len(shape), high, fill)
    return x


def reduction(op: str) -> Rule:
    """The rule for a reduction of numbers over some axes."""

    def rule(graph: Program, at: Step, x: str) -> str:
        axes = at.params["axes"]
        if not axes:
            return x
        return graph.add(op, x, graph.integers(axes), out=at.out, keepdims=0)

    return rule


def extreme(op: str) -> Rule:
    """The rule for the index of the first largest or smallest entry."""

    def rule(graph: Program, at: Step, x: str) -> str:
        (axis,) = at.params["axes"]
        found = graph.add(
            op, x, out=described(at.out.shape, INT64), axis=int(axis), keepdims=0
        )
        return graph.cast(found, at.params["index_dtype"])

    return rule


def _cumulative_sum(graph: Program, at: Step, x: str) -> str:
    axis = graph.constant(np.int64(at.params["axis"]))
    return graph.add("CumSum", x, axis, reverse=int(at.params["reverse"]), out=at.out)


def scanned(function: Callable) -> Rule:
    """The rule for a cumulative operation along an axis."""
    return by(
        lambda x, *, axis, reverse: lax.associative_scan(
            function, x, axis=axis, reverse=reverse
        )
    )


def _sort(graph: Program, at: Step, x: str, *others: str) -> list[str]:
    """Sort by the first operand; TopK keeps the order of equal entries."""
    if at.params["num_keys"] != 1:
        raise UntranslatableError("the primitive 'sort' by several keys")
    axis, of = int(at.params["dimension"]), at.of(0)
    values, order = _top(graph, x, of.shape[axis], of, axis=axis, largest=0)
    return [values] + [
        graph.add("GatherElements", each, order, axis=axis) for each in others
    ]


def _top_k(graph: Program, at: Step, x: str) -> list[str]:
    axis = at.params.get("axis", at.params.get("operand_axis", -1))
    values, order = _top(graph, x, at.params["k"], at.out, axis=int(axis), largest=1)
    return [values, graph.cast(order, at.outputs[1].aval.dtype)]


def _top(graph: Program, x: str, count: Any, out: Any, **how: int) -> list[str]:
    outs = out, described(out.shape, INT64)
    return graph.add_several("TopK", [x, graph.sizes([count])], outs, **how)


def _dot(graph: Program, at: Step, x: str, y: str) -> str:
    """A general dot product; the plain case is a MatMul."""
    (x_axes, y_axes), (x_batch, y_batch) = at.params["dimension_numbers"]
    x, y = (graph.cast(each, at.out.dtype) for each in (x, y))
    x_rank, y_rank = (len(at.of(i).shape) for i in (0, 1))
    plain = (x_rank - 1,), (0,), 0, 2
    if (tuple(x_axes), tuple(y_axes), len(x_batch), y_rank) == plain:
        return graph.add("MatMul", x, y, out=at.out)
    letters = iter(string.ascii_letters)
    xs = [next(letters) for _ in range(x_rank)]
    ys = [next(letters) for _ in range(y_rank)]
    for i, j in zip((*x_axes, *x_batch), (*y_axes, *y_batch), strict=True):
        ys[j] = xs[i]
    free = [xs[i] for i in range(x_rank) if i not in (*x_axes, *x_batch)]
    free += [ys[i] for i in range(y_rank) if i not in (*y_axes, *y_batch)]
    outs = [xs[i] for i in x_batch] + free
    equation = f"{''.join(xs)},{''.join(ys)}->{''.join(outs)}"
    return graph.add("Einsum", x, y, out=at.out, equation=equation)


RULES: dict[str, Rule] = {
    "argmax": extreme("ArgMax"),
    "argmin": extreme("ArgMin"),
    "concatenate": _concatenate,
    "cumlogsumexp": scanned(jnp.logaddexp),
    "cummax": scanned(jnp.maximum),
    "cummin": scanned(jnp.minimum),
    "cumprod": scanned(jnp.multiply),
    "cumsum": _cumulative_sum,
    "dot_general": _dot,
    "pad": _pad,
    "reduce_and": by(
        lambda x, *, axes, **_: x.astype(jnp.int32).min(axes).astype(bool)
    ),
    "reduce_max": reduction("ReduceMax"),
    "reduce_min": reduction("ReduceMin"),
    "reduce_or": by(lambda x, *, axes, **_: x.astype(jnp.int32).max(axes).astype(bool)),
    "reduce_prod": reduction("ReduceProd"),
    "reduce_sum": reduction("ReduceSum"),
    "reshape": _reshape,
    "rev": _reverse,
    "slice": _slice,
    "sort": _sort,
    "split": _split,
    "squeeze": lambda graph, at, x: graph.reshape(x, at.out.shape),
    "stack": _stack,
    "tile": _tile,
    "top_k": _top_k,
    "unstack": _unstack,
}
