"""Schedulers: observers whose rungs are known before the first step."""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlworkshop.errors import UserError
from dlworkshop.train.observers.snapshot import Copies, Snapshot


class Scheduler(abc.ABC):
    """An observer that stops or copies members at rungs, which are ends of epochs.

    Its answers depend on the snapshot only, so a resumed run gets the same answers.
    Subclasses are frozen dataclasses of their arguments, which are settings of the run.
    """

    name: str  # in words

    @abc.abstractmethod
    def rungs(
        self, hparams: Mapping[str, np.ndarray], num_settings: int, num_epochs: int
    ) -> dict[int, int]:
        """Epochs after which there is a rung -> the most members that run after it.

        Args:
            hparams: initial hyper-parameters of the members: name -> [P].
            num_settings: members are [settings, seeds].
            num_epochs: of the run.

        Raises:
            UserError: if the scheduler would have no effect on this run.
        """

    @abc.abstractmethod
    def __call__(self, snapshot: Snapshot) -> np.ndarray | Copies | None:
        """The answer to a `Snapshot`."""

    @property
    def limits(self) -> Mapping[str, tuple[float, float]]:
        """The hyper-parameters that it changes, with their limits, low and high."""
        return {}

    def reached(self, hparams: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The initial hyper-parameters and their limits: name -> [n]."""
        return {
            name: np.concatenate([values, self.limits.get(name, ())])
            for name, values in hparams.items()
        }

    @property
    def config(self) -> dict[str, Any]:
        """The arguments, as JSON."""
        return {"name": self.name, **dataclasses.asdict(self)}  # type: ignore[call-overload]


def only_scheduler(observers: Sequence[Any]) -> Scheduler | None:
    """The scheduler among the observers, if any.

    Raises:
        UserError: if there are several.
    """
    found = [each for each in observers if isinstance(each, Scheduler)]
    if len(found) > 1:
        names = " and ".join(each.name for each in found)
        raise UserError(f"observe has {names}: give one scheduler")
    return found[0] if found else None


def planned_rungs(
    scheduler: Scheduler | None,
    hparams: Mapping[str, np.ndarray],
    repetitions: int,
    num_epochs: int,
    before: int | None,
) -> dict[int, int]:
    """The rungs of a run; see `Scheduler.rungs`. Without a scheduler there are none.

    Args:
        scheduler: of the run.
        hparams: of the members: name -> [P].
        repetitions: members of each setting.
        num_epochs: of the run.
        before: epochs of the run that continues, if any.

    Raises:
        UserError: if the scheduler has no effect, or the earlier epochs would differ.
    """
    if scheduler is None:
        return {}
    members = max((len(values) for values in hparams.values()), default=repetitions)
    rungs = scheduler.rungs(hparams, members // repetitions, num_epochs)
    if before is not None and before < num_epochs and before in rungs:
        # the shorter run had no rung at its end
        raise UserError(
            f"the run was made for {before} epochs, and one of {num_epochs} has a rung "
            f"of {scheduler.name} after these: train it in another folder"
        )
    return rungs
