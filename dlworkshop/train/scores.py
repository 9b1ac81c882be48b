"""Scores of outputs, for each member and for their ensemble, streamed.

The scores depend on the meaning of the outputs (`losses.OUTPUTS`). Examples are added
part by part; the ensemble is the mean of probabilities, or of values.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy

from dlworkshop.errors import UserError, repr_of
from dlworkshop.learn import split_metrics
from dlworkshop.learn.checks import check_targets, checked_metrics
from dlworkshop.learn.metrics import (
    Metric,
    as_metrics,
    mean_and_error,
    mean_over_classes,
    own_units,
)
from dlworkshop.report import settings
from dlworkshop.train.own_metrics import OwnMetrics, ensemble_outputs
from dlworkshop.train.predictions import as_learnt, labels
from dlworkshop.types import Array, PyTree

log = logging.getLogger(__name__)

LEAST = np.finfo(np.float64).tiny  # smallest probability, so that no loss is infinite


# Examples [B, ...], targets [B, ...] and weights [B], part by part.
Parts = Iterable[tuple[PyTree, Array, Array | None]]


class Evaluation(NamedTuple):
    """Scores of the selected members and of their ensemble."""

    of: str  # the data, in words
    examples: int
    members: int
    scores: dict[str, dict[str, Any]]  # accuracy, ... -> mean, sem and n
    # accuracy, ... of the mean probability or value; {} if the meaning is unknown
    ensemble: dict[str, float]
    units: dict[str, str]  # in words, of the scores that have one
    unread: Sequence[Any] = ()  # skipped files or rows, each with name and reason
    setting: str = ""  # the setting of the members, if there are several, in words


def evaluate_parts(
    run: Any,
    parts: Parts,
    words: str,
    unread: Sequence[Any] = (),
    members: np.ndarray | None = None,
    metrics: Mapping[str, Callable | Metric] | None = None,
) -> Evaluation:
    """Score the members of a `Run` on labelled examples.

    Args:
        run: with a `predictor`, `chosen` members, a `summary` and a `target`.
        parts: of the examples.
        words: the examples in words, for messages.
        unread: a list that grows while the parts are read.
        members: the members to score, bool [P]; by default the chosen ones.
        metrics: as of `fit`, besides those of the run.

    Raises:
        UserError: if there is no example, or no score for such outputs or targets.
    """
    kind = run.summary["outputs"]
    usual, own = all_scores(run, metrics)
    if lost := [name for name in run.metrics if name not in own.names]:
        log.warning(
            "the run was trained with %s, whose code is not in its folder, so %s left "
            "out: give Run.evaluate(..., metrics={'%s': ...}) the function in Python",
            ("the metric " if len(lost) == 1 else "the metrics ") + ", ".join(lost),
            "it is" if len(lost) == 1 else "they are",
            lost[0],
        )
    who = run.chosen if members is None else members
    predict, examples, unknown = run.predictor, 0, 0
    for inputs, targets, weights in parts:
        size = len(jax.tree.leaves(inputs)[0])
        if not size:
            continue
        answers = predict(inputs)
        if usual is not None:
            answers = only_array(answers)
            where = f"the targets of {words}"
            check_targets(_single(targets, where), kind, (), answers.shape[2:], where)
        for leaf in jax.tree.leaves(targets):  # none, if the metrics need none
            if len(leaf) != size:
                raise UserError(
                    f"{words} have {size} inputs, {len(leaf)} targets: give as many of "
                    "each"
                )
        answers = jax.tree.map(lambda leaf: np.asarray(leaf)[who], answers)
        if usual is not None:
            usual.add(answers, targets, weights)
        own.add(answers, targets, weights)
        unknown += int(_undefined(answers).sum())
        examples += size
    if not examples:
        why = f": {unread[0].name} {unread[0].reason}" if unread else ""
        raise UserError(f"no example of {words} can be read{why}")
    if unknown:
        log.warning(
            "%s: %s of %s examples have outputs that are not finite, so some scores "
            "are not known",
            words,
            f"{unknown:,}",
            f"{examples:,}",
        )
    found = Scores({}, {}, {}) if usual is None else usual.result()
    each, ensemble = found.members | own.members(), found.ensemble | own.ensemble()
    units = {k: v for k, v in (found.units | own.units).items() if k in each}
    means = {name: mean_and_error(values) for name, values in each.items()}
    scored = words, examples, int(who.sum()), means, ensemble, units
    setting = settings.in_words(run.summary) if members is None else ""
    return Evaluation(*scored, unread, setting)


def all_scores(
    run: Any, metrics: Mapping[str, Callable | Metric] | None
) -> tuple["OfClasses | OfNumbers | None", OwnMetrics]:
    """The usual scores of a run's outputs, if their meaning is known, and its metrics.

    Args:
        run: with its `metrics`, a `summary` and a `target`.
        metrics: as of `fit`, besides those of the run, or instead of some.

    Raises:
        UserError: if there are neither, or a metric is not one of such outputs.
    """
    kind = run.summary["outputs"]
    given = as_metrics({} if metrics is None else metrics)
    kept = {name: m for name, m in run.metrics.items() if m is not None}
    own = checked_metrics({**kept, **given}, kind, run.target)
    known = kind is not None or not own
    usual = scores_of(kind, *own_units(run.target)) if known else None
    return usual, OwnMetrics(own, kind)


def _undefined(outputs: PyTree) -> np.ndarray:
    """Which examples have outputs [P, B, ...] that are NaN or infinite: bool [B]."""
    defined = [
        (np.asarray(leaf, np.float64) < np.inf).all((0, *range(2, leaf.ndim)))
        for leaf in jax.tree.leaves(outputs)  # -inf masks a class
    ]
    return ~np.all(defined, 0)


class Scores(NamedTuple):
    """The scores of each member [P] and of the ensemble, by name."""

    members: dict[str, np.ndarray]
    ensemble: dict[str, float]
    units: dict[str, str]  # in words, of the scores that have one


class OfClasses:
    """Accuracy, balanced accuracy and cross-entropy, in bounded memory.

    >>> scores = OfClasses("probabilities")
    >>> scores.add(np.array([[[0.9, 0.1]], [[0.2, 0.8]]]), np.array([0]), None)
    >>> found = scores.result()
    >>> found.members["accuracy"].tolist(), found.ensemble["accuracy"]
    ([1.0, 0.0], 1.0)
    """

    def __init__(self, outputs: str):
        self._outputs = outputs
        self._parts: list[tuple[np.ndarray, ...]] = []

    def add(self, outputs: Array, targets: Array, weights: Array | None) -> None:
        """Add outputs [P, B, K] of examples with targets [B] or [B, K]."""
        label = labels(targets)
        if label is None:
            raise UserError(
                "the targets are not classes, but the run is a classifier: give whole "
                "numbers [N]"
            )
        outputs = np.asarray(outputs, np.float64)
        if self._outputs == "logits":  # finite even if softmax rounds to 0
            log_chance = scipy.special.log_softmax(outputs, -1)  # [P, B, K]
        else:
            log_chance = np.log(np.maximum(outputs, LEAST))
        together = scipy.special.logsumexp(log_chance, 0) - np.log(len(outputs))
        example = np.arange(len(label))

        def right(log_chance: np.ndarray) -> np.ndarray:  # [..., B, K] -> [..., B]
            known = ~np.isnan(log_chance).any(-1)
            return np.where(known, log_chance.argmax(-1) == label, np.nan)

        self._parts.append(
            (
                label,
                np.ones(len(label)) if weights is None else np.asarray(weights, float),
                right(log_chance),  # [P, B]
                -log_chance[:, example, label],
                right(together),  # [B]
                -together[example, label],
            )
        )

    def ensemble(self) -> dict[str, float]:
        """Scores of the mean of the members' probabilities, so far."""
        *_, right, loss = self._whole()
        return {k: float(v) for k, v in self._scores(right, loss).items()}

    def result(self) -> Scores:
        """Scores so far."""
        _, _, right, loss, *_ = self._whole()
        units = {"loss": "cross-entropy, nats"}
        return Scores(self._scores(right, loss), self.ensemble(), units)

    def _whole(self) -> list[np.ndarray]:
        return [np.concatenate(part, -1) for part in zip(*self._parts, strict=True)]

    def _scores(self, right: np.ndarray, loss: np.ndarray) -> dict[str, np.ndarray]:
        label, weights, *_ = self._whole()
        return {
            "accuracy": np.average(right, -1, weights),
            "balanced_accuracy": mean_over_classes(right, label, weights),
            "loss": np.average(loss, -1, weights),
        }


