"""Successive halving and Hyperband: the worst settings are dropped early."""

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from dlworkshop.errors import UserError, check_whole
from dlworkshop.learn.population import QUARANTINED
from dlworkshop.train.observers.scheduler import Scheduler
from dlworkshop.train.observers.snapshot import Snapshot
from dlworkshop.train.processes import fetch


def successive_halving(min_epochs: int = 1, factor: int = 3) -> "SuccessiveHalving":
    """An observer that drops all but the best settings at each rung.

    There is a rung after `min_epochs` epochs, after `factor` times as many, and so on.
    At rung k of N settings the best N / factor^(k + 1) continue, rounded down, at least
    one. Settings are ranked by the mean of the monitored score over their seeds; those
    with quarantined members come last. A setting is dropped with all its seeds, so the
    remaining settings keep their error bars.

    Source: Jamieson & Talwalkar (2016), Non-stochastic best arm identification and
    hyperparameter optimization. The choice is that of Optuna's
    `SuccessiveHalvingPruner(min_resource=min_epochs, reduction_factor=factor)` if all
    trials reach a rung before it decides.

    Args:
        min_epochs: epochs before the first rung.
        factor: the share 1 / factor of the settings continues, and has trained `factor`
            times as long at the next rung.

    Raises:
        UserError: if a number is not valid.

    >>> from dlworkshop import data, fit, models
    >>> rates = {"learning_rate": [1e-5, 1e-4, 1e-3, 1e-2]}
    >>> run = fit(
    ...     models.logistic(), data.load("digits"), hparams=rates, num_epochs=4,
    ...     batch_size=64, observe=[successive_halving(factor=2)], quiet=True)
    >>> [row["steps"] for row in run.summary["population"]]
    [19, 19, 38, 76]
    >>> run.summary["model_steps"]
    {'done': 152, 'saved': 152}
    """
    check_whole("min_epochs", min_epochs)
    check_whole("factor", factor, 2)
    return SuccessiveHalving(int(min_epochs), int(factor))


def hyperband(min_epochs: int = 1, factor: int = 3, seed: int = 0) -> "Hyperband":
    """An observer that does successive halving in brackets with different first rungs.

    An early rung drops settings that learn slowly at first. So the settings are divided
    into brackets: the first has its first rung after `min_epochs` epochs and most of
    the settings, the second has it after `factor` times as many, and the last bracket
    trains few settings for most or all of the run.

    Source: Li and others (2018), Hyperband: a novel bandit-based approach to
    hyperparameter optimization. Rungs and shares of the brackets are those of Optuna's
    `HyperbandPruner(min_epochs, num_epochs, factor)`.

    Args:
        min_epochs, factor: of the first bracket; see `successive_halving`.
        seed: for drawing which settings are in which bracket.

    Raises:
        UserError: if a number is not valid.

    >>> hyperband().rungs({}, num_settings=49, num_epochs=27)
    {1: 31, 3: 17, 9: 8}
    """
    check_whole("min_epochs", min_epochs)
    check_whole("factor", factor, 2)
    check_whole("seed", seed, 0)
    return Hyperband(int(min_epochs), int(factor), int(seed))


class Bracket(NamedTuple):
    """Settings that compete with each other."""

    first: int  # epochs before the first rung
    settings: np.ndarray  # [n] their numbers


