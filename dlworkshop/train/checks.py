"""What is refused at the door of `fit`, each in one sentence."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend import core
from jax.interpreters import partial_eval

from dlworkshop.errors import UserError, unknown
from dlworkshop.learn import losses
from dlworkshop.learn.checks import check_number, check_targets
from dlworkshop.learn.hparams import given, name_of
from dlworkshop.learn.metrics import Metric
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
from dlworkshop.models.convolution import CONV_IMPLS
from dlworkshop.models.model import Model, StatefulModel, seen
from dlworkshop.types import Batch, Dataset

COUNTS = ("num_epochs", "batch_size")


def check_types(model: Any, dataset: Any, optimizer: Any, **functions: Any) -> None:
    """Each argument is of its kind: what was meant is said where it can be guessed."""
    if not isinstance(model, (Model, StatefulModel)):
        raise UserError(
            f"the model is {_kind(model)}: give a models.Model(init, apply), or wrap a "
            "module with models.from_linen, from_nnx, from_equinox or from_haiku"
        )
    if not isinstance(dataset, Dataset):
        raise UserError(
            f"the dataset is {_kind(dataset)}: give what data.load or data.from_arrays "
            "returns"
        )
    for name in ("train", "validation", "test"):
        split = getattr(dataset, name)
        if not isinstance(split, Batch):
            raise UserError(
                f"the {name} split of '{dataset.name}' is {_kind(split)}: give "
                "Batch(inputs, targets), or let data.from_arrays cut the splits"
            )
    if isinstance(optimizer, optax.GradientTransformation):
        raise UserError(
            "the optimizer is built already, and its numbers cannot differ between "
            "members: give the constructor, as optax.adam, and its numbers in hparams"
        )
    for name, function in {"optimizer": optimizer, **functions}.items():
        if function is not None and not callable(function):
            raise UserError(f"{name} is {_kind(function)}: give a function")


def _kind(value: Any) -> str:
    return (
        f"{value!r:.60}"
        if isinstance(value, (str, int, float))
        else ("None" if value is None else f"a {type(value).__name__}")
    )


def check_numbers(**counts: int | None) -> None:
    """Counts are whole numbers of at least one, or None where they are optional."""
    for name, value in counts.items():
        if value is None and name not in COUNTS:
            continue
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole or value < 1:  # type: ignore[operator]
            raise UserError(f"{name} is {value!r}: give a whole number of at least 1")


def check_convolution(how: str, convolutions: bool) -> str:
    """It is one of the ways that there are, and the model has what it is for.

    Args:
        how: as it was asked for.
        convolutions: whether the model has any, see `convolution.has_convolutions`.
    """
    if how not in CONV_IMPLS:
        raise unknown("convolution", how, CONV_IMPLS)
    if not convolutions:
        raise UserError(
            f"convolution is '{how}', but the model has no convolution of an image or "
            "a sequence: leave it out"
        )
    return how


def check_places(workdir: Any, devices: Any) -> None:
    """The folder is a path, and the devices are some."""
    if workdir is not None and not isinstance(workdir, (str, os.PathLike)):
        raise UserError(f"workdir is {workdir!r:.80}: give a path")
    if devices is None:
        return
    if not isinstance(devices, (Sequence, np.ndarray)):
        raise UserError(f"devices is {devices!r:.80}: give a list, as jax.devices()")
    if not len(devices):
        raise UserError("devices has none: give one or more, or leave it out")


def check_flags(**flags: bool | None) -> None:
    """Flags are True or False, or None where that means something."""
    for name, value in flags.items():
        if not isinstance(value, (bool, np.bool_)) and (value or name != "streamed"):
            raise UserError(f"{name} is {value!r}: give True or False")


def check_outputs(outputs: str | None, loss: Callable | None) -> None:
    """It is a meaning that outputs may have, and the one that the loss gives them.

    Args:
        outputs: as it was asked for.
        loss: None where an objective takes its place.
    """
    if outputs is None:
        return
    if outputs not in losses.OUTPUTS:
        raise unknown("outputs", str(outputs), losses.OUTPUTS)
    if loss is None:
        return
    known = losses.outputs_of(loss)
    if known not in (None, outputs):
        raise UserError(
            f"outputs is '{outputs}', but the loss {name_of(loss)} takes '{known}': "
            "leave outputs out, or take another loss"
        )


def check_monitor(
    monitor: str, metrics: Mapping[str, Metric], given: Mapping[str, Any] | None
) -> None:
    """It is the loss or one of the metrics, and says which way it gets better.

    Args:
        monitor: its name.
        metrics: all of them.
        given: the same as they were given, None for the default ones.
    """
    if monitor != "loss" and monitor not in metrics:
        raise unknown("monitor", str(monitor), ["loss", *metrics])
    own = (given or {}).get(monitor)
    ours = str(getattr(own, "__module__", "")).partition(".")[0] == "dlworkshop"
    if callable(own) and not ours:
        raise UserError(
            f"the monitor '{monitor}' is a function that does not say which way is "
            "better: give metrics.Metric(function, better='lower'), or 'higher'"
        )


def check_dataset(dataset: Dataset) -> None:
    """Every split has examples of one shape, and labels that name a class."""
    like = _example_shapes(dataset.train)
    for name in ("train", "validation", "test"):
        split: Batch = getattr(dataset, name)
        leaves = jax.tree.leaves_with_path(split)
        if not jax.tree.leaves(split.inputs):
            raise UserError(f"the {name} split of '{dataset.name}' has no inputs")
        for path, leaf in leaves:
            if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
                raise UserError(
                    f"{_where(path)} of the {name} split of '{dataset.name}' is "
                    f"{_kind(leaf)}: give arrays"
                )
            if leaf.dtype == object or leaf.dtype.kind in "USM":
                raise UserError(
                    f"{_where(path)} of the {name} split of '{dataset.name}' has the "
                    f"dtype {leaf.dtype}: give numbers"
                )
        sizes = [len(leaf) if leaf.shape else 0 for _, leaf in leaves]
        if len(set(sizes)) > 1 or not sizes[0]:
            first, other = min(sizes), max(sizes)
            raise UserError(
                f"the {name} split of '{dataset.name}' has {first} and {other} "
                "examples in its arrays: it needs as many in all, and at least one"
            )
        if split.weights is not None:
            weights = np.asarray(split.weights)
            if not np.isfinite(weights).all() or weights.min() < 0 or not weights.any():
                raise UserError(
                    f"the weights of the {name} split of '{dataset.name}' are not all "
                    "finite and at least 0, or all are 0: give each example its share"
                )
        if _example_shapes(split) != like:
            raise UserError(
                f"the {name} split of '{dataset.name}' has examples "
                f"{_example_shapes(split)} and the train split {like}: make them equal"
            )


def check_batch_size(dataset: Dataset, batch_size: int) -> None:
    """An epoch has one whole batch at least."""
    size = dataset.train.num_examples
    if batch_size > size:
        raise UserError(
            f"batch_size is {batch_size}, but the train split of '{dataset.name}' has "
            f"{size} examples: choose a batch size of at most {size}"
        )


def check_folds(folds: int, dataset: Dataset) -> None:
    """There are at least two, and weights are in both splits or in none."""
    whole = isinstance(folds, (int, np.integer)) and not isinstance(folds, bool)
    if not whole or folds < 2:
        raise UserError(f"folds is {folds!r}: give a whole number of at least 2")
    if (dataset.train.weights is None) != (dataset.validation.weights is None):
        raise UserError(
            f"one of train and validation of '{dataset.name}' has weights, and folds "
            "are of both together: give weights to both"
        )


def _example_shapes(split: Batch) -> str:
    # examples may be weighed in training and count the same in evaluation
    return ", ".join(
        f"{_where(path)} {leaf.dtype}{list(leaf.shape[1:])}"
        for path, leaf in jax.tree.leaves_with_path(split._replace(weights=None))
        if hasattr(leaf, "shape") and hasattr(leaf, "dtype")
    )


def _where(path: Any) -> str:
    return jax.tree_util.keystr(path).lstrip(".")


def check_step(
    spec: TrainSpec,
    make_step: Callable | None,
    dataset: Dataset,
    hparams: Mapping[str, Any],
    outputs: str | None,
) -> core.ClosedJaxpr:
    """One step of one member can be traced, and gives a scalar loss and metrics.

    Args:
        spec: of the step.
        make_step: what makes a step of the user's of it, see `fit`.
        dataset: whose targets are looked at, in every split.
        hparams: name -> [P].
        outputs: what the outputs of the model are, as of `losses.outputs_of`.

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
    words = f"an example of '{dataset.name}' ({_example_shapes(dataset.train)})"
    with one_sentence(f"the model does not take {words}"):
        jax.eval_shape(lambda e: spec.model.init(key, e), seen(example))
    with one_sentence("the optimizer cannot be built from traced numbers"):
        train = jax.eval_shape(
            lambda numbers, e: init_state(spec, numbers, key, e), numbers, example
        )
    numbers_of_model = given(spec.routes.model, numbers)
    model = bound(spec.model, numbers_of_model)
    with one_sentence(f"the model does not take {words}"):
        made, _ = jax.eval_shape(model.apply, train.params, train.state, seen(example))
    with one_sentence(f"the model does not take {words}"):
        check_state(
            spec.model, train.params, train.state, batch.inputs, **numbers_of_model
        )
    few = jax.tree.map(lambda leaf: np.asarray(leaf[:2]), dataset.train.inputs)
    check_one_example(spec.model, train.params, train.state, few, **numbers_of_model)
    shapes = [leaf.shape for leaf in jax.tree.leaves(made)]
    for name in ("train", "validation", "test"):
        targets = getattr(dataset, name).targets
        check_targets(
            targets,
            outputs,
            dataset.classes,
            shapes[0] if len(shapes) == 1 else (),
            f"the targets of the {name} split of '{dataset.name}'",
        )
    with one_sentence(f"the loss or a metric does not take {words}"):
        evaluated, found = jax.make_jaxpr(make_eval_step(spec), return_shape=True)(
            train.params, train.state, batch, numbers
        )
    for name, value in found.scores.items():
        spoken = "the loss" if name == "loss" else f"the metric '{name}'"
        one = jax.ShapeDtypeStruct(value.shape[1:], value.dtype)
        check_number(f"{spoken} of one example", one, integers=name != "loss")
    count = len(jax.tree.leaves(train.params))
    wanted = [name == "loss" for name in sorted(found.scores)]
    _, used = partial_eval.dce_jaxpr(evaluated.jaxpr, wanted)
    if count and not any(used[:count]):
        raise UserError(
            "the loss does not depend on the parameters, and nothing can be learnt: "
            "compute it from the outputs of the model"
        )
    with one_sentence("a step of training cannot be taken"):
        step = make_train_step(spec)
        if spec.batch_transform is not None:
            transform = functools.partial(
                spec.batch_transform, **given(spec.routes.batch_transform, numbers)
            )
            whole = batch._replace(
                inputs=seen(batch.inputs), targets=seen(batch.targets)
            )
            batch = jax.eval_shape(lambda b: transform(key, b), whole)
            step = make_train_step(spec._replace(batch_transform=None))
        traced, (_, metrics) = jax.make_jaxpr(step, return_shape=True)(
            train, batch, numbers
        )
    _check_scalars("the probe", metrics)
    if make_step is not None:
        _check_own_step(spec, make_step, step, (train, batch, numbers))
    return traced


