"""Checks of losses, metrics and targets, with one sentence for each mistake.

Targets are checked on the host.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from dlworkshop import errors
from dlworkshop.data.leaves import is_float
from dlworkshop.errors import UserError
from dlworkshop.learn.losses import in_pairs
from dlworkshop.learn.metrics import Metric, as_metrics, fitted
from dlworkshop.types import Array, PyTree


def checked_metrics(
    metrics: Mapping[str, Callable | Metric],
    outputs_kind: str | None,
    target: Mapping[str, Any] | None = None,
) -> dict[str, Metric]:
    """The metrics that a user brings, for the outputs and targets of a run.

    Metrics of one example are checked further when they are traced.

    Args:
        metrics: as `fit` takes them.
        outputs_kind, target: as of `metrics.fitted`.

    Raises:
        UserError: if they are no metrics of such outputs, or a name is not valid.
    """
    found = fitted(as_metrics(metrics), outputs_kind, target)
    check_split_metrics({name: m for name, m in found.items() if m.split})
    return found


def check_split_metrics(metrics: Mapping[str, Metric]) -> None:
    """Check that each metric of a whole split takes outputs, targets and weights.

    Raises:
        UserError: names the metric.
    """
    for name, metric in metrics.items():
        try:
            inspect.signature(metric.function).bind(None, None, None)
        except TypeError as error:
            raise UserError(
                f"metric '{name}' of a whole split does not take (outputs, targets, "
                f"weights): {error}"
            ) from error


def check_number(what: str, value: Any, integers: bool = False) -> None:
    """Check that the value of a loss or metric for one example is one real number.

    Args:
        what: its name in messages, such as "the objective".
        value: the value of one example, or its shape and dtype; it may be a Python
            number.
        integers: whether integers and bools are allowed.

    Raises:
        UserError: if it is not.
    """
    if isinstance(value, bool | int | float):
        value = np.asarray(value)
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None:
        raise UserError(
            f"{what} is {errors.repr_of(value)} for one example: return one number"
        )
    if shape != ():
        raise UserError(
            f"{what} has shape {shape} for one example: return one number, such as "
            "their mean"
        )
    real = jnp.issubdtype(dtype, jnp.floating)
    whole = jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.bool_)
    if not real and not (integers and whole):
        raise UserError(f"{what} is {dtype}: return a real number")


def check_targets(
    targets: PyTree,
    outputs_kind: str | None,
    classes: Sequence[str],
    outputs_shape: tuple[int, ...],
    where: str = "the targets",
) -> None:
    """Check that targets are of the kind that the loss expects, one per output.

    Args:
        targets: [N, ...] as stored, a whole split or a sample of it. Trees of several
            arrays are for custom losses and are not checked.
        outputs_kind: what the outputs mean, as of `losses.outputs_of`.
        classes: names [K]; () if there are none.
        outputs_shape: of ONE example.
        where: their name in messages, such as "the targets of the train split".

    Raises:
        UserError: if they are not.

    >>> check_targets(np.array([[0], [1]]), "logits", ("a", "b"), (2,))
    Traceback (most recent call last):
    dlworkshop.errors.UserError: the targets are int64 (2, 1): take the labels out of \