class OfNumbers:
    """Errors of values, or scores of labels that may be true at the same time.

    Args:
        outputs: "values" or "binary_logits".
        factor, unit: of errors, from `metrics.own_units`.

    >>> scores = OfNumbers("values")
    >>> said = np.array([[1.0, 2.0], [3.0, 2.0]])
    >>> scores.add(said, np.array([2.0, 1.0]), None)
    >>> found = scores.result()
    >>> found.members["mae"].tolist(), found.ensemble["mae"]
    ([1.0, 1.0], 0.5)
    """

    def __init__(self, outputs: str, factor: float = 1.0, unit: str = ""):
        self._outputs, self._factor, self._unit = outputs, factor, unit
        self._parts: list[tuple[np.ndarray, ...]] = []

    def add(self, outputs: Array, targets: Array, weights: Array | None) -> None:
        """Add outputs [P, B, ...] of examples with targets [B, ...]."""
        targets = as_learnt(np.asarray(targets))
        outputs = np.asarray(outputs, np.float64)
        if outputs[0].size != targets.size:
            raise UserError(
                f"an example has {outputs[0, 0].size} outputs and {targets[0].size} "
                "targets: give one target for each output"
            )
        weights = np.ones(len(targets)) if weights is None else np.asarray(weights)
        size = len(targets)
        self._parts.append(
            (
                outputs.reshape(len(outputs), size, -1),
                targets.reshape(size, -1),
                weights,
            )
        )

    def ensemble(self) -> dict[str, float]:
        """Scores of the mean probability of a label, or the mean value, so far."""
        outputs, targets, weights = self._whole()
        together = ensemble_outputs(outputs, self._outputs)
        return {
            name: float(measure(together, targets, weights))
            for name, measure in self._measures.items()
        }

    def result(self) -> Scores:
        """Scores so far."""
        outputs, targets, weights = self._whole()
        members = {
            name: np.array([measure(own, targets, weights) for own in outputs])
            for name, measure in self._measures.items()
        }
        units = dict.fromkeys(("mae", "rmse"), self._unit or "units of the target")
        if self._outputs == "binary_logits":
            units = {"loss": "binary cross-entropy, nats"}
        return Scores(members, self.ensemble(), units)

    @property
    def _measures(self) -> dict[str, "Measure"]:
        is_label = self._outputs == "binary_logits"
        return LABEL_MEASURES if is_label else split_metrics.OF_VALUES

    def _whole(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Outputs [P, N, D] and targets [N, D] in the unit, and weights [N]."""
        outputs = np.concatenate([part[0] for part in self._parts], 1)
        targets = np.concatenate([part[1] for part in self._parts])
        weights = np.concatenate([part[2] for part in self._parts])
        if self._outputs == "binary_logits":
            return outputs, targets, weights
        return outputs * self._factor, targets * self._factor, weights


def scores_of(
    outputs: str | None, factor: float = 1.0, unit: str = ""
) -> OfClasses | OfNumbers:
    """The scores for outputs of this meaning, a key of `losses.OUTPUTS`.

    Raises:
        UserError: if the meaning is not known.
    """
    if outputs in ("logits", "probabilities"):
        return OfClasses(outputs)
    if outputs in ("binary_logits", "values"):
        return OfNumbers(outputs, factor, unit)
    raise UserError(
        "it is not known what the outputs of this run mean, so they have no scores: "
        'give their meaning, such as fit(..., outputs="logits"), or metrics of your own'
    )


def only_array(tree: PyTree) -> np.ndarray:
    """The one array of a model's outputs.

    Raises:
        UserError: if there are several.
    """
    if not hasattr(tree, "shape"):
        raise UserError(
            "the model returns several arrays, which cannot be scored or written as "
            "rows: use Run.predict in Python"
        )
    return np.asarray(tree)


def _single(targets: PyTree, where: str) -> Array:
    """The one array of the targets, which the usual scores need."""
    if not hasattr(targets, "shape"):
        raise UserError(
            f"{where} are {repr_of(targets)}, and scores need a single array: give "
            "Batch(inputs, targets), or use Run.predict"
        )
    return targets


def _label_accuracy(outputs, targets, weights) -> float:
    right = np.where(np.isnan(outputs), np.nan, (outputs > 0) == (targets > 0.5))
    return float(np.average(right.mean(-1), weights=weights))


def _label_loss(outputs, targets, weights) -> float:
    yes, no = (-np.logaddexp(0, -sign * outputs) for sign in (1, -1))
    each = -(targets * yes + (1 - targets) * no).mean(-1)
    return float(np.average(each, weights=weights))


Measure = Callable[[np.ndarray, np.ndarray, np.ndarray], float]
LABEL_MEASURES: dict[str, Measure] = {
    "accuracy": _label_accuracy,
    "f1_macro": split_metrics.label_f1_macro,
    "loss": _label_loss,
}
