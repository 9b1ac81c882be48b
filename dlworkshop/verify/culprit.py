"""The search for the equation of a function that has the wrong derivative.

Along a ray through the arguments, each value of the program of the function (its jaxpr)
has a slope t, which differences measure for all values at once, and a cotangent c by
reverse mode. An equation y = f(x) adds <c_y, t_y> - <J^T c_y, t_x> to the error of the
whole derivative along the ray (in forward mode <c_y, t_y - J t_x>), which is 0 if its
rule is right. So a program of any length needs about 25 evaluations and two
compilations.

Equations that add an error are suspects. If a suspect is a call (jit, checkpoint, the
branch of a cond that was taken, steps of a scan or a while loop), its body is searched
with the actual values. A suspect that is not a call, or whose body has no culprit, is
checked like the whole function.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from dlworkshop.errors import UserError
from dlworkshop.jaxprs import CALLS, RULES, all_equations, bodies_of, opened
from dlworkshop.verify.differences import FIRST, central_slopes
from dlworkshop.verify.functions import Function, is_inexact, lift, mode_is_missing
from dlworkshop.verify.linear import FACTOR, LARGE, SMALL
from dlworkshop.verify.loops import of_scan, of_while, ranked
from dlworkshop.verify.probes import NUM_OUTPUTS, finite, scale_of
from dlworkshop.verify.programs import function_of, is_named, place_of, relative
from dlworkshop.verify.report import Culprit
from dlworkshop.verify.transformations import own_rules, rule_of

MOST = 3  # culprits that are named
TRIES = 8  # suspects of a program that are checked
ROUNDS = 4  # different step sizes of the differences
ROUNDINGS = 2**12  # rounding errors that do not make an equation a suspect
NEARBY = 1e-3  # distance of the second point, relative to the arguments

# An equation as a function, and the size of its cotangents -> description of its wrong
# derivative, or "".
Judge = Callable[[Function, float], str]


def culprits_of(
    fn: Function,
    judge: Judge,
    modes: Sequence[str],
    ray: np.ndarray,
    *,
    is_finite: bool = True,
) -> list[Culprit]:
    """The first equations of `fn`, in the order of its program, that `judge` rejects.

    If there are none at the point of `fn`, which may be a kink, the search is repeated
    at a point beside it, and then for one output at a time, because a rule may be right
    for a cotangent without zeros. If there are none either, all suspects are named
    together.

    Args:
        fn: a function with a wrong derivative, and the point.
        judge: an equation, as a function of the operands that depend on the arguments
            -> description of its wrong derivative, or "".
        modes: in which the derivative of `fn` is wrong; empty if `judge` compares
            transformations, so that all rules of users are suspects.
        ray: [D], along which the derivative is wrong.
        is_finite: whether the derivative of `fn` is, so that no nan inside, such as
            that of a mask, which nothing depends on, is what is wrong.
    """
    walk = _Walk(judge, fn.at.dtype, modes, is_finite)
    tries: list[tuple[float, Sequence[Any]]] = [(0.0, ()), (NEARBY, ())]
    size = fn.outputs[-1].stop
    if modes and 1 < size <= NUM_OUTPUTS:
        tries += [(0.0, [unit]) for unit in np.eye(size)]
    for shift, back in tries:
        at = (fn.at + shift * ray).astype(fn.at.dtype)
        given = _Given([at], [True], [ray], back)
        walk.program(fn.program.jaxpr, fn.program.consts, given)
        if walk.found:
            return walk.found
    if len(walk.suspects) < 2:
        return []
    first, *_, last = walk.suspects  # each has an error below the tolerance
    name = f"equations {first.primitive.name} to {last.primitive.name}"
    return [Culprit(name, walk.place(first), "they are wrong together")]


class _Given(NamedTuple):
    """The arguments of a program."""

    args: Sequence[Any]
    moving: Sequence[bool]  # which of them depend on the arguments of the function
    rays: Sequence[Any] = ()  # their directions; (): random ones
    cotangents: Sequence[Any] = ()  # of the results; (): random ones


class _Walk:
    """The state of a search through a program."""

    def __init__(self, judge: Judge, dtype: Any, modes: Sequence[str], is_finite: bool):
        self.judge, self.dtype, self.modes = judge, dtype, modes
        self.is_finite = is_finite
        self.found: list[Culprit] = []
        self.callers = [""]  # the places of the enclosing calls
        self.suspects: list[Any] = []  # equations of the outermost program
        self._compiled: dict[Any, Any] = {}  # jaxpr -> (itself, two functions)
        self._rng = np.random.default_rng(0)

    def program(self, jaxpr, consts, given: _Given) -> bool:
        """Add the culprits of a program at these values; returns whether any exist."""
        known = [*jaxpr.constvars, *jaxpr.invars]
        made = [v for eqn in jaxpr.eqns for v in eqn.outvars if is_named(v)]
        names = [*known, *made]
        # the cotangent of a result that nobody reads is a symbolic zero
        read = {v for eqn in jaxpr.eqns for v in _variables(eqn)}
        read |= {v for v in jaxpr.outvars if not isinstance(v, core.Literal)}
        moves = {v for v, m in zip(jaxpr.invars, given.moving, strict=True) if m}
        for eqn in jaxpr.eqns:
            if any(v in moves for v in _variables(eqn)):
                moves |= {v for v in eqn.outvars if v in read and _is_inexact(v)}
        key = id(jaxpr), tuple(given.moving)
        if key not in self._compiled:  # compiled once for all steps of a loop
            run = jax.jit(function_of(jaxpr, jaxpr.eqns, known, made))
            derivatives = jax.jit(_derivatives(jaxpr, names, moves, self.modes))
            self._compiled[key] = jaxpr, run, derivatives
        _, run, derivatives = self._compiled[key]

        def values_at(args):
            return [*consts, *args, *run(*consts, *args)]

        values = values_at(given.args)
        value, slopes = dict(zip(names, values, strict=True)), {}
        parts: list[Any] = [((), None, None)] * len(jaxpr.eqns)
        if self.modes:
            given = given._replace(rays=given.rays or [*map(self._ray, given.args)])
            slopes, doubts = self._slopes(values_at, given, value, moves)
            back = given.cotangents or [self._normal(v) for v in jaxpr.outvars]
            rays = [slopes.get(v) for v in names]
            rounding = ROUNDINGS * float(np.finfo(self.dtype).eps)
            tried = []
            # a rule may depend on size and sign
            for factor in (1.0, FACTOR, LARGE, SMALL):
                with np.errstate(over="ignore"):
                    given_to = jax.tree.map(lambda x, c=factor: c * x, (rays, back))
                    scaled = {v: factor * t for v, t in slopes.items()}
                    wide = {v: abs(factor) * t for v, t in doubts.items()}
                each = derivatives(values, *given_to)
                off = _errors(jaxpr, moves, scaled, wide, each, rounding)
                tried.append((off, each))
            off, parts = tried[0]
            for larger, others in tried[1:]:
                more = np.where(np.isfinite(larger), larger, 0.0)  # it may overflow
                pairs = zip(more > off, others, parts, strict=True)
                parts = [new if is_more else old for is_more, new, old in pairs]
                off = np.fmax(off, more)
            worst = np.argsort(-np.nan_to_num(off), kind="stable")[:TRIES]
            suspects = sorted(i for i in worst if off[i] > 1)
            if len(self.callers) == 1:
                self.suspects = [jaxpr.eqns[i] for i in suspects]
        else:
            suspects = [i for i, e in enumerate(jaxpr.eqns) if own_rules([e])][:TRIES]
        before = len(self.found)
        for i in suspects:
            if len(self.found) < MOST:
                self._equation(jaxpr, jaxpr.eqns[i], value, moves, slopes, parts[i])
        return len(self.found) > before

    def _slopes(self, values_at, given: _Given, value, moves):
        """Slopes along the rays of all moving variables, and their uncertainty."""
        slopes: dict[Any, np.ndarray] = {}
        doubts: dict[Any, np.ndarray] = {}
        eps, narrow = float(np.finfo(self.dtype).eps), self.dtype == np.float32
        for k in range(ROUNDS):
            first = FIRST[self.dtype] - k * (2 if narrow else 6)
            steps = np.ldexp(1.0, first - np.arange(3))
            points = []
            for step in (*steps, *-steps):
                args = [
                    (np.asarray(x) + step * ray).astype(x.dtype) if m else x
                    for x, m, ray in zip(*given[:3], strict=True)
                ]
                points.append(dict(zip(value, values_at(args), strict=True)))
            for v in value.keys() & moves:
                here, *beside = (_wide(x[v]) for x in (value, *points))
                up, down = np.stack(beside[:3]), np.stack(beside[3:])
                slope, doubt, _ = central_slopes(here, up, down, steps, eps)
                if k:
                    better = doubt < doubts[v]
                    slope = np.where(better, slope, slopes[v])
                    doubt = np.where(better, doubt, doubts[v])
                slopes[v] = np.where(np.isfinite(doubt), slope, 0.0)
                doubts[v] = np.where(np.isfinite(here), doubt, 0.0)  # a mask has -inf
        return slopes, doubts

    def _ray(self, x):
        """A random direction, scaled by the entries of `x`."""
        if not is_inexact(x):
            return 0.0
        size = finite(np.abs(_wide(x)))  # a mask has -inf
        return np.where(size > 0, size, scale_of(size)) * self._normal(x)

    def _normal(self, x):
        """Normal random numbers in the shape of an array or variable."""
        x = getattr(x, "aval", x)
        made = self._rng.standard_normal((2, *np.shape(x)))
        if jnp.issubdtype(getattr(x, "dtype", float), jnp.complexfloating):
            return made[0] + 1j * made[1]
        return made[0]

    def _equation(self, jaxpr, eqn, value, moves, slopes, parts) -> None:
        fixed = [isinstance(v, core.Literal) for v in eqn.invars]
        pairs = list(zip(fixed, eqn.invars, strict=True))
        back, pulled, _ = parts
        theirs = dict(zip(_moving(eqn, moves)[1], back, strict=False))
        given = _Given(
            [v.val if known else value[v] for known, v in pairs],
            [not known and v in moves for known, v in pairs],
            [None if known else slopes.get(v) for known, v in pairs],
            [theirs.get(v) for v in eqn.outvars],
        )
        self.callers.append(self.place(eqn))
        before = len(self.found)
        inside = any(
            self.program(*opened(body), its)
            for body, its in _inside(eqn, given, self.modes, self.dtype)
        )
        self.callers.pop()
        if inside and eqn.primitive.name in RULES:
            # a rule replaces the derivative of its function: only rules that it may
            # call itself can be what is wrong with it
            inner = self.found[before:]
            named = [each for each in inner if each.name.startswith("custom_")]
            self.found[before:], inside = named, bool(named)
        if inside:
            return
        bad = _are_finite(back) and not _are_finite(pulled or ())
        if bad and not self.is_finite:
            made = [value[v] for v in _moving(eqn, moves)[1]]
            broken = any(np.isnan(_wide(x)).any() for x in made)
            what, x = ("value", made) if broken else ("derivative", pulled)
            wrong = f"its {what} is {_first_bad(x)}"
        else:
            wrong = self._wrong(jaxpr, eqn, value, moves, back)
        if wrong:
            self.found.append(Culprit(_name(eqn), self.place(eqn), wrong))

    def place(self, eqn) -> str:
        """The user's file and line, relative to the working directory if below it."""
        rule = rule_of(eqn).partition(" at ")[2]
        return place_of(eqn) or self.callers[-1] or relative(rule)

    def _wrong(self, jaxpr, eqn, value, moves, cotangents) -> str:
        x, y = _moving(eqn, moves)
        needed = list(dict.fromkeys(_variables(eqn)))
        if not x or not y or not _are_finite([value[v] for v in (*x, *y)]):
            return ""  # there are no differences beside the -inf of a mask
        f = function_of(jaxpr, [eqn], needed, y)
        through = [i for i, v in enumerate(needed) if v in moves]
        try:
            piece = lift(f, [value[v] for v in needed], through, self.dtype)
        except UserError:  # an operand is too close to 0 to be moved
            return ""
        sizes = [float(np.max(np.abs(u), initial=0.0)) for u in cotangents]
        return self.judge(piece, max(sizes, default=0.0))


