"""Choice of a setting: the simplest that is as good as the best."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dlworkshop.errors import UserError
from dlworkshop.learn.metrics import mean_and_error
from dlworkshop.search import optimism
from dlworkshop.search.task import Task
from dlworkshop.train.result import Run

RULE = (
    "the simplest network whose best setting is behind the best of all by no more than "
    "one standard error of their difference"
)


class Row(NamedTuple):
    """Validation scores of one setting."""

    candidate: str
    hparams: dict[str, float]
    score: list[float]  # [n] by which is chosen, over seeds and folds; NaN if lost
    loss: list[float]  # [n]


def rows_of(candidate: str, run: Run, task: Task) -> list[Row]:
    """One row per setting of a run; members in the order of seeds and folds.

    Scores are those where all members of a setting together would have stopped, or a
    network whose curves waver would be flattered by stopping at their lowest points.
    """
    members: dict[tuple, list[Mapping[str, Any]]] = {}
    for member in run.summary["population"]:
        members.setdefault(tuple(member["hparams"].items()), []).append(member)
    rows = []
    for setting, own in members.items():
        places = [member["member"] for member in own]
        score, loss = (
            np.array([_number(member, of) for member in own])
            + optimism.of_stopping(run.history, places, of)
            for of in (task.judged_by, "loss")
        )
        rows.append(Row(candidate, dict(setting), score.tolist(), loss.tolist()))
    return rows


def choose(
    rows: Sequence[Row], order: Sequence[str], task: Task, noise: int | None = None
) -> tuple[Row, list[dict[str, Any]]]:
    """The chosen row, and a report of all rows, the best first.

    Settings are compared seed by seed and fold by fold: what all of them find hard does
    not count in their difference. Among the settings of one network, and of one way
    to augment, the best mean decides, then the lower loss.

    Args:
        rows: of all settings.
        order: names of the candidates, the simplest first.
        task: says which direction is better.
        noise: examples of the one validation split, whose chance adds to the error of
            an accuracy; None where there are folds.

    Returns:
        The row, and as JSON: candidate, hparams, mean, sem, n, loss, behind (the best)
        and its sem, chosen.

    Raises:
        UserError: if no setting stayed finite.

    >>> task = Task("values", None, 1, "loss")
    >>> a = Row("linear", {"learning_rate": 0.1}, [1.0, 1.2], [1.0, 1.2])
    >>> b = Row("mlp", {"learning_rate": 0.1}, [0.9, 1.3], [0.9, 1.3])
    >>> choose([a, b], ["linear", "mlp"], task)[0].candidate
    'linear'
    """
    cost = [task.sign * np.asarray(row.score, float) for row in rows]
    whole = [bool(np.isfinite(each).all()) for each in cost]
    if not any(whole):
        raise UserError(
            "no setting of the search stayed finite in all of its members: look at the "
            "data, or give lower learning rates"
        )

    def badness(i: int) -> tuple[float, float, float]:
        if not whole[i]:
            return (1.0, 0.0, 0.0)
        return (0.0, round(float(cost[i].mean()), 12), float(np.mean(rows[i].loss)))

    ranked = sorted(range(len(rows)), key=badness)
    best = ranked[0]
    behind = [_behind(each, cost[best], task, noise) for each in cost]
    near = [i for i in ranked if whole[i] and behind[i][0] <= behind[i][1]]

    def complexity(i: int) -> tuple[int, ...]:
        moves = (rows[i].hparams.get(name, 0) > 0 for name in ("flip", "shift"))
        return (order.index(rows[i].candidate), *moves)

    simplest = min(near, key=complexity)  # of equal ones the first, which is the best
    known = noise is not None or min(map(len, cost)) > 1  # how much may be chance
    told = []
    for i in ranked:
        told.append(
            {
                "candidate": rows[i].candidate,
                "hparams": rows[i].hparams,
                **mean_and_error(rows[i].score),
                "loss": mean_and_error(rows[i].loss)["mean"],
                "behind": behind[i][0] if whole[i] else None,
                "behind_sem": behind[i][1] if whole[i] and known else None,
                "chosen": i == simplest,
            }
        )
    return rows[simplest], told


def _behind(
    cost: np.ndarray, best: np.ndarray, task: Task, noise: int | None
) -> tuple[float, float]:
    """How far a setting is behind the best, and the standard error of that."""
    n = min(len(cost), len(best))  # of the seeds that both have
    difference = cost[:n] - best[:n]
    variance = float(difference.var(ddof=1)) / n if n > 1 else 0.0
    if noise is not None and "accuracy" in task.judged_by:
        # of two that differ in as many examples as the better one gets wrong
        variance += max(0.0, 1 - task.sign * float(best.mean())) / noise
    return float(difference.mean()), float(np.sqrt(variance))


def _number(member: Mapping[str, Any], name: str) -> float:
    """A member's validation score; NaN for a quarantined one."""
    value = member["validation"][name]
    lost = value is None or member["status"] == "quarantined"
    return np.nan if lost else float(value)
