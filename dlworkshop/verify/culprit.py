"""Which equation of a function has the wrong derivative.

The function's program (its jaxpr) is run once, and every value in it kept. Then halves
of it, each a function of the values that flow in, are checked as the whole was, and the
wrong halves halved again, down to single equations; calls are entered with their actual
values: jit, checkpoint, the branch of a cond that was taken, the steps of a scan or a
while loop. For one culprit that costs some 2 log2(equations) checks, each compiled.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from dlworkshop.verify.functions import Function, lift, place_of, relative
from dlworkshop.verify.report import Culprit
from dlworkshop.verify.transformations import rule_of

MOST = 3  # culprits that are named
STEPS = 12  # of a loop that are looked into
CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "checkpoint": "jaxpr", "remat2": "jaxpr"}
CALLS |= {"closed_call": "call_jaxpr", "core_call": "call_jaxpr"}

# Of a piece of a program -> what is wrong with its derivative, or "".
Judge = Callable[[Function], str]


def culprits_of(fn: Function, judge: Judge) -> list[Culprit]:
    """The first equations of `fn`, in the order of its program, that `judge` rejects.

    Args:
        fn: a function that is known to be wrong, and the point.
        judge: a piece of its program, as a function of what moves with the arguments,
            at the values that it has -> what is wrong with it, or "".
    """
    for stops in (False, True):  # first without them: they may well be right
        walk = _Walk(judge, fn.at.dtype, stops)
        walk.program(fn.program.jaxpr, fn.program.consts, [fn.at], [True], "")
        if walk.found:
            break
    return walk.found


class _Walk:
    """A walk through a program.

    Args:
        judge: of its pieces.
        dtype: that they compute in.
        stops: whether what is behind `stop_gradient` moves. By autodiff it does not,
            and a function may be right with it, as the maximum in a softmax.
    """

    def __init__(self, judge: Judge, dtype: Any, stops: bool):
        self.judge, self.dtype, self.stops = judge, dtype, stops
        self.found: list[Culprit] = []
        self.callers: list[str] = []  # the places of the calls that we are inside of

    def program(self, jaxpr, consts, args, moving, caller) -> bool:
        """Name what is wrong in a program at these values; whether anything is."""
        self.callers.append(caller)
        names = [v for eqn in jaxpr.eqns for v in eqn.outvars if _is_named(v)]
        given = [*jaxpr.constvars, *jaxpr.invars]
        run = jax.jit(_function(jaxpr, jaxpr.eqns, given, names))
        values = dict(zip(given, [*consts, *args], strict=True))
        values |= dict(zip(names, run(*values.values()), strict=True))
        moves = {v for v, m in zip(jaxpr.invars, moving, strict=True) if m}
        for eqn in jaxpr.eqns:
            if not self._holds(eqn) and any(v in moves for v in _variables(eqn)):
                moves |= {v for v in eqn.outvars if _is_inexact(v)}
        wrong = self._halves(jaxpr, list(jaxpr.eqns), values, moves, known=True)
        self.callers.pop()
        return wrong

    def _halves(self, jaxpr, eqns, values, moves, *, known=False) -> bool:
        if len(self.found) >= MOST or not eqns:
            return False
        wrong = "" if known else self._wrong(jaxpr, eqns, values, moves)
        if not wrong and not known:
            return False
        if len(eqns) == 1:
            return self._equation(jaxpr, eqns[0], values, moves, wrong)
        middle = len(eqns) // 2
        halves = eqns[:middle], eqns[middle:]
        found = [self._halves(jaxpr, half, values, moves) for half in halves]
        if not any(found) and wrong:
            name = f"equations {eqns[0].primitive.name} to {eqns[-1].primitive.name}"
            self.found.append(Culprit(name, self._place(eqns[0]), wrong))
            return True
        return any(found)

    def _equation(self, jaxpr, eqn, values, moves, wrong) -> bool:
        given = [
            v.val if isinstance(v, core.Literal) else values[v] for v in eqn.invars
        ]
        moving = [not isinstance(v, core.Literal) and v in moves for v in eqn.invars]
        for body, args, moved in _inside(eqn, given, moving):
            inner = getattr(body, "jaxpr", body)
            consts = getattr(body, "consts", ())
            if self.program(inner, consts, args, moved, self._place(eqn)):
                return True
        wrong = wrong or self._wrong(jaxpr, [eqn], values, moves)
        if wrong:
            self.found.append(Culprit(_name(eqn), self._place(eqn), wrong))
        return bool(wrong)

    def _holds(self, eqn) -> bool:
        return eqn.primitive.name == "stop_gradient" and not self.stops

    def _place(self, eqn) -> str:
        """The user's file and line, relative to where we are if it is below."""
        place = place_of(eqn)
        if not place:  # it is called by no line of the user's
            place = self.callers[-1] or relative(rule_of(eqn).partition(" at ")[2])
        return place

    def _wrong(self, jaxpr, eqns, values, moves) -> str:
        eqns = [eqn for eqn in eqns if not self._holds(eqn)]  # their values are known
        made = {v for eqn in eqns for v in eqn.outvars}
        needed = {v: None for eqn in eqns for v in _variables(eqn) if v not in made}
        later = _used_after(jaxpr, eqns)
        out = [v for eqn in eqns for v in eqn.outvars if v in later and v in moves]
        through = [i for i, v in enumerate(needed) if v in moves]
        if not out or not through:
            return ""
        args = [values[v] for v in needed]
        finite = {i: np.isfinite(np.asarray(args[i])) for i in through}
        finite = {i: mask for i, mask in finite.items() if not mask.all()}
        f = _finite_only(
            _function(jaxpr, eqns, list(needed), out),
            {i: (mask, args[i]) for i, mask in finite.items()},
            [np.isfinite(np.asarray(values[v])) for v in out],
        )
        for i, mask in finite.items():
            args[i] = np.where(mask, args[i], 0)
        return self.judge(lift(f, args, through, self.dtype))


