"""The models of `dlworkshop.models` as ONNX: inputs in, probabilities or values out."""

import json
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from dlworkshop.errors import UserError
from dlworkshop.models.resnet import num_groups
from dlworkshop.models.scaling import bins
from dlworkshop.models.vgg16 import BLOCKS, TOP
from dlworkshop.types import PyTree

OPSET = 20  # the first with Gelu
IR_VERSION = 10  # what runtimes of 2024 read
LARGE = np.finfo(np.float32).max  # where a bin has no bound
LARGEST = 2_000_000_000  # bytes, of one protocol buffer
ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "relu": ("Relu", {}),
    "tanh": ("Tanh", {}),
    "sigmoid": ("Sigmoid", {}),
    "softplus": ("Softplus", {}),
    "elu": ("Elu", {"alpha": 1.0}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.01}),
    "gelu": ("Gelu", {"approximate": "tanh"}),
}
POOLINGS = {"average_pool": "AveragePool", "max_pool": "MaxPool"}


class Graph:
    """Nodes and constants, in the order in which they are added."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """One operation; the name of its output."""
        from onnx import helper  # noqa: PLC0415

        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """An array; its name."""
        from onnx import numpy_helper  # noqa: PLC0415

        name = f"constant_{len(self.constants)}"
        array = np.ascontiguousarray(np.asarray(value, dtype))
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def dense(self, x: str, layer: Any) -> str:
        """[B, D] -> [B, F]."""
        kernel, bias = (self.constant(layer[name]) for name in ("kernel", "bias"))
        return self.add("Gemm", x, kernel, bias)

    def conv(self, x: str, layer: Any) -> str:
        """[B, C, H, W] -> [B, F, H, W], zeros around it."""
        kernel = np.asarray(layer["kernel"]).transpose(3, 2, 0, 1)
        pads = [(size - 1) // 2 for size in kernel.shape[2:]]
        after = [size // 2 for size in kernel.shape[2:]]
        names = self.constant(kernel), self.constant(layer["bias"])
        return self.add("Conv", x, *names, pads=[*pads, *after])

    def group_norm(self, x: str, layer: Any, groups: int) -> str:
        """[B, C, H, W] with mean 0 and variance 1 in groups of C, scaled and moved."""
        grouped = self.add("Reshape", x, self.constant([0, groups, -1], np.int64))
        ones, zeros = (self.constant(np.full(groups, n)) for n in (1, 0))
        y = self.add("InstanceNormalization", grouped, ones, zeros, epsilon=1e-5)
        y = self.add("Reshape", y, self.add("Shape", x))
        scale, bias = (
            self.constant(np.asarray(layer[name])[:, None, None])
            for name in ("scale", "bias")
        )
        return self.add("Add", self.add("Mul", y, scale), bias)

    def halve(self, x: str, op: str) -> str:
        """Pool 2x2 windows."""
        return self.add(op, x, kernel_shape=[2, 2], strides=[2, 2])

    def flat(self, x: str) -> str:
        """[B, C, H, W] -> [B, H*W*C], the order of the dense layers here."""
        return self.add("Flatten", self.add("Transpose", x, perm=[0, 2, 3, 1]))


def build(
    model: dict[str, Any],
    dataset: dict[str, Any],
    params: PyTree,
    outputs: str | None = None,
    scale: tuple[Any, Any] = (0.0, 1.0),
) -> bytes:
    """The ONNX file of an ensemble.

    Args:
        model, dataset: the parts of a run's config.
        params: [P, ...] of its members.
        outputs: what they mean, a key of `losses.OUTPUTS`; None: they stay as they are.
        scale: mean and deviation that values were standardised by, [] or [columns].

    Raises:
        UserError: if `onnx` is not installed, or the model is not one of those here.
    """
    try:
        from onnx import TensorProto, checker, helper  # noqa: PLC0415
    except ImportError as error:
        raise UserError(
            "ONNX files are written by the package onnx, which is not installed: "
            "pip install 'dlworkshop[onnx]'"
        ) from error

    networks = {
        "logistic": _dense,
        "mlp": _dense,
        "cnn": _cnn,
        "resnet": _resnet,
        "vgg16": _vgg16,
    }
    name = f"{model.get('name')}{' on_rgb' if model.get('on_rgb') else ''}"
    if name not in networks:
        raise UserError(
            f"the model '{name}' has no ONNX form here (there is one of "
            f"{', '.join(networks)}): use the format stablehlo, which takes any model"
        )
    size = sum(leaf.size for leaf in jax.tree.leaves(params)) * 4
    if size > LARGEST:
        raise UserError(
            f"the members have {size / 1e9:.1f} GB of parameters, and an ONNX file "
            f"holds {LARGEST / 1e9:g} GB: use the format stablehlo or safetensors"
        )
    graph, shape = Graph(), dataset["shape"]
    x = graph.add("Cast", "image", to=TensorProto.FLOAT)
    if dataset["dtype"] == "uint8":
        x = graph.add("Div", x, graph.constant(255))
    x = _scaled_inputs(graph, x, model)
    answers = []
    for i in range(len(jax.tree.leaves(params)[0])):
        member = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), params)
        logits = networks[model["name"]](graph, x, model, shape, member)
        if known := model.get("rescaled"):
            logits = graph.add("Mul", logits, graph.constant(known["deviation"]))
            logits = graph.add("Add", logits, graph.constant(known["mean"]))
        answers.append(_meant(graph, logits, outputs))
    mean = graph.add("Mean", *answers)
    if outputs == "values":
        mean = graph.add("Mul", mean, graph.constant(scale[1]))
        mean = graph.add("Add", mean, graph.constant(scale[0]))
    answer = "value" if outputs == "values" else "probability"
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dataset["dtype"]))
    made = helper.make_model(
        helper.make_graph(
            [*graph.nodes, helper.make_node("Identity", [mean], [answer])],
            "dlworkshop",
            [helper.make_tensor_value_info("image", kind, ["batch", *shape])],
            [
                helper.make_tensor_value_info(
                    answer,
                    TensorProto.FLOAT,
                    ["batch", len(dataset["classes"]) or None],
                )
            ],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="dlworkshop",
    )
    helper.set_model_props(
        made, {"classes": json.dumps(dataset["classes"]), "model": json.dumps(model)}
    )
    checker.check_model(made)
    return made.SerializeToString()


def _scaled_inputs(graph: Graph, x: str, model: dict[str, Any]) -> str:
    """What the wrappers of `models.scaling` do first."""
    if "on_first_channel" in model:
        x = graph.add("Gather", x, graph.constant([0], np.int64), axis=3)
    if known := model.get("standardized"):
        x = graph.add("Sub", x, graph.constant(known["mean"]))
        x = graph.add("Div", x, graph.constant(known["deviation"]))
    if known := model.get("piecewise_linear"):
        column, low, width, first, last = bins(known["edges"])
        x = graph.add("Gather", x, graph.constant(column, np.int64), axis=1)
        x = graph.add("Sub", x, graph.constant(low))
        x = graph.add("Div", x, graph.constant(width))
        x = graph.add("Max", x, graph.constant(np.where(first, -LARGE, 0)))
        x = graph.add("Min", x, graph.constant(np.where(last, LARGE, 1)))
    return x


def _meant(graph: Graph, x: str, outputs: str | None) -> str:
    """Outputs [B, K] of a member as what the ensemble is the mean of."""
    if outputs == "logits":
        return graph.add("Softmax", x, axis=1)
    return graph.add("Sigmoid", x) if outputs == "binary_logits" else x


def _activate(graph: Graph, x: str, known: Any) -> str:
    name = _named(known, "activation", (*ACTIVATIONS, "silu", "swish"))
    if name in ("silu", "swish"):
        return graph.add("Mul", x, graph.add("Sigmoid", x))
    op, attributes = ACTIVATIONS[name]
    return graph.add(op, x, **attributes)


def _named(known: Any, place: str, names: Iterable[str]) -> str:
    """The name of a function that ONNX knows; the user's own have none."""
    if isinstance(known, str) and known in names:
        return known
    name = known
    if isinstance(known, dict):
        name = known.get("own") or known.get("partial")
    raise UserError(
        f"the {place} '{name}' has no ONNX form here: use the format stablehlo"
    )


