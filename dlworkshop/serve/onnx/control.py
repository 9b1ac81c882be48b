"""Rules for loops and branches, whose bodies become subgraphs."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from dlworkshop.jaxprs import carry_of_scan, opened
from dlworkshop.serve.onnx.graph import INT64, described
from dlworkshop.serve.onnx.translate import Program, Rule, Step


def _scan(graph: Program, at: Step, *names: str) -> list[str]:
    how = at.params
    place = carry_of_scan(at.inputs, at.outputs, how["jaxpr"])
    constants, carry, xs = names[: place.start], names[place], names[place.stop :]
    stacked = len(at.outputs) - len(carry)
    if not xs:  # ONNX takes the number of steps from the scanned inputs
        count = graph.constant(np.zeros(how["length"], np.float32))
    rows = [described(graph.known[x].shape[1:], graph.known[x]) for x in xs]

    def body(*inputs: str):
        given = inputs[: len(inputs) - (not xs)]
        return graph.translate(how["jaxpr"], [*constants, *given])

    starts = [graph.known[name] for name in carry]
    rows = rows or [described((), np.float32)]
    made = graph.subgraph([*starts, *rows], body)
    backwards = int(how["reverse"])
    return graph.add_several(
        "Scan",
        [*carry, *(xs or [count])],
        [value.aval for value in at.outputs],
        body=made,
        num_scan_inputs=len(rows),
        scan_input_directions=[backwards] * len(rows),
        **({"scan_output_directions": [backwards] * stacked} if stacked else {}),
    )


def _while(graph: Program, at: Step, *names: str) -> list[str]:
    how = at.params
    first = how["cond_nconsts"]
    second = first + how["body_nconsts"]
    asked, constants, carry = names[:first], names[first:second], names[second:]

    def asks(values: Sequence[str]) -> str:
        return graph.translate(how["cond_jaxpr"], [*asked, *values])[0]

    def some(going: str) -> str:
        return graph.trace(jnp.any, going)[0] if axes else going

    # with a loop for each example (vmap), finished examples keep their values
    axes = len(opened(how["cond_jaxpr"])[0].outvars[0].aval.shape)

    def stay(going: str, new: str, old: str) -> str:
        after = range(axes, len(graph.known[old].shape))
        each = graph.unsqueeze(going, list(after))
        return graph.trace(jnp.where, each, new, old)[0]

    def body(_count: str, _going: str, *values: str) -> list[str]:
        made = graph.translate(how["body_jaxpr"], [*constants, *values])
        if axes:
            going = asks(values)
            pairs = zip(made, values, strict=True)
            made = [stay(going, new, old) for new, old in pairs]
        return [some(asks(made)), *made]

    states = [graph.known[name] for name in carry]
    inputs = [described((), INT64), described((), bool), *states]
    made = graph.subgraph(inputs, body)
    start = some(asks(carry))
    return graph.add_several("Loop", ["", start, *carry], states, body=made)


def _cond(graph: Program, at: Step, which: str, *names: str) -> list[str]:
    branches = at.params["branches"]
    outs = [value.aval for value in at.outputs]

    def branch(i: int):
        return graph.subgraph([], lambda: graph.translate(branches[i], names))

    def chosen(i: int) -> list[str]:
        if i == len(branches) - 1:
            return graph.translate(branches[i], names)
        number = graph.constant(i, graph.known[which].dtype)
        return graph.add_several(
            "If",
            [graph.add("Equal", which, number, dtype=bool)],
            outs,
            then_branch=branch(i),
            else_branch=graph.subgraph([], lambda: chosen(i + 1)),
        )

    return chosen(0)


RULES: dict[str, Rule] = {"cond": _cond, "scan": _scan, "while": _while}
