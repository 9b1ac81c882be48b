"""Metrics of one example, their directions, and statistics over a population.

A metric is a function of ONE example, (outputs, targets) -> [], or of a whole split
(see `split_metrics`), together with the direction that is better. Pass metrics to
`fit(..., metrics={"accuracy": metrics.accuracy, "auc": metrics.roc_auc})`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlworkshop.data.leaves import as_floats
from dlworkshop.errors import UserError, check_number, check_whole
from dlworkshop.learn import split_metrics
from dlworkshop.learn.losses import (
    absolute_error,
    class_target,
    outputs_of,
    pair,
    squared_error,
)
from dlworkshop.learn.split_metrics import OF_CLASSES, OF_LABELS, OF_NUMBERS, fits
from dlworkshop.types import Array

__all__ = [
    "Metric",
    "accuracy",
    "average_precision",
    "balanced_accuracy",
    "calibration_error",
    "f1_macro",
    "label_accuracy",
    "label_average_precision",
    "label_f1_macro",
    "label_roc_auc",
    "log_loss",
    "mae",
    "mean_and_error",
    "mean_over_classes",
    "mse",
    "nearest_mean",
    "r2",
    "reliability",
    "rmse",
    "roc_auc",
    "top_k",
]


class Metric(NamedTuple):
    """A metric with the direction that is better.

    A metric of one example is a JAX function, (outputs, targets) -> scalar; the run
    takes its weighted mean. A metric of a whole split is a NumPy function, like those
    of scikit-learn, (outputs [N, ...], targets [N, ...], weights [N] or None) -> float,
    which is called for each member.

    >>> def worst(outputs, targets, weights):
    ...     return float(np.max(np.abs(outputs - targets)))
    >>> Metric(worst, better="lower", split=True, unit="volts").better
    'lower'
    """

    function: Callable
    better: str = "higher"  # or "lower"
    split: bool = False  # whether it is of a whole split
    unit: str = ""  # in words; "" if it has none, such as a fraction in [0, 1]


balanced_accuracy = Metric(split_metrics.balanced_accuracy, split=True)
f1_macro = Metric(split_metrics.f1_macro, split=True)
roc_auc = Metric(split_metrics.roc_auc, split=True)
average_precision = Metric(split_metrics.average_precision, split=True)
log_loss = Metric(split_metrics.log_loss, "lower", split=True, unit="nats")
label_f1_macro = Metric(split_metrics.label_f1_macro, split=True)
label_roc_auc = Metric(split_metrics.label_roc_auc, split=True)
label_average_precision = Metric(split_metrics.label_average_precision, split=True)
TARGET_UNIT = "units of the target"
mae = Metric(absolute_error, "lower", unit=TARGET_UNIT)
mse = Metric(squared_error, "lower", unit=f"squared {TARGET_UNIT}")
rmse = Metric(split_metrics.rmse, "lower", split=True, unit=TARGET_UNIT)
r2 = Metric(split_metrics.r2, split=True)


@fits(*OF_CLASSES)
def accuracy(outputs, targets) -> jax.Array:
    """1.0 if the largest output is the target's class, else 0.0; the first wins a tie.

    NaN if an output is NaN or infinite; -inf, which masks a class, is the smallest.

    Args:
        outputs: [K] real, K > 1.
        targets: [] int in [0, K), or [K] float, whose largest is the class.

    Raises:
        ValueError: for other shapes or dtypes, e.g. a batch that was not vmapped.

    >>> float(accuracy(jnp.array([0.1, 2.0, -1.0]), 1))
    1.0
    """
    outputs, targets = class_target(outputs, targets)
    if outputs.size < 2:
        raise ValueError("accuracy needs outputs [K] with K > 1: use label_accuracy")
    label = jnp.argmax(targets) if targets.ndim else targets
    return _if_ranked(outputs, jnp.argmax(outputs) == label)


def _if_ranked(outputs: jax.Array, score: jax.Array) -> jax.Array:
    """A score of outputs [K]; NaN for outputs whose softmax is not finite.

    -inf masks a class and is the smallest. If all outputs are -inf, or one is NaN or
    +inf, the loss is not finite either.
    """
    ranked = jnp.isfinite(outputs.max())
    return jnp.where(ranked, score, jnp.nan).astype(float)


def top_k(k: int) -> Callable:
    """The metric: 1.0 if fewer than `k` outputs rank before the target's, else 0.0.

    Among equal outputs the first ranks first, so `top_k(1)` is `accuracy`. NaN if
    `accuracy` is NaN.

    Raises:
        UserError: if k is not a whole number of at least 1.
        ValueError: from the metric, if there are k classes or fewer.

    >>> top_2 = top_k(2)
    >>> [float(top_2(jnp.array([0.1, 2.0, -1.0]), label)) for label in range(3)]
    [1.0, 1.0, 0.0]
    """
    check_whole("k", k)

    @fits(*OF_CLASSES)
    def top(outputs, targets):
        outputs, targets = class_target(outputs, targets)
        if outputs.size <= k:
            raise ValueError(
                f"the target is always among the first {k} of {outputs.size} outputs: "
                "use a smaller k"
            )
        label = jnp.argmax(targets) if targets.ndim else targets
        own, place = outputs[label], jnp.arange(outputs.size)
        before = (outputs > own) | ((outputs == own) & (place < label))
        return _if_ranked(outputs, before.sum() < k)

    top.__name__ = f"top_{k}"
    return top


@fits(*OF_LABELS)
def label_accuracy(outputs, targets) -> jax.Array:
    """Fraction of the labels predicted correctly; an output above 0 predicts true.

    NaN if an output is NaN.

    Args:
        outputs: [K] log odds of labels, each true or false.
        targets: [K] in [0, 1], true above 0.5.

    >>> float(label_accuracy(jnp.array([3.0, -1.0]), jnp.array([1, 1])))
    0.5
    """
    outputs, targets = pair(outputs, targets)
    right = (outputs > 0) == (targets > 0.5)
    return jnp.where(jnp.isnan(outputs), jnp.nan, right).mean()


def as_metrics(metrics: Mapping[str, Callable | Metric]) -> dict[str, Metric]:
    """Each value as a `Metric`: lower is better for losses, higher for other functions.

    Raises:
        UserError: for a name that is not valid, or a value that is not a metric.

    >>> {name: m.better for name, m in as_metrics({"a": accuracy, "r": rmse}).items()}
    {'a': 'higher', 'r': 'lower'}
    """
    if not isinstance(metrics, Mapping):
        raise UserError(
            f"metrics is {metrics!r}: give a dict of names and functions, such as "
            '{"accuracy": metrics.accuracy}'
        )
    return {_checked_name(name): _as_metric(name, m) for name, m in metrics.items()}


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not name.isidentifier():
        raise UserError(
            f"a metric is named {name!r}: use letters, digits and _, as in 'top_5'"
        )
    if name.lower() == "loss":
        raise UserError(
            f"a metric is named '{name}', like the minimised loss: rename it"
        )
    return name


def _as_metric(name: str, metric: Any) -> Metric:
    if metric is absolute_error or metric is squared_error:
        return mae if metric is absolute_error else mse
    if not isinstance(metric, Metric):
        is_loss = callable(metric) and outputs_of(metric) is not None
        metric = Metric(metric, "lower" if is_loss else "higher")
    if not callable(metric.function):
        raise UserError(
            f"metric '{name}' is {metric.function!r}: give a function of outputs and "
            "targets, or a metrics.Metric of one"
        )
    if metric.better not in ("higher", "lower"):
        raise UserError(
            f"metric '{name}' is better {metric.better!r}: say 'higher' or 'lower'"
        )
    return metric


def default_metrics(outputs_kind: str | None, classes) -> dict[str, Metric]:
    """The default metrics for outputs of this meaning.

    Args:
        outputs_kind: as of `losses.outputs_of`.
        classes: names of classes, empty if there are none.

    >>> list(default_metrics("values", ()))
    ['mae', 'rmse', 'r2']
    """
    if outputs_kind in ("logits", "probabilities") and len(classes):
        return {"accuracy": Metric(accuracy)}
    if outputs_kind == "binary_logits":
        return {"accuracy": Metric(label_accuracy), "f1_macro": label_f1_macro}
    if outputs_kind == "values":
        return {"mae": mae, "rmse": rmse, "r2": r2}
    return {}


def fitted(
    metrics: Mapping[str, Metric],
    outputs_kind: str | None,
    target: Mapping[str, Any] | None = None,
) -> dict[str, Metric]:
    """Metrics for the outputs and targets of a run.

    Args:
        metrics: of outputs and targets as the model learns them.
        outputs_kind: as of `losses.outputs_of`. Metrics of logits get the logarithms of
            probabilities.
        target: of a table, `preprocessing["target"]`. Errors of one column are in its
            units; errors of several columns, whose units may differ, are in standard
            deviations.

    Raises:
        UserError: if a metric is not one of such outputs.

    >>> fitted({"mae": mae}, "logits")
    Traceback (most recent call last):
    dlworkshop.errors.UserError: metric 'mae' is for outputs that are values or \
