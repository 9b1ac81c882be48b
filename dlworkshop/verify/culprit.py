"""Which equation of a function has the wrong derivative.

Along a ray through the arguments each value of the function's program (its jaxpr) has a
slope t, which differences measure for all values at once, and reverse mode gives each a
cotangent c. An equation y = f(x) adds <c_y, t_y> - <J^T c_y, t_x> to the error of the
whole derivative along the ray, in forward mode <c_y, t_y - J t_x>: 0 where its rule is
right. So a program of any length takes some 25 evaluations and two compilations.

The equations with an error are suspects. Calls among them are entered with their actual
values: jit, checkpoint, the branch of a cond that was taken, steps of a scan or a while
loop. What is no call, or has nothing wrong inside, is checked as the function was.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from dlworkshop.verify.differences import FIRST, central_slopes
from dlworkshop.verify.functions import (
    Function,
    lift,
    mode_is_missing,
    place_of,
    relative,
)
from dlworkshop.verify.probes import scale_of
from dlworkshop.verify.report import Culprit
from dlworkshop.verify.transformations import own_rules, rule_of

MOST = 3  # culprits that are named
TRIES = 8  # suspects of a program that are checked
STEPS = 12  # of a loop that are looked into
ROUNDS = 4  # of steps of differences, the best for each number of a value
ROUNDINGS = 2**12  # of the largest part of the slope, for which no rule is to blame
NO_IDEA = 1e30  # the doubt about a slope that differences do not have
NEARBY = 1e-3  # how far the second point is, relative to the arguments
CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "checkpoint": "jaxpr", "remat2": "jaxpr"}
CALLS |= {"closed_call": "call_jaxpr", "core_call": "call_jaxpr"}

# Of an equation -> what is wrong with its derivative, or "".
Judge = Callable[[Function], str]


def culprits_of(
    fn: Function, judge: Judge, modes: Sequence[str], ray: np.ndarray
) -> list[Culprit]:
    """The first equations of `fn`, in the order of its program, that `judge` rejects.

    If there are none at the point of `fn`, which may lie on kinks, one beside it is
    looked at.

    Args:
        fn: a function that is known to be wrong, and the point.
        judge: an equation, as a function of what moves with the arguments, at the
            values that it has -> what is wrong with it, or "".
        modes: those of the derivatives in which it is wrong; none where `judge` is of
            transformations: then all rules that are not JAX's are suspects.
        ray: [D], along which `fn` is wrong.
    """
    walk = _Walk(judge, fn.at.dtype, modes)
    for shift in (0.0, NEARBY):
        at = (fn.at + shift * ray).astype(fn.at.dtype)
        walk.program(fn.program.jaxpr, fn.program.consts, _Given([at], [True], [ray]))
        if walk.found:
            break
    return walk.found


class _Given(NamedTuple):
    """What a program is called with."""

    args: Sequence[Any]
    moving: Sequence[bool]  # which of them do
    rays: Sequence[Any] | None = None  # in which they move; None: random ones
    cotangents: Sequence[Any] | None = None  # of its results; None: random ones


class _Walk:
    """A walk through a program, with what `culprits_of` says."""

    def __init__(self, judge: Judge, dtype: Any, modes: Sequence[str]):
        self.judge, self.dtype, self.modes = judge, dtype, modes
        self.found: list[Culprit] = []
        self.callers: list[str] = []  # the places of the calls that we are inside of
        self._compiled: dict[Any, Any] = {}  # jaxpr -> (itself, two functions)
        self._rng = np.random.default_rng(0)

    def program(self, jaxpr, consts, given: _Given) -> bool:
        """Name what is wrong in a program at these values; whether anything is."""
        known = [*jaxpr.constvars, *jaxpr.invars]
        made = [v for eqn in jaxpr.eqns for v in eqn.outvars if _is_named(v)]
        names = [*known, *made]
        moves = {v for v, m in zip(jaxpr.invars, given.moving, strict=True) if m}
        for eqn in jaxpr.eqns:
            if any(v in moves for v in _variables(eqn)):
                moves |= {v for v in eqn.outvars if _is_inexact(v)}
        key = id(jaxpr), tuple(given.moving)
        if key not in self._compiled:  # once for all steps of a loop
            run = jax.jit(_function(jaxpr, jaxpr.eqns, known, made))
            errors = jax.jit(_errors(jaxpr, names, moves, self.modes))
            self._compiled[key] = jaxpr, run, errors
        _, run, errors = self._compiled[key]

        def values_at(args):
            return [*consts, *args, *run(*consts, *args)]

        values = values_at(given.args)
        slopes: list[Any] = [None] * len(names)
        back: list[Any] = [None] * len(jaxpr.eqns)  # cotangents, of each equation
        if self.modes:
            given = given._replace(rays=given.rays or [*map(self._ray, given.args)])
            moving = [v in moves for v in names]
            slopes, doubts = self._slopes(values_at, given, values, moving)
            cotangents = given.cotangents or [self._normal(v) for v in jaxpr.outvars]
            off, back = errors(values, slopes, doubts, cotangents)
            worst = np.argsort(-np.asarray(off), kind="stable")[:TRIES]
            suspects = sorted(i for i in worst if off[i] > 1)
        else:
            suspects = [i for i, e in enumerate(jaxpr.eqns) if own_rules([e])][:TRIES]
        value, slope = (dict(zip(names, x, strict=True)) for x in (values, slopes))
        wrong = False
        for i in suspects:
            if len(self.found) < MOST:
                wrong |= self._equation(
                    jaxpr, jaxpr.eqns[i], value, moves, slope, back[i]
                )
        return wrong

    def _slopes(self, values_at, given: _Given, values, moving):
        """Of every value that moves the slope along the rays, and the doubt about it."""
        places = np.flatnonzero(moving)
        slopes: list[Any] = [None] * len(moving)
        doubts = list(slopes)
        eps, narrow = float(np.finfo(self.dtype).eps), self.dtype == np.float32
        for k in range(ROUNDS):
            first = FIRST[self.dtype] - k * (2 if narrow else 6)
            steps = np.ldexp(1.0, first - np.arange(3))
            points = []
            for step in (*steps, *-steps):
                args = [
                    (np.asarray(x) + step * ray).astype(x.dtype) if m else x
                    for x, m, ray in zip(
                        given.args, given.moving, given.rays, strict=True
                    )
                ]
                found = values_at(args)
                points.append([_wide(found[i]) for i in places])
            for i, *ys in zip(places, *points, strict=True):
                slope, doubt, _ = central_slopes(
                    _wide(values[i]), np.stack(ys[:3]), np.stack(ys[3:]), steps, eps
                )
                if k:
                    better = doubt < doubts[i]
                    slope = np.where(better, slope, slopes[i])
                    doubt = np.where(better, doubt, doubts[i])
                slopes[i] = np.where(np.isfinite(doubt), slope, 0)
                still = ~np.isfinite(_wide(values[i]))  # the -inf of a mask
                doubts[i] = np.where(still, 0, np.minimum(doubt, NO_IDEA))
        return slopes, doubts

    def _ray(self, x):
        """A random one, by as much as the entries of `x` are large."""
        if not _is_float(x):
            return 0.0
        size = np.abs(_wide(x))
        return np.where(size > 0, size, scale_of(size)) * self._normal(x)

    def _normal(self, x):
        """Random numbers, of the shape of an array or a variable."""
        x = getattr(x, "aval", x)
        made = self._rng.standard_normal((2, *np.shape(x)))
        if jnp.issubdtype(getattr(x, "dtype", float), jnp.complexfloating):
            return made[0] + 1j * made[1]
        return made[0]

    def _equation(self, jaxpr, eqn, values, moves, slopes, cotangents) -> bool:
        literal = [isinstance(v, core.Literal) for v in eqn.invars]
        pairs = list(zip(literal, eqn.invars, strict=True))
        given = _Given(
            [v.val if fixed else values[v] for fixed, v in pairs],
            [not fixed and v in moves for fixed, v in pairs],
            [None if fixed else slopes[v] for fixed, v in pairs],
            cotangents,
        )
        self.callers.append(self._place(eqn))
        inside = any(
            self.program(getattr(body, "jaxpr", body), getattr(body, "consts", ()), its)
            for body, its in _inside(eqn, given)
        )
        self.callers.pop()
        wrong = not inside and self._wrong(jaxpr, eqn, values, moves)
        if wrong:
            self.found.append(Culprit(_name(eqn), self._place(eqn), wrong))
        return inside or bool(wrong)

    def _place(self, eqn) -> str:
        """The user's file and line, relative to where we are if it is below."""
        place = place_of(eqn)
        if not place:  # it is called by no line of the user's
            place = self.callers[-1] if self.callers else ""
        return place or relative(rule_of(eqn).partition(" at ")[2])

    def _wrong(self, jaxpr, eqn, values, moves) -> str:
        needed = list(dict.fromkeys(_variables(eqn)))
        out = [v for v in eqn.outvars if v in moves]
        through = [i for i, v in enumerate(needed) if v in moves]
        if not out or not through:
            return ""
        args = [values[v] for v in needed]
        finite = {i: np.isfinite(np.asarray(args[i])) for i in through}
        finite = {i: mask for i, mask in finite.items() if not mask.all()}
        f = _finite_only(
            _function(jaxpr, [eqn], needed, out),
            {i: (mask, args[i]) for i, mask in finite.items()},
            [np.isfinite(np.asarray(values[v])) for v in out],
        )
        for i, mask in finite.items():
            args[i] = np.where(mask, args[i], 0)
        return self.judge(lift(f, args, through, self.dtype))


