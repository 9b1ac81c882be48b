"""Rules for windowed primitives: convolutions and pooling."""

import math
from collections.abc import Sequence

import numpy as np
from jax import lax

from dlworkshop.serve.onnx.arrays import spread
from dlworkshop.serve.onnx.elementwise import by
from dlworkshop.serve.onnx.graph import UntranslatableError, described
from dlworkshop.serve.onnx.translate import Program, Rule, Step


def _convolution(graph: Program, at: Step, image: str, kernel: str) -> str:
    how, axes = at.params, at.params["dimension_numbers"]
    if how["batch_group_count"] != 1 or not isinstance(how["feature_group_count"], int):
        raise UntranslatableError(
            "the primitive 'conv_general_dilated' in groups of a batch"
        )
    zero = graph.constant(0, at.out.dtype)
    image = graph.transpose(graph.cast(image, at.out.dtype), axes.lhs_spec)
    image = spread(graph, image, [0, 0, *(n - 1 for n in how["lhs_dilation"])], zero)
    kernel = graph.transpose(graph.cast(kernel, at.out.dtype), axes.rhs_spec)
    low, high = zip(*how["padding"], strict=True)
    if min(*low, *high, 0) < 0:  # Conv does not support negative padding
        image = graph.pad(image, (0, 0, *low), (0, 0, *high), zero)
        low = high = (0,) * len(low)
    made = graph.add(
        "Conv",
        image,
        kernel,
        out=described([at.out.shape[axis] for axis in axes.out_spec], at.out),
        pads=[*low, *high],
        strides=how["window_strides"],
        dilations=how["rhs_dilation"],
        group=how["feature_group_count"],
    )
    return graph.transpose(made, np.argsort(axes.out_spec))


def pooling(op: str, fill: float, name: str) -> Rule:
    """The rule for the maximum of each window, or its sum (the mean times its size).

    Args:
        op: the ONNX operation.
        fill: the neutral element.
        name: of the primitive.
    """

    def rule(graph: Program, at: Step, x: str) -> str:
        if not np.issubdtype(graph.known[x].dtype, np.floating):
            raise UntranslatableError(f"the primitive '{name}' of {at.of(0).dtype}")
        nothing, how = graph.constant(fill, graph.known[x].dtype), at.params
        x = spread(graph, x, [n - 1 for n in how["base_dilation"]], nothing)
        low, high = zip(*how["padding"], strict=True)
        x = graph.pad(x, low, high, nothing)
        windows, steps = how["window_dimensions"], how["window_strides"]
        pairs = zip(windows, steps, strict=True)
        seen = [i for i, pair in enumerate(pairs) if pair != (1, 1)]
        if not seen:
            return x
        # ONNX needs [B, C, ...] with the windows over the last axes
        shape = graph.known[x].shape
        others = [i for i in range(len(shape)) if i not in seen]
        x = graph.transpose(x, [*others, *seen])
        count = math.prod(shape[i] for i in others)
        x = graph.reshape(x, (count, 1, *(shape[i] for i in seen)))

        def along(sizes: Sequence[int]) -> list[int]:
            return [int(sizes[i]) for i in seen]

        pooled = [at.out.shape[i] for i in seen]
        x = graph.add(
            op,
            x,
            out=described((count, 1, *pooled), graph.known[x]),
            kernel_shape=along(windows),
            strides=along(steps),
            dilations=along(how["window_dilation"]),
        )
        x = graph.reshape(x, [*(shape[i] for i in others), *pooled])
        x = graph.transpose(x, np.argsort([*others, *seen]))
        if op == "MaxPool":
            return x
        return graph.add("Mul", x, graph.constant(math.prod(windows), at.out.dtype))

    return rule


def _smallest(
    x, *, window_dimensions, window_strides, padding, base_dilation, window_dilation
):
    dilations = base_dilation, window_dilation
    how = window_dimensions, window_strides, padding, *dilations
    return -lax.reduce_window(-x, -np.inf, lax.max, *how)


RULES: dict[str, Rule] = {
    "conv_general_dilated": _convolution,
    "reduce_window_max": pooling("MaxPool", -np.inf, "reduce_window_max"),
    "reduce_window_min": by(_smallest),
    "reduce_window_sum": pooling("AveragePool", 0, "reduce_window_sum"),
}
