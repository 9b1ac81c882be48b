"""Metrics that a user brings, of the outputs of members and of their ensemble."""

import warnings
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import scipy

from dlworkshop.data.leaves import at_least_float32
from dlworkshop.errors import UserError, one_sentence, repr_of
from dlworkshop.learn.checks import check_number
from dlworkshop.learn.metrics import Metric
from dlworkshop.models.model import as_float
from dlworkshop.train.predictions import LINKS
from dlworkshop.types import Array, Batch, PyTree


class OwnMetrics:
    """Metrics of each member and of the ensemble; examples are added part by part.

    Args:
        metrics: from `checks.checked_metrics`.
        outputs: what the outputs are, a key of `losses.OUTPUTS`; None if that is not
            known, and then the ensemble has no metrics.

    >>> own = OwnMetrics({"bias": Metric(lambda out, target: out - target)}, "values")
    >>> own.add(np.array([[1.0, 2.0], [3.0, 2.0]]), np.array([2.0, 1.0]), None)
    >>> own.members()["bias"].tolist(), own.ensemble()
    ([0.0, 1.0], {'bias': 0.5})
    """

    def __init__(self, metrics: Mapping[str, Metric], outputs: str | None):
        self._metrics, self._outputs = metrics, outputs
        self._of_examples = jax.jit(self._traced)
        self._parts: list[Any] = []
        self._found: dict[str, np.ndarray] | None = None

    @property
    def names(self) -> list[str]:
        """Of the metrics."""
        return list(self._metrics)

    @property
    def units(self) -> dict[str, str]:
        """In words, of the metrics that have one."""
        return {name: m.unit for name, m in self._metrics.items() if m.unit}

    def add(self, outputs: PyTree, targets: PyTree, weights: Array | None) -> None:
        """Add outputs [P, B, ...] of examples with targets [B, ...]."""
        if not self._metrics:
            return
        if self._outputs is not None:
            together = ensemble_outputs(outputs, self._outputs)
            outputs = np.concatenate([outputs, together.astype(np.float32)[None]])
        scores = jax.device_get(self._of_examples(outputs, targets))  # [P + 1, B]
        kept = outputs if any(m.split for m in self._metrics.values()) else ()
        self._parts.append((scores, kept, (targets, weights)))

    def members(self) -> dict[str, np.ndarray]:
        """Of the examples so far: name -> [P]."""
        last = None if self._outputs is None else -1
        return {name: values[:last] for name, values in self._values().items()}

    def ensemble(self) -> dict[str, float]:
        """Of the mean of probabilities or values; {} if their meaning is unknown."""
        if self._outputs is None:
            return {}
        return {name: float(values[-1]) for name, values in self._values().items()}

    def _values(self) -> dict[str, np.ndarray]:
        if self._found is not None or not self._metrics:
            return self._found or {}
        scores, outputs = (
            jax.tree.map(lambda *leaves: np.concatenate(leaves, 1), *parts)
            for parts in list(zip(*self._parts, strict=True))[:2]
        )
        targets, weights = jax.tree.map(
            lambda *leaves: np.concatenate(leaves), *(part[2] for part in self._parts)
        )
        counts = slice(None) if weights is None else np.asarray(weights) > 0
        share = None if weights is None else np.asarray(weights, np.float64)[counts]
        whole = {name: m for name, m in self._metrics.items() if m.split}
        found = {
            name: np.average(np.asarray(each, np.float64)[:, counts], -1, share)
            for name, each in scores.items()
        }
        if whole:
            found |= split_scores(whole, outputs, Batch(None, targets, weights))
        self._found = {name: found[name] for name in self._metrics}
        return self._found

    def _traced(self, outputs: PyTree, targets: PyTree) -> dict[str, Array]:
        def of_example(outputs: PyTree, targets: PyTree) -> dict[str, Array]:
            scores = {}
            for name, metric in self._metrics.items():
                if metric.split:
                    continue
                what = f"the metric '{name}'"
                with one_sentence(f"{what} does not take the outputs and targets"):
                    scores[name] = metric.function(outputs, targets)
                check_number(what, scores[name], integers=True)
            return jax.tree.map(at_least_float32, scores)

        of_member = jax.vmap(of_example)
        return jax.vmap(of_member, (0, None))(outputs, as_float(targets))


def ensemble_outputs(outputs: np.ndarray, kind: str) -> np.ndarray:
    """The outputs [B, ...] of an ensemble, in float64, of those of its members.

    Its probabilities, or values, are the means of the members'. The logits of classes
    are their logarithms; a single member keeps its own.

    >>> ensemble_outputs(np.log([[[0.2, 0.8]], [[0.4, 0.6]]]), "logits").round(3)
    array([[-1.204, -0.357]])
    """
    outputs = np.asarray(outputs, np.float64)
    if len(outputs) == 1:
        return outputs[0]
    if kind == "logits":
        log_chance = scipy.special.log_softmax(outputs, -1)
        return scipy.special.logsumexp(log_chance, 0) - np.log(len(outputs))
    if kind == "binary_logits":
        return scipy.special.logit(LINKS[kind](outputs).mean(0))
    return outputs.mean(0)


def split_scores(
    whole: Mapping[str, Metric],
    outputs: PyTree,
    batch: Batch,
    counted: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """The metrics of a whole split, of outputs [G, N, ...]: name -> [G].

    `counted` [G, N] selects the examples of each member; None selects all.
    """
    targets = jax.tree.map(_as_float, batch.targets)
    weights = None if batch.weights is None else np.asarray(batch.weights)
    size = len(jax.tree.leaves(outputs)[0])
    members = []
    for i in range(size):
        rows: Any = slice(None) if counted is None else counted[i]
        said = jax.tree.map(lambda leaf, i=i, rows=rows: leaf[i][rows], outputs)
        known = jax.tree.map(lambda leaf, rows=rows: leaf[rows], (targets, weights))
        members.append((said, *known))
    with warnings.catch_warnings():  # the run itself reports it, once
        warnings.filterwarnings("ignore", ".*some outputs are not finite")
        return {
            name: np.array([_number(name, metric, *member) for member in members])
            for name, metric in whole.items()
        }


def _number(name: str, metric: Metric, *member: Any) -> float:
    """The value of a split metric for one member."""
    found = metric.function(*member)
    if np.ndim(found) or np.asarray(found).dtype.kind not in "biuf":
        raise UserError(
            f"the metric '{name}' returned {repr_of(found)} for a split: return one "
            "number"
        )
    return float(found)


def _as_float(leaf: Any) -> np.ndarray:
    leaf = np.asarray(leaf)
    if leaf.dtype.kind == "V":  # bfloat16, which scikit-learn does not support
        return leaf.astype(np.float32)
    return leaf / np.float32(255) if leaf.dtype == np.uint8 else leaf
