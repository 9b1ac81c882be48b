"""The settings of a run, ranked by validation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlworkshop.errors import UserError
from dlworkshop.learn.metrics import mean_and_error

SPLITS = ("validation", "test")


def ranked(
    population: Sequence[Mapping[str, Any]], monitor: str, better: str
) -> list[dict[str, Any]]:
    """Each setting of hyper-parameters with its members and scores, the best first.

    The best has the best mean of what is monitored on validation, then the lower loss.
    Members that were quarantined count in no mean; a setting that lost members comes
    after those that lost fewer, so that a lone survivor does not win.

    Args:
        population: a row for each member, as in summary.json.
        monitor: the score that decides.
        better: its direction, "higher" or "lower".

    Returns:
        `hparams`, numbers of its `members`, the share of them that stayed `finite`, and
        of each split that was read score -> mean, sem and n.

    >>> rows = [
    ...     {"hparams": {"learning_rate": rate}, "status": "finished",
    ...      "validation": {"loss": loss}}
    ...     for rate, loss in [(0.1, 0.5), (0.1, 0.7), (1.0, 0.9)]
    ... ]
    >>> best, other = ranked(rows, "loss", "lower")
    >>> best["hparams"], best["members"], best["validation"]["loss"]["mean"]
    ({'learning_rate': 0.1}, [0, 1], 0.6)
    """
    members: dict[tuple, list[int]] = {}
    for number, row in enumerate(population):
        members.setdefault(tuple(row["hparams"].items()), []).append(number)
    found = []
    for setting, numbers in members.items():
        own = [population[number] for number in numbers]
        kept = [row for row in own if row["status"] != "quarantined"]
        scores = {
            split: {
                name: mean_and_error([_number(row[split][name]) for row in kept])
                for name in own[0][split]
            }
            for split in SPLITS
            if own[0].get(split)
        }
        finite = scores["validation"][monitor]["n"] / len(own)
        about = {"hparams": dict(setting), "members": numbers, "finite": finite}
        found.append({**about, **scores})
    return best_first(found, monitor, better)


def best_first(
    rows: Sequence[dict[str, Any]], monitor: str, better: str
) -> list[dict[str, Any]]:
    """Settings of one run or of several, in the order of `ranked`."""
    sign = -1 if better == "higher" else 1

    def badness(row: dict[str, Any]) -> tuple[float, float, float]:
        scores = row["validation"]
        mean, loss = scores[monitor]["mean"], scores["loss"]["mean"]
        if mean is None:
            return (1.0, np.inf, np.inf)
        return (-row["finite"], sign * mean, np.inf if loss is None else loss)

    return sorted(rows, key=badness)


def check_survived(best: Mapping[str, Any]) -> None:
    """Refuse to take the best of settings of which none stayed finite.

    Raises:
        UserError: if no member of it did.
    """
    if not best["finite"]:
        raise UserError(
            "no member of any setting stayed finite: try lower learning rates"
        )


def _number(value: float | None) -> float:
    """A number of a summary, in which None stands for non-finite."""
    return float("nan") if value is None else value
