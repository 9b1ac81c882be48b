"""Diagnosis of a failed member: the operation behind the first non-finite number."""

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core, source_info_util

from dlworkshop.learn.population import QUARANTINED, Population
from dlworkshop.learn.step import make_own_step, make_train_step
from dlworkshop.train.compiling import compiler_options
from dlworkshop.train.plan import Plan
from dlworkshop.types import Batch, HParams, TrainState

log = logging.getLogger(__name__)

# Calls that are followed: primitive -> the parameter that holds the called jaxpr.
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
STEPS = 1000  # the most steps that are repeated


def explain_failure(plan: Plan, population: Population) -> str:
    """Explain in a sentence why the first member failed; "" if any member did not.

    The steps since its last finite state are repeated. That compiles two programs,
    which is acceptable for a run without a result. To explain the failure of one of
    several members, train it alone, with its setting and its seed.
    """
    if (np.asarray(population.status) < QUARANTINED).any():
        return ""
    one = jax.tree.map(lambda leaf: leaf[0], (population.train, plan.placed_hparams))
    train, numbers = jax.device_put(one, plan.mesh.devices.flat[0])
    step = _values_of_a_step(plan)
    first = int(train.step)
    platform = plan.mesh.devices.flat[0].platform
    advance = jax.jit(step, compiler_options=compiler_options(platform))
    for at in range(first, min(first + STEPS, plan.num_steps)):
        rows = plan.order.steps(at, 1, [0])[0, 0]
        batch = jax.tree.map(jnp.asarray, plan.dataset.train.rows(rows))
        (loss, grads, params), after = advance(train, batch, numbers)
        if not _finite((loss, grads, params)):
            break
        train = after
    else:
        return ""
    try:
        return origin(
            lambda *args: step(*args)[0],
            ("the loss", "the gradient", "the parameters"),
            (train, batch, numbers),
            ("the member", "the batch", "the hyper-parameters"),
        )
    except Exception:  # of a program that cannot be interpreted
        log.debug("the operation that failed was not found", exc_info=True)
        return ""


def _values_of_a_step(plan: Plan) -> Callable:
    """(train, batch, hparams) -> (loss, gradient, new parameters), new train state."""
    ours = make_train_step(plan.spec)
    own = None
    if plan.asked.make_step is not None:
        own = make_own_step(plan.asked.make_step, ours, plan.spec.routes.make_step)

    def step(train: TrainState, batch: Batch, hparams: HParams):
        if own is not None:
            new, metrics = own(train, batch, hparams)
            return (metrics["loss"], (), new.params), new
        grads, state, metrics = ours.gradient(train, batch, hparams)
        new, _ = ours.advance(train, grads, state, metrics, hparams)
        return (metrics["loss"], grads, new.params), new

    return step


def _finite(tree: Any) -> bool:
    return all(
        np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(tree))
    )


def origin(
    function: Callable, outputs: Sequence[str], args: Sequence, names: Sequence[str]
) -> str:
    """The operation of `function` that caused the first non-finite output.

    The program is followed back from that output, along values that are not finite, to
    an operation whose inputs are all finite. So an infinity that does not reach an
    output, such as that of a mask, is not reported.

    Args:
        function: `args` -> one pytree for each of `outputs`.
        outputs: the names of the outputs.
        args: pytrees.
        names: the names of `args`.

    >>> def f(x):
    ...     hidden = jnp.where(x > 0, jnp.log(x), 0)
    ...     return (hidden / (x - x)).sum(),
    >>> said = origin(f, ["the loss"], [jnp.array([-1.0, 2.0])], ["x"])
    >>> said.startswith("the loss is not finite because of div at ")
    True
    >>> origin(f, ["the loss"], [jnp.array([jnp.inf, 2.0])], ["x"])
    'the loss is not finite because of x'
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    tape = _Tape()

    def flags(*leaves):
        ends = tape.run(closed.jaxpr, closed.consts, leaves)
        tape.ends = [tape.place(value) for value in ends]
        return [_all_finite(value) for value in tape.values]

    finite = [bool(f) for f in jax.jit(flags)(*jax.tree.leaves(args))]
    ends = iter(tape.ends)
    for name, tree in zip(outputs, shapes, strict=True):
        for path, _ in jax.tree_util.tree_leaves_with_path(tree):
            if not finite[end := next(ends)]:
                cause = _cause(tape, finite, end, args, names)
                where = f"{name}{jax.tree_util.keystr(path)}"
                return f"{where} is not finite because of {cause}"
    return "all is finite"  # here; two programs differ in rounding


def _cause(tape: "_Tape", finite: list[bool], end: int, args, names) -> str:
    while (made := tape.made_by.get(end)) is not None:
        eqn, inputs = made
        bad = [place for place in inputs if not finite[place]]
        if not bad:
            where = source_info_util.summarize(eqn.source_info)
            where = where.removeprefix(os.getcwd() + os.sep)
            return f"{eqn.primitive.name} at {where}"
        end = bad[0]
    paths = [
        f"{name}{jax.tree_util.keystr(path)}"
        for name, tree in zip(names, args, strict=True)
        for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    ]
    named = tape.given.index(end) if end in tape.given else None
    return "a constant" if named is None else paths[named]


def _all_finite(value) -> jax.Array:
    if not jnp.issubdtype(value.dtype, jnp.inexact):
        return jnp.array(True)
    return jnp.isfinite(value).all()


class _Tape:
    """The values of a traced program, and the operation that made each."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.made_by: dict[int, tuple[Any, list[int]]] = {}
        self.given: list[int] = []  # the places of the arguments
        self.ends: list[int] = []  # the places of the outputs
        self._places: dict[int, int] = {}

    def place(self, value: Any) -> int:
        """The index of a value, which is added if it is new."""
        if id(value) not in self._places:
            self._places[id(value)] = len(self.values)
            self.values.append(value)  # kept alive, so that its id stays unique
        return self._places[id(value)]

    def run(self, jaxpr, consts, args) -> list:
        """The outputs of a jaxpr, with inner jaxprs recorded too."""
        if not self.given:
            self.given = [self.place(value) for value in args]
        env = dict(
            zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True)
        )

        def read(atom):
            return atom.val if isinstance(atom, core.Literal) else env[atom]

        for eqn in jaxpr.eqns:
            inputs = [read(atom) for atom in eqn.invars]
            called = eqn.params.get(CALLS.get(eqn.primitive.name))
            if called is not None:
                inner = getattr(called, "jaxpr", called)
                found = self.run(inner, getattr(called, "consts", ()), inputs)
            else:
                found = _alone(jaxpr, eqn, inputs)
                arrays = [self.place(v) for v in inputs if hasattr(v, "dtype")]
                for value in found:
                    if value is not None:  # None is an unused output
                        self.made_by[self.place(value)] = eqn, arrays
            env |= zip(eqn.outvars, found, strict=True)
        return [read(atom) for atom in jaxpr.outvars]


def _alone(jaxpr, eqn, inputs: list) -> list:
    """The outputs of one operation for its inputs."""
    given = {
        atom: value
        for atom, value in zip(eqn.invars, inputs, strict=True)
        if not isinstance(atom, core.Literal)
    }
    wanted = [v for v in eqn.outvars if type(v).__name__ != "DropVar"]
    one = jaxpr.replace(constvars=[], invars=list(given), outvars=wanted, eqns=[eqn])
    found = iter(core.jaxpr_as_fun(core.ClosedJaxpr(one, ()))(*given.values()))
    return [next(found) if v in wanted else None for v in eqn.outvars]