def in_rules(found: Culprit, first: Function) -> Culprit:
    """Name the custom rule that a culprit of a higher derivative is part of.

    JAX gives the equations of a rule the place at which its function is called. If the
    program of `first`, the function itself, has no such equation there, but has one
    custom rule, the culprit is part of the rule.
    """
    eqns = all_equations(first.program.jaxpr.eqns)
    there = [eqn for eqn in eqns if place_of(eqn) == found.where]
    rules = {rule_of(eqn).partition(" at ")[0] for eqn in there if own_rules([eqn])}
    if len(rules) != 1 or any(eqn.primitive.name == found.name for eqn in there):
        return found
    return found._replace(name=f"{found.name} in the rule of {rules.pop()}")


def _derivatives(jaxpr, names, moves, modes) -> Callable:
    """Reverse and forward derivatives of a program, equation by equation.

    Returns:
        A function of the values and slopes of `names` and of the cotangents of the
        results. For each equation it returns the cotangents of its results, of its
        operands (by reverse mode), and the slopes of its results (by forward mode),
        each a list or None.
    """

    def derivatives(values, slopes, cotangents):
        value, slope = (dict(zip(names, x, strict=True)) for x in (values, slopes))
        back = {v: jnp.zeros(v.aval.shape, v.aval.dtype) for v in names if v in moves}
        for v, u in zip(jaxpr.outvars, cotangents, strict=True):
            if not isinstance(v, core.Literal) and v in moves and u is not None:
                back[v] += jnp.asarray(u, v.aval.dtype)
        made = []
        for eqn in reversed(jaxpr.eqns):
            x, y = _moving(eqn, moves)
            needed = list(dict.fromkeys(_variables(eqn)))
            run = function_of(jaxpr, [eqn], needed, y)

            def f(*xs, run=run, needed=needed, x=x):
                moved = value | dict(zip(x, xs, strict=True))
                return run(*(moved[v] for v in needed))

            at, cotangents = [value[v] for v in x], [back[v] for v in y]
            rays = [jnp.asarray(slope[v], v.aval.dtype) for v in x]
            pulled = pushed = None
            try:  # code behind stop_gradient may lack a derivative in this mode
                if x and y and "rev" in modes:
                    pulled = jax.vjp(f, *at)[1](cotangents)
                if x and y and "fwd" in modes:
                    pushed = jax.jvp(f, at, rays)[1]
            except Exception as error:
                if not mode_is_missing(error):
                    raise
            for v, more in zip(x, pulled or (), strict=bool(pulled)):
                back[v] += more
            made.append((cotangents, pulled, pushed))
        return made[::-1]

    return derivatives