def _dense_layers(graph: Graph, x: str, model, params) -> str:
    """Dense_0, Dense_1, ... with the activation between them."""
    count = sum(name.startswith("Dense_") for name in params)
    for i in range(count):
        x = graph.dense(x, params[f"Dense_{i}"])
        if i < count - 1:
            x = _activate(graph, x, model["activation"])
    return x


def _dense(graph: Graph, x: str, model, shape, params) -> str:
    del shape  # it is flattened
    return _dense_layers(graph, graph.add("Flatten", x), model, params)


def _cnn(graph: Graph, x: str, model, shape, params) -> str:
    del shape  # it is known from the image
    x = graph.add("Transpose", x, perm=[0, 3, 1, 2])
    for i in range(len(model["features"])):
        x = graph.conv(x, params[f"Conv_{i}"])
        x = _activate(graph, x, model["activation"])
        x = graph.halve(x, POOLINGS[_named(model["pooling"], "pooling", POOLINGS)])
    return _dense_layers(graph, graph.flat(x), model, params)


def _resnet(graph: Graph, x: str, model, shape, params) -> str:
    del shape  # it is known from the image
    x = graph.add("Transpose", x, perm=[0, 3, 1, 2])
    layers = (params[f"Normed_{i}"] for i in range(3 * len(model["features"])))

    def normed(x: str) -> str:
        layer = next(layers)
        features = len(layer["scale"])
        no_bias = {**layer["Conv_0"], "bias": np.zeros(features)}
        return graph.group_norm(graph.conv(x, no_bias), layer, num_groups(features))

    for _ in model["features"]:
        x = graph.halve(_activate(graph, normed(x), model["activation"]), "MaxPool")
        y = normed(_activate(graph, normed(x), model["activation"]))
        x = _activate(graph, graph.add("Add", x, y), model["activation"])
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    return graph.dense(x, params["Dense_0"])


