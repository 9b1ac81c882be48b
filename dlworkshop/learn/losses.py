"""Losses of ONE example: (outputs, targets) -> scalar.

The attribute `outputs` of a loss says what the outputs mean, one of `OUTPUTS`. Metrics,
reports and saved probabilities depend on it. A custom loss may set it, too:
`my_loss.outputs = "logits"`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlworkshop.data.leaves import at_least_float32
from dlworkshop.errors import (
    Range,
    UserError,
    check_function,
    check_known,
    check_number,
    check_whole,
    repr_of,
    unknown,
)
from dlworkshop.learn.hparams import name_of
from dlworkshop.types import Array

__all__ = [
    "absolute_error",
    "binary_cross_entropy",
    "class_weights",
    "cross_entropy",
    "huber",
    "outputs_of",
    "probabilities",
    "squared_error",
    "weighted",
]

OUTPUTS = {  # meaning of outputs -> a function to probabilities, if they have any
    "logits": jax.nn.softmax,  # [K] unnormalised log probabilities of classes
    "binary_logits": jax.nn.sigmoid,  # [K] log odds of labels, each true or false
    "probabilities": lambda outputs: outputs,  # [K] of classes
    "values": None,  # predictions of the targets, in their units
}


def _means(outputs: str) -> Callable:
    """Decorate a loss with the meaning of its outputs."""

    def mark(loss: Any) -> Any:
        loss.outputs = outputs
        return loss

    return mark


def outputs_of(loss: Callable) -> str | None:
    """The meaning of a loss's outputs, a key of `OUTPUTS`; None where unknown.

    >>> outputs_of(functools.partial(huber, delta=2.0))
    'values'
    """
    while isinstance(loss, functools.partial):
        loss = loss.func
    outputs = getattr(loss, "outputs", None)
    if not isinstance(outputs, str):
        return None
    if outputs not in OUTPUTS:
        raise unknown("meaning of outputs", outputs, OUTPUTS)
    return outputs


def probabilities(outputs_kind: str | None, outputs: Array) -> jax.Array | None:
    """Outputs [..., K] as probabilities; None if they have none.

    Args:
        outputs_kind: as of `outputs_of`.
        outputs: [..., K] of one example or of many.

    >>> probabilities("logits", jnp.zeros(4)).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    if outputs_kind is not None:
        check_known("meaning of outputs", outputs_kind, OUTPUTS)
    link = None if outputs_kind is None else OUTPUTS[outputs_kind]
    if link is None:
        return None
    return link(at_least_float32(_array("the outputs", outputs)))


def _check(name: str, number: Any, inside: Range) -> None:
    if isinstance(number, (int, float)):  # `fit` checks hyper-parameters
        check_number(name, number, inside)


def _array(what: str, given: Any) -> jax.Array:
    try:
        return jnp.asarray(given)
    except (TypeError, ValueError):
        raise UserError(f"{what} is {repr_of(given)}: give an array") from None


def class_target(logits: Array, targets: Array) -> tuple[jax.Array, jax.Array]:
    """Outputs [K] and the target of one example: an int [] or probabilities [K].

    Raises:
        ValueError: for anything else.
    """
    logits, targets = _array("logits", logits), _array("targets", targets)
    if logits.ndim != 1:
        raise ValueError(f"logits must be [K], got {logits.shape}; vmap me")
    is_int = jnp.issubdtype(targets.dtype, jnp.integer)
    if targets.ndim == 0 and not is_int:
        raise ValueError(
            f"the target must be an int in [0, {logits.size}), got {targets.dtype}: "
            "convert labels of classes with .astype('int32'), or use a loss of "
            "numbers, such as squared_error"
        )
    if targets.ndim and (targets.shape != logits.shape or is_int):
        raise ValueError(
            f"the target must be an int [] or floats {logits.shape}, the probability "
            f"of each class, got {targets.dtype} {targets.shape}: give one label for "
            "one example, or vmap me"
        )
    return logits, targets