def _errors(jaxpr, names, moves, modes) -> Callable:
    """The function that says how much each equation adds to the error.

    It takes lists along `names`: the values, the slopes by differences, and the doubts
    about them; and the cotangents of the results. It returns the errors [equations],
    over what they may be where a rule is right, and the cotangents of each equation.
    """

    def errors(values, slopes, doubts, cotangents):
        value, slope, doubt = (
            dict(zip(names, x, strict=True)) for x in (values, slopes, doubts)
        )
        back = {v: jnp.zeros(v.aval.shape, v.aval.dtype) for v in names if v in moves}
        for v, u in zip(jaxpr.outvars, cotangents, strict=True):
            if not isinstance(v, core.Literal) and v in moves and u is not None:
                back[v] += jnp.asarray(u, v.aval.dtype)
        found, theirs = [], []
        for eqn in reversed(jaxpr.eqns):
            theirs.append([back.get(v) for v in eqn.outvars])
            needed = list(dict.fromkeys(_variables(eqn)))
            x = [v for v in needed if v in moves]
            y = [v for v in eqn.outvars if v in moves]
            run = _function(jaxpr, [eqn], needed, y)

            def f(*xs, run=run, needed=needed, x=x):
                moved = value | dict(zip(x, xs, strict=True))
                return run(*(moved[v] for v in needed))

            at, tx, dx = ([t[v] for v in x] for t in (value, slope, doubt))
            u, ty, dy = ([t[v] for v in y] for t in (back, slope, doubt))
            if not x or not y:
                found.append((0.0, 0.0, 0.0))
                continue
            down, *error = _error(f, at, u, (tx, ty), (dx, dy), modes)
            found.append(error)
            for v, more in zip(x, down, strict=True):
                back[v] += more
        off, unsure, size = jnp.array(found[::-1]).T
        eps, tiny = jnp.finfo(off.dtype).eps, jnp.finfo(off.dtype).tiny
        unsure = 4 * unsure + ROUNDINGS * eps * jnp.max(size) + tiny
        return jnp.where(jnp.isinf(off), off, off / unsure), theirs[::-1]

    return errors


