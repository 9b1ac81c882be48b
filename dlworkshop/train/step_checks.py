"""Checks of a step of one member by tracing it, with one sentence for each mistake."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from dlworkshop.data.content import SPLITS
from dlworkshop.errors import UserError, one_sentence
from dlworkshop.learn.checks import check_targets
from dlworkshop.learn.hparams import given, name_of
from dlworkshop.learn.objective import in_words
from dlworkshop.learn.step import (
    TrainSpec,
    TrainStep,
    bound,
    init_state,
    make_eval_step,
    make_train_step,
)
from dlworkshop.models.augment import check_pixels
from dlworkshop.models.checks import (
    beyond,
    check_lookups,
    check_one_example,
    check_state,
)
from dlworkshop.models.model import as_float, input_struct
from dlworkshop.models.model import shapes as shapes_of
from dlworkshop.train.batch_use import BatchUse, batch_use, no_batch_without_key
from dlworkshop.train.checks import example_shapes
from dlworkshop.train.function_checks import (
    check_batch_transform,
    check_effects,
    check_eval_params,
    check_gradient,
    check_own_step,
    check_probe,
    check_schedule,
    check_schedule_effect,
    check_updates,
    form_of,
    no_plain_step,
    traced,
    transformed_targets,
    used,
)
from dlworkshop.train.mesh import row_structs
from dlworkshop.types import Array, Batch, Dataset, HParams, PyTree, TrainState

SEEN = 64  # images whose range is looked at


def check_step(
    spec: TrainSpec,
    make_step: Callable | None,
    dataset: Dataset,
    hparams: Mapping[str, Any],
    outputs: str | None,
    batch_size: int,
    later: Collection[str] = (),
) -> tuple[TrainState, core.ClosedJaxpr, BatchUse]:
    """Check that a step can be traced and gives a scalar loss and metrics.

    Args:
        spec: of the step.
        make_step: the function that makes a custom step, see `fit`.
        dataset: all its splits are checked.
        hparams: name -> [P].
        outputs: what the outputs of the model are, as of `losses.outputs_of`.
        batch_size: of the batches that a batch transform gets.
        later: as of `check_effects`.

    Returns:
        The state of a member at step 0, as shapes, the program of our own step for two
        examples, without the batch transform, and what it needs of its batch.
    """
    batch, example = row_structs(dataset.train, 2), row_structs(dataset.train.inputs)
    numbers = {name: jnp.asarray(values[0], float) for name, values in hparams.items()}
    key = jax.random.key(0)
    words = f"an example of '{dataset.name}' ({example_shapes(dataset.train)})"
    with one_sentence(f"the model does not take {words}"):
        shapes_of(spec.model, example)
    check_schedule(spec, numbers)
    with one_sentence("the optimizer cannot be built from traced numbers"):
        begun, train = traced(
            lambda e, numbers: init_state(spec, numbers, key, e), numbers, example
        )
    _check_real(train)
    shape = _check_splits(spec, train, dataset, numbers, outputs, words)
    programs = [_check_objective(spec, train, batch, numbers, words)]
    check_eval_params(spec, train)
    step = make_train_step(spec)
    if spec.batch_transform is not None:
        transform, batch = check_batch_transform(spec, batch, batch_size, numbers)
        programs.append(transform)
        few = dataset.train.rows(slice(0, batch_size))
        check_targets(
            transformed_targets(spec, few, numbers),
            outputs,
            dataset.classes,
            shape,
            f"the targets that the batch_transform {name_of(spec.batch_transform)} "
            "returns",
        )
        step = make_train_step(spec._replace(batch_transform=None))
    check_probe(spec, train)
    with one_sentence("a step of training cannot be taken"), no_plain_step(spec):
        check_updates(spec, step, train, numbers)
        ours, grads, use = _program(step, spec, numbers, train, batch)
    if make_step is None:
        check_gradient(spec, ours, grads)
    own = make_step and check_own_step(spec, make_step, step, numbers, train, batch)
    check_effects(spec.routes, numbers, begun, [*programs, own or ours], later)
    check_schedule_effect(spec, make_step, numbers, train, batch)
    return train, ours, use


def _program(
    step: TrainStep, spec: TrainSpec, numbers: HParams, train: TrainState, batch: Batch
) -> tuple[core.ClosedJaxpr, int, BatchUse]:
    """The program of a step, the number of its gradients, and the use of its batch."""
    blind = make_train_step(spec._replace(batch_transform=None), example_axis=None)
    try:
        program, ((new, _), grads) = traced(_with_grads(blind), numbers, train, batch)
        use = BatchUse()
    except NameError:  # most steps name no axis, and so are traced once
        program, ((new, _), grads) = traced(_with_grads(step), numbers, train, batch)
        use = batch_use(spec, train, batch, numbers)
    if form_of(new.state) != form_of(train.state):
        raise UserError(
            f"{in_words(spec.objective)} returns a state of another form than it was "
            "given: return loss, (outputs, state) with the state of model.apply"
        )
    return program, len(jax.tree.leaves(grads)), use


def _with_grads(step: TrainStep) -> Callable:
    """(state, batch, hparams) -> what the step returns, and its gradient."""

    def call(train: TrainState, batch: Batch, hparams: HParams):
        grads, state, metrics = step.gradient(train, batch, hparams)
        new, probed = step.advance(train, grads, state, metrics, hparams)
        return (new, metrics | probed), grads

    return call


def _check_splits(
    spec: TrainSpec,
    train: TrainState,
    dataset: Dataset,
    numbers: Mapping[str, Any],
    outputs: str | None,
    words: str,
) -> tuple[int, ...]:
    """Check the model on two examples, and inputs and targets of every split.

    Returns:
        The shape of the model's outputs; () if there are several arrays.
    """
    few = jax.tree.map(lambda leaf: np.asarray(leaf[:2]), dataset.train.inputs)
    own = given(spec.routes.model, numbers)
    arguments = spec.model, train.params, train.state, few
    with one_sentence(f"the model does not take {words}"):
        made, _ = jax.eval_shape(
            bound(spec.model, own).apply,
            train.params,
            train.state,
            input_struct(jax.tree.map(lambda leaf: leaf[0], few)),
        )
        check_state(*arguments, **own)
    check_one_example(*arguments, **own)
    check_pixels(spec.model.augment, dataset.train.rows(slice(0, SEEN)).inputs)
    shapes = [leaf.shape for leaf in jax.tree.leaves(made)]
    shape = shapes[0] if len(shapes) == 1 else ()
    if len(shapes) != 1 and outputs in ("logits", "probabilities"):
        raise UserError(
            f"the model returns {len(shapes)} arrays, and {outputs} are one: give a "
            "loss or an objective that picks it, and metrics that do, without outputs"
        )
    for name in SPLITS:
        split, where = getattr(dataset, name), f"the {name} split of '{dataset.name}'"
        check_lookups(spec.model, split.inputs, where, **own)
        targets = f"the targets of {where}"
        check_targets(split.targets, outputs, dataset.classes, shape, targets)
    if outputs is None:
        _check_labels(spec, dataset, numbers)
    if outputs == "probabilities":
        _check_probabilities(spec, few, own)
    return shape


def _check_labels(
    spec: TrainSpec, dataset: Dataset, numbers: Mapping[str, Any]
) -> None:
    """Refuse labels [N] with which a loss of the user indexes out of bounds.

    The lowest and the highest label of each split are tried. Labels that the loss
    masks, so that its gradient is 0, may be out of bounds.
    """
    tried, words = [], []
    for name in SPLITS:
        split: Batch = getattr(dataset, name)
        label = split.targets
        if getattr(label, "ndim", 0) != 1 or label.dtype.kind not in "iu":
            return
        for row in (int(label[:].argmin()), int(label[:].argmax())):
            tried.append(split.rows(slice(row, row + 1))._replace(weights=None))
            words.append(f"example {row} of the {name} split of '{dataset.name}'")
    examples = jax.tree.map(lambda *leaves: np.concatenate(leaves), *tried)
    evaluate = make_eval_step(spec)

    def begun(example: Batch) -> tuple[PyTree, PyTree]:
        return spec.model.init(jax.random.key(0), as_float(example.inputs))

    def loss(both: tuple[PyTree, PyTree], example: Batch) -> Array:
        batch = jax.tree.map(lambda leaf: leaf[None], example)
        return evaluate(*both, batch, numbers).scores["loss"][0]

    found = beyond(lambda e: loss(begun(e), e), examples, examples.targets)
    if not found:
        return
    _, row, said = found
    one = jax.tree.map(lambda leaf: jnp.asarray(leaf[row]), examples)
    slopes = jax.jit(
        lambda e: jax.grad(lambda params, state: loss((params, state), e))(*begun(e))
    )(one)
    if any(np.any(leaf) for leaf in jax.tree.leaves(slopes)):
        raise UserError(
            f"{words[row]} has the target {examples.targets[row]}, which "
            f"{in_words(spec.objective)} uses as an index: {said}: give the model an "
            "output for each class, or mask such targets"
        )


def _check_probabilities(
    spec: TrainSpec, few: PyTree, numbers: Mapping[str, Any]
) -> None:
    """Refuse outputs of two examples that are no probabilities."""

    @jax.jit
    def answer(inputs: PyTree) -> PyTree:
        inputs = as_float(inputs)
        example = jax.tree.map(lambda leaf: leaf[0], inputs)
        begun = spec.model.init(jax.random.key(0), example)
        apply = bound(spec.model, numbers).apply
        return jax.vmap(lambda one: apply(*begun, one)[0])(inputs)

    for leaf in jax.tree.leaves(answer(few)):
        found = np.asarray(leaf, np.float64)
        sums = found.sum(-1) if found.ndim else found
        if found.min() < 0 or not np.allclose(sums, 1, atol=0.02):  # bfloat16
            raise UserError(
                f"the outputs are said to be probabilities, but those of one example "
                f"are at least {found.min():.3g}, and their sum is {sums.flat[0]:.3g}: "
                "end the model with jax.nn.softmax, or say what the outputs are"
            )


def _check_objective(
    spec: TrainSpec,
    train: TrainState,
    batch: Batch,
    numbers: Mapping[str, Any],
    words: str,
) -> core.ClosedJaxpr:
    """Check objective and metrics of an evaluation step; returns its program."""
    objective, args = in_words(spec.objective), (train.params, train.state, batch)
    try:
        evaluated, found = traced(make_eval_step(spec), numbers, *args)
    except Exception:
        for name, one in ("loss", None), *spec.metrics.items():  # which one fails?
            spoken_of = f"the metric '{name}'" if one else objective
            alone = spec._replace(metrics={name: one} if one else {})
            cannot = f"{spoken_of} does not take {words}"
            with one_sentence(cannot), no_batch_without_key(spoken_of):
                jax.eval_shape(make_eval_step(alone), *args, numbers)
        raise
    count = len(jax.tree.leaves(train.params))
    say = used(evaluated, [name == "loss" for name in sorted(found.scores)])
    if count and not any(say[len(numbers) :][:count]):
        raise UserError(
            f"{objective} does not depend on the parameters, so nothing can be "
            "learnt: compute it from the outputs of the model"
        )
    return evaluated


def _check_real(train: TrainState) -> None:
    """Check that there are parameters, and that all are floating point."""
    if not jax.tree.leaves(train.params):
        raise UserError(
            "the model has no parameters, so nothing can be learnt: let init return "
            "them (an adapter takes nnx.Param of NNX, and what `trainable` selects of "
            "Equinox)"
        )
    for path, leaf in jax.tree.leaves_with_path(train.params):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            raise UserError(
                f"the model has {leaf.dtype} in params{jax.tree_util.keystr(path)}, "
                "which has no gradient: make it a float, or keep it in the state of a "
                "models.StatefulModel"
            )
