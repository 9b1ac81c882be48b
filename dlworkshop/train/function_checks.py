"""Checks of the functions given to `fit` besides model and loss, by tracing them."""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.interpreters import partial_eval

from dlworkshop.errors import UserError, one_sentence, repr_of
from dlworkshop.learn import schedules
from dlworkshop.learn.hparams import Routes, given, keywords, name_of
from dlworkshop.learn.objective import in_words
from dlworkshop.learn.step import (
    TrainSpec,
    TrainStep,
    make_own_step,
    make_train_step,
)
from dlworkshop.models.model import as_float, input_struct
from dlworkshop.train.mesh import row_structs
from dlworkshop.types import Batch, HParams, PyTree, TrainState


def traced(
    function: Callable, numbers: HParams, *others: PyTree
) -> tuple[core.ClosedJaxpr, PyTree]:
    """The program of `function(*others, numbers)`, numbers first, and its result."""
    return jax.make_jaxpr(
        lambda numbers, others: function(*others, numbers), return_shape=True
    )(numbers, others)


def used(program: core.ClosedJaxpr, wanted: Sequence[bool] | None = None) -> list[bool]:
    """Whether each argument of a program affects its results, or the `wanted` ones.

    >>> program = jax.make_jaxpr(lambda a, b: (a, 2 * b))(1.0, 2.0)
    >>> used(program), used(program, [False, True])
    ([True, True], [False, True])
    """
    wanted = [True] * len(program.jaxpr.outvars) if wanted is None else wanted
    return partial_eval.dce_jaxpr(program.jaxpr, wanted)[1]


def check_effects(
    routes: Routes,
    numbers: HParams,
    begun: core.ClosedJaxpr,
    programs: Sequence[core.ClosedJaxpr],
    later: Collection[str] = (),
) -> None:
    """Refuse a hyper-parameter that affects nothing.

    Args:
        routes: which function takes which.
        numbers: name -> [].
        begun: from `traced`, the initialisation of one member.
        programs: likewise, everything else that a run computes for one member.
        later: names of those that must have an effect after the initialisation.

    Raises:
        UserError: names the hyper-parameter and its function.
    """
    alive = np.any([used(program)[: len(numbers)] for program in programs], axis=0)
    first = used(begun)[: len(numbers)]
    for name, at_first, has_effect in zip(sorted(numbers), first, alive, strict=True):
        if at_first and not has_effect and name in later:
            raise UserError(
                f"hyper-parameter '{name}' has no effect after step 0, because it is "
                "kept in the optimizer's state, which a start with opt_state or a "
                "scheduler takes from another run or member: build the optimizer from "
                "the number itself, without inject_hyperparams, or leave it out"
            )
        if not at_first and not has_effect:
            takes = [r for r, of in routes._asdict().items() if name in of.values()]
            raise UserError(
                f"hyper-parameter '{name}' has no effect, because the {takes[0]} takes "
                "it but no step depends on it: use it there, or leave it out"
            )


def check_schedule_effect(
    spec: TrainSpec,
    make_step: Callable | None,
    numbers: HParams,
    train: TrainState,
    batch: Batch,
) -> None:
    """Refuse a schedule that no step depends on."""
    if spec.schedule is schedules.constant:
        return

    def take(numbers, train, batch, factor):
        def schedule(num_steps, **own):
            return lambda step: factor

        step: Any = make_train_step(
            spec._replace(schedule=schedule, batch_transform=None)
        )
        if make_step is not None:
            step = make_own_step(make_step, step, spec.routes.make_step)
        return step(train, batch, numbers)

    program = jax.make_jaxpr(take)(numbers, train, batch, jnp.ones(()))
    if not used(program)[-1]:
        reader = spec.optimizer if make_step is None else make_step
        raise UserError(
            f"the schedule {name_of(spec.schedule)} has no effect, because "
            f"{name_of(reader)} does not use the learning rate of each step: use it "
            "there (a rate that is kept in the optimizer's state is that of step 0), "
            "or leave the schedule out"
        )


def check_gradient(spec: TrainSpec, program: core.ClosedJaxpr, num_grads: int) -> None:
    """Refuse a loss whose gradient is 0 whatever the parameters and the batch.

    Args:
        spec: of the step.
        program: of a step; its last results are the gradient.
        num_grads: the number of arrays in the gradient.
    """
    rest = len(program.jaxpr.outvars) - num_grads
    wanted = [False] * rest + [True] * num_grads
    constant, needed = partial_eval.dce_jaxpr(program.jaxpr, wanted)
    if any(needed) or not num_grads:
        return
    grads = core.jaxpr_as_fun(core.ClosedJaxpr(constant, program.consts))()
    if not any(np.any(leaf) for leaf in grads):
        raise UserError(
            f"the gradient of {in_words(spec.objective)} is 0 for all parameters, so "
            "nothing can be learnt: leave out its stop_gradient, or minimise something "
            "smooth (the number of errors has no slope)"
        )