probabilities, but those of this run are logits: choose another metric, or a function \
of your own
    """
    factor, unit = own_units(target)
    found = {}
    for name, metric in metrics.items():
        kinds = _kinds_of(metric.function)
        if outputs_kind is not None and kinds and outputs_kind not in kinds:
            raise UserError(
                f"metric '{name}' is for outputs that are {' or '.join(kinds)}, but "
                f"those of this run are {outputs_kind}: choose another metric, or a "
                "function of your own"
            )
        own = metric
        if unit and metric.unit.endswith(TARGET_UNIT):
            own = scaled(metric, factor, metric.unit.replace(TARGET_UNIT, unit))
        if outputs_kind == "probabilities" and metric.split and kinds == OF_CLASSES:
            of_logits = functools.partial(_of_probabilities, own.function)
            own = own._replace(function=of_logits)
        found[name] = own
    return found


def _kinds_of(function: Callable) -> tuple[str, ...]:
    """The meanings of outputs for which a metric is defined; () if not known."""
    while isinstance(function, functools.partial):
        function = function.func
    kind = outputs_of(function)
    if kind is None:
        return getattr(function, "fits", ())
    return OF_NUMBERS if kind == "values" else (kind,)


def _of_probabilities(function: Callable, outputs, *others) -> float:
    chance = np.asarray(outputs, np.float64)
    return function(np.log(np.maximum(chance, np.finfo(float).tiny)), *others)


def own_units(target: Mapping[str, Any] | None) -> tuple[float, str]:
    """The factor from standardised errors to the target's unit, and its name.

    The name is "" if the targets were not standardised.

    Args:
        target: `preprocessing["target"]` of a table, if there is one.

    >>> column = {"name": "price", "mean": 10.0, "deviation": 2.0}
    >>> own_units({"several": False, "columns": [column]})
    (2.0, 'units of price')
    >>> own_units(None)
    (1.0, '')
    """
    columns = (target or {}).get("columns", ())
    deviations = [column["deviation"] for column in columns if "deviation" in column]
    if not deviations:
        return 1.0, ""
    if len(columns) > 1:
        return 1.0, "standard deviations"
    unit = columns[0].get("unit", f"units of {columns[0]['name']}")
    return deviations[0], "percentage points" if unit == "%" else unit


def scaled(metric: Metric, factor: float, unit: str) -> Metric:
    """The metric of outputs and targets that are both multiplied by `factor`.

    >>> price = scaled(mae, 1000.0, "euros")  # of a model that learns thousands
    >>> float(price.function(jnp.array(1.0), jnp.array(3.0))), price.unit
    (2000.0, 'euros')
    """
    metric = _as_metric("to be scaled", metric)
    check_number("factor", factor)
    function = functools.partial(_of_scaled, metric.function, factor)
    return metric._replace(function=function, unit=unit)


def _of_scaled(function: Callable, factor: float, outputs, targets, *weights):
    return function(outputs * factor, targets * factor, *weights)


def cost(metric: Metric | None, value: Array) -> Array:
    """A metric's value, signed so that lower is better; infinite if not finite.

    Args:
        metric: None for the loss.
        value: any shape, of NumPy or of JAX, traced or not.

    >>> cost(Metric(accuracy), np.array([0.75, np.nan])).tolist()
    [-0.75, inf]
    """
    xp = jnp if isinstance(value, jax.Array) else np
    turned = -value if metric is not None and metric.better == "higher" else +value
    return xp.where(xp.isfinite(value), turned, xp.inf)


def mean_over_classes(correct, label, weights=None) -> np.ndarray:
    """Mean over the classes of the accuracy on each.

    Args:
        correct: [..., N] 1 for an example that was classified correctly, else 0.
        label: [N] int; classes without an example do not count.
        weights: [N] >= 0 of the examples; equal by default.

    Returns:
        [...] in [0, 1].

    >>> float(mean_over_classes(np.array([1, 1, 1, 0]), np.array([0, 0, 0, 1])))
    0.5
    """
    correct, label = np.asarray(correct, np.float64), np.asarray(label)
    share = np.ones(len(label)) if weights is None else np.asarray(weights, float)
    of_class = [label == k for k in np.unique(label[share > 0])]
    each = [np.average(correct[..., own], -1, share[own]) for own in of_class]
    return np.mean(each, 0)


def nearest_mean(train, label, test, truth, num_classes: int = 10) -> jax.Array:
    """Fraction of test features that are nearest to the mean of their own class.

    Args:
        train: [N, ...] features, from which class means are computed.
        label: [N] int in [0, K), their classes; one without examples has no mean.
        test: [M, ...] features.
        truth: [M] int, their classes.
        num_classes: K.

    >>> seen, unseen = jnp.array([0.0, 2.0, 8.0, 10.0]), jnp.array([3.0, 4.0, 6.0])
    >>> labels = jnp.array([0, 0, 1, 1]), jnp.array([0, 1, 1])
    >>> round(float(nearest_mean(seen, labels[0], unseen, labels[1], 2)), 4)
    0.6667
    """
    train, test = (features.reshape(len(features), -1) for features in (train, test))
    own = jax.nn.one_hot(label, num_classes, axis=0)  # [K, N]
    means = own @ train / own.sum(1, keepdims=True)  # [K, D]
    squares = ((test[:, None] - means) ** 2).sum(-1)  # [M, K]
    squares = jnp.where(own.any(1), squares, jnp.inf)
    return (squares.argmin(1) == truth).mean()


def reliability(confidence, correct, num_bins: int = 15) -> np.ndarray:
    """Confidence, accuracy and share of the examples of each bin: [num_bins, 3].

    Args:
        confidence: [N] in [0, 1], the largest probability of each example.
        correct: [N] 1 if the prediction was correct, else 0.
        num_bins: bins of equal width, closed at the upper end.

    Returns:
        The number of examples, their mean confidence and their accuracy in each bin;
        the last two are NaN in an empty bin.

    Source: Guo et al. (2017), On calibration of modern neural networks, section 2.

    >>> reliability([0.9, 0.8, 0.3], [1, 0, 0], num_bins=2).round(2).tolist()
    [[1.0, 0.3, 0.0], [2.0, 0.85, 0.5]]
    """
    check_whole("num_bins", num_bins)
    confidence = as_floats(confidence, "confidence")
    correct = as_floats(correct, "correct")
    if confidence.ndim != 1 or confidence.shape != correct.shape:
        raise UserError(
            f"confidence has shape {confidence.shape} and correct {correct.shape}: "
            "give both for each of N examples"
        )
    low, high = confidence.min(initial=0), confidence.max(initial=0)
    if low < -0.05 or high > 1.05:  # bfloat16 rounds to 1.004
        raise UserError(
            f"confidence goes from {low:.3g} to {high:.3g}: give probabilities, in "
            "[0, 1]"
        )
    edges = np.linspace(0, 1, num_bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, None)
    place = np.minimum(place, num_bins - 1)  # rounding may leave 1 + 1e-7
    count, sure, right = (
        np.bincount(place, weights, num_bins) for weights in (None, confidence, correct)
    )
    with np.errstate(invalid="ignore"):
        return np.stack([count, sure / count, right / count], axis=1)


def calibration_error(confidence, correct, num_bins: int = 15) -> float:
    """Expected calibration error: |accuracy - confidence|, mean over all examples.

    Source: Guo et al. (2017), equation 3. Arguments are those of `reliability`.

    >>> round(calibration_error([0.9, 0.8, 0.3], [1, 0, 0], num_bins=2), 4)
    0.3333
    """
    count, sure, right = reliability(confidence, correct, num_bins).T
    gaps = np.where(count > 0, count * np.abs(right - sure), 0)  # NaN if one is
    return float(gaps.sum() / count.sum())


def mean_and_error(values) -> dict[str, Any]:
    """Mean, standard error of the mean, and n of the finite values of a population.

    The standard error is s / sqrt(n) with Bessel's correction; None where n < 2.

    >>> mean_and_error([1.0, 2.0, 3.0])
    {'mean': 2.0, 'sem': 0.5773502691896258, 'n': 3}
    """
    values = as_floats(values, "values")
    values = values[np.isfinite(values)]
    n = values.size
    return {
        "mean": float(values.mean()) if n else None,
        "sem": float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else None,
        "n": n,
    }