def not_finite(fn: Function) -> str:
    """Whether a value or a derivative of a piece is inf or nan: a `Judge`."""
    value = np.asarray(fn.value(fn.at))
    if bad := _first_bad(value, fn.outputs):
        return f"its value is {bad}"
    ones = np.ones(fn.outputs[-1].stop, fn.at.dtype)
    slopes = np.asarray(fn.pull(fn.at, ones))
    if bad := _first_bad(slopes, fn.inputs):
        return f"its derivative is {bad}"
    return ""


def _first_bad(x, parts) -> str:
    bad = np.flatnonzero(~np.isfinite(x))
    if not bad.size:
        return ""
    part = next(p for p in parts if p.start <= bad[0] < p.stop)
    return f"{x[bad[0]]} at entry {part.entry(int(bad[0]) - part.start)}"


def _function(jaxpr, eqns, given, wanted) -> Callable:
    """Some equations as a function of these variables, returning those."""
    piece = jaxpr.replace(
        constvars=[], invars=list(given), outvars=list(wanted), eqns=list(eqns)
    )
    run = core.jaxpr_as_fun(core.ClosedJaxpr(piece, ()))

    def cast(x, v):  # what was lifted may compute in less
        narrow = _is_inexact(v) and hasattr(x, "dtype") and x.dtype != v.aval.dtype
        return x.astype(v.aval.dtype) if narrow else x

    return lambda *args: run(*map(cast, args, given))


def _finite_only(f: Callable, given: dict[int, Any], masks: list) -> Callable:
    """`f`, of what is finite alone: the -inf of a mask does not move.

    Args:
        f: arrays -> a list of arrays.
        given: place of an argument -> where it is finite, and all of it.
        masks: where what it returns is finite.
    """
    if not given and all(mask.all() for mask in masks):
        return f

    def finite(*args):
        whole = list(args)
        for i, (mask, all_of_it) in given.items():
            whole[i] = jnp.where(mask, args[i], all_of_it)
        found = zip(masks, f(*whole), strict=True)
        return [jnp.where(mask, x, jnp.zeros_like(x)) for mask, x in found]

    return finite


