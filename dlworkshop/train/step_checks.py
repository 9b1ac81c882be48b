"""One step of one member is traced, and what cannot be is refused in one sentence."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.interpreters import partial_eval

from dlworkshop.data.content import SPLITS
from dlworkshop.errors import UserError, repr_of
from dlworkshop.learn.checks import check_targets
from dlworkshop.learn.hparams import given, name_of
from dlworkshop.learn.step import (
    TrainSpec,
    TrainStep,
    bound,
    init_state,
    make_eval_step,
    make_own_step,
    make_train_step,
)
from dlworkshop.models.checks import check_one_example, check_state
from dlworkshop.models.model import input_struct
from dlworkshop.train.checks import example_shapes, one_sentence
from dlworkshop.types import Batch, Dataset, TrainState


def check_step(
    spec: TrainSpec,
    make_step: Callable | None,
    dataset: Dataset,
    hparams: Mapping[str, Any],
    outputs: str | None,
    batch_size: int,
) -> core.ClosedJaxpr:
    """One step of one member can be traced, and gives a scalar loss and metrics.

    Args:
        spec: of the step.
        make_step: what makes a step of the user's of it, see `fit`.
        dataset: whose targets are looked at, in every split.
        hparams: name -> [P].
        outputs: what the outputs of the model are, as of `losses.outputs_of`.
        batch_size: of the batches that a batch transform is given.

    Returns:
        What such a step, the engine's own, does with two examples, its batch transform
        apart.
    """
    batch = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((2, *leaf.shape[1:]), leaf.dtype),
        dataset.train,
    )
    example = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype),
        dataset.train.inputs,
    )
    numbers = {name: jnp.asarray(values[0], float) for name, values in hparams.items()}
    key = jax.random.key(0)
    words = f"an example of '{dataset.name}' ({example_shapes(dataset.train)})"
    with one_sentence(f"the model does not take {words}"):
        jax.eval_shape(lambda e: spec.model.init(key, e), input_struct(example))
    _check_schedule(spec, numbers)
    with one_sentence("the optimizer cannot be built from traced numbers"):
        train = jax.eval_shape(
            lambda numbers, e: init_state(spec, numbers, key, e), numbers, example
        )
    numbers_of_model = given(spec.routes.model, numbers)
    model = bound(spec.model, numbers_of_model)
    with one_sentence(f"the model does not take {words}"):
        made, _ = jax.eval_shape(
            model.apply, train.params, train.state, input_struct(example)
        )
    with one_sentence(f"the model does not take {words}"):
        check_state(
            spec.model, train.params, train.state, batch.inputs, **numbers_of_model
        )
    few = jax.tree.map(lambda leaf: np.asarray(leaf[:2]), dataset.train.inputs)
    check_one_example(spec.model, train.params, train.state, few, **numbers_of_model)
    shapes = [leaf.shape for leaf in jax.tree.leaves(made)]
    for name in SPLITS:
        targets = getattr(dataset, name).targets
        check_targets(
            targets,
            outputs,
            dataset.classes,
            shapes[0] if len(shapes) == 1 else (),
            f"the targets of the {name} split of '{dataset.name}'",
        )
    args = train.params, train.state, batch, numbers
    try:
        evaluated, found = jax.make_jaxpr(make_eval_step(spec), return_shape=True)(
            *args
        )
    except Exception:
        for name, one in ("loss", None), *spec.metrics.items():  # which of them?
            spoken_of = f"the metric '{name}'" if one else "the loss"
            alone = spec._replace(metrics={name: one} if one else {})
            with one_sentence(f"{spoken_of} does not take {words}"):
                jax.eval_shape(make_eval_step(alone), *args)
        raise
    count = len(jax.tree.leaves(train.params))
    wanted = [name == "loss" for name in sorted(found.scores)]
    _, used = partial_eval.dce_jaxpr(evaluated.jaxpr, wanted)
    if count and not any(used[:count]):
        raise UserError(
            "the loss does not depend on the parameters, and nothing can be learnt: "
            "compute it from the outputs of the model"
        )
    _check_eval_params(spec, train)
    step = make_train_step(spec)
    if spec.batch_transform is not None:
        batch = _check_batch_transform(spec, batch, batch_size, numbers)
        step = make_train_step(spec._replace(batch_transform=None))
    _check_probe(spec, train)
    with one_sentence("a step of training cannot be taken"), _line_searches(spec):
        traced = jax.make_jaxpr(step)(train, batch, numbers)
    if make_step is not None:
        _check_own_step(spec, make_step, step, (train, batch, numbers))
    return traced


def _check_schedule(spec: TrainSpec, numbers: Mapping[str, Any]) -> None:
    """It is num_steps -> (step -> one number)."""
    name, own = name_of(spec.schedule), given(spec.routes.schedule, numbers)
    with one_sentence(f"the schedule {name} cannot be made from num_steps"):
        made = spec.schedule(spec.num_steps, **own)
    if not callable(made):
        raise UserError(
            f"the schedule {name} gives {repr_of(made)} for num_steps, and wanted is a "
            "function of the step: give num_steps -> (step -> multiplier), as "
            "lambda num_steps: optax.cosine_decay_schedule(1.0, num_steps)"
        )
    with one_sentence(f"what the schedule {name} makes does not take a step"):
        factor = jax.eval_shape(made, jax.ShapeDtypeStruct((), jnp.result_type(float)))
    _check_scalars(f"the schedule {name}", {"a multiplier": factor})


def _check_eval_params(spec: TrainSpec, train: TrainState) -> None:
    """It is (opt_state, params) -> params of the same form."""
    if spec.eval_params is None:
        return
    name = name_of(spec.eval_params)
    with one_sentence(f"eval_params {name} does not take (opt_state, params)"):
        made = jax.eval_shape(spec.eval_params, train.opt_state, train.params)
    if _form(made) != _form(train.params):
        raise UserError(
            f"eval_params {name} returns other arrays, shapes or dtypes than the "
            "parameters have: return parameters of the same form, as their averages"
        )


def _check_probe(spec: TrainSpec, train: TrainState) -> None:
    """It is (grads, updates, params) -> {name: scalar}."""
    if spec.probe is None:
        return
    name = name_of(spec.probe)
    with one_sentence(f"the probe {name} does not take (grads, updates, params)"):
        found = jax.eval_shape(spec.probe, *[train.params] * 3)
    if not isinstance(found, Mapping):
        raise UserError(f"the probe {name} returns no dict: return {{name: scalar}}")
    _check_scalars(f"the probe {name}", found)
    if taken := sorted({"loss", *spec.metrics} & set(found)):
        raise UserError(
            f"the probe {name} returns '{taken[0]}', which is logged already: give it "
            "another name"
        )


def _check_batch_transform(
    spec: TrainSpec, two: Batch, size: int, numbers: Mapping[str, Any]
) -> Batch:
    """It is (key, batch) -> batch; what it makes of two examples, as shapes."""
    transform: Any = spec.batch_transform
    name, own = name_of(transform), given(spec.routes.batch_transform, numbers)
    two = two._replace(
        inputs=input_struct(two.inputs), targets=input_struct(two.targets)
    )
    for count in (size, 2):
        whole = jax.tree.map(
            lambda leaf, n=count: jax.ShapeDtypeStruct(
                (n, *leaf.shape[1:]), leaf.dtype
            ),
            two,
        )
        with one_sentence(f"the batch_transform {name} does not take (key, batch)"):
            made = jax.eval_shape(
                lambda batch: transform(jax.random.key(0), batch, **own), whole
            )
        if not isinstance(made, Batch):
            raise UserError(
                f"the batch_transform {name} returns {repr_of(made)}: return "
                "batch._replace(inputs=..., targets=...)"
            )
        sizes = {leaf.shape[0] if leaf.shape else 0 for leaf in jax.tree.leaves(made)}
        if len(sizes) != 1:
            raise UserError(
                f"the batch_transform {name} returns {sorted(sizes)} examples in the "
                f"arrays of a batch of {count}: return as many in all"
            )
    return made


@contextlib.contextmanager
def _line_searches(spec: TrainSpec) -> Iterator[None]:
    """Say of an optimizer with a line search that a step has none."""
    try:
        yield
    except TypeError as error:
        if "'value_fn'" not in str(error):
            raise
        raise UserError(
            f"{name_of(spec.optimizer)} has a line search, which asks for many losses "
            "in an update, and a step computes it once: give it without one, as "
            "functools.partial(optax.lbfgs, linesearch=None), or take the step "
            "yourself with make_step"
        ) from error


def _check_scalars(what: str, numbers: Mapping[str, Any]) -> None:
    for name, value in numbers.items():
        if not hasattr(value, "shape"):
            raise UserError(f"{what} gives {name}, which is no number: give scalars")
        if value.shape:
            raise UserError(
                f"{what} gives {name} of shape {list(value.shape)}: give scalars"
            )


def _check_own_step(
    spec: TrainSpec, make_step: Callable, step: TrainStep, args: tuple
) -> None:
    """A step of the user's takes and gives what ours does."""
    step_of = f"the step of {name_of(make_step)}"
    with one_sentence(f"{step_of} cannot be taken"):
        own = make_own_step(make_step, step, spec.routes.make_step)
        found = jax.eval_shape(own, *args)
    pair = isinstance(found, tuple) and len(found) == 2
    if not pair or not isinstance(found[1], Mapping) or "loss" not in found[1]:
        raise UserError(
            f"{step_of} returns something else than (train, metrics) with a "
            "metrics['loss']: return both"
        )
    if _form(found[0]) != _form(args[0]):
        raise UserError(
            f"{step_of} returns a train state of other arrays, shapes or dtypes than "
            "it was given: return train._replace(...) of the same"
        )
    _check_scalars(step_of, found[1])


def _form(tree: Any) -> str:
    leaves, form = jax.tree.flatten(tree)
    return f"{form} {[(leaf.shape, leaf.dtype) for leaf in leaves]}"
