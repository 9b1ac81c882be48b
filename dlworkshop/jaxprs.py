"""Programs of JAX (jaxprs): what is inside of their equations, and what is not said."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax

# Calls -> the parameter with the body, which takes the operands of the call.
CALLS = {"jit": "jaxpr", "checkpoint": "jaxpr", "remat2": "jaxpr"}
CALLS |= {"closed_call": "call_jaxpr", "call": "call_jaxpr"}
# The same of functions with derivative rules of their own.
RULES = {"custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}


def opened(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    """A jaxpr that may be closed, and its constants; JAX 0.12 has one type for both."""
    return getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())


def bodies_of(eqn: Any) -> list[Any]:
    """The jaxprs inside of an equation, such as branches and the bodies of loops."""
    found = [opened(each)[0] for each in jax.tree.leaves(list(eqn.params.values()))]
    return [each for each in found if hasattr(each, "eqns")]


def all_equations(eqns: Iterable[Any]) -> Iterator[Any]:
    """Equations with all those inside of them, at any depth.

    >>> def f(x):
    ...     return jax.lax.cond(x > 0, jax.numpy.sin, jax.numpy.cos, x)
    >>> program = jax.make_jaxpr(jax.jit(f))(1.0)
    >>> names = [eqn.primitive.name for eqn in all_equations(program.jaxpr.eqns)]
    >>> {"jit", "gt", "cond", "sin", "cos"} <= set(names)
    True
    """
    for eqn in eqns:
        yield eqn
        for body in bodies_of(eqn):
            yield from all_equations(body.eqns)


def carry_of_scan(invars: Sequence[Any], outvars: Sequence[Any], body: Any) -> slice:
    """Where the carry of a scan is among its operands.

    Constants are before it and scanned operands behind it. It is as long as the carry
    among the results, which is first there. The parameters of `scan` tell this in some
    versions of JAX only; in all of them scanned operands and stacked results have one
    axis more outside of the body.

    Args:
        invars: the operands of the scan.
        outvars: its results.
        body: its jaxpr, closed or not.

    >>> import jax.numpy as jnp
    >>> def f(scale, start, xs):
    ...     return jax.lax.scan(lambda carry, x: (carry + scale * x, carry), start, xs)
    >>> eqn = jax.make_jaxpr(f)(2.0, 0.0, jnp.ones(3)).eqns[0]
    >>> carry_of_scan(eqn.invars, eqn.outvars, eqn.params["jaxpr"])
    slice(1, 2, None)
    """
    body, _ = opened(body)
    stop = len(invars) - _num_longer(invars, body.invars)
    return slice(stop - len(outvars) + _num_longer(outvars, body.outvars), stop)


def _num_longer(outside: Sequence[Any], inside: Sequence[Any]) -> int:
    pairs = zip(outside, inside, strict=True)
    return sum(len(o.aval.shape) > len(i.aval.shape) for o, i in pairs)