def _variables(eqn) -> Iterator[Any]:
    return (v for v in eqn.invars if not isinstance(v, core.Literal))


def _is_named(v: Any) -> bool:
    return type(v).__name__ != "DropVar" and hasattr(v.aval, "dtype")


def _is_inexact(v: Any) -> bool:
    return _is_named(v) and jnp.issubdtype(v.aval.dtype, jnp.inexact)


def _used_after(jaxpr, eqns) -> set[Any]:
    mine = set(map(id, eqns))
    used = {v for v in jaxpr.outvars if not isinstance(v, core.Literal)}
    for eqn in jaxpr.eqns:
        if id(eqn) not in mine:
            used |= set(_variables(eqn))
    return used


def _inside(eqn, given: Sequence[Any], moving: Sequence[bool]) -> Iterator[Any]:
    """The programs that an equation runs: each with its arguments, and which move."""
    name, params = eqn.primitive.name, eqn.params
    if name in CALLS and CALLS[name] in params:
        yield params[CALLS[name]], given, moving
    elif name == "cond":
        branch = int(np.clip(int(given[0]), 0, len(params["branches"]) - 1))
        yield params["branches"][branch], given[1:], moving[1:]
    elif name == "scan":
        yield from _of_scan(eqn, given, moving)
    elif name == "while":
        yield from _of_while(params, given, moving)


def _of_scan(eqn, given, moving) -> Iterator[Any]:
    params, body = (
        eqn.params,
        getattr(eqn.params["jaxpr"], "jaxpr", eqn.params["jaxpr"]),
    )
    # What is scanned or stacked has an axis more than the body sees.
    second = len(given) - sum(map(_is_longer, eqn.invars, body.invars))
    num_carry = len(eqn.outvars) - sum(map(_is_longer, eqn.outvars, body.outvars))
    first = second - num_carry
    consts, carry, rows = given[:first], given[first:second], given[second:]
    run = jax.jit(core.jaxpr_as_fun(params["jaxpr"]))
    # The carry moves as soon as anything does.
    moved = [
        m or (any(moving) and _is_float(x)) for m, x in zip(moving, given, strict=True)
    ]
    moved = [*moving[:first], *moved[first:second], *moving[second:]]
    order = range(params["length"])
    shown = set(np.linspace(0, params["length"] - 1, STEPS).astype(int).tolist())
    for count, i in enumerate(reversed(order) if params["reverse"] else order):
        args = [*consts, *carry, *(row[i] for row in rows)]
        if count in shown:
            yield params["jaxpr"], args, moved
        carry = run(*args)[:num_carry]


def _is_longer(outside: Any, inside: Any) -> bool:
    return len(outside.aval.shape) > len(inside.aval.shape)


def _of_while(params, given, moving) -> Iterator[Any]:
    first = params["cond_nconsts"]
    second = first + params["body_nconsts"]
    tests, consts, carry = given[:first], given[first:second], given[second:]
    asks = jax.jit(core.jaxpr_as_fun(params["cond_jaxpr"]))
    run = jax.jit(core.jaxpr_as_fun(params["body_jaxpr"]))
    moved = [any(moving) and _is_float(x) for x in carry]
    for _ in range(STEPS):
        if not bool(asks(*tests, *carry)[0]):
            return
        yield params["body_jaxpr"], [*consts, *carry], [*moving[first:second], *moved]
        carry = run(*consts, *carry)


def _is_float(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def _name(eqn) -> str:
    name = str(eqn.primitive.name)
    rule = rule_of(eqn).partition(" at ")[0] if name.startswith("custom_") else ""
    return f"{name.removesuffix('_call')} of {rule}" if rule else name