@dataclasses.dataclass(frozen=True)
class SuccessiveHalving(Scheduler):
    """See `successive_halving`."""

    min_epochs: int
    factor: int
    name = "successive halving"

    def brackets(self, num_settings: int, num_epochs: int) -> list[Bracket]:
        """Every setting in one bracket."""
        del num_epochs
        return [Bracket(self.min_epochs, np.arange(num_settings))]

    def rungs(
        self, hparams: Mapping[str, np.ndarray], num_settings: int, num_epochs: int
    ) -> dict[int, int]:
        """Epoch of each rung -> members that run after it."""
        self.check(num_settings, num_epochs)
        brackets = self.brackets(num_settings, num_epochs)
        seeds = len(next(iter(hparams.values()), range(num_settings))) // num_settings
        epochs = {
            epoch
            for bracket in brackets
            for epoch in rungs_of(bracket.first, self.factor, num_epochs)
        }
        return {
            epoch: seeds * sum(self.kept(bracket, epoch) for bracket in brackets)
            for epoch in sorted(epochs)
        }

    def check(self, num_settings: int, num_epochs: int) -> None:
        """Refuse a run in which no setting would be dropped."""
        if num_settings < 2:
            raise UserError(
                f"{self.name} drops settings, but hparams has only one: give several, "
                "or leave the observer out"
            )
        if self.min_epochs >= num_epochs:
            raise UserError(
                f"{self.name} has its first rung after {self.min_epochs} of "
                f"{num_epochs} epochs, so it would save nothing: give a smaller "
                "min_epochs, or more epochs"
            )

    def kept(self, bracket: Bracket, epoch: int) -> int:
        """The number of settings of a bracket that continue after an epoch."""
        size = len(bracket.settings)
        passed = len(rungs_of(bracket.first, self.factor, epoch + 1))
        return max(1, size // self.factor**passed)

    def __call__(self, snapshot: Snapshot) -> np.ndarray | None:
        """Which members are dropped at a rung: [P] bool."""
        if snapshot.score is None:
            return None
        epoch, settings = round(snapshot.epoch), snapshot.num_settings
        last = round(snapshot.num_steps * snapshot.epoch / snapshot.step)
        dropped = np.zeros(settings, bool)
        order = ranking(snapshot)
        for bracket in self.brackets(settings, last):
            if epoch in rungs_of(bracket.first, self.factor, last):
                mine = order[np.isin(order, bracket.settings)]
                dropped[mine[self.kept(bracket, epoch) :]] = True
        return np.repeat(dropped, len(snapshot.seeds) // settings)


@dataclasses.dataclass(frozen=True)
class Hyperband(SuccessiveHalving):
    """See `hyperband`."""

    seed: int
    name = "hyperband"

    def brackets(self, num_settings: int, num_epochs: int) -> list[Bracket]:
        """The settings, drawn into brackets by their shares."""
        shares = self.shares(num_epochs)
        ends = np.rint(num_settings * np.cumsum(shares) / sum(shares)).astype(int)
        drawn = np.random.default_rng(self.seed).permutation(num_settings)
        parts = np.split(drawn, ends[:-1])
        return [
            Bracket(self.min_epochs * self.factor**b, np.sort(part))
            for b, part in enumerate(parts)
            if part.size
        ]

    def shares(self, num_epochs: int) -> list[int]:
        """Relative sizes of the brackets, the first one with the earliest rung.

        With B brackets, the s-th before the last has the size ceil(B factor^s / (s +
        1)), so that all do about the same number of updates.
        """
        later = 0
        while self.min_epochs * self.factor ** (later + 1) <= num_epochs:
            later += 1
        count = later + 1
        return [
            math.ceil(count * self.factor**s / (s + 1)) for s in reversed(range(count))
        ]

    def check(self, num_settings: int, num_epochs: int) -> None:
        """Refuse a run in which Hyperband would be successive halving."""
        super().check(num_settings, num_epochs)
        count = len(self.shares(num_epochs))
        if count < 2:
            raise UserError(
                f"hyperband has one bracket in {num_epochs} epochs, with min_epochs "
                f"{self.min_epochs} and factor {self.factor}: use successive_halving, "
                "or more epochs"
            )
        found = len(self.brackets(num_settings, num_epochs))
        if found < count:
            least = next(
                n
                for n in range(num_settings, 2**31)
                if len(self.brackets(n, num_epochs)) == count
            )
            raise UserError(
                f"hyperband has {count} brackets, but {num_settings} settings fill "
                f"only {found} of them: give {least} settings or more, or use "
                "successive_halving"
            )


def rungs_of(first: int, factor: int, num_epochs: int) -> list[int]:
    """The rungs of a bracket, before the last epoch.

    >>> rungs_of(1, 3, num_epochs=27), rungs_of(2, 2, num_epochs=5)
    ([1, 3, 9], [2, 4])
    """
    rungs = []
    while first < num_epochs:
        rungs.append(first)
        first *= factor
    return rungs


def ranking(snapshot: Snapshot) -> np.ndarray:
    """The settings with a running member, the best first.

    A member that was stopped by `patience` counts with its best score. Settings with
    more members whose score is not finite come last.
    """
    running, population = snapshot.running, snapshot.population
    status, best = fetch((population.status, population.best_score))
    score = np.where(running, snapshot.score, best)
    score = np.where(status >= QUARANTINED, np.nan, score)
    score = score.reshape(snapshot.num_settings, -1).astype(float)  # [settings, seeds]
    competing = np.asarray(running.reshape(score.shape).any(axis=1))
    return ranked(score, competing)


def ranked(score: np.ndarray, competing: np.ndarray) -> np.ndarray:
    """The numbers of settings by their scores [settings, seeds], lower is better.

    >>> score = np.array([[0.3, 0.5], [0.1, np.nan], [0.2, 0.4], [0.0, 0.0]])
    >>> ranked(score, competing=np.array([True, True, True, False]))
    array([2, 0, 1])
    """
    finite = np.isfinite(score)
    count = finite.sum(1)
    mean = np.where(finite, score, 0).sum(1) / np.maximum(count, 1)
    order = np.lexsort((mean, -count))
    return order[competing[order]]