def _errors(jaxpr, moves, slopes, doubts, parts, rounding) -> np.ndarray:
    """The error that each equation adds, relative to what rounding explains.

    It is inf where a derivative stops being finite. `slopes` and `doubts` belong to the
    moving variables, `parts` to each equation (see `_derivatives`); `rounding` is the
    rounding error of a slope, relative to the largest slope.
    """
    found = []
    for eqn, (u, pulled, pushed) in zip(jaxpr.eqns, parts, strict=True):
        x, y = _moving(eqn, moves)
        ty, dy = ([t[v] for v in y] for t in (slopes, doubts))
        off: Any = 0.0
        only = pulled is None and pushed is not None  # forward mode
        weights = [np.ones_like(t) for t in ty] if only else u
        unsure = _dot(weights, dy, np.abs)
        if pulled is not None:
            off = abs(_dot(u, ty) - _dot(pulled, [slopes[v] for v in x]))
            unsure += _dot(pulled, [doubts[v] for v in x], np.abs)
        if pushed is not None:
            gaps = [a - b for a, b in zip(ty, pushed, strict=True)]
            off = max(off, abs(_dot(weights, gaps, np.abs if only else np.real)))
        if _are_finite(u) and not _are_finite(pulled or ()):
            off = np.inf
        if pulled is None and pushed is None and x and y and own_rules([eqn]):
            off = np.inf  # as a whole it has no derivative, but what is inside has
        found.append((off, unsure, _dot(weights, ty, np.abs)))
    added, doubt, size = np.array(found).reshape(-1, 3).T
    with np.errstate(all="ignore"):
        ratio = added / (4 * doubt + rounding * size.max(initial=0.0))
    return np.where(np.isinf(added), np.inf, ratio)