def check_updates(
    spec: TrainSpec, step: TrainStep, train: TrainState, numbers: Mapping[str, Any]
) -> None:
    """Check the shapes of the optimizer's updates and of its new state."""
    name, loss = name_of(spec.optimizer), {"loss": jnp.zeros(())}
    found = jax.eval_shape(step.updates, train, train.params, loss, numbers)
    for what, new, old in (
        ("an update", found[0], train.params),
        ("a new state", found[1], train.opt_state),
    ):  # another structure raises when the step is traced
        for (path, now), before in zip(
            jax.tree.leaves_with_path(new), jax.tree.leaves(old), strict=False
        ):
            if now.shape != before.shape:
                raise UserError(
                    f"the optimizer {name} returns {what} of shape {list(now.shape)} "
                    f"for {jax.tree_util.keystr(path)} of shape {list(before.shape)}: "
                    "return the same shape"
                )


def check_schedule(spec: TrainSpec, numbers: Mapping[str, Any]) -> None:
    """Check that a schedule is num_steps -> (step -> number)."""
    name, own = name_of(spec.schedule), given(spec.routes.schedule, numbers)
    first = next(iter(keywords(spec.schedule)), "")
    if first.endswith("value"):  # of optax, and the number of steps would be the value
        raise UserError(
            f"the schedule {name} takes '{first}' first, and is given the number of "
            "steps: give num_steps -> (step -> multiplier), as lambda num_steps: "
            "optax.cosine_decay_schedule(1.0, num_steps)"
        )
    with one_sentence(f"the schedule {name} cannot be made from num_steps"):
        made = spec.schedule(spec.num_steps, **own)
    if not callable(made):
        raise UserError(
            f"the schedule {name} returns {repr_of(made)} for num_steps, but must "
            "return a function of the step: give num_steps -> (step -> multiplier), as "
            "lambda num_steps: optax.cosine_decay_schedule(1.0, num_steps)"
        )
    with one_sentence(f"the function that the schedule {name} returns takes no step"):
        factor = jax.eval_shape(made, jax.ShapeDtypeStruct((), jnp.result_type(float)))
    _check_scalars(f"the schedule {name}", {"a multiplier": factor})


def check_eval_params(spec: TrainSpec, train: TrainState) -> None:
    """Check that `eval_params` is (opt_state, params) -> params of the same form."""
    if spec.eval_params is None:
        return
    name = name_of(spec.eval_params)
    with one_sentence(f"eval_params {name} does not take (opt_state, params)"):
        made = jax.eval_shape(spec.eval_params, train.opt_state, train.params)
    if form_of(made) != form_of(train.params):
        raise UserError(
            f"eval_params {name} returns other arrays, shapes or dtypes than those of "
            "the parameters: return parameters of the same form, such as averages"
        )


def _probed(spec: TrainSpec, train: TrainState) -> Any:
    """What the probe returns, as shapes; {} without a probe."""
    if spec.probe is None:
        return {}
    name = name_of(spec.probe)
    with one_sentence(f"the probe {name} does not take (grads, updates, params)"):
        return jax.eval_shape(spec.probe, *[train.params] * 3)


def check_probe(spec: TrainSpec, train: TrainState) -> None:
    """Check that a probe is (grads, updates, params) -> {name: scalar}."""
    if spec.probe is None:
        return
    name, found = name_of(spec.probe), _probed(spec, train)
    if not isinstance(found, Mapping):
        raise UserError(f"the probe {name} returns no dict: return {{name: scalar}}")
    _check_scalars(f"the probe {name}", found)
    if taken := sorted({"loss", *spec.metrics} & set(found)):
        raise UserError(
            f"the probe {name} returns '{taken[0]}', which is logged already: give it "
            "another name"
        )


def check_batch_transform(
    spec: TrainSpec, two: Batch, size: int, numbers: Mapping[str, Any]
) -> tuple[core.ClosedJaxpr, Batch]:
    """Check that the transform is (key, batch) -> batch.

    Returns:
        Its program, and the batch that it returns, as shapes.
    """
    transform: Any = spec.batch_transform
    name, routes = name_of(transform), spec.routes.batch_transform
    two = two._replace(
        inputs=input_struct(two.inputs), targets=input_struct(two.targets)
    )
    for count in (size, 2):
        whole = row_structs(two, count)
        with one_sentence(f"the batch_transform {name} does not take (key, batch)"):
            program, made = traced(
                lambda batch, numbers: transform(
                    jax.random.key(0), batch, **given(routes, numbers)
                ),
                numbers,
                whole,
            )
        if not isinstance(made, Batch):
            raise UserError(
                f"the batch_transform {name} returns {repr_of(made)}: return "
                "batch._replace(inputs=..., targets=...)"
            )
        if two.weights is not None and made.weights is None:
            raise UserError(
                f"the batch_transform {name} drops the weights of the examples: return "
                "batch._replace(inputs=..., targets=...), which keeps them"
            )
        sizes = {leaf.shape[0] if leaf.shape else 0 for leaf in jax.tree.leaves(made)}
        if len(sizes) != 1:
            raise UserError(
                f"the batch_transform {name} returns {sorted(sizes)} examples in the "
                f"arrays of a batch of {count}: return as many in all arrays"
            )
    return program, made


