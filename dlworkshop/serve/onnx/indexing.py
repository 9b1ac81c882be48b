"""Rules for gather, scatter and dynamic slices.

A window becomes one index for each of its entries, because ONNX has no windows.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from dlworkshop.serve.onnx.elementwise import where
from dlworkshop.serve.onnx.graph import UntranslatableError, described
from dlworkshop.serve.onnx.translate import Program, Rule, Step

Mode = lax.GatherScatterMode


def _points(
    axes: Sequence[int],
    along: Sequence[int],
    windows: Sequence[int],
    shape: Sequence[Any],
    outside: int | None = None,
) -> Callable:
    """A function: starts [*B, axes] -> indices, and whether each window is inside.

    Args:
        axes: of the operand, indexed by the starts.
        along: batching axes of the starts, each with an axis of the operand.
        windows: sizes of the windows, for each of `axes`.
        shape: of the operand.
        outside: the first index for windows outside the operand; None moves them to
            the nearest position inside.

    Returns:
        A function that returns [*B, *windows, axes + along] and bool [*B].
    """

    def points(starts):
        starts = starts.astype(jnp.int32)
        batch, rank = starts.shape[:-1], starts.ndim - 1 + len(windows)
        inside, columns = jnp.ones(batch, bool), []
        for i, (axis, window) in enumerate(zip(axes, windows, strict=True)):
            last = shape[axis] - window
            start = lax.index_in_dim(starts, i, -1, keepdims=False)
            inside &= (start >= 0) & (start <= last)
            start = jnp.clip(start, 0, last)
            within = [1] * rank
            within[len(batch) + i] = window
            offset = lax.broadcasted_iota(jnp.int32, within, len(batch) + i)
            columns.append(start.reshape(*batch, *[1] * len(windows)) + offset)
        for axis in along:
            alike = [size if i == axis else 1 for i, size in enumerate(batch)]
            alike += [1] * len(windows)
            columns.append(lax.broadcasted_iota(jnp.int32, alike, axis))
        if outside is not None:
            there = inside.reshape(*batch, *[1] * len(windows))
            columns[0] = jnp.where(there, columns[0], outside)
        whole = *batch, *windows
        columns = [jnp.broadcast_to(column, whole) for column in columns]
        return jnp.stack(columns, -1), inside

    return points


def _gather(graph: Program, at: Step, x: str, starts: str) -> str:
    how, sizes = at.params["dimension_numbers"], at.params["slice_sizes"]
    shape, mapped = at.of(0).shape, tuple(map(int, how.start_index_map))
    batched = tuple(how.operand_batching_dims)
    along = tuple(how.start_indices_batching_dims)
    windows = [int(sizes[axis]) for axis in mapped]
    points = _points(mapped, along, windows, shape)
    indices, inside = graph.trace(points, starts)
    indexed = (*mapped, *batched)
    rest = [i for i in range(len(shape)) if i not in indexed]
    cut = {i: (0, int(sizes[i]), 1) for i in rest if sizes[i] != shape[i]}
    smaller = [sizes[i] if i in cut else size for i, size in enumerate(shape)]
    x = graph.slice(x, cut, described(smaller, graph.known[x]))
    batch = at.of(1).shape[:-1]
    found = (*batch, *windows, *(sizes[i] for i in rest))
    made = graph.add(
        "GatherND",
        graph.transpose(x, [*indexed, *rest]),
        graph.cast(indices, np.int64),
        out=described(found, graph.known[x]),
    )
    # axis of the operand -> its position in the gathered array
    place = {axis: len(batch) + i for i, axis in enumerate((*mapped, *rest))}
    gone = [place[int(axis)] for axis in how.collapsed_slice_dims]
    kept = iter(sorted(set(place) - set(map(int, how.collapsed_slice_dims))))
    offset, outer = set(map(int, how.offset_dims)), iter(range(len(batch)))
    order = [
        place[next(kept)] if axis in offset else next(outer)
        for axis in range(len(at.out.shape))
    ]
    made = graph.reshape(graph.transpose(made, [*order, *gone]), at.out.shape)
    if at.params["mode"] != Mode.FILL_OR_DROP:
        return made
    fill = at.params["fill_value"]
    fill = _outside(graph.known[x].dtype) if fill is None else fill
    inside = graph.unsqueeze(inside, sorted(offset))
    fill = graph.constant(fill, graph.known[x].dtype)
    return where(graph, inside, made, fill)


def _outside(dtype: np.dtype) -> Any:
    """The value that JAX returns for reads outside the array."""
    if np.issubdtype(dtype, np.floating):
        return np.nan
    if np.issubdtype(dtype, np.bool_):
        return True
    ends = np.iinfo(dtype)
    return ends.min if ends.min else ends.max


def scatter(reduction: str) -> Rule:
    """The rule for a scatter with an ONNX reduction."""

    def rule(graph: Program, at: Step, x: str, starts: str, updates: str) -> str:
        if reduction == "none" and at.params.get("update_jaxpr") is not None:
            raise UntranslatableError("the primitive 'scatter' with a custom function")
        how, shape = at.params["dimension_numbers"], at.of(0).shape
        mapped = tuple(map(int, how.scatter_dims_to_operand_dims))
        batched = tuple(how.operand_batching_dims)
        along = tuple(how.scatter_indices_batching_dims)
        absent = {*map(int, how.inserted_window_dims), *batched}
        kept = [i for i in range(len(shape)) if i not in absent]
        place = dict(zip(kept, map(int, how.update_window_dims), strict=True))
        sizes = at.of(2).shape
        windows = [sizes[place[i]] if i in place else 1 for i in mapped]
        indexed = (*mapped, *batched)
        rest = [i for i in range(len(shape)) if i not in indexed]
        if any(sizes[place[i]] != shape[i] for i in rest if i in place):
            raise UntranslatableError(f"the primitive '{at.name}' of part of an axis")
        batch = at.of(1).shape[:-1]
        outer = [i for i in range(len(sizes)) if i not in place.values()]
        order = [place[i] for i in (*mapped, *rest) if i in place]
        updates = graph.transpose(updates, [*outer, *order])
        updates = graph.reshape(updates, (*batch, *windows, *(shape[i] for i in rest)))
        dropped = at.params["mode"] == Mode.FILL_OR_DROP
        x = graph.transpose(x, [*indexed, *rest])
        if dropped:  # an extra entry takes the updates outside, and is cut off again
            one = [int(i == 0) for i in range(len(shape))]
            zero = graph.constant(0, graph.known[x].dtype)
            x = graph.pad(x, [0] * len(one), one, zero)

        points = _points(mapped, along, windows, shape, -1 if dropped else None)
        indices, _ = graph.trace(points, starts)
        indices = graph.cast(indices, np.int64)
        out = graph.known[x]
        x = graph.add("ScatterND", x, indices, updates, out=out, reduction=reduction)
        if dropped:
            there = described([shape[i] for i in (*indexed, *rest)], out)
            x = graph.slice(x, {0: (0, -1, 1)}, there)
        return graph.transpose(x, np.argsort([*indexed, *rest]))

    return rule


def _dynamic_slice(graph: Program, at: Step, x: str, *starts: str) -> list[str]:
    sizes, shape = at.params["slice_sizes"], at.of(0).shape
    axes = [i for i, size in enumerate(sizes) if size != shape[i]]
    if not axes:
        return [x]
    how = lax.GatherDimensionNumbers(
        offset_dims=tuple(range(len(shape))),
        collapsed_slice_dims=(),
        start_index_map=tuple(axes),
    )

    def sliced(x, *starts):
        vector = jnp.stack([start.astype(jnp.int32) for start in starts])
        return lax.gather(x, vector, how, sizes, mode=Mode.CLIP)

    return graph.trace(sliced, x, *(starts[i] for i in axes))


def _dynamic_update_slice(
    graph: Program, at: Step, x: str, update: str, *starts: str
) -> list[str]:
    sizes, shape = at.of(1).shape, at.of(0).shape
    axes = [i for i, size in enumerate(sizes) if size != shape[i]]
    if not axes:
        return [update]
    how = lax.ScatterDimensionNumbers(
        update_window_dims=tuple(range(len(shape))),
        inserted_window_dims=(),
        scatter_dims_to_operand_dims=tuple(axes),
    )

    def updated(x, update, *starts):
        vector = jnp.stack([start.astype(jnp.int32) for start in starts])
        return lax.scatter(x, vector, update, how, mode=Mode.CLIP)

    return graph.trace(updated, x, update, *(starts[i] for i in axes))


def _subtract(graph: Program, at: Step, x: str, starts: str, updates: str) -> str:
    return scatter("add")(graph, at, x, starts, graph.add("Neg", updates))


RULES: dict[str, Rule] = {
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "scatter": scatter("none"),
    "scatter_add": scatter("add"),
    "scatter_max": scatter("max"),
    "scatter_min": scatter("min"),
    "scatter_mul": scatter("mul"),
    "scatter_sub": _subtract,
}
