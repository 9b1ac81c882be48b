"""A bucket: trials with equal static values, trained as one population."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dlworkshop import report
from dlworkshop.errors import UserError
from dlworkshop.report.words import count
from dlworkshop.sweeps.recipe import Recipe
from dlworkshop.sweeps.study import Trial, claimed
from dlworkshop.train import processes
from dlworkshop.train.fit import fit
from dlworkshop.train.progress import log_level
from dlworkshop.train.run_folder import finished_summary
from dlworkshop.train.settings import ranked
from dlworkshop.types import Dataset

log = logging.getLogger(__name__)

Row = dict[str, Any]  # one row of the table of trials


class Bucket(NamedTuple):
    """Trials that are trained by one program."""

    number: int  # of its first trial
    trials: tuple[Trial, ...]


class Scores(NamedTuple):
    """The validation scores of the trials of a bucket."""

    rows: list[Row]
    monitor: str
    better: str

    def costs(self) -> Iterator[tuple[int, float | None]]:
        """Trial number and mean of the monitored score, negated if higher is better."""
        sign = -1 if self.better == "higher" else 1
        for row in self.rows:
            mean = row["validation"][self.monitor]["mean"]
            yield row["trial"], None if mean is None else sign * mean


class Work(NamedTuple):
    """Everything that is needed to train a bucket, here or on another machine."""

    recipe: Recipe
    dataset: Dataset
    seeds: Any
    folder: Path | None  # of the sweep

    def __call__(self, bucket: Bucket) -> Scores | None:
        """Train a bucket, resume its training, or read the scores of a finished one.

        Returns:
            The scores, or None while another process trains the bucket.

        Raises:
            UserError: if an argument is invalid, or the folder of the sweep is missing.
        """
        if self.folder is None:
            return self._trained(bucket, None)
        if not (self.folder / "config.json").is_file():
            raise UserError(
                f"{self.folder} is not visible to all machines of the sweep: choose a "
                "workdir on a disk that they share"
            )
        folder = self.folder / f"{bucket.number:04d}"
        if processes.count() > 1:  # one program over all of them
            return self._trained(bucket, folder)
        known = finished_summary(folder)
        if known is not None:
            return self._scores(bucket, known)
        with claimed(self.folder / "claims" / folder.name) as mine:
            return self._trained(bucket, folder) if mine else None

    def _trained(self, bucket: Bucket, folder: Path | None) -> Scores:
        recipe, first = self.recipe, bucket.trials[0].setting
        options = recipe.arguments(first)
        own = ", ".join(f"{name} {first[name]}" for name in recipe.static)
        log.log(
            log_level(options.get("quiet", False), logging.INFO),
            "%s of %s",
            own or "one program",
            count(len(bucket.trials), "trial"),
        )
        traced = [values for values, _ in self._together(bucket)]
        try:
            with report.left_out():  # nobody reads the report of a bucket
                run = fit(
                    recipe.made(first),
                    self.dataset,
                    hparams=traced if traced[0] else None,
                    seeds=self.seeds,
                    workdir=folder,
                    read_test=False,
                    **options,
                )
        except UserError as error:
            if not own:
                raise
            raise type(error)(f"with {own}: {error}") from error
        if run.summary["interrupted"]:
            raise KeyboardInterrupt
        return self._scores(bucket, run.summary)

    def _together(self, bucket: Bucket) -> list[tuple[dict[str, Any], list[Trial]]]:
        """Distinct traced values, each with the trials that share them.

        A sampler may draw the same values twice, or values that become equal when they
        are rounded to the dtype of the run.
        """
        found: dict[tuple, tuple[dict[str, Any], list[Trial]]] = {}
        dtype = jnp.result_type(float)
        for trial in bucket.trials:
            traced = self.recipe.traced(trial.setting)
            key = tuple(
                np.asarray(value).astype(dtype).item() for value in traced.values()
            )
            found.setdefault(key, (traced, []))[1].append(trial)
        return list(found.values())

    def _scores(self, bucket: Bucket, told: Mapping[str, Any]) -> Scores:
        together, rows = self._together(bucket), []
        size = len(told["population"]) // len(together)
        for row in ranked(told["population"], told["monitor"], told["better"]):
            for trial in together[row["members"][0] // size][1]:
                rows.append(
                    {
                        "trial": trial.number,
                        "bucket": bucket.number,
                        "hparams": {**trial.setting, **row["hparams"]},
                        "finite": row["finite"],
                        "validation": row["validation"],
                    }
                )
        return Scores(rows, told["monitor"], told["better"])


def bucketed(trials: Iterable[Trial]) -> list[Bucket]:
    """Group trials into buckets, in the order of the bucket numbers."""
    found: dict[int, list[Trial]] = {}
    for trial in trials:
        found.setdefault(trial.bucket, []).append(trial)
    return [Bucket(number, tuple(own)) for number, own in sorted(found.items())]
