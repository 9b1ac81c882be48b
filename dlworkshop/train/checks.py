"""Checks of the arguments of `fit`, with one sentence for each mistake."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

from dlworkshop import run_files
from dlworkshop.data.content import SPLITS, check_kind
from dlworkshop.errors import (
    UserError,
    check_function,
    check_known,
    check_path,
    check_whole,
    repr_of,
)
from dlworkshop.learn import losses
from dlworkshop.learn.hparams import name_of
from dlworkshop.learn.metrics import Metric
from dlworkshop.models.convolution import CONV_IMPLS
from dlworkshop.models.model import check_model
from dlworkshop.train.run_folder import to_jsonable
from dlworkshop.types import Batch, Dataset

COUNTS = ("num_epochs", "batch_size")


def check_types(model: Any, dataset: Any, **functions: Any) -> None:
    """Check the type of each argument, with a hint if the intent can be guessed.

    The optimizer and the loss must be functions, all others functions or None.
    """
    check_model(model)
    check_function("init of the model", model.init)
    config = to_jsonable(dict(model.config))
    run_files.check_writable("the config of the model", config)
    check_kind(dataset)
    if isinstance(functions["optimizer"], optax.GradientTransformation):
        raise UserError(
            "the optimizer is built already, so its numbers cannot differ between "
            "members: give the constructor, such as optax.adam, and its numbers in "
            "hparams"
        )
    for name, function in functions.items():
        if function is not None or name in ("optimizer", "loss"):
            check_function(name, function)


def check_numbers(**counts: int | None) -> None:
    """Check that counts are whole numbers of at least one, or None if optional."""
    for name, value in counts.items():
        if value is not None or name in COUNTS:
            check_whole(name, value)


def check_convolution(how: str, convolutions: bool) -> None:
    """Check that the implementation is known and the model has convolutions.

    Args:
        how: the requested implementation.
        convolutions: whether the model has any, see `convolution.has_convolutions`.
    """
    check_known("convolution", how, CONV_IMPLS)
    if not convolutions:
        raise UserError(
            f"convolution is '{how}', but the model has no convolution of an image or "
            "a sequence: leave it out"
        )


def check_observer(name: str, observer: Callable) -> None:
    """Reject a function that cannot be called with a single snapshot."""
    try:
        inspect.signature(observer).bind(None)
    except TypeError as error:
        raise UserError(
            f"{name} ({name_of(observer)}) is called with one argument, a snapshot, "
            f"and does not take it: {error}"
        ) from error
    except ValueError:  # a builtin without a signature
        pass


def check_places(workdir: Any, devices: Any) -> None:
    """Check that the folder is a path and that devices are given."""
    if workdir is not None:
        check_path("workdir", workdir)
        where = os.path.abspath(workdir)
        # TensorStore requires UTF-8, and orbax refuses ** as a pattern
        if "**" in where or where != where.encode(errors="replace").decode():
            raise UserError(
                f"workdir is {where!r}, where checkpoints cannot be written: choose a "
                "path in UTF-8 and without '**'"
            )
    if devices is None:
        return
    if not isinstance(devices, (Sequence, np.ndarray)):
        raise UserError(f"devices is {repr_of(devices)}: give a list, as jax.devices()")
    if not len(devices):
        raise UserError("devices is empty: give one or more, or leave it out")
    for device in devices:
        if not isinstance(device, jax.Device):
            raise UserError(
                f"devices has {repr_of(device)}: give devices, as jax.devices()"
            )
    if len(set(devices)) < len(devices):
        raise UserError(f"devices are {list(devices)}: each may come once only")


def check_outputs(outputs: str | None, loss: Callable | None) -> None:
    """Check that `outputs` is a known meaning, and what the loss expects.

    Args:
        outputs: the requested meaning.
        loss: None if there is an objective instead.
    """
    if outputs is None:
        return
    check_known("outputs", outputs, losses.OUTPUTS)
    if loss is None:
        return
    known = losses.outputs_of(loss)
    if known not in (None, outputs):
        raise UserError(
            f"outputs is '{outputs}', but the loss {name_of(loss)} takes '{known}': "
            "leave outputs out, or use another loss"
        )


def check_monitor(
    monitor: str, metrics: Mapping[str, Metric], given: Mapping[str, Any] | None
) -> None:
    """Check that `monitor` is the loss or a metric with a direction.

    Args:
        monitor: its name.
        metrics: all metrics.
        given: the metrics as the user gave them; None for the default ones.
    """
    check_known("monitor", monitor, ["loss", *metrics])
    own = (given or {}).get(monitor)
    ours = str(getattr(own, "__module__", "")).partition(".")[0] == "dlworkshop"
    if callable(own) and not ours:
        raise UserError(
            f"the monitor '{monitor}' is a function that does not say which way is "
            "better: give metrics.Metric(function, better='lower'), or 'higher'"
        )


def check_dataset(dataset: Dataset) -> None:
    """Check that all splits have examples of one shape, and valid labels."""
    like = example_shapes(dataset.train)
    for name in SPLITS:
        split: Batch = getattr(dataset, name)
        leaves = jax.tree.leaves_with_path(split)
        if not jax.tree.leaves(split.inputs):
            raise UserError(f"the {name} split of '{dataset.name}' has no inputs")
        for path, leaf in leaves:
            if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
                raise UserError(
                    f"{_where(path)} of the {name} split of '{dataset.name}' is "
                    f"{repr_of(leaf)}: give arrays"
                )
            if leaf.dtype == object or leaf.dtype.kind in "USM":
                raise UserError(
                    f"{_where(path)} of the {name} split of '{dataset.name}' has the "
                    f"dtype {leaf.dtype}: give numbers"
                )
        sizes = {_where(path): len(leaf) if leaf.shape else 0 for path, leaf in leaves}
        fewest, most = (
            min(sizes, key=sizes.__getitem__),
            max(sizes, key=sizes.__getitem__),
        )
        if sizes[fewest] < sizes[most] or not sizes[most]:
            raise UserError(
                f"the {name} split of '{dataset.name}' has {sizes[fewest]} examples in "
                f"{fewest} and {sizes[most]} in {most}: give the same number in all "
                "arrays, at least one"
            )
        if split.weights is not None:
            weights = np.asarray(split.weights)
            if not np.isfinite(weights).all() or weights.min() < 0 or not weights.any():
                raise UserError(
                    f"the weights of the {name} split of '{dataset.name}' are not all "
                    "finite and at least 0, or all are 0: give each example a weight"
                )
        if example_shapes(split) != like:
            raise UserError(
                f"the {name} split of '{dataset.name}' has examples "
                f"{example_shapes(split)} and the train split has {like}: make them "
                "equal"
            )


def check_batch_size(dataset: Dataset, batch_size: int) -> None:
    """Check that an epoch has at least one full batch."""
    size = dataset.train.num_examples
    if batch_size > size:
        raise UserError(
            f"batch_size is {batch_size}, but the train split of '{dataset.name}' has "
            f"{size} examples: choose a batch size of at most {size}"
        )


def checked_steps(num_epochs: int, steps_per_epoch: int) -> int:
    """The number of steps of a run, which has to fit into the counter of steps."""
    num_steps, most = num_epochs * steps_per_epoch, np.iinfo(np.int32).max
    if num_steps > most:
        raise UserError(
            f"num_epochs is {num_epochs}, of {steps_per_epoch} steps, which are more "
            f"than a run can count, {most:,}: give fewer"
        )
    return num_steps


def check_folds(folds: int, dataset: Dataset) -> None:
    """Check for at least two folds, and alike weights and groups in both splits."""
    check_whole("folds", folds, 2)
    if (dataset.train.weights is None) != (dataset.validation.weights is None):
        raise UserError(
            f"only one of train and validation of '{dataset.name}' has weights, and "
            "folds pool both: give weights to both or to neither"
        )
    size = dataset.train.num_examples + dataset.validation.num_examples
    if dataset.groups is not None and (known := sum(map(len, dataset.groups))) != size:
        raise UserError(
            f"'{dataset.name}' has {known} groups for {size} examples in train and "
            "validation: give one for each, or no groups"
        )


def example_shapes(split: Batch) -> str:
    """The shapes and dtypes of an example, in words."""
    # weights may differ: they may be used in training only
    return ", ".join(
        f"{_where(path)} {leaf.dtype}{list(leaf.shape[1:])}"
        for path, leaf in jax.tree.leaves_with_path(split._replace(weights=None))
        if hasattr(leaf, "shape") and hasattr(leaf, "dtype")
    )


def _where(path: Any) -> str:
    return jax.tree_util.keystr(path).lstrip(".")