def _check_scalars(spoken: str, metrics: Mapping[str, Any]) -> None:
    for name, value in metrics.items():
        if not hasattr(value, "shape"):
            raise UserError(f"{spoken} gives {name}, which is no number: give scalars")
        if value.shape:
            raise UserError(
                f"{spoken} gives {name} of shape {list(value.shape)}: give scalars"
            )


def _check_own_step(
    spec: TrainSpec, make_step: Callable, step: TrainStep, args: tuple
) -> None:
    """A step of the user's takes and gives what ours does."""
    spoken = f"the step of {name_of(make_step)}"
    with one_sentence(f"{spoken} cannot be taken"):
        own = make_own_step(make_step, step, spec.routes.make_step)
        found = jax.eval_shape(own, *args)
    pair = isinstance(found, tuple) and len(found) == 2
    if not pair or not isinstance(found[1], Mapping) or "loss" not in found[1]:
        raise UserError(
            f"{spoken} returns something else than (train, metrics) with a "
            "metrics['loss']: return both"
        )
    if _form(found[0]) != _form(args[0]):
        raise UserError(
            f"{spoken} returns a train state of other arrays, shapes or dtypes than it "
            "was given: return train._replace(...) of the same"
        )
    _check_scalars(spoken, found[1])


def _form(tree: Any) -> str:
    leaves, form = jax.tree.flatten(tree)
    return f"{form} {[(leaf.shape, leaf.dtype) for leaf in leaves]}"


@contextlib.contextmanager
def one_sentence(what: str) -> Iterator[None]:
    """What is raised inside becomes one sentence of a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else ""
        if isinstance(error, jax.errors.ConcretizationTypeError):
            reason = (
                "Python asks for the value of a number that is traced: fix it with "
                "functools.partial"
            )
        raise UserError(f"{what}: {type(error).__name__}: {reason:.300}") from error
