"""Many settings at once, the best by validation kept, the test split read once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dlworkshop.learn.metrics import mean_and_error
from dlworkshop.models.model import Model
from dlworkshop.train.fit import fit
from dlworkshop.train.result import Run, metric_name
from dlworkshop.types import Dataset


class Sweep(NamedTuple):
    """What came of it."""

    run: Run  # of the best setting, trained again, with what the test split says
    settings: list[dict[str, Any]]  # hparams, and mean, sem and n of the metric and
    # the loss on the validation split; the best first


def sweep(
    model: Model,
    dataset: Dataset,
    *args: Any,
    hparams: Mapping[str, Any],
    workdir: str | Path | None = None,
    **how: Any,
) -> Sweep:
    """Train every combination of `hparams` with every seed, then the best one again.

    The best has the highest mean metric on the validation split and, among equals, the
    lowest loss. Only its members read the test split, at the end.

    Args:
        model, dataset, args, how: as `fit` takes them.
        hparams: name -> a value or a list of values.
        workdir: the run folder of the best setting; the others leave none.

    >>> from dlworkshop import data, models
    >>> digits = data.load("digits")
    >>> rates = {"learning_rate": [1e-6, 0.01]}
    >>> found = sweep(models.logistic(), digits, hparams=rates, seeds=2)
    >>> [row["hparams"]["learning_rate"] for row in found.settings]
    [0.01, 1e-06]
    >>> found.run.summary["members"]
    2
    """
    closed = dataset._replace(test=dataset.validation)  # the test split stays unread
    tried = fit(model, closed, *args, hparams=hparams, **how)
    settings = by_setting(tried)
    return Sweep(
        fit(
            model,
            dataset,
            *args,
            hparams=settings[0]["hparams"],
            workdir=workdir,
            **how,
        ),
        settings,
    )


def by_setting(run: Run) -> list[dict[str, Any]]:
    """Each combination of hyper-parameters with its scores, the best first."""
    name = metric_name(run.summary)
    scores: dict[tuple, list] = {}
    for member in run.summary["population"]:
        scores.setdefault(tuple(member["hparams"].items()), []).append(member["test"])
    rows = [
        {
            "hparams": dict(setting),
            **{
                key: mean_and_error([_number(s[key]) for s in of_seeds])
                for key in (name, "loss")
            },
        }
        for setting, of_seeds in scores.items()
    ]

    def badness(row: dict[str, Any]) -> tuple[float, float]:
        metric, loss = (row[key]["mean"] for key in (name, "loss"))
        return (float("inf"), 0) if metric is None else (-metric, loss)

    return sorted(rows, key=badness)


def _number(value: float | None) -> float:
    """What a summary holds, where None stands for what is not finite."""
    return float("nan") if value is None else value
