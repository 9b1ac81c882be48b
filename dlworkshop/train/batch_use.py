"""Whether a step looks at the other examples of its batch, through `BATCH_AXES`.

JAX's collectives (`jax.lax.pmean`, `all_gather`, ...) see the examples that are
computed together: a micro-batch, or the part of the batch on one device. A loss over
the batch is right only if that is the whole batch.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
from jax.extend import core

from dlworkshop.errors import UserError
from dlworkshop.jaxprs import all_equations, bodies_of
from dlworkshop.learn.objective import in_words
from dlworkshop.learn.step import TrainSpec, make_example_fn
from dlworkshop.models.model import BATCH, BATCH_AXES, EXAMPLE
from dlworkshop.types import Array, Batch, HParams, PyTree, TrainState


class BatchUse(NamedTuple):
    """What a step needs of its batch."""

    whole: bool = False  # it looks at other examples: micro-batches would change it
    on_one_device: bool = False  # those of other devices, which it would not see


def batch_use(
    spec: TrainSpec, train: TrainState, batch: Batch, hparams: HParams
) -> BatchUse:
    """What a step needs of its batch, of which it names an axis.

    Args:
        spec: of the step.
        train, batch: shapes, [B, ...] of the batch.
        hparams: name -> [].

    Raises:
        UserError: if the objective looks at the axis of the devices alone.
    """
    values_of = make_example_fn(spec)

    def loss(params: PyTree, state: PyTree, *rest: Any) -> tuple[Array, PyTree]:
        values, state = values_of(params, state, *rest, jax.random.key(0))
        return values["loss"], (values, state)

    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batch)
    args = train.params, train.state, one, hparams
    whole = _program(loss, args, {EXAMPLE: 4, BATCH: 1})
    seen = list(_collectives(whole))
    if seen and all(EXAMPLE not in axes for axes, _ in seen):
        raise UserError(
            f"{in_words(spec.objective)} looks at the axis '{BATCH}' alone, which is "
            f"that of the devices: give models.BATCH_AXES, {BATCH_AXES}, for all "
            "examples of a batch"
        )
    try:
        split = _program(loss, args, {EXAMPLE: 2, BATCH: 2})
        same = bool(seen) and _numbers(split) == _numbers(whole)  # as of axis_size
    except Exception:  # it needs arrays of the size of one axis
        same = False
    return BatchUse(True, not same or not all(of_both for _, of_both in seen))


@contextlib.contextmanager
def no_batch_without_key(what: str) -> Iterator[None]:
    """Refuse an objective or a metric that looks at its batch in evaluation."""
    try:
        yield
    except NameError as error:
        if not any(f"axis name: {axis}" in str(error) for axis in BATCH_AXES):
            raise
        raise UserError(
            f"{what} looks at its batch without a key, where it sees one example at a "
            "time: give an objective that looks at the batch only if its key is not "
            "None, and returns a loss of the example alone otherwise"
        ) from error


def _program(function: Callable, args: tuple, sizes: Mapping[str, int]) -> core.Jaxpr:
    """The program of one example of a batch with these axes."""
    return jax.make_jaxpr(function, axis_env=list(sizes.items()))(*args).jaxpr


def _collectives(jaxpr: core.Jaxpr) -> Iterator[tuple[set[str], bool]]:
    """The axes of each collective, at any depth, and whether it is one over both."""
    for equation in jaxpr.eqns:
        for inner in bodies_of(equation):
            yield from _collectives(inner)
        if axes := _axes(equation):
            yield axes, len(axes) == len(BATCH_AXES) or _is_half(equation, jaxpr)


def _is_half(equation: core.JaxprEqn, jaxpr: core.Jaxpr) -> bool:
    """Whether a collective over one axis is half of one over both, as `all_examples`.

    Then its result goes into one over the other axis only, or comes from one.
    """

    def is_other(near: core.JaxprEqn) -> bool:
        return _axes(near) == set(BATCH_AXES) - _axes(equation)

    (result,), (argument, *_) = equation.outvars, [*equation.invars, None]
    readers = [e for e in jaxpr.eqns if any(x is result for x in e.invars)]
    makers = [e for e in jaxpr.eqns if any(x is argument for x in e.outvars)]
    alone = not readers or any(x is result for x in jaxpr.outvars)
    return any(map(is_other, makers)) or (not alone and all(map(is_other, readers)))


def _axes(equation: core.JaxprEqn) -> set[str]:
    """Those of `BATCH_AXES` that a collective names."""
    named = [equation.params.get(name) for name in ("axes", "axis_name")]
    return {name for name in jax.tree.leaves(named) if name in BATCH_AXES}


def _numbers(jaxpr: core.Jaxpr) -> list[str]:
    """The constants in a program, at any depth."""
    operands = (x for eqn in all_equations(jaxpr.eqns) for x in eqn.invars)
    return [str(x.val) for x in operands if isinstance(x, core.Literal)]
