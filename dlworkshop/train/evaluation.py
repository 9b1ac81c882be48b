"""Evaluation of a split: scores of each member, by one code path.

The split is evaluated in pieces, whose scores are summed on the device, so that the
outputs of only one piece are in memory at a time.
"""

import contextlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from dlworkshop.learn.metrics import mean_over_classes
from dlworkshop.learn.step import Evaluated
from dlworkshop.train import processes
from dlworkshop.train.groups import Group, scatter_rows
from dlworkshop.train.own_metrics import split_scores
from dlworkshop.train.plan import Plan
from dlworkshop.types import Batch, PyTree

# Called with the members of a group, the position of the first example of a piece, and
# the results of its examples: leaves [G, n, ...].
Watcher = Callable[[Group, int, Evaluated], None]


def evaluate_split(
    plan: Plan,
    judged: tuple[PyTree, PyTree],
    split: str,
    groups: Sequence[Group],
    watchers: Sequence[Watcher] = (),
    with_outputs: bool = False,
) -> dict[str, np.ndarray]:
    """Loss and metrics of the members in `groups`: name -> [P] float64, NaN for others.

    Args:
        plan: of the run.
        judged: params and state [P, ...].
        split: "train", "validation" or "test".
        groups: the members to evaluate.
        watchers: called with every piece.
        with_outputs: whether the watchers get the outputs, too.
    """
    batch = getattr(plan.dataset, split)
    weight, held_out = weight_of(batch), None
    if split == "validation" and plan.held_out is not None:
        held_out = plan.held_out
        if batch.weights is not None:
            held_out = held_out * batch.weights
    whole = {name: metric for name, metric in plan.metrics.items() if metric.split}
    names = ["loss", *plan.metrics]
    means = {name: np.full(len(plan.seeds), np.nan) for name in names}
    for group in groups:
        kept, mine = Outputs(), None
        seen: list[Watcher] = [*watchers, kept] if whole else list(watchers)
        if held_out is not None:
            mine = HeldOut(held_out[np.minimum(group, len(held_out) - 1)])
            seen.append(mine)
        totals = _totals(plan, judged, split, group, seen, with_outputs or bool(whole))
        scores = {k: total_of(total) / weight for k, total in totals.items()}
        if mine is not None:
            scores = mine.means()
        if whole:
            counted = None if mine is None else mine.weights > 0
            scores |= split_scores(whole, kept.joined(), batch, counted)
        for name, values in scores.items():
            scatter_rows(means[name], group, values)
    return means


def weight_of(batch: Batch) -> float:
    """The divisor of sums over a split."""
    if batch.weights is None:
        return float(batch.num_examples)
    return float(np.sum(batch.weights, dtype=float))


def total_of(total: np.ndarray) -> np.ndarray:
    """The sum [...] of compensated pairs [..., 2]; see `population.add_exactly`."""
    return np.asarray(total, np.float64).sum(-1)


def _totals(
    plan: Plan,
    judged: tuple[PyTree, PyTree],
    split: str,
    group: Group,
    watchers: Sequence[Watcher],
    with_outputs: bool,
) -> dict[str, np.ndarray]:
    """Sums over a split, name -> [G, 2]; examples are fetched for watchers only."""
    size, first = getattr(plan.dataset, split).num_examples, 0
    whole = *judged, plan.placed_hparams
    params, state, hparams = plan.programs.gather(whole, group)
    totals, data = plan.programs.no_totals(len(group)), plan.feed.data(split)
    batch, most = plan.evaluation_batch, plan.evaluation_batches(len(group))
    with contextlib.closing(plan.feed.evaluation(split, batch, most)) as pieces:
        for piece in pieces:
            totals, found = plan.programs.evaluate(
                params, state, hparams, totals, data, piece, with_outputs
            )
            if not watchers:
                continue
            left = size - first

            def rows(leaf, left=left):  # [G, T, B, ...] -> [G, n, ...]
                return leaf.reshape(len(leaf), -1, *leaf.shape[3:])[:, :left]

            found = jax.tree.map(rows, processes.fetch(found))
            for watcher in watchers:
                watcher(group, first, found)
            first += len(found.scores["loss"][0])
    return processes.fetch(totals)


class Outputs:
    """Watcher that keeps the outputs of all examples."""

    def __init__(self) -> None:
        self._pieces: list[PyTree] = []

    def __call__(self, _group: Group, _first: int, found: Evaluated) -> None:
        self._pieces.append(found.outputs)

    def joined(self) -> PyTree:
        """The outputs [G, N, ...]."""
        return jax.tree.map(lambda *leaves: np.concatenate(leaves, 1), *self._pieces)


class HeldOut:
    """Watcher that sums over the examples that each member held out.

    Args:
        weights: [G, N] of the examples for each member, 0 for its training examples.
    """

    def __init__(self, weights: np.ndarray):
        self.weights = weights
        self._sums: dict[str, np.ndarray] = {}

    def __call__(self, _group: Group, first: int, found: Evaluated) -> None:
        for name, values in found.scores.items():
            share = self.weights[:, first : first + values.shape[1]]
            total = (values.astype(np.float64) * share).sum(-1)
            self._sums[name] = self._sums.get(name, 0) + total

    def means(self) -> dict[str, np.ndarray]:
        """Means, name -> [G]."""
        whole = self.weights.sum(-1, dtype=np.float64)
        return {name: total / whole for name, total in self._sums.items()}


class BalancedAccuracy:
    """Watcher that counts correct examples per class.

    With `held_out` [P, N], only the examples that a member held out count.
    """

    def __init__(
        self,
        members: int,
        label: np.ndarray,
        weights: np.ndarray | None = None,
        held_out: np.ndarray | None = None,
    ):
        self._label, self._held_out = label, held_out  # [N]
        self._weights = np.ones(len(label)) if weights is None else np.asarray(weights)
        self._right = np.full((members, len(label)), np.nan, np.float32)

    def __call__(self, group: Group, first: int, found: Evaluated) -> None:
        right = found.scores["accuracy"]
        scatter_rows(self._right[:, first : first + right.shape[1]], group, right)

    def values(self) -> np.ndarray:
        """Balanced accuracy [P]."""
        if self._held_out is None:
            return mean_over_classes(self._right, self._label, self._weights)
        return np.array(
            [
                mean_over_classes(own[rows], self._label[rows], self._weights[rows])
                for own, rows in zip(self._right, self._held_out, strict=True)
            ]
        )
