"""Diagnosis of a failed member: the operation behind the first non-finite number."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core, source_info_util

from dlworkshop.jaxprs import CALLS, RULES, carry_of_scan, opened
from dlworkshop.learn.hparams import name_of
from dlworkshop.learn.population import (
    GRADIENT,
    LOSS,
    OPTIMIZER,
    QUARANTINED,
    Population,
)
from dlworkshop.learn.step import (
    make_new_opt_state,
    make_own_step,
    make_train_step,
)
from dlworkshop.train.compiling import compiler_options
from dlworkshop.train.plan import Plan
from dlworkshop.train.task import Task
from dlworkshop.types import Batch, HParams, TrainState

log = logging.getLogger(__name__)

FOLLOWED = CALLS | RULES  # calls
STEPS = 1000  # the most steps that are repeated at the end of a run


def explain_failure(plan: Plan, population: Population) -> tuple[int, str] | None:
    """Explain in a sentence why the first member that was quarantined failed.

    The steps since its last finite state are repeated. That compiles a step of one
    member, and another one if its parameters failed, which takes about as long as it
    took for the run. So it is done for one member only, and not while settings are
    chosen (`read_test=False`) unless all members failed.

    Returns:
        The member and the sentence; None if no member failed, or it is not explained.
    """
    failed = np.asarray(population.status) >= QUARANTINED
    if not failed.any() or not (plan.asked.read_test or failed.all()):
        return None
    steps = np.asarray(population.train.step)
    member = int(np.argmin(np.where(failed, steps, np.iinfo(steps.dtype).max)))
    device = plan.mesh.devices.flat[0]
    why = explain(plan, population, member, device, STEPS)
    return (member, why) if why else None


def explain(
    task: Task,
    population: Population,
    member: int,
    device: jax.Device,
    most: int,
    watch: Callable | None = None,
) -> str:
    """Repeat the steps of a member that failed, and name the operation that did it.

    Args:
        task: of the run, with the hyper-parameters at the end.
        population: with the last finite state of the member.
        member: its number.
        device: where it is repeated.
        most: the most steps that are repeated.
        watch: called with each step that is repeated: its number from 0, the parameters
            before it, and its loss, gradient (() with a custom step) and new
            parameters. Without it, a step that is known to fail is not repeated.

    Returns:
        A sentence, or "" if all is finite now, or the operation was not found.
    """
    of_all = population.train, dict(task.hparams)
    train, numbers = jax.device_put(jax.tree.map(lambda x: x[member], of_all), device)
    if int(population.status[member]) == OPTIMIZER:
        return _overflowed(task, train, numbers)
    step = _values_of_a_step(task)
    first = int(train.step)
    # then its state is that before the step that failed
    known = int(population.status[member]) in (LOSS, GRADIENT)
    advance = jax.jit(step, compiler_options=compiler_options(device.platform))
    for at in range(first, min(first + (1 if known else most), task.num_steps)):
        rows = task.order.steps(at, 1, [member])[0, 0]
        batch = jax.tree.map(jnp.asarray, task.dataset.train.rows(rows))
        if known and watch is None:
            break
        values, after = advance(train, batch, numbers)
        if watch is not None:
            watch(at, train.params, values)
        if not _finite(values):
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


def _overflowed(task: Task, train: TrainState, numbers: HParams) -> str:
    """The first array of the optimizer's state that overflowed."""
    fresh = jax.tree.leaves(make_new_opt_state(task.spec)(train, numbers))
    now = jax.tree.leaves_with_path(train.opt_state)
    for (path, leaf), new in zip(now, fresh, strict=True):
        is_number = jnp.issubdtype(leaf.dtype, jnp.inexact)
        if is_number and _finite(new) and not _finite(leaf):
            where = f"opt_state{jax.tree_util.keystr(path)}"
            return (
                f"{where} of {name_of(task.spec.optimizer)} is not finite: clip the "
                "gradients, as optimizers.clipped does, or divide the loss by a "
                "constant"
            )
    return ""


def _values_of_a_step(task: Task) -> Callable:
    """(train, batch, hparams) -> (loss, gradient, new parameters), new train state."""
    ours = make_train_step(task.spec)
    own = None
    if task.asked.make_step is not None:
        own = make_own_step(task.asked.make_step, ours, task.spec.routes.make_step)

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
    paths = [
        f"{name}{jax.tree_util.keystr(path)}"
        for name, tree in zip(names, args, strict=True)
        for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    ]
    causes = _causes(closed, jax.tree.leaves(args), paths)
    for name, tree in zip(outputs, shapes, strict=True):
        for path, _ in jax.tree_util.tree_leaves_with_path(tree):
            if cause := next(causes):
                where = f"{name}{jax.tree_util.keystr(path)}"
                return f"{where} is not finite because of {cause}"
    return ""  # all is finite here; two programs differ in rounding


def _causes(closed, leaves: Sequence, paths: Sequence[str]) -> Iterator[str]:
    """For each output of a jaxpr why it is not finite, or "" if it is."""
    tape = _Tape()

    def flags(*leaves):
        ends = tape.run(closed.jaxpr, closed.consts, leaves)
        tape.ends = [tape.place(value) for value in ends]
        return [_all_finite(value) for value in tape.values]

    finite = [bool(f) for f in jax.jit(flags)(*leaves)]

    def inputs_of(eqn, places: list[int]) -> list:
        """The values of the inputs of an operation, by the same program again."""

        def values(*leaves):
            again = _Tape()
            again.run(closed.jaxpr, closed.consts, leaves)
            return [again.values[place] for place in places]

        found = iter(jax.jit(values)(*leaves))
        return [
            next(found)
            if hasattr(getattr(atom, "val", atom.aval), "dtype")
            else atom.val
            for atom in eqn.invars
        ]

    for end in tape.ends:
        yield "" if finite[end] else _cause(tape, finite, end, paths, inputs_of)


def _cause(tape: "_Tape", finite: list[bool], end: int, paths, inputs_of) -> str:
    while (made := tape.made_by.get(end)) is not None:
        eqn, inputs = made
        bad = [place for place in inputs if not finite[place]]
        if not bad:
            within = ""
            if eqn.primitive.name == "scan":
                within = _within_scan(eqn, inputs_of(eqn, inputs))
            where = source_info_util.summarize(eqn.source_info)
            where = where.removeprefix(os.getcwd() + os.sep)
            return within or f"{eqn.primitive.name} at {where}".removesuffix(" at ")
        end = bad[0]
    named = tape.given.index(end) if end in tape.given else None
    return "a constant" if named is None else paths[named]


def _within_scan(scan, inputs: list) -> str:
    """The operation in the body of a scan, in its first turn that is not finite."""
    body, length = scan.params["jaxpr"], scan.params["length"]
    if not hasattr(body, "jaxpr"):
        body = core.ClosedJaxpr(body, ())
    place = carry_of_scan(scan.invars, scan.outvars, body)
    consts, carry = inputs[: place.start], inputs[place]
    columns = inputs[place.stop :]
    turn = jax.jit(core.jaxpr_as_fun(body))
    for at in reversed(range(length)) if scan.params["reverse"] else range(length):
        args = [*consts, *carry, *(column[at] for column in columns)]
        found = turn(*args)
        if not _finite(found):
            return next(filter(None, _causes(body, args, [""] * len(args))), "")
        carry = found[: len(carry)]
    return ""


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
            called = eqn.params.get(FOLLOWED.get(eqn.primitive.name))
            if called is not None:
                found = self.run(*opened(called), inputs)
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
