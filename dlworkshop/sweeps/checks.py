"""Checks of the arguments of `sweep`: each mistake raises an error of one sentence."""

import numbers
from collections.abc import Mapping
from typing import Any

from dlworkshop.errors import UserError, check_known, check_whole, repr_of, unknown
from dlworkshop.sweeps.engines import ENGINES
from dlworkshop.sweeps.recipe import DEFAULTS
from dlworkshop.sweeps.space import Space
from dlworkshop.train import processes
from dlworkshop.train.arguments import observers_in
from dlworkshop.train.members import product
from dlworkshop.train.observers.scheduler import Scheduler


def seeds_of(tried: Any, fresh: Any) -> tuple[list[int], list[int]]:
    """The seeds of the trials, and the seeds of the final run.

    Raises:
        UserError: if an argument does not describe seeds, or the two overlap.

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
        raise UserError(f"final_seeds: {error}") from None
    if both := sorted(set(tried) & set(fresh)):
        raise UserError(
            f"final_seeds contains {both[0]}, which is a seed of the trials too: give "
            "seeds that were not tried, or leave final_seeds out"
        )
    return tried, fresh


def check_options(options: Mapping[str, Any]) -> None:
    """Reject options that are not arguments of `fit`, or that a sweep sets itself.

    Raises:
        UserError: for the first such option.
    """
    if "read_test" in options:
        raise UserError(
            "a sweep reads the test split with the best setting only: leave read_test "
            "out"
        )
    for name in options:
        if name not in DEFAULTS:
            raise unknown("argument of a sweep", name, DEFAULTS)


def check_engine(engine: Any, ray_options: Any, options: Mapping[str, Any]) -> None:
    """Check the engine and the options that depend on it.

    Raises:
        UserError: if the engine is unknown, or an option does not apply to it.
    """
    check_known("engine", engine, ENGINES)
    if engine == "local" and ray_options is not None:
        raise UserError(
            "ray_options (--num-cpus, --num-gpus) have no effect without engine='ray' "
            "(--engine ray): add it"
        )
    if engine == "ray" and options.get("devices") is not None:
        raise UserError(
            "devices is given, but every Ray worker uses its own devices: leave it out "
            "and request devices in ray_options, as {'num_gpus': 1}"
        )
    if engine == "ray" and processes.count() > 1:
        raise UserError(
            "with engine='ray' a sweep is started once: leave out --coordinator and "
            "do not start other processes"
        )


def check_space(space: Space, sampler: Any) -> None:
    """Check that the space suits the sampler, or the lack of one.

    Raises:
        UserError: if it does not.
    """
    if sampler is None and space.ranges:
        raise UserError(
            f"hyper-parameter '{next(iter(space.ranges))}' is a distribution, but "
            "without a sampler every value is tried: give a list of values, or a "
            "sampler, as sampler=optuna.samplers.TPESampler (--sampler tpe)"
        )
    if sampler is not None and space.listed is not None:
        raise UserError(
            "hparams is a list of settings, so there is nothing to sample: give names "
            "with values, or leave the sampler out"
        )
    if sampler is not None and processes.count() > 1:
        raise UserError(
            "with a sampler each bucket is trained by a single process: start the "
            "processes without --coordinator; those with the same workdir share the "
            "trials"
        )


def check_observers(observe: Any) -> None:
    """Reject schedulers: they stop or copy the members of a single program."""
    for observer in observers_in(observe):
        if isinstance(observer, Scheduler):
            raise UserError(
                f"{observer.name} works within one program, but a sweep trains several "
                "programs: pass it to fit, or leave it out"
            )


def check_sampled(sampler: Any, num_trials: Any, at_once: Any) -> None:
    """Check `sampler` and the arguments that require one."""
    if sampler is None:
        given = {"num_trials": num_trials, "trials_at_once": at_once}
        for name, value in given.items():
            if value is not None:
                raise UserError(
                    f"{name} has no effect without a sampler, because all settings are "
                    "tried: give one, as sampler=optuna.samplers.TPESampler "
                    "(--sampler tpe)"
                )
        return
    if not callable(sampler):
        raise UserError(
            f"sampler is {repr_of(sampler)}: give a constructor that takes a seed, as "
            "optuna.samplers.TPESampler, without calling it"
        )
    check_whole("num_trials", num_trials)
    if at_once is not None:
        check_whole("trials_at_once", at_once)
