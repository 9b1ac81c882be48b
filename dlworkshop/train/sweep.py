"""Many settings at once, the best by validation kept, the test split read once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dlworkshop.errors import UserError
from dlworkshop.learn.metrics import mean_and_error
from dlworkshop.models.model import Model, StatefulModel
from dlworkshop.train.fit import fit
from dlworkshop.train.members import Settings
from dlworkshop.train.result import Run
from dlworkshop.types import Dataset


class Sweep(NamedTuple):
    """What came of it."""

    run: Run  # of the best setting, trained again, with what the test split says
    settings: list[dict[str, Any]]  # hparams, finite, and mean, sem and n of the loss
    # and the metrics on the validation split; the best first


def sweep(
    model: Model | StatefulModel,
    dataset: Dataset,
    *args: Any,
    hparams: Settings,
    workdir: str | Path | None = None,
    **options: Any,
) -> Sweep:
    """Train every setting of `hparams` with every seed, then the best one again.

    The best has the best mean of what is monitored on the validation split (the loss,
    unless `monitor` names a metric), among those settings of which most seeds stayed
    finite. Only its members read the test split, at the end.

    Args:
        model, dataset, args, options: as `fit` takes them.
        hparams: as of `fit`.
        workdir: the run folder of the best setting; the others leave none.

    Raises:
        UserError: if no member of any setting stayed finite.

    >>> from dlworkshop import data, models
    >>> digits = data.load("digits")
    >>> rates = {"learning_rate": [1e-6, 0.01]}
    >>> found = sweep(models.logistic(), digits, hparams=rates, seeds=2)
    >>> [row["hparams"]["learning_rate"] for row in found.settings]
    [0.01, 1e-06]
    >>> found.run.summary["members"]
    2
    """
    tried = fit(model, dataset, *args, hparams=hparams, read_test=False, **options)
    if tried.summary["interrupted"]:
        raise KeyboardInterrupt
    settings = by_setting(tried)
    best = settings[0]["hparams"]
    run = fit(model, dataset, *args, hparams=best, workdir=workdir, **options)
    return Sweep(run, settings)


def by_setting(run: Run) -> list[dict[str, Any]]:
    """Each setting of hyper-parameters with its validation scores, the best first.

    Members that were quarantined count in no mean; a setting that lost members comes
    after those that lost fewer, so that a lone survivor does not win.

    Raises:
        UserError: if there is no member that stayed finite.
    """
    monitor = run.summary["monitor"]
    members: dict[tuple, list[Mapping[str, Any]]] = {}
    for row in run.summary["population"]:
        members.setdefault(tuple(row["hparams"].items()), []).append(row)
    rows = []
    for setting, of_seeds in members.items():
        kept = [row for row in of_seeds if row["status"] != "quarantined"]
        scores = {
            name: mean_and_error([_number(row["validation"][name]) for row in kept])
            for name in of_seeds[0]["validation"]
        }
        finite = scores[monitor]["n"] / len(of_seeds)
        rows.append({"hparams": dict(setting), "finite": finite, **scores})
    if not any(row["finite"] for row in rows):
        raise UserError(
            "no member of any setting stayed finite: try lower learning rates"
        )
    sign = -1 if run.summary["better"] == "higher" else 1

    def badness(row: dict[str, Any]) -> tuple[float, float, float]:
        mean, loss = row[monitor]["mean"], row["loss"]["mean"]
        if mean is None:
            return (1.0, np.inf, np.inf)
        return (-row["finite"], sign * mean, np.inf if loss is None else loss)

    return sorted(rows, key=badness)


def _number(value: float | None) -> float:
    """What a summary holds, where None stands for what is not finite."""
    return float("nan") if value is None else value