def _names_axes(eqn) -> bool:
    """Whether an equation only exists inside of a `shard_map`."""
    axes = eqn.params.get("axes", ())
    return "axis_name" in eqn.params or any(isinstance(axis, str) for axis in axes)


def _dot(a, b, kind: Callable = np.real) -> float:
    """The sum of products, where 0 times infinity is 0."""
    with np.errstate(all="ignore"):
        pairs = ((_wide(x), _wide(y)) for x, y in zip(a, b, strict=True))
        products = (kind(np.where((x == 0) | (y == 0), 0, x * y)) for x, y in pairs)
        return float(sum(map(np.sum, products)))


def _are_finite(xs) -> bool:
    return not _first_bad(xs)


def _first_bad(xs) -> str:
    """The first non-finite number and its place, or ""."""
    for x in map(_wide, xs):
        if bad := np.argwhere(~np.isfinite(x)).tolist():
            return f"{x[tuple(bad[0])]} at entry {bad[0]}"
    return ""


def _moving(eqn, moves) -> tuple[list[Any], list[Any]]:
    """The moving variables that an equation reads, and those it writes."""
    read = [v for v in dict.fromkeys(_variables(eqn)) if v in moves]
    return read, [v for v in eqn.outvars if v in moves]


def _variables(eqn) -> Iterator[Any]:
    return (v for v in eqn.invars if not isinstance(v, core.Literal))