def _vgg16(graph: Graph, x: str, model, shape, params) -> str:
    del shape  # it is known from the image
    if model["preprocessing"] == "caffe":
        order, scale = (2, 1, 0), np.full(3, 1 / 255)
        mean = np.divide((103.939, 116.779, 123.68), 255)
    else:
        order, scale = (0, 1, 2), np.array((0.229, 0.224, 0.225))
        mean = np.array((0.485, 0.456, 0.406))
    x = graph.add("Gather", x, graph.constant(order, np.int64), axis=3)
    x = graph.add("Sub", x, graph.constant(mean))
    x = graph.add("Div", x, graph.constant(scale))
    x = graph.add("Transpose", x, perm=[0, 3, 1, 2])
    for number, (count, _) in enumerate(BLOCKS, 1):
        for i in range(1, count + 1):
            x = graph.add("Relu", graph.conv(x, params[f"block{number}_conv{i}"]))
        x = graph.halve(x, "MaxPool")
    if model["include_top"]:
        x = graph.flat(x)
        for name in TOP[:-1]:
            x = graph.add("Relu", graph.dense(x, params[name]))
        return graph.dense(x, params[TOP[-1]])
    pools = {"avg": "GlobalAveragePool", "max": "GlobalMaxPool"}
    if model["pooling"] is None:
        raise UserError("feature maps are not probabilities: export a model with a top")
    return graph.add("Flatten", graph.add(pools[model["pooling"]], x))