@_means("logits")
def cross_entropy(logits, targets, *, label_smoothing=0.0) -> jax.Array:
    """Negative log likelihood of the targets under softmax(`logits`), in nats.

    Args:
        logits: [K] real, unnormalised log probabilities; -inf for an impossible class,
            without label smoothing.
        targets: [] int in [0, K), or [K] float, the probability of each class.
        label_smoothing: [] in [0, 1), the share of the target that is spread evenly
            over all classes (Szegedy et al. 2016, section 7).

    Returns:
        [] real >= 0, in nats (divide by log 2 for bits), at least float32; NaN for a
        target that is not a class. Mask padding with
        `jnp.where(target >= 0, loss, 0.0)`.

    Raises:
        ValueError: if `logits` is not one vector, e.g. a batch that was not vmapped, or
            the targets are neither of the two.

    Source: Bishop (2006), PRML, eq. 4.108, for one example.

    >>> round(float(cross_entropy(jnp.zeros(4), 2)), 4)  # log 4
    1.3863
    >>> half = jnp.array([0.5, 0.5, 0.0, 0.0])  # such as two mixed images
    >>> round(float(cross_entropy(jnp.array([2.0, 2.0, 0.0, 0.0]), half)), 4)
    0.8201
    """
    logits, targets = class_target(logits, targets)
    _check("label_smoothing", label_smoothing, Range(0, 1))
    logits = at_least_float32(logits)
    if targets.ndim == 0:
        there = (targets >= 0) & (targets < logits.size)  # JAX clips other indices
        likely = (1 - label_smoothing) * jnp.where(there, logits[targets], jnp.nan)
        spread = jnp.where(label_smoothing == 0, 0.0, label_smoothing * logits.mean())
        return jax.nn.logsumexp(logits) - (likely + spread)  # a masked logit is -inf
    share = (1 - label_smoothing) * targets + label_smoothing / logits.size
    terms = share * jax.nn.log_softmax(logits)
    return -jnp.where(share == 0, 0.0, terms).sum()  # 0 log 0 is 0


@_means("binary_logits")
def binary_cross_entropy(logits, targets) -> jax.Array:
    """Negative log likelihood of labels that are each true or false, in nats.

    Args:
        logits: [K] real, the log odds of each label; [1] or [] for one of two classes.
        targets: [K] in [0, 1], usually 0 or 1; may be [] for [1] logits.

    Returns:
        [] real >= 0, the mean over the labels, in nats, at least float32.

    Raises:
        ValueError: if there is not one target for each logit, or for a batch.

    Source: Bishop (2006), PRML, eq. 4.90, for one example, divided by K.

    >>> labels = jnp.array([1, 0, 1])
    >>> round(float(binary_cross_entropy(jnp.zeros(3), labels)), 4)  # log 2
    0.6931
    """
    if jnp.ndim(logits) > 1:
        raise ValueError(f"logits must be [K], got {jnp.shape(logits)}; vmap me")
    logits, targets = pair(logits, targets)
    # log_sigmoid avoids differences of large numbers
    yes, no = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    return -(targets * yes + (1 - targets) * no).mean()


def pair(outputs: Array, targets: Array) -> tuple[jax.Array, jax.Array]:
    """Outputs and targets [D] of one example, at least float32, of equal shape.

    Raises:
        ValueError: if their sizes differ, or their axes are in another order.
    """
    outputs, targets = _array("outputs", outputs), _array("targets", targets)
    if jnp.size(outputs) != jnp.size(targets):
        raise ValueError(
            f"outputs {jnp.shape(outputs)} and targets {jnp.shape(targets)} must have "
            "the same size: give the model one output for each target, and vmap me "
            "over a batch"
        )
    if not in_pairs(jnp.shape(outputs), jnp.shape(targets)):
        raise ValueError(
            f"outputs {jnp.shape(outputs)} and targets {jnp.shape(targets)} have their "
            "axes in another order: transpose one of them"
        )
    outputs, targets = at_least_float32(outputs), at_least_float32(targets)
    return outputs.ravel(), targets.ravel()


