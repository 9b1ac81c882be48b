"""Export of a function of arrays or table columns as an ONNX file.

JAX traces the function with a symbolic batch size, and the jaxpr is translated.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax import export as jax_export

from dlworkshop.data.leaves import by_place
from dlworkshop.errors import UserError
from dlworkshop.serve.onnx import arrays, control, elementwise, indexing, windows
from dlworkshop.serve.onnx import columns as table
from dlworkshop.serve.onnx.graph import needed
from dlworkshop.serve.onnx.translate import Program
from dlworkshop.types import PyTree

OPSET = 20  # the first with RegexFullMatch
IR_VERSION = 10  # supported by runtimes from 2024 on
LARGEST = 2_000_000_000  # bytes of one protocol buffer


def build(
    answer: Callable[[PyTree], PyTree],
    example: PyTree,
    name: str,
    about: Mapping[str, Any],
    columns: Sequence[Mapping[str, Any]] | None = None,
) -> bytes:
    """The ONNX file of a function.

    Args:
        answer: inputs [B, ...] -> outputs [B, ...].
        example: ONE example of the inputs as shapes, with the dtypes at rest. A single
            array is the input "image" if it has three axes, else "inputs"; several are
            named by their places in the pytree.
        name: of a single output; several are named by their places.
        about: metadata of the file: name -> JSON.
        columns: of the preprocessing of a table: the inputs are then its columns by
            name, each [B] float64 or string.

    Raises:
        UserError: if `onnx` is not installed, or a part of the function has no ONNX
            form.
    """
    try:
        from onnx import checker, helper  # noqa: PLC0415
    except ImportError as error:
        raise UserError(
            "ONNX files are written by the package onnx, which is not installed: "
            "pip install 'dlworkshop[onnx]'"
        ) from error

    (size,) = jax_export.symbolic_shape("b")
    batch = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype), example
    )
    program, outputs = jax.make_jaxpr(answer, return_shape=True)(batch)
    if columns is None:
        is_image = len(getattr(example, "shape", ())) == 3
        inputs = _named(batch, "image" if is_image else "inputs")
        names = list(inputs)
    else:
        names = [column["name"] for column in columns]
    said = _free(_named(outputs, name), names)
    rules = {**arrays.RULES, **control.RULES, **indexing.RULES, **windows.RULES}
    graph = Program([*names, *said], size, elementwise.RULES, rules)
    if columns is None:
        given = [graph.input(n, leaf.shape, leaf.dtype) for n, leaf in inputs.items()]
    else:
        given = [table.vectors(graph, columns, size)]
        about = {**about, "columns": table.metadata(columns)}
    seen = [v.aval.dtype for v in program.jaxpr.invars]  # JAX casts int64 to int32
    cast = [graph.cast(n, dtype) for n, dtype in zip(given, seen, strict=True)]
    made = graph.translate(program, cast)
    weight = sum(len(array.raw_data) for array in graph.constants)
    if weight > LARGEST:
        raise UserError(
            f"the members have {weight / 1e9:.1f} GB of parameters, and an ONNX file "
            f"holds {LARGEST / 1e9:g} GB: use the format stablehlo or safetensors"
        )
    for known, new in zip(made, said, strict=True):
        graph.nodes.append(helper.make_node("Identity", [known], [new]))
        graph.known[new] = graph.known[known]
    nodes, constants = needed(graph.nodes, graph.constants, said)
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "dlworkshop",
            [graph.info(each) for each in names],
            [graph.info(each) for each in said],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="dlworkshop",
    )
    helper.set_model_props(model, {key: json.dumps(of) for key, of in about.items()})
    checker.check_model(model)
    return model.SerializeToString()


def _named(tree: PyTree, alone: str) -> dict[str, Any]:
    """The place of each leaf in a pytree -> the leaf; a single leaf is `alone`."""
    return {place or alone: leaf for place, leaf in by_place(tree).items()}


def _free(names: Mapping[str, Any], taken: Sequence[str]) -> list[str]:
    """Output names; a name that is taken gets an underscore."""
    said: list[str] = []
    for name in names:
        free = name
        while free in taken or free in said:
            free += "_"
        said.append(free)
    return said
