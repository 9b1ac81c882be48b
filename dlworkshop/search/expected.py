"""Expected scores on new data, and the result of a search in words."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dlworkshop.answers.conformal import wilson
from dlworkshop.answers.held_out import held_out
from dlworkshop.report.words import count, humanize, is_fraction, quantity
from dlworkshop.search import optimism
from dlworkshop.search.task import Task
from dlworkshop.train.result import Run
from dlworkshop.types import Array, Dataset

LEVEL = 0.95
DRAWS = 1000  # of the bootstrap
FALLING = 0.1  # share of the whole way in the last fifth, above which it goes on


def of_folds(run: Run, dataset: Dataset, task: Task, factor: float) -> dict[str, Any]:
    """Cross-validated scores with intervals.

    Of each example of train and validation the members speak that did not learn from
    it, one for each seed, together. The ensemble of all members has more of them, and
    is as good or better. What early stopping by the same examples flatters is taken
    off: see `optimism.of_stopping`.

    Returns:
        name -> {"mean", "low", "high"}: 95 % intervals, of an accuracy Wilson's, of
        the others the bootstrap's over examples, and where there are groups the
        bootstrap's over whole groups; and "examples", how many.
    """
    known = held_out(run, dataset)
    if known is None:
        return {}
    together, pool = known.outputs.astype(np.float64), known.examples  # [S, N, ...]
    size, groups = pool.num_examples, known.groups
    scores = task.scores(together, pool, factor)
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(DRAWS):
        rows = drawn(rng, size, groups)
        draws.append(task.scores(together[:, rows], pool.rows(rows), factor))
    found: dict[str, Any] = {}
    for name, score in scores.items():
        low, high = np.nanquantile(
            [draw[name] for draw in draws], [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
        )
        followed = "accuracy" if name == "balanced_accuracy" else name
        everyone = range(run.summary["members"])
        flattered = optimism.of_stopping(run.history, everyone, followed).mean()
        top = 1.0 if is_fraction(name) else np.inf
        mean = min(score + float(flattered), top)
        low, high = min(low + flattered, top), min(high + flattered, top)
        if name == "accuracy" and task.kind == "classes" and groups is None:
            low, high = wilson(mean, size)
        found[name] = {"mean": mean, "low": float(low), "high": float(high)}
    return {**found, "examples": size}


def drawn(rng: np.random.Generator, size: int, groups: Array | None) -> np.ndarray:
    """Indices of a bootstrap sample: of examples, or of whole groups.

    >>> rng, groups = np.random.default_rng(0), np.array([5, 5, 7, 5, 7])
    >>> counts = np.bincount(drawn(rng, 5, groups), minlength=5)
    >>> bool((counts[groups == 5] == counts[0]).all())
    True
    """
    if groups is None:
        return rng.integers(0, size, size)
    unit = np.unique(groups, return_inverse=True)[1]
    taken = rng.integers(0, unit.max() + 1, unit.max() + 1)
    times = np.bincount(taken, minlength=unit.max() + 1)[unit]
    return np.repeat(np.arange(size), times)


def still_falling(run: Run) -> float | None:
    """The fraction of the decrease in validation loss in the last fifth of the updates.

    None where that is little, or where the members had stopped before.
    """
    if "validation/loss" not in run.history.names:
        return None
    curves = run.history["validation/loss"]  # [T, P]
    curves = curves[np.isfinite(curves).any(1)]
    curves = curves[:, np.isfinite(curves).all(0)]
    if len(curves) < 5 or not curves.size:
        return None
    late = curves[-1 - len(curves) // 5]
    whole = curves[0].mean() - curves.min(0).mean()
    fell = late.mean() - curves[-1].mean()
    return float(fell / whole) if whole > 0 and fell > FALLING * whole else None


def finding(
    run: Run,
    candidate: str,
    task: Task,
    size: int,
    together: Mapping[str, float],
    simple: Mapping[str, Mapping[str, float]],
    of_new: Mapping[str, Any] | None,
    unit: str,
) -> str:
    """The result in a sentence or two; `size` is that of the test split."""
    name = task.headline
    in_units = f" {unit}" if unit and name == "rmse" else ""

    def said(value: float) -> str:
        return quantity(value, name) + ("" if is_fraction(name) else in_units)

    members = int(run.chosen.sum())
    who = f"One network ({candidate}) has"
    if members > 1:
        who = f"{members} networks together ({candidate}) have"
    text = f"{who} a test {humanize(name)} of {said(together[name])}"
    text += f" ({count(size, 'example')})"
    others = [
        f"{said(scores[name])} {b}" for b, scores in simple.items() if name in scores
    ]
    if others:
        text += f"; {', '.join(others)}"
    if of_new and name in of_new:
        interval = of_new[name]
        text += (
            f". Of new data expect {said(interval['mean'])} "
            f"({said(interval['low'])} to {said(interval['high'])}, by cross-validation"
            f" of {of_new['examples']:,} examples)"
        )
    return text