def transformed_targets(
    spec: TrainSpec, few: Batch, numbers: Mapping[str, Any]
) -> PyTree:
    """The targets that the batch transform makes of a batch, as arrays."""
    transform: Any = spec.batch_transform
    inputs, targets = as_float((few.inputs, few.targets))
    batch = few._replace(inputs=inputs, targets=targets)
    key, own = jax.random.key(0), given(spec.routes.batch_transform, numbers)
    return jax.jit(lambda key, batch: transform(key, batch, **own).targets)(key, batch)


@contextlib.contextmanager
def no_plain_step(spec: TrainSpec) -> Iterator[None]:
    """Refuse an optimizer that needs more than a plain step provides."""
    name = name_of(spec.optimizer)
    try:
        yield
    except TypeError as error:
        if "'value_fn'" not in str(error):
            raise
        raise UserError(
            f"{name} has a line search, which needs several losses per update, but a "
            "step computes one: give it without a line search, as functools.partial("
            "optax.lbfgs, linesearch=None), or take the updates yourself in a "
            "make_step, without step.updates"
        ) from error
    except AttributeError as error:
        if "'fast'" not in str(error):
            raise
        raise UserError(
            f"{name} looks ahead and keeps two sets of parameters, but a step has one: "
            "take the updates yourself in a make_step, without step.updates, or give "
            "an average of the parameters with eval_params"
        ) from error


def _check_scalars(what: str, numbers: Mapping[str, Any]) -> None:
    for name, value in numbers.items():
        if not hasattr(value, "shape"):
            raise UserError(
                f"{what} returns {name}, which is not a number: return scalars"
            )
        if jnp.issubdtype(value.dtype, jnp.complexfloating):
            raise UserError(
                f"{what} returns {name}, which is complex: return real numbers"
            )
        if value.shape:
            raise UserError(
                f"{what} returns {name} of shape {list(value.shape)}: return scalars"
            )


def check_own_step(
    spec: TrainSpec,
    make_step: Callable,
    step: TrainStep,
    numbers: Mapping[str, Any],
    train: TrainState,
    batch: Batch,
) -> core.ClosedJaxpr:
    """Check that a custom step has the signature of ours; returns its program."""
    step_of, asked = f"the step of {name_of(make_step)}", []

    def gradient(*args):
        asked.append("gradient")
        return step.gradient(*args)

    with one_sentence(f"{step_of} cannot be taken"), no_plain_step(spec):
        seen = TrainStep(gradient, step.updates)
        own = make_own_step(make_step, seen, spec.routes.make_step)
        program, found = traced(own, numbers, train, batch)
    pair = isinstance(found, tuple) and len(found) == 2
    if not pair or not isinstance(found[1], Mapping) or "loss" not in found[1]:
        raise UserError(
            f"{step_of} does not return (train, metrics) with a metrics['loss']: "
            "return both"
        )
    if form_of(found[0]) != form_of(train):
        raise UserError(
            f"{step_of} returns a train state with other arrays, shapes or dtypes than "
            "it was given: return train._replace(...) with the same"
        )
    _check_scalars(step_of, found[1])
    if spec.batch_transform is not None and not asked:
        raise UserError(
            f"{step_of} does not call step.gradient, which applies the batch_transform "
            f"{name_of(spec.batch_transform)}: call it, or transform the batch in the "
            "step and leave batch_transform out"
        )
    if lost := sorted(_probed(spec, train).keys() - found[1].keys()):
        raise UserError(
            f"{step_of} does not return '{lost[0]}' of the probe "
            f"{name_of(spec.probe)}: add the third result of step.updates to its "  # type: ignore[arg-type]
            "metrics, or leave probe out"
        )
    counter = [True] + [False] * (len(program.jaxpr.outvars) - 1)  # train.step
    counts, taken = partial_eval.dce_jaxpr(program.jaxpr, counter)
    own_step = len(numbers)  # the place of train.step among the arguments
    if not any(taken[:own_step] + taken[own_step + 1 :]):  # it depends on nothing else
        first = [np.int32(0)] * sum(taken)
        (after,) = core.jaxpr_as_fun(core.ClosedJaxpr(counts, program.consts))(*first)
        if after <= 0:
            raise UserError(
                f"{step_of} does not count steps: return train._replace("
                "step=train.step + 1), which schedules and randomness depend on"
            )
    return program


def form_of(tree: Any) -> str:
    """The structure of a tree, and the shapes and dtypes of its arrays."""
    leaves, form = jax.tree.flatten(tree)
    return f"{form} {[(leaf.shape, leaf.dtype) for leaf in leaves]}"
