"""Permutation importance: the loss in score if a column is shuffled."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dlworkshop.data.rows import evenly
from dlworkshop.types import Batch

REPEATS = 5
MOST_ANSWERS = 20_000  # predictions for all columns and repeats
MOST_OPERATIONS = 5e9  # of all members: about a second on two cores
LEAST_ROWS = 30


class Importance(NamedTuple):
    """Loss in score without one column, over the repeats."""

    column: str
    mean: float
    sem: float | None


def importance(
    answer: Callable[[np.ndarray], np.ndarray],
    score: Callable[[np.ndarray, np.ndarray], float],
    examples: Batch,
    columns: Sequence[tuple[str, int]],
    operations: float,
) -> tuple[list[Importance], int]:
    """Permutation importance of each column, the most important first.

    All inputs that encode a column are shuffled together. Information that two columns
    share is in the importance of neither, because the other column still has it.

    Args:
        answer: inputs [B, D] -> outputs [P, B, ...].
        score: (outputs [P, B, ...], targets [B, ...]) -> a number, higher is better.
        examples: inputs [N, D] that were not trained on, and their targets.
        columns: names and widths, in the order of D.
        operations: floating-point operations of one prediction; if there are too many
            in all, fewer examples are used, then fewer repeats.

    Returns:
        The importance of each column, and the number of examples used; [] and 0 if
        there are too many columns.

    Source: Breiman (2001), Random forests, section 10; Fisher, Rudin & Dominici (2019).

    >>> x = np.random.default_rng(0).normal(size=(60, 2))
    >>> said = lambda x: x[None, :, 0]
    >>> error = lambda said, y: -float(np.abs(said.mean(0) - y).mean())
    >>> found, _ = importance(said, error, Batch(x, x[:, 0]), [("a", 1), ("b", 1)], 1)
    >>> [(each.column, round(each.mean, 1)) for each in found]
    [('a', 1.0), ('b', 0.0)]
    """
    most = int(min(MOST_ANSWERS, MOST_OPERATIONS / max(operations, 1)))
    size = min(examples.num_examples, max(LEAST_ROWS, most // len(columns)))
    repeats = min(REPEATS, most // (len(columns) * size))
    if repeats < 1:
        return [], 0
    place = evenly(examples.num_examples, size)
    inputs, targets = (np.asarray(each[place]) for each in examples[:2])
    rng, found, first = np.random.default_rng(0), [], 0
    whole = score(answer(inputs), targets)
    orders = [rng.permutation(size) for _ in range(repeats)]
    for name, width in columns:
        own, first = slice(first, first + width), first + width
        shuffled = np.tile(inputs, (repeats, 1))
        shuffled[:, own] = np.concatenate([inputs[order, own] for order in orders])
        outputs = np.split(answer(shuffled), repeats, axis=1)
        lost = np.array([whole - score(each, targets) for each in outputs])
        sem = float(lost.std(ddof=1) / np.sqrt(repeats)) if repeats > 1 else None
        found.append(Importance(name, float(lost.mean()), sem))
    return sorted(found, key=lambda each: -each.mean), size
