"""Population-based training: copies of the best members replace the worst."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from dlworkshop.errors import (
    Range,
    UserError,
    check_known,
    check_number,
    check_whole,
    repr_of,
)
from dlworkshop.learn.population import QUARANTINED
from dlworkshop.train.observers.scheduler import Scheduler
from dlworkshop.train.observers.snapshot import Copies, Snapshot
from dlworkshop.train.processes import fetch


def population_based_training(
    explore: Mapping[str, tuple[float, float]],
    *,
    every: int = 1,
    share: float = 0.2,
    factor: float = 1.25,
    seed: int = 0,
) -> "PopulationBasedTraining":
    """An observer that copies good members over bad ones and varies their settings.

    Every `every` epochs, the worst `share` of the members by the monitored score,
    including quarantined members, are replaced by copies of members drawn from the best
    `share` (exploit). Copies get other hyper-parameters (explore): each value in
    `explore` is multiplied by a number between 1 / factor and factor, drawn uniformly
    on a log scale, and stays within its limits. So the training finds a schedule, not
    only a setting.

    The members of each seed are a separate population, so several seeds are independent
    repetitions: the result is the best member of each seed by validation, with the
    spread over seeds. `run.hparams` has the final hyper-parameters of the members, and
    `run.history.lineage("hparams/learning_rate")` those that they were trained with.

    Source: Jaderberg and others (2017), Population based training of neural networks,
    with truncation selection. They multiply by one of two factors; here members of one
    seed see the same batches, so two copies with equal factors would be equal.

    Args:
        explore: name of each hyper-parameter to vary -> its lowest and highest value,
            both above 0.
        every: epochs between two rungs.
        share: the share of members to replace, in (0, 0.5].
        factor: the largest factor by which a value changes, above 1.
        seed: for drawing copies and values.

    Raises:
        UserError: if an argument is not valid.

    >>> from dlworkshop import data, fit, models
    >>> rates = {"learning_rate": [1e-5, 1e-4, 1e-3, 1e-2]}
    >>> train = population_based_training({"learning_rate": (1e-5, 1.0)}, share=0.25)
    >>> run = fit(
    ...     models.logistic(), data.load("digits"), hparams=rates, num_epochs=3,
    ...     observe=[train], quiet=True)
    >>> bool(run.hparams["learning_rate"][0] > 1e-3)  # the worst is a copy of the best
    True
    """
    check_whole("every", every)
    check_whole("seed", seed, 0)
    check_number("factor", factor, Range(1, closed=False))
    check_number("share", share, Range(0, closed=False))
    if share > 0.5:
        raise UserError(
            f"share is {share:g}: give at most 0.5, or the best are replaced"
        )
    if not isinstance(explore, Mapping) or not explore:
        raise UserError(
            f"explore is {repr_of(explore)}: give a dict of names and limits, such as "
            '{"learning_rate": (1e-4, 1.0)}'
        )
    limits = {name: _limits(name, pair) for name, pair in explore.items()}
    return PopulationBasedTraining(
        limits, int(every), float(share), float(factor), int(seed)
    )


def _limits(name: str, pair: Any) -> tuple[float, float]:
    """The limits of a hyper-parameter, low and high."""
    try:
        low, high = map(float, pair)
    except (TypeError, ValueError):
        low, high = np.nan, np.nan
    if not 0 < low < high < np.inf:
        raise UserError(
            f"explore has {pair!r:.60} for '{name}': give its lowest and its highest "
            "value, both above 0"
        )
    return low, high


@dataclasses.dataclass(frozen=True)
class PopulationBasedTraining(Scheduler):
    """See `population_based_training`."""

    explore: Mapping[str, tuple[float, float]]
    every: int
    share: float
    factor: float
    seed: int
    name = "population-based training"

    @property
    def limits(self) -> Mapping[str, tuple[float, float]]:
        """The requested limits."""
        return self.explore

    def rungs(
        self, hparams: Mapping[str, np.ndarray], num_settings: int, num_epochs: int
    ) -> dict[int, int]:
        """Epoch of each rung -> all members."""
        for name, (low, high) in self.explore.items():
            check_known("hyper-parameter to explore", name, hparams)
            # in float32, in which a run computes
            first = np.asarray(hparams[name], np.float32)
            inside = (np.float32(low) <= first) & (first <= np.float32(high))
            if not inside.all():
                raise UserError(
                    f"hyper-parameter '{name}' begins with {first[~inside][0]:g}, but "
                    f"is explored from {low:g} to {high:g}: give limits around it"
                )
        if num_settings < 2 or not self.replaced(num_settings):
            raise UserError(
                f"population-based training replaces {self.share:g} of "
                f"{num_settings} setting{'s' if num_settings > 1 else ''}, which is "
                "less than one: give more settings, or a larger share"
            )
        if self.every >= num_epochs:
            raise UserError(
                f"population-based training has its first rung after {self.every} of "
                f"{num_epochs} epochs, so no copy would be trained: give a smaller "
                "every, or more epochs"
            )
        members = len(next(iter(hparams.values())))
        return dict.fromkeys(range(self.every, num_epochs, self.every), members)

    def replaced(self, num_settings: int) -> int:
        """The number of members of a seed that are replaced at a rung."""
        return int(self.share * num_settings + 1e-9)

    def __call__(self, snapshot: Snapshot) -> Copies | None:
        """The copies at a rung, with their hyper-parameters."""
        if snapshot.score is None or round(snapshot.epoch) % self.every:
            return None
        if snapshot.step == snapshot.num_steps:
            return None
        shape = snapshot.num_settings, -1  # [settings, seeds]
        lost = fetch(snapshot.population.status) >= QUARANTINED
        known = snapshot.running & np.isfinite(snapshot.score)
        cost = np.where(known, snapshot.score, np.inf).reshape(shape)
        taking_part = (snapshot.running | lost).reshape(shape)
        source = np.arange(len(snapshot.seeds)).reshape(shape)
        own = source.copy()
        rng = np.random.default_rng([self.seed, snapshot.step])
        for repetition in range(own.shape[1]):
            order = np.argsort(cost[:, repetition], kind="stable")
            order = order[taking_part[order, repetition]]
            finite = int(np.isfinite(cost[order, repetition]).sum())
            count = min(self.replaced(len(own)), len(order) // 2, finite)
            best, worst = order[:count], order[len(order) - count :]
            drawn = rng.integers(max(count, 1), size=count)
            source[worst, repetition] = own[best[drawn], repetition]
        copies = np.flatnonzero(source != own)
        if not copies.size:
            return None
        chosen = source.ravel()
        hparams = {name: values[chosen] for name, values in snapshot.hparams.items()}
        for name, (low, high) in self.explore.items():
            value = hparams[name][copies]
            least = np.maximum(low, value / self.factor)
            most = np.minimum(high, value * self.factor)
            value = least * (most / least) ** rng.random(len(copies))
            hparams[name][copies] = np.clip(value, low, high)
        return Copies(chosen, hparams)
