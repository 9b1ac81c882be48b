"""Checks of the arguments of `sweep`, with one sentence for each mistake."""

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from dlworkshop.errors import UserError, check_known, check_whole, repr_of
from dlworkshop.sweeps.engines import ENGINES
from dlworkshop.sweeps.space import Space
from dlworkshop.train import processes
from dlworkshop.train.members import product
from dlworkshop.train.observers.scheduler import Scheduler


def seeds_of(tried: Any, fresh: Any) -> tuple[list[int], list[int]]:
    """The seeds of the trials, and of the run in the end.

    Raises:
        UserError: if they are none, or overlap.

    >>> seeds_of(2, None), seeds_of([3, 7], 1)
    (([0, 1], [2, 3]), ([3, 7], [8]))
    """
    tried = product({}, tried)[1]
    if fresh is None:
        fresh = len(tried)
    if isinstance(fresh, numbers.Integral) and fresh is not True and int(fresh) > 0:
        first = max(tried) + 1
        fresh = list(range(first, first + int(fresh)))
    try:
        fresh = product({}, fresh)[1]
    except UserError as error:
        raise UserError(f"of final_seeds: {error}") from None
    if both := sorted(set(tried) & set(fresh)):
        raise UserError(
            f"final_seeds has {both[0]}, with which trials were chosen: give seeds "
            "that were not tried, or leave it out"
        )
    return tried, fresh


def check_engine(engine: Any, ray_options: Any, options: Mapping[str, Any]) -> None:
    """Check where buckets are to be trained.

    Raises:
        UserError: if it is nowhere, or something else goes without it.
    """
    check_known("engine", engine, ENGINES)
    if engine == "local" and ray_options is not None:
        raise UserError("ray_options have no effect without engine='ray': add it")
    if engine == "ray" and options.get("devices") is not None:
        raise UserError(
            "devices are those of each worker of Ray: leave them out, and say in "
            "ray_options how many a bucket is to have, as {'num_gpus': 1}"
        )
    if engine == "ray" and processes.count() > 1:
        raise UserError(
            "with engine='ray' a sweep is started once: leave out --coordinator and "
            "what starts other processes"
        )


def check_space(space: Space, sampler: Any) -> None:
    """Check that a space and a sampler, or that there is none, go together.

    Raises:
        UserError: if they do not.
    """
    if sampler is None and space.ranges:
        raise UserError(
            f"hyper-parameter '{next(iter(space.ranges))}' is a distribution, and "
            "without a sampler every value is tried: give a list of values, or a "
            "sampler, as sampler=optuna.samplers.TPESampler"
        )
    if sampler is not None and space.listed is not None:
        raise UserError(
            "hparams lists the settings, so there is nothing to be drawn: give names "
            "with values, or leave the sampler out"
        )
    if sampler is not None and processes.count() > 1:
        raise UserError(
            "with a sampler each bucket is trained by one process: start them without "
            "--coordinator; those that are given one workdir share the trials"
        )


def check_observers(observe: Any) -> None:
    """Refuse schedulers, which stop or copy the settings of one program.

    The best of a sweep is trained again to its end, alone.
    """
    for observer in observe if isinstance(observe, Sequence) else [observe]:
        if isinstance(observer, Scheduler):
            raise UserError(
                f"a sweep trains its settings in several programs, and {observer.name} "
                "is of one: give it to fit, or leave it out"
            )


def check_sampled(sampler: Any, num_trials: Any, at_once: Any) -> None:
    """Check the arguments of a sweep that go with a sampler."""
    if sampler is None:
        if num_trials is not None:
            raise UserError(
                "num_trials has no effect without a sampler, as all settings are "
                "tried: give one, as sampler=optuna.samplers.TPESampler"
            )
        return
    if not callable(sampler):
        raise UserError(
            f"sampler is {repr_of(sampler)}: give a constructor that takes a seed, as "
            "optuna.samplers.TPESampler, without calling it"
        )
    check_whole("num_trials", num_trials)
    check_whole("trials_at_once", at_once)
