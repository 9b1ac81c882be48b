"""Sweeps: many settings at once, the best by validation retrained and tested."""

from pathlib import Path
from typing import Any, NamedTuple

from dlworkshop.errors import UserError
from dlworkshop.models.model import Model, StatefulModel
from dlworkshop.train.checks import check_places
from dlworkshop.train.fit import fit
from dlworkshop.train.members import Settings
from dlworkshop.train.result import Run
from dlworkshop.train.settings import ranked
from dlworkshop.types import Dataset


class Sweep(NamedTuple):
    """The result of a sweep."""

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
        model, dataset, args, options: as `fit` takes them; but `read_test`.
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
    if "read_test" in options:
        raise UserError(
            "a sweep reads test with the best setting only: leave read_test out"
        )
    check_places(workdir, None)  # before the settings are tried
    tried = fit(model, dataset, *args, hparams=hparams, read_test=False, **options)
    if tried.summary["interrupted"]:
        raise KeyboardInterrupt
    settings = by_setting(tried)
    best = settings[0]["hparams"]
    run = fit(model, dataset, *args, hparams=best, workdir=workdir, **options)
    return Sweep(run, settings)


def by_setting(run: Run) -> list[dict[str, Any]]:
    """Each setting with its validation scores, the best first.

    In the order of `settings.ranked`.

    Raises:
        UserError: if there is no member that stayed finite.
    """
    told = run.summary
    found = ranked(told["population"], told["monitor"], told["better"])
    if not found[0]["finite"]:
        raise UserError(
            "no member of any setting stayed finite: try lower learning rates"
        )
    return [
        {"hparams": row["hparams"], "finite": row["finite"], **row["validation"]}
        for row in found
    ]