def in_pairs(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two arrays of one size are compared number by number.

    Axes of size 1 do not matter, and one of the arrays may be flattened.

    >>> in_pairs((8, 6, 1), (8, 6)), in_pairs((48,), (8, 6)), in_pairs((6, 8), (8, 6))
    (True, True, False)
    """
    a, b = (tuple(size for size in each if size > 1) for each in (shape, other))
    return a == b or min(len(a), len(b)) == 1


@_means("values")
def squared_error(outputs, targets) -> jax.Array:
    """Mean of the squared differences, in squared units of the targets.

    Args:
        outputs: any shape.
        targets: of the same shape, apart from axes of size 1, or one of both flattened.

    Raises:
        ValueError: if their sizes differ, or their axes are in another order.

    >>> float(squared_error(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0])))
    2.0
    """
    outputs, targets = pair(outputs, targets)
    return jnp.square(outputs - targets).mean()


@_means("values")
def absolute_error(outputs, targets) -> jax.Array:
    """Mean of the absolute differences, in units of the targets.

    Arguments and errors are those of `squared_error`. The median minimises this loss.

    >>> float(absolute_error(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0])))
    1.0
    """
    outputs, targets = pair(outputs, targets)
    return jnp.abs(outputs - targets).mean()


@_means("values")
def huber(outputs, targets, *, delta=1.0) -> jax.Array:
    """Mean of e**2 / 2 for abs(e) <= delta, else delta (abs(e) - delta / 2).

    In squared units of the targets; the gradient of an outlier is at most delta.

    Args:
        outputs, targets: as of `squared_error`.
        delta: [] > 0, in units of the targets.

    Source: Huber (1964), Robust estimation of a location parameter.

    >>> float(huber(jnp.array([0.5, 3.0]), jnp.zeros(2)))  # (0.125 + 2.5) / 2
    1.3125
    """
    outputs, targets = pair(outputs, targets)
    _check("delta", delta, Range(0, closed=False))
    size = jnp.abs(outputs - targets)
    inside = jnp.minimum(size, delta)
    return (inside * (size - inside / 2)).mean()


def weighted(loss: Callable, weights) -> Callable:
    """`loss` times the weight of its target's class.

    Args:
        loss: function of one example, (outputs, targets) -> scalar, of classes.
        weights: [K] >= 0, as of `class_weights`. The weight of soft targets [K] is the
            mean of the classes' weights under them.

    Raises:
        UserError: for a loss of numbers or of several labels.

    >>> loss = weighted(cross_entropy, jnp.array([1.0, 3.0]))
    >>> [round(float(loss(jnp.zeros(2), label)), 4) for label in (0, 1)]  # log 2
    [0.6931, 2.0794]
    """
    check_function("loss", loss)
    given = weights if hasattr(weights, "dtype") else np.asarray(weights)
    if given.ndim != 1 or given.dtype.kind not in "iuf":
        raise UserError(
            f"weights is {repr_of(weights)}: give an array [K], a number for each class"
        )
    known = not isinstance(given, jax.core.Tracer)
    if known and not (np.isfinite(given) & (given >= 0)).all():
        raise UserError(
            f"weights of classes are {given!s:.60}: give finite numbers of at least 0"
        )
    if outputs_of(loss) in ("values", "binary_logits"):
        raise UserError(
            f"class weights do not fit {name_of(loss)}, whose targets are not classes: "
            "use cross_entropy, or weights of examples"
        )

    # keeps the signature and the attribute `outputs` of the loss
    @functools.wraps(loss)
    def weighted_loss(outputs, targets, **more):
        of_class = jnp.asarray(weights)  # [K]
        if of_class.shape != jnp.shape(outputs):
            raise UserError(
                f"there are {of_class.size} weights of classes, and outputs "
                f"{list(jnp.shape(outputs))}: give one weight for each class"
            )
        scalar = jnp.ndim(targets) == 0
        weight = of_class[targets] if scalar else jnp.vdot(of_class, targets)
        return weight * loss(outputs, targets, **more)

    weighted_loss.__name__ = f"weighted_{name_of(loss)}"
    return weighted_loss


def class_weights(label, num_classes: int) -> np.ndarray:
    """Weights [K] float32 that balance the classes; their mean is 1.

    N / (K n_k) for a class with n_k of the N labels, like scikit-learn's "balanced";
    the mean is over the labels.

    >>> class_weights(np.array([0, 0, 0, 1, 1, 1]), 2).tolist()
    [1.0, 1.0]
    """
    check_whole("num_classes", num_classes)
    label = np.asarray(label)
    whole = label.ndim == 1 and label.dtype.kind in "iu"
    if not whole or label.min(initial=0) < 0 or label.max(initial=0) >= num_classes:
        raise UserError(
            f"the labels are {label.dtype} {label.shape}: give whole numbers [N] in "
            f"[0, {num_classes})"
        )
    counts = np.bincount(label, minlength=num_classes)  # [K]
    return (len(label) / (num_classes * np.maximum(counts, 1))).astype(np.float32)