def _error(f, at, u, slopes, doubts, modes):
    """What an equation pulls back, its error, what speaks against it, and its size."""
    (tx, ty), (dx, dy) = slopes, doubts
    off, unsure, size = 0.0, _dot(u, dy, jnp.abs), _dot(u, ty, jnp.abs)
    down = [jnp.zeros_like(x) for x in at]
    if "rev" in modes:
        down = _or_else(down, lambda: jax.vjp(f, *at)[1](u))
        off = jnp.abs(_dot(u, ty) - _dot(down, tx))
        off = jnp.where(_is_finite(u) & ~_is_finite(down), jnp.inf, off)
        unsure += _dot(down, dx, jnp.abs)
    else:
        u = [jnp.ones_like(x) for x in u]
    if "fwd" in modes:
        rays = [[jnp.asarray(t, x.dtype) for t, x in zip(ts, at)] for ts in (tx, dx)]
        up, more = (_or_else(ty, lambda t=t: jax.jvp(f, at, t)[1]) for t in rays)
        gaps = [a - b for a, b in zip(ty, up, strict=True)]
        gap = jnp.abs(_dot(u, gaps)) if "rev" in modes else _dot(u, gaps, jnp.abs)
        off = jnp.maximum(off, gap)
        unsure += _dot(u, more, jnp.abs)
    return down, off, unsure, size


def _or_else(default, derivative: Callable):
    """`derivative()`; what is behind stop_gradient may have none in this mode."""
    try:
        return derivative()
    except Exception as error:
        if not mode_is_missing(error):
            raise
        return default


def _dot(a, b, sized: Callable = jnp.real):
    """The sum of products, of what is not 0: the cotangent of an inf may be."""
    products = [
        jnp.where((x == 0) | (y == 0), 0.0, sized(x * y))
        for x, y in zip(a, b, strict=True)
    ]
    return sum(map(jnp.sum, products))


def _is_finite(xs):
    return jnp.all(jnp.array([jnp.isfinite(x).all() for x in xs]))


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


def _inside(eqn, given: _Given) -> Iterator[tuple[Any, _Given]]:
    """The programs that an equation runs, and what each is called with."""
    name, params = eqn.primitive.name, eqn.params
    args, moving, rays, cotangents = given
    if name in CALLS and CALLS[name] in params:
        yield params[CALLS[name]], given
    elif name == "cond":
        branch = int(np.clip(int(args[0]), 0, len(params["branches"]) - 1))
        its = _Given(args[1:], moving[1:], rays and rays[1:], cotangents)
        yield params["branches"][branch], its
    elif name == "scan":
        yield from _of_scan(eqn, args, moving)
    elif name == "while":
        yield from _of_while(params, args, moving)


def _of_scan(eqn, given, moving) -> Iterator[Any]:
    params = eqn.params
    body = getattr(params["jaxpr"], "jaxpr", params["jaxpr"])
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
            yield params["jaxpr"], _Given(args, moved)
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
        its = _Given([*consts, *carry], [*moving[first:second], *moved])
        yield params["body_jaxpr"], its
        carry = run(*consts, *carry)


def _wide(x: Any) -> np.ndarray:
    x = np.asarray(x)
    return x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)


def _is_float(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def _name(eqn) -> str:
    name = str(eqn.primitive.name)
    rule = rule_of(eqn).partition(" at ")[0] if name.startswith("custom_") else ""
    return f"{name.removesuffix('_call')} of {rule}" if rule else name
