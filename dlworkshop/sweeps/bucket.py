"""A bucket: trials of equal static values, trained as one population."""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dlworkshop.errors import UserError
from dlworkshop.report.words import count
from dlworkshop.sweeps.recipe import Recipe
from dlworkshop.sweeps.study import Trial
from dlworkshop.train import processes
from dlworkshop.train.fit import fit
from dlworkshop.train.progress import log_level
from dlworkshop.train.run_folder import InUseError, finished_summary, lock_run_dir
from dlworkshop.train.settings import ranked
from dlworkshop.types import Dataset

log = logging.getLogger(__name__)

Row = dict[str, Any]  # of the table of trials


class Bucket(NamedTuple):
    """Trials that one program trains."""

    number: int  # of the first of them
    trials: tuple[Trial, ...]


class Scores(NamedTuple):
    """What the trials of a bucket came to."""

    rows: list[Row]
    monitor: str
    better: str

    def costs(self) -> Iterator[tuple[int, float | None]]:
        """Each trial with its mean of what is monitored, where lower is better."""
        sign = -1 if self.better == "higher" else 1
        for row in self.rows:
            mean = row["validation"][self.monitor]["mean"]
            yield row["trial"], None if mean is None else sign * mean


class Work(NamedTuple):
    """Everything that training a bucket takes; it may be sent to another machine."""

    recipe: Recipe
    dataset: Dataset
    seeds: Any
    folder: Path | None  # of the sweep

    def __call__(self, bucket: Bucket) -> Scores | None:
        """Train a bucket, go on with it, or read what it came to.

        Returns:
            None while another process is training it.

        Raises:
            UserError: where an argument cannot be, or the folder is not there.
        """
        if self.folder is None:
            return self._trained(bucket, None)
        if not (self.folder / "config.json").is_file():
            raise UserError(
                f"{self.folder} is not seen by all machines of the sweep: choose a "
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
        """Traced values with the trials that have them.

        A sampler may draw the same twice, or numbers that are the same in the dtype
        that a run computes in.
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
    """The buckets of some trials, by their numbers."""
    found: dict[int, list[Trial]] = {}
    for trial in trials:
        found.setdefault(trial.bucket, []).append(trial)
    return [Bucket(number, tuple(own)) for number, own in sorted(found.items())]


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Lock a folder; False if another process has it."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock_run_dir(folder))
        except InUseError:
            yield False
            return
        yield True
