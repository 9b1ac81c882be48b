"""What the equations of a program of JAX (a jaxpr) do not say of themselves."""

from collections.abc import Sequence
from typing import Any


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

    >>> import jax, jax.numpy as jnp
    >>> def f(scale, start, xs):
    ...     return jax.lax.scan(lambda carry, x: (carry + scale * x, carry), start, xs)
    >>> eqn = jax.make_jaxpr(f)(2.0, 0.0, jnp.ones(3)).eqns[0]
    >>> carry_of_scan(eqn.invars, eqn.outvars, eqn.params["jaxpr"])
    slice(1, 2, None)
    """
    body = getattr(body, "jaxpr", body)
    stop = len(invars) - _num_longer(invars, body.invars)
    return slice(stop - len(outvars) + _num_longer(outvars, body.outvars), stop)


def _num_longer(outside: Sequence[Any], inside: Sequence[Any]) -> int:
    pairs = zip(outside, inside, strict=True)
    return sum(len(o.aval.shape) > len(i.aval.shape) for o, i in pairs)
