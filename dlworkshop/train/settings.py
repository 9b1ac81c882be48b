"""The settings of a run, ranked by validation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlworkshop.errors import UserError
from dlworkshop.learn.metrics import mean_and_error
from dlworkshop.run_files import SPLITS


def ranked(
    population: Sequence[Mapping[str, Any]], monitor: str, better: str
) -> list[dict[str, Any]]:
    """Each setting of hyper-parameters with its members and scores, the best first.

    Settings are ranked by the mean of the monitored score on validation, then by loss.
    Quarantined members do not count in means; a setting that lost members comes after
    those that lost fewer, so that a lone survivor does not win. If hyper-parameters
    changed during the run, the members of each seed have places; a setting is then the
    members with the same place, with the hyper-parameters that they share.

    Args:
        population: a row for each member, as in summary.json.
        monitor: the score to rank by.
        better: its direction, "higher" or "lower".

    Returns:
        `hparams`, the numbers of its `members`, the share of them that stayed `finite`,
        and for each split that was read, score -> mean, sem and n.

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
        by_number = tuple(row["hparams"].items())
        key = by_number if "place" not in row else (row["place"],)
        members.setdefault(key, []).append(number)
    found = []
    for numbers in members.values():
        own = [population[number] for number in numbers]
        setting = set.intersection(*(set(row["hparams"].items()) for row in own))
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
        hparams = {k: v for k, v in own[0]["hparams"].items() if (k, v) in setting}
        about = {"hparams": hparams, "members": numbers, "finite": finite}
        found.append({**about, **scores})
    return best_first(found, monitor, better)


def best_first(
    rows: Sequence[dict[str, Any]], monitor: str, better: str
) -> list[dict[str, Any]]:
    """Settings of one run or of several runs, in the order of `ranked`."""
    sign = -1 if better == "higher" else 1

    def badness(row: dict[str, Any]) -> tuple[float, float, float]:
        scores = row["validation"]
        mean, loss = scores[monitor]["mean"], scores["loss"]["mean"]
        if mean is None:
            return (1.0, np.inf, np.inf)
        return (-row["finite"], sign * mean, np.inf if loss is None else loss)

    return sorted(rows, key=badness)


def check_survived(best: Mapping[str, Any]) -> None:
    """Require that a member of the best setting stayed finite.

    Raises:
        UserError: if none did.
    """
    if not best["finite"]:
        raise UserError(
            "no member of any setting stayed finite: try lower learning rates"
        )


def give_places(
    rows: Sequence[dict[str, Any]], num_settings: int, monitor: str, better: str
) -> None:
    """Give each row its place by validation among the members of its seed, from 0.

    >>> rows = [{"validation": {"loss": x}} for x in (0.3, 0.1, 0.2, None)]
    >>> give_places(rows, 2, "loss", "lower")
    >>> [row["place"] for row in rows]  # of two seeds: members 0 and 2, 1 and 3
    [1, 0, 0, 1]
    """
    sign = -1 if better == "higher" else 1
    repetitions = len(rows) // num_settings
    for first in range(repetitions):
        own = rows[first::repetitions]
        costs = [
            np.nan
            if row.get("status") == "quarantined"
            else sign * _number(row["validation"][monitor])
            for row in own
        ]
        for row, place in zip(own, np.argsort(np.argsort(costs)), strict=True):
            row["place"] = int(place)


def _number(value: float | None) -> float:
    """A number of a summary, in which None stands for non-finite."""
    return float("nan") if value is None else value
