"""The steps of a loop in a program, and which of them to search for a culprit."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from dlworkshop.jaxprs import carry_of_scan, opened
from dlworkshop.verify.differences import FIRST, central_slopes
from dlworkshop.verify.functions import is_inexact, mode_is_missing

STEPS = 12  # of a loop that are searched
LONGEST = 1000  # steps of a while loop among which they are chosen


class Steps(NamedTuple):
    """The steps of a loop, in the order of their execution."""

    body: Any
    consts: Sequence[Any]  # operands of every step
    carries: Sequence[Sequence[Any]]  # of each step
    rows: Sequence[Any]  # scanned operands [steps, ...]
    first: int  # of the operands of the loop that are operands of the body

    def moving(self, outside: Sequence[bool]) -> list[bool]:
        """Which operands of the body move; the carry does if any operand does."""
        place = self.first + len(self.consts)
        carry = [any(outside) and is_inexact(x) for x in self.carries[0]]
        return [*outside[self.first : place], *carry, *outside[place + len(carry) :]]

    def given(self, i: int, outside: Sequence[bool]) -> tuple[list[Any], list[bool]]:
        """The operands of a step, and which of them move."""
        rows = [row[i] for row in self.rows]
        args = [*self.consts, *self.carries[i], *rows]
        return args, self.moving(outside)


def of_scan(eqn, given) -> Steps:
    """The steps of a scan."""
    params = eqn.params
    place = carry_of_scan(eqn.invars, eqn.outvars, params["jaxpr"])
    consts, carry = given[: place.start], given[place]
    order = np.arange(params["length"])[:: -1 if params["reverse"] else 1]
    rows = [row[order] for row in given[place.stop :]]
    run = jax.jit(core.jaxpr_as_fun(params["jaxpr"]))
    carries = []
    for i in range(len(order)):
        carries.append(carry)
        carry = run(*consts, *carry, *(row[i] for row in rows))[: len(carry)]
    return Steps(params["jaxpr"], consts, carries, rows, 0)


def of_while(params, given) -> Steps:
    """The first steps of a while loop."""
    first = params["cond_nconsts"]
    second = first + params["body_nconsts"]
    tests, consts, carry = given[:first], given[first:second], given[second:]
    asks = jax.jit(core.jaxpr_as_fun(params["cond_jaxpr"]))
    run = jax.jit(core.jaxpr_as_fun(params["body_jaxpr"]))
    carries: list[Any] = []
    while len(carries) < LONGEST and bool(asks(*tests, *carry)[0]):
        carries.append(carry)
        carry = run(*consts, *carry)
    return Steps(params["body_jaxpr"], consts, carries, [], first)


def ranked(steps: Steps, outside, modes, dtype, rounds: int) -> Iterable[int]:
    """The steps to search: those with the largest errors along a ray.

    One program measures all steps. Without `modes`, where no derivative is wrong, or if
    a step has a loop without reverse mode, the steps are spread over the loop.
    """
    num = len(steps.carries)
    spread = np.unique(np.linspace(0, num - 1, min(num, STEPS)).astype(int))
    if num <= STEPS or not modes:
        return spread
    moving, run = steps.moving(outside), core.jaxpr_as_fun(steps.body)
    rng, narrow = np.random.default_rng(0), dtype == np.float32
    inner, _ = opened(steps.body)
    normal, weights = (
        [rng.standard_normal(np.shape(v.aval)) for v in variables]
        for variables in (inner.invars, inner.outvars)
    )
    sizes = np.ldexp(1.0, FIRST[dtype] - np.arange(rounds) * (2 if narrow else 6))
    h = np.multiply.outer([1, 0.5, 0.25], sizes)  # [3, rounds]

    def measured(varying):  # of one step
        args = [*steps.consts, *varying]
        at = [x for x, m in zip(args, moving, strict=True) if m]
        rays = [n for n, m in zip(normal, moving, strict=True) if m]
        rays = [
            jnp.asarray(n * jnp.where(x == 0, 1, jnp.abs(x)), jnp.result_type(x))
            for n, x in zip(rays, at, strict=True)
        ]

        def f(moved):
            left = iter(moved)
            given = zip(args, moving, strict=True)
            out = run(*(next(left) if m else x for x, m in given))
            pairs = [(w, y) for w, y in zip(weights, out, strict=True) if is_inexact(y)]
            return sum(jnp.sum(w * jnp.real(y)) for w, y in pairs)

        def moved(step):
            shifted = [x + step * r for x, r in zip(at, rays, strict=True)]
            return f([y.astype(x.dtype) for x, y in zip(at, shifted, strict=True)])

        value, exact = f(at), []
        if "fwd" in modes:
            exact.append(jax.jvp(f, (at,), (rays,))[1])
        if "rev" in modes:
            back = jax.grad(f)(at)
            pairs = zip(back, rays, strict=True)
            exact.append(sum(jnp.sum(jnp.real(g * r)) for g, r in pairs))
        beside = jax.lax.map(moved, jnp.asarray([*h.ravel(), *-h.ravel()], dtype))
        return value, beside, jnp.stack(exact)

    varying = [jnp.stack(x) for x in zip(*steps.carries, strict=True)]
    run_all = jax.jit(lambda xs: jax.lax.map(measured, xs))
    try:
        found = run_all([*varying, *steps.rows])
    except Exception as error:
        if not mode_is_missing(error):
            raise
        return spread
    value, beside, exact = (np.asarray(x, np.float64) for x in found)  # [steps, ...]
    up, down = np.moveaxis(
        beside.reshape(num, 2, *h.shape), 0, -1
    )  # [3, rounds, steps]
    eps = float(np.finfo(dtype).eps)
    value = np.broadcast_to(value, up.shape[1:])
    slope, doubt, _ = central_slopes(value, up, down, h[..., None], eps)
    with np.errstate(all="ignore"):
        off = np.abs(slope - exact.T[:, None]).max(0) / (doubt + eps * np.abs(slope))
    off = np.nan_to_num(off[np.argmin(doubt, axis=0), np.arange(num)], posinf=0.0)
    return np.argsort(-off, kind="stable")[:STEPS]
