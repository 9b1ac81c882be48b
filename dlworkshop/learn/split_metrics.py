"""Metrics of a whole split, on the host: (outputs [N, ...], targets [N, ...]) -> float.

Each metric also takes `weights` [N] >= 0; an example of weight 0 does not count. The
definitions are scikit-learn's. A class without an example does not count in a mean over
classes. A metric that is not defined, for example because outputs are NaN or the split
has a single class, is NaN, and a warning says why.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from dlworkshop.data.leaves import as_floats
from dlworkshop.errors import UserError
from dlworkshop.learn.losses import in_pairs

# The meanings of outputs (see `losses.OUTPUTS`) for which metrics are defined. Those of
# classes take logits; probabilities come to them as logarithms.
OF_CLASSES = "logits", "probabilities"
OF_LABELS = ("binary_logits",)
OF_NUMBERS = "values", "probabilities"

BIG = 1e300  # replaces infinite evidence, which scikit-learn rejects


class _UndefinedError(Exception):
    """A metric is undefined on these examples."""


def fits(*kinds: str) -> Callable:
    """Decorate a metric with the meanings of outputs for which it is defined."""

    def mark(metric: Any) -> Any:
        metric.fits = kinds
        return metric

    return mark


def _nan_if_undefined(metric: Callable) -> Callable:
    @functools.wraps(metric)
    def measured(outputs, targets, weights=None) -> float:
        outputs, targets = as_floats(outputs, "outputs"), np.asarray(targets)
        if not outputs.ndim or not targets.ndim:
            raise UserError("outputs or targets are scalars: give arrays [N, ...]")
        if len(outputs) != len(targets):
            raise UserError(
                f"there are {len(outputs)} outputs and {len(targets)} targets: give "
                "one of both for each example"
            )
        weights = np.ones(len(targets)) if weights is None else np.asarray(weights)
        if weights.shape != (len(targets),) or not (weights >= 0).all():
            raise UserError(
                f"weights has shape {list(weights.shape)}: give a number of at least 0 "
                f"for each of {len(targets)} examples"
            )
        counts = weights > 0
        try:
            if not counts.any():
                raise _UndefinedError("no example counts")
            return float(metric(outputs[counts], targets[counts], weights[counts]))
        except _UndefinedError as why:
            name = metric.__name__
            warnings.warn(f"{name} is not defined here: {why}", stacklevel=2)
            return float("nan")

    return measured


def _numbers(outputs: np.ndarray, bad: np.ndarray) -> np.ndarray:
    if bad.any():
        raise _UndefinedError("some outputs are not finite")
    return outputs


def _classes(outputs, targets):
    """Log probabilities [N, K] and labels [N], of outputs [N, K]."""
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise UserError(
            f"a metric of classes needs outputs [N, K] with K > 1, got {outputs.shape}:"
            " for labels each true or false use a metric of labels, as label_roc_auc"
        )
    if targets.shape == outputs.shape:  # soft targets: the most probable class
        if not np.allclose(targets.sum(1), 1, atol=1e-3):
            raise UserError(
                f"a metric of classes needs one class for each example, but targets "
                f"{targets.shape} do not sum to 1: use one of labels, as label_roc_auc"
            )
        targets = targets.argmax(1)
    if targets.ndim != 1 or not np.issubdtype(targets.dtype, np.integer):
        raise UserError(
            f"a metric of classes needs int targets [N], got {targets.dtype} "
            f"{targets.shape}: give labels in [0, {outputs.shape[1]})"
        )
    # -inf masks a class
    _numbers(outputs, np.isnan(outputs) | np.isposinf(outputs))
    shifted = outputs - outputs.max(1, keepdims=True)
    log_chance = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return log_chance, targets


def _labels(outputs, targets):
    """Scores and truth [N, K] of labels that are each true or false."""
    if outputs.size != targets.size or not _alike(outputs, targets):
        raise UserError(
            f"a metric of labels needs a target for each output, got {outputs.shape} "
            f"and {targets.shape}: for classes use a metric of classes, as roc_auc"
        )
    if not np.isin(targets, (0, 1)).all():
        raise UserError("a metric of labels needs targets of 0 and 1: round them")
    outputs = _numbers(np.clip(outputs, -BIG, BIG), np.isnan(outputs))
    shape = (len(outputs), -1)
    return outputs.reshape(shape), targets.reshape(shape).astype(int)


def _alike(outputs: np.ndarray, targets: np.ndarray) -> bool:
    return in_pairs(outputs.shape[1:], targets.shape[1:])


def _mean_of_columns(score: Callable, truth, said, weights, counts) -> float:
    columns = np.flatnonzero(counts)
    if not len(columns):
        raise _UndefinedError("there is no class with examples of it and of others")
    scores = [score(truth[:, k], said[:, k], sample_weight=weights) for k in columns]
    return np.mean(scores)


def _against_the_rest(score: Callable, classes, weights) -> float:
    """One-versus-rest mean of a score over the classes."""
    log_chance, label = classes
    if log_chance.shape[1] == 2:
        evidence = np.clip(log_chance[:, 1:] - log_chance[:, :1], -BIG, BIG)
        truth = label[:, None] == 1
    else:
        evidence = np.exp(log_chance)
        truth = label[:, None] == np.arange(evidence.shape[1])
    return _mean_of_columns(score, truth, evidence, weights, _varies(truth))


def _varies(truth) -> np.ndarray:
    return (truth != truth[:1]).any(0)


@fits(*OF_CLASSES)
@_nan_if_undefined
def balanced_accuracy(outputs, targets, weights=None) -> float:
    """Mean over the classes of the accuracy on each, in [0, 1].

    Args:
        outputs: [N, K] logits; the largest is the prediction.
        targets: [N] int, or [N, K] probabilities, whose largest is the class.
        weights: [N] of examples.

    >>> balanced_accuracy([[2, 1], [2, 1], [2, 1], [0, 1]], [0, 0, 1, 1])
    0.75
    """
    from sklearn.metrics import recall_score  # noqa: PLC0415

    log_chance, label = _classes(outputs, targets)
    return recall_score(
        label,
        log_chance.argmax(1),
        labels=np.unique(label),
        average="macro",
        sample_weight=weights,
    )


@fits(*OF_CLASSES)
@_nan_if_undefined
def f1_macro(outputs, targets, weights=None) -> float:
    """Mean over the classes of 2 precision recall / (precision + recall), in [0, 1].

    Arguments are those of `balanced_accuracy`. A class that is neither present nor
    predicted does not count.

    >>> round(f1_macro([[2, 1], [2, 1], [2, 1], [0, 1]], [0, 0, 1, 1]), 4)
    0.7333
    """
    from sklearn.metrics import f1_score  # noqa: PLC0415

    log_chance, label = _classes(outputs, targets)
    said = log_chance.argmax(1)
    return f1_score(label, said, average="macro", sample_weight=weights)


@fits(*OF_CLASSES)
@_nan_if_undefined
def log_loss(outputs, targets, weights=None) -> float:
    """Mean negative log likelihood of the labels under softmax(outputs), in nats.

    Arguments are those of `balanced_accuracy`.

    >>> round(log_loss([[0, 0], [0, 0]], [0, 1]), 4)  # log 2
    0.6931
    """
    log_chance, label = _classes(outputs, targets)
    likely = np.take_along_axis(log_chance, label[:, None], 1)[:, 0]
    return -np.average(likely, weights=weights)


@fits(*OF_CLASSES)
@_nan_if_undefined
def roc_auc(outputs, targets, weights=None) -> float:
    """Area under the ROC curve: how often an example of the class outranks another.

    In [0, 1], 0.5 by chance. For two classes it is that of the second class; for more,
    the mean over each class against the rest, ranked by its probability.

    Arguments are those of `balanced_accuracy`. Source: Fawcett (2006), An introduction
    to ROC analysis, section 9.2, with equal weights.

    >>> roc_auc([[2, 1], [1, 2], [1, 1.5], [0, 2]], [0, 0, 1, 1])
    0.75
    """
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415

    return _against_the_rest(roc_auc_score, _classes(outputs, targets), weights)


@fits(*OF_CLASSES)
@_nan_if_undefined
def average_precision(outputs, targets, weights=None) -> float:
    """Area under the precision-recall curve, in [0, 1]; by chance the class's share.

    For two classes it is that of the second class; for more, the mean over each class
    against the rest. Arguments are those of `balanced_accuracy`.

    >>> round(average_precision([[2, 1], [1, 2], [1, 1.5], [0, 2]], [0, 0, 1, 1]), 4)
    0.8333
    """
    from sklearn.metrics import average_precision_score as score  # noqa: PLC0415

    return _against_the_rest(score, _classes(outputs, targets), weights)


@fits(*OF_LABELS)
@_nan_if_undefined
def label_f1_macro(outputs, targets, weights=None) -> float:
    """Mean over the labels of 2 precision recall / (precision + recall), in [0, 1].

    Args:
        outputs: [N, K] log odds of labels, each predicted true above 0; [N] for one.
        targets: [N, K] or [N] of 0 and 1.
        weights: [N] of examples.

    A label that is neither present nor predicted does not count.

    >>> label_f1_macro([[1, -1], [1, -1]], [[1, 0], [1, 1]])
    0.5
    """
    outputs, truth = _labels(outputs, targets)
    said = (outputs > 0).astype(int)
    counts = (truth | said).any(0)
    if not counts.any():
        raise _UndefinedError("no label is present or predicted")
    of_both, in_all = weights @ (truth & said), weights @ (truth + said)
    return np.mean(2 * of_both[counts] / in_all[counts])


@fits(*OF_LABELS)
@_nan_if_undefined
def label_roc_auc(outputs, targets, weights=None) -> float:
    """Area under the ROC curve of each label, and their mean.

    Arguments are those of `label_f1_macro`. A label that is always or never present
    does not count.

    >>> label_roc_auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.75
    """
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415

    outputs, truth = _labels(outputs, targets)
    return _mean_of_columns(roc_auc_score, truth, outputs, weights, _varies(truth))


@fits(*OF_LABELS)
@_nan_if_undefined
def label_average_precision(outputs, targets, weights=None) -> float:
    """Area under the precision-recall curve of each label, and their mean.

    Arguments are those of `label_f1_macro`. A label that is always or never present
    does not count.

    >>> round(label_average_precision([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]), 4)
    0.8333
    """
    from sklearn.metrics import average_precision_score as score  # noqa: PLC0415

    outputs, truth = _labels(outputs, targets)
    return _mean_of_columns(score, truth, outputs, weights, _varies(truth))


def _values(outputs, targets):
    """Outputs and targets [N, D]."""
    if outputs.size != targets.size or not _alike(outputs, targets):
        raise UserError(
            f"a metric of numbers needs a target for each output, got {outputs.shape} "
            f"and {targets.shape}: make their shapes equal"
        )
    _numbers(outputs, ~np.isfinite(outputs))
    return (array.reshape(len(outputs), -1) for array in (outputs, targets))


@fits(*OF_NUMBERS)
@_nan_if_undefined
def mae(outputs, targets, weights=None) -> float:
    """Mean absolute error, over examples and outputs, in units of the targets.

    Args:
        outputs: [N, ...].
        targets: [N, ...], as many numbers.
        weights: [N] of examples.

    >>> mae([1.0, 3.0], [1.0, 1.0])
    1.0
    """
    outputs, targets = _values(outputs, targets)
    return np.average(np.abs(outputs - targets).mean(1), weights=weights)


@fits(*OF_NUMBERS)
@_nan_if_undefined
def rmse(outputs, targets, weights=None) -> float:
    """Root mean squared error, in units of the targets.

    Arguments are those of `mae`. The mean is over examples and outputs, so that its
    square is the loss `squared_error`; scikit-learn's is the mean of outputs' roots.

    >>> round(rmse([1.0, 3.0], [1.0, 1.0]), 4)
    1.4142
    """
    outputs, targets = _values(outputs, targets)
    return np.sqrt(np.average(((outputs - targets) ** 2).mean(1), weights=weights))


@fits(*OF_NUMBERS)
@_nan_if_undefined
def r2(outputs, targets, weights=None) -> float:
    """Coefficient of determination: at most 1, 0 for predicting the mean.

    Arguments are those of `mae`. For several outputs it is the mean over the outputs
    whose targets vary.

    >>> r2([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    1.0
    """
    from sklearn.metrics import r2_score  # noqa: PLC0415

    outputs, targets = _values(outputs, targets)
    some = _varies(targets)
    if not some.any():
        raise _UndefinedError("the targets do not vary")
    return r2_score(targets[:, some], outputs[:, some], sample_weight=weights)


# The usual ones of values.
OF_VALUES: dict[str, Callable[..., float]] = {"mae": mae, "rmse": rmse, "r2": r2}
