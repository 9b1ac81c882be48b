"""A split -> scores of each member: the one way in which a run is evaluated.

Pieces of the split go through the device and are added up on the host, so that no more
than a piece of outputs is there at a time.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from dlworkshop.learn.metrics import Metric, mean_over_classes
from dlworkshop.learn.step import Evaluated
from dlworkshop.train.groups import Group, scatter_rows
from dlworkshop.types import Batch, PyTree

# Called with the members of a group, the position of the first example of a piece, and
# what was found of its examples: leaves [G, n, ...].
Watcher = Callable[[Group, int, Evaluated], None]


def evaluate_split(
    plan: Any,
    judged: tuple[PyTree, PyTree],
    split: str,
    groups: Sequence[Group],
    watchers: Sequence[Watcher] = (),
    with_outputs: bool = False,
) -> dict[str, np.ndarray]:
    """Loss and metrics of the members in `groups`: name -> [P] float64, others NaN.

    Args:
        plan: of the run.
        judged: params and state [P, ...].
        split: "train", "validation" or "test".
        groups: of members; the others are left out.
        watchers: see every piece.
        with_outputs: whether they are shown the outputs, too.
    """
    batch, size = (
        getattr(plan.dataset, split),
        getattr(plan.dataset, split).num_examples,
    )
    weights = (
        np.ones(size) if batch.weights is None else np.asarray(batch.weights, float)
    )
    whole = {name: metric for name, metric in plan.metrics.items() if metric.split}
    names = ["loss", *plan.metrics]
    means = {name: np.full(len(plan.seeds), np.nan) for name in names}
    for group in groups:
        outputs: list[PyTree] = []
        sums: dict[str, np.ndarray] = {}
        for first, found in _pieces(
            plan, judged, split, group, with_outputs or bool(whole)
        ):
            count = len(found.scores["loss"][0])
            share = weights[first : first + count]
            for name, values in found.scores.items():
                total = (values.astype(np.float64) * share).sum(-1)
                sums[name] = sums.get(name, 0) + total
            for watcher in watchers:
                watcher(group, first, found)
            if whole:
                outputs.append(found.outputs)
        scores = {name: total / weights.sum() for name, total in sums.items()}
        if whole:
            joined = jax.tree.map(lambda *leaves: np.concatenate(leaves, 1), *outputs)
            scores |= split_scores(whole, joined, batch)
        for name, values in scores.items():
            scatter_rows(means[name], group, values)
    return means


def _pieces(plan: Any, judged, split: str, group: Group, with_outputs: bool):
    """(position of the first example, `Evaluated` [G, n, ...]) of each piece."""
    size, first = getattr(plan.dataset, split).num_examples, 0
    own = plan.programs.gather((*judged, plan.placed_hparams), group)
    data, pieces = (
        plan.feed.data(split),
        plan.feed.evaluation(split, plan.evaluation_batch),
    )
    with contextlib.closing(pieces):
        for piece in pieces:
            found = jax.device_get(
                plan.programs.evaluate(*own, data, piece, with_outputs)
            )  # [G, T, B, ...]
            left = size - first

            def rows(leaf, left=left):
                return leaf.reshape(len(leaf), -1, *leaf.shape[3:])[:, :left]

            found = jax.tree.map(rows, found)  # [G, n, ...]
            yield first, found
            first += len(found.scores["loss"][0])


def split_scores(
    whole: Mapping[str, Metric], outputs: PyTree, batch: Batch
) -> dict[str, np.ndarray]:
    """The metrics of a whole split, of outputs [G, N, ...]: name -> [G]."""
    targets = jax.tree.map(_as_float, batch.targets)
    weights = None if batch.weights is None else np.asarray(batch.weights)
    size = len(jax.tree.leaves(outputs)[0])
    members = [jax.tree.map(lambda leaf, i=i: leaf[i], outputs) for i in range(size)]
    return {
        name: np.array([metric.function(own, targets, weights) for own in members])
        for name, metric in whole.items()
    }


def _as_float(leaf: Any) -> np.ndarray:
    leaf = np.asarray(leaf)
    return leaf / np.float32(255) if leaf.dtype == np.uint8 else leaf


class BalancedAccuracy:
    """A watcher that keeps which examples were right, to weigh all classes alike."""

    def __init__(self, members: int, label: np.ndarray):
        self._label = label  # [N]
        self._right = np.full((members, len(label)), np.nan, np.float32)

    def __call__(self, group: Group, first: int, found: Evaluated) -> None:
        right = found.scores["accuracy"]
        scatter_rows(self._right[:, first : first + right.shape[1]], group, right)

    def values(self) -> np.ndarray:
        """[P]."""
        return mean_over_classes(self._right, self._label)
