"""Translation of a jaxpr into the nodes of an ONNX graph, one primitive at a time."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from dlworkshop.jaxprs import CALLS, RULES, opened
from dlworkshop.serve.onnx.graph import Graph, UntranslatableError, stored

# Primitives that only run their body: name -> the parameter that holds the body.
BODIES = CALLS | RULES | {"composite": "jaxpr"}


class Value:
    """A variable of a jaxpr, or a literal array."""

    def __init__(self, aval: Any, array: Any = None) -> None:
        self.aval, self.array = aval, array


class Step(NamedTuple):
    """One equation of a jaxpr."""

    name: str
    params: Mapping[str, Any]
    inputs: list[Value]
    outputs: list[Value]

    def of(self, i: int) -> Any:
        """Shape and dtype of an input."""
        return self.inputs[i].aval

    @property
    def out(self) -> Any:
        """Shape and dtype of the only output."""
        return self.outputs[0].aval


# (program, step, *names of the inputs) -> the name of the output, or those of several
Rule = Callable[..., Any]


class Program(Graph):
    """A graph into which jaxprs are translated, by a rule for each primitive.

    The rules of `elementwise` primitives get inputs that may have to be broadcast; the
    rules of `others` get inputs of the full shape.
    """

    def __init__(
        self, taken, size, elementwise: Mapping[str, Rule], others: Mapping[str, Rule]
    ) -> None:
        super().__init__(taken, size)
        self._elementwise, self._others = elementwise, others

    def trace(self, function: Callable, *names: str) -> list[str]:
        """Trace a function of arrays written in JAX, and translate it."""
        return self.translate(
            jax.make_jaxpr(function)(*(self.known[name] for name in names)), names
        )

    def translate(self, jaxpr: Any, names: Sequence[str]) -> list[str]:
        """Translate a closed jaxpr: names of its inputs -> names of its outputs.

        Equations that no output depends on are skipped.

        Raises:
            UserError: for a primitive that has no ONNX form.
        """
        inputs = [Value(v.aval) for v in opened(jaxpr)[0].invars]
        steps, outputs = flat(jaxpr, inputs)
        wanted, needed = set(outputs), []
        for step in reversed(steps):
            if not wanted.isdisjoint(step.outputs):
                wanted.update(step.inputs)
                needed.append(step)
        named = dict(zip(inputs, names, strict=True))

        def name(value: Value) -> str:
            if value not in named:
                named[value] = self.constant(value.array, value.aval.dtype)
            return named[value]

        for step in reversed(needed):
            _check(step)
            made = self._made(step, [name(value) for value in step.inputs])
            named.update(zip(step.outputs, made, strict=True))
        return [self.whole(name(value), value.aval.shape) for value in outputs]

    def _made(self, step: Step, names: list[str]) -> list[str]:
        rule = self._elementwise.get(step.name)
        if rule is None:
            if step.name not in self._others:
                raise UntranslatableError(f"the primitive '{step.name}' of the model")
            rule = self._others[step.name]
            names = [
                self.whole(name, value.aval.shape)
                for name, value in zip(names, step.inputs, strict=True)
            ]
        made = rule(self, step, *names)
        return [made] if isinstance(made, str) else made


def flat(jaxpr: Any, inputs: Sequence[Value]) -> tuple[list[Step], list[Value]]:
    """The equations of a jaxpr, with the bodies of inner ones inlined; its outputs."""
    program, constants = opened(jaxpr)
    known: dict[Any, Value] = dict(zip(program.invars, inputs, strict=True))
    for variable, array in zip(program.constvars, constants, strict=True):
        known[variable] = Value(variable.aval, array)

    def value(variable: Any) -> Value:
        if isinstance(variable, core.Literal):
            return Value(variable.aval, variable.val)
        return known[variable]

    steps = []
    for eqn in program.eqns:
        name, ins = eqn.primitive.name, [value(v) for v in eqn.invars]
        body = eqn.params[BODIES[name]] if name in BODIES else _expanded(eqn)
        if body is not None:
            more, outs = flat(body, ins)
            steps += more
        else:
            outs = [Value(v.aval) for v in eqn.outvars]
            steps.append(Step(name.replace("-", "_"), eqn.params, ins, outs))
        known.update(zip(eqn.outvars, outs, strict=True))
    return steps, [value(v) for v in program.outvars]


def _expanded(eqn: Any) -> Any:
    """The decomposition that some primitives of JAX 0.12 define."""
    primitive = eqn.params.get("_prim")
    if not hasattr(primitive, "expand"):
        return None
    return jax.make_jaxpr(primitive.expand)(*primitive.in_avals)


def _check(step: Step) -> None:
    """Reject dtypes that ONNX runtimes do not support."""
    for value in (*step.inputs, *step.outputs):
        dtype = getattr(value.aval, "dtype", None)
        if dtype is None or jnp.issubdtype(dtype, jax.dtypes.extended):
            raise UntranslatableError(f"the primitive '{step.name}' of the model")
        if jnp.issubdtype(stored(dtype), jnp.complexfloating):
            raise UntranslatableError(f"the primitive '{step.name}' of complex numbers")
