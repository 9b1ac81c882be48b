"""Calls of the observers at the end of a chunk, and what follows from their answers."""

import signal
from collections.abc import Mapping

import numpy as np

from dlworkshop.errors import UserError
from dlworkshop.learn import population as pop
from dlworkshop.learn.hparams import name_of
from dlworkshop.train import processes
from dlworkshop.train.observers.snapshot import Copies, Snapshot, checked_copies
from dlworkshop.train.plan import Plan
from dlworkshop.train.signals import PendingSignal


def observed(
    plan: Plan,
    population: pop.Population,
    step: int,
    train: Mapping[str, np.ndarray],
    validation: Mapping[str, np.ndarray] | None,
    pending: PendingSignal,
) -> tuple[Plan, pop.Population, np.ndarray | None]:
    """Call the observers; stop and copy the members that they name.

    Each gets arrays of its own, which it may change. A KeyboardInterrupt that one
    raises is `pending` like a signal.

    Returns:
        The plan and the population from now on, and the member that each one continues
        [P]; None without copies.

    Raises:
        UserError: if one returns something else, or a file of its own cannot be used.
    """
    source = None
    for observer in plan.observers:
        snapshot = Snapshot(
            step,
            plan.num_steps,
            step / plan.order.steps_per_epoch,
            _copied(train),
            None if validation is None else _copied(validation),
            _copied(plan.hparams),
            list(plan.seeds),
            population,
            None if validation is None else np.array(plan.cost(validation)),
            plan.num_settings,
        )
        try:
            answer = observer(snapshot)
        except KeyboardInterrupt:
            if pending.signum is not None:
                raise  # a second one ends the program at once
            pending.signum, answer = signal.SIGINT, None
        except OSError as error:  # or it would be taken for one of the run folder
            raise UserError(
                f"the observer {name_of(observer)} failed ({error}): mend it, and run "
                "the same command again"
            ) from error
        if isinstance(answer, Copies):
            now, hparams = checked_copies(answer, plan.hparams, plan.seeds)
            places = np.flatnonzero(now != np.arange(len(now)))
            if places.size:
                population = plan.programs.copy(population, now[places], places)
            plan = plan.with_hparams(hparams)
            source = now if source is None else source[now]
        elif answer is not None:
            population = _without(population, np.asarray(answer))
    return plan, population, source


def _copied(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.array(values) for name, values in arrays.items()}


def _without(population: pop.Population, members: np.ndarray) -> pop.Population:
    """The population in which the named members [P] no longer run."""
    status = population.status
    if members.shape != status.shape or members.dtype != bool:
        raise UserError(
            f"an observer returned {members.dtype}{list(members.shape)}: return "
            f"None, a bool array that is True for each of {len(status)} members to "
            "stop, or observers.Copies"
        )
    before = processes.fetch(status)
    now = np.where(members & (before == pop.RUNNING), pop.STOPPED, before)
    now = processes.put(now.astype(status.dtype), status.sharding)
    return population._replace(status=now)