their last axis with targets[:, 0]
    """
    if outputs_kind is None or not hasattr(targets, "dtype"):
        return
    targets = np.asarray(targets)
    came = f"{where} are {targets.dtype} {targets.shape}"
    if np.issubdtype(targets.dtype, np.complexfloating) or targets.dtype.kind in "OUS":
        raise UserError(f"{came}: convert them to integers or floats")
    if is_float(targets) and not np.isfinite(targets).all():
        raise UserError(f"{where} are not all finite: leave those examples out")
    if outputs_kind in ("logits", "probabilities"):
        _check_classes(targets, came, where, classes, outputs_shape)
    else:
        _check_sizes(targets, came, outputs_shape, outputs_kind)
        if outputs_kind == "binary_logits":
            _check_truth(targets, came, where)


def _check_classes(targets, came, where, classes, outputs_shape) -> None:
    size = outputs_shape[-1] if outputs_shape else 1
    if size < 2:
        raise UserError(
            f"the softmax of outputs {outputs_shape} is always right: give the model "
            "an output for each class, or use binary_cross_entropy"
        )
    if classes and size != len(classes):
        raise UserError(
            f"the model has outputs {outputs_shape}, but there are {len(classes)} "
            f"classes: build it with num_classes={len(classes)}"
        )
    is_int = targets.dtype.kind in "iu" and targets.dtype != np.uint8
    if targets.ndim == 1 and not is_int:
        _refuse_labels(targets, came)
    if targets.ndim == 2 and targets.shape[1] == 1:
        raise UserError(
            f"{came}: take the labels out of their last axis with targets[:, 0]"
        )
    if is_int and targets.ndim == len(outputs_shape):
        low, high = int(targets.min(initial=0)), int(targets.max(initial=0))
        if low < 0 or high >= size:
            raise UserError(
                f"{where} have labels {low} ... {high} for {size} classes: labels must "
                f"be in [0, {size})"
            )
    elif is_int and len(outputs_shape) == 1:
        _refuse_sequences(targets, came, size)
    elif len(outputs_shape) == 1:
        _check_soft(targets, came, where, size)


def _refuse_labels(targets, came) -> None:
    if targets.dtype == np.uint8:
        raise UserError(
            f"{came}, and a step scales uint8 to [0, 1]: give labels of classes as "
            "targets.astype('int32')"
        )
    raise UserError(
        f"{came}, but classes have integer labels: convert them with "
        "targets.astype('int32'), or use a loss of numbers, such as squared_error"
    )


def _refuse_sequences(targets, came, size: int) -> None:
    rows = targets.reshape(len(targets), -1)
    if rows.shape[1] == size and ((rows != 0).sum(1) == 1).all() and rows.max() == 1:
        raise UserError(
            f"{came}, one-hot as integers: give labels with targets.argmax(-1), or "
            "probabilities with targets.astype('float32')"
        )
    if rows.shape[1] == size and np.isin(rows, (0, 1)).all():
        raise UserError(
            f"{came} of 0 and 1, not one class for each example: use "
            "binary_cross_entropy for labels that are each true or false"
        )
    raise UserError(
        f"{came}, a sequence of labels for one example whose outputs are ({size},): "
        "give one label for each example, or a custom loss that is the mean over the "
        "sequence"
    )


def _check_soft(targets, came, where, size: int) -> None:
    if targets.shape[1:] != (size,):
        raise UserError(
            f"{came}, but the outputs of one example are ({size},): give labels [N] "
            f"of integers, or the probability of each of the {size} classes"
        )
    if targets.dtype.kind in "ub":
        raise UserError(f"{came}: give probabilities with targets.astype('float32')")
    sums = targets.sum(1, dtype=np.float64)
    if targets.min(initial=0) < 0 or not np.allclose(sums, 1, atol=1e-3):
        raise UserError(
            f"{where} are not probabilities of {size} classes, their sums go from "
            f"{sums.min():.3g} to {sums.max():.3g}: make each sum 1, or use "
            "binary_cross_entropy for labels that are each true or false"
        )


def _check_sizes(targets, came, outputs_shape, outputs_kind: str) -> None:
    if np.prod(targets.shape[1:], dtype=int) != np.prod(outputs_shape, dtype=int):
        is_label = targets.ndim == 1 and targets.dtype.kind in "iu"
        remedy = (
            "use cross_entropy for classes"
            if is_label
            else "give the model one output for each target"
        )
        raise UserError(
            f"{came}, but the outputs of one example are {outputs_shape}: {remedy}"
        )
    if not in_pairs(targets.shape[1:], outputs_shape):
        raise UserError(
            f"{came}, and the outputs of one example {outputs_shape} have their axes "
            "in another order: transpose one of them"
        )
    numbers = outputs_kind == "values" and targets[:1].size <= 1
    if targets.dtype == np.uint8 and numbers:
        raise UserError(
            f"{came}, and a step scales uint8 to [0, 1]: keep their units with "
            "targets.astype('float32')"
        )


def _check_truth(targets: Array, came: str, where: str) -> None:
    low, high = targets.min(initial=0), targets.max(initial=0)
    if targets.dtype == np.uint8:
        if high <= 1:
            raise UserError(
                f"{came} of 0 and 1, and uint8 is divided by 255 in a step: give "
                "targets.astype('float32')"
            )
    elif low < 0 or high > 1:
        raise UserError(
            f"{where} go from {low} to {high}, but labels that are each true or false "
            "are in [0, 1]: use cross_entropy for classes, squared_error for numbers"
        )