def _is_inexact(v: Any) -> bool:
    return is_named(v) and jnp.issubdtype(v.aval.dtype, jnp.inexact)


def _inside(eqn, given: _Given, modes, dtype) -> Iterator[tuple[Any, _Given]]:
    """The programs inside an equation, and their arguments."""
    name, params = eqn.primitive.name, eqn.params
    args, moving, rays, cotangents = given
    if name in CALLS and CALLS[name] in params:
        yield params[CALLS[name]], given
    elif modes and name in RULES and own_rules(bodies_of(eqn)[0].eqns):
        yield params[RULES[name]], given
    elif name == "shard_map" and params["mesh"].size == 1:
        if not any(map(_names_axes, all_equations(params["jaxpr"].eqns))):
            yield params["jaxpr"], given
    elif name == "cond":
        branch = int(np.clip(int(args[0]), 0, len(params["branches"]) - 1))
        its = _Given(args[1:], moving[1:], rays[1:], cotangents)
        yield params["branches"][branch], its
    elif name in ("scan", "while"):
        steps = of_scan(eqn, args) if name == "scan" else of_while(params, args)
        for i in ranked(steps, moving, modes, dtype, ROUNDS):
            args, moves = steps.given(i, moving)
            yield steps.body, _Given(args, moves)


def _wide(x: Any) -> np.ndarray:
    x = np.asarray(x)
    return x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)


def _name(eqn) -> str:
    name = str(eqn.primitive.name)
    rule = rule_of(eqn).partition(" at ")[0] if name.startswith("custom_") else ""
    return f"{name.removesuffix('_call')} of {rule}" if rule else name
