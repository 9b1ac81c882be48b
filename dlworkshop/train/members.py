"""Who trains: the product of hyper-parameters and seeds, checked at the door."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dlworkshop.errors import UserError, unknown
from dlworkshop.learn.step import supported_kwargs
from dlworkshop.models.model import Model
from dlworkshop.types import HParams

# name -> lowest value, and the value that all stay below
RANGES = {
    "learning_rate": (0.0, np.inf),
    "momentum": (0.0, 1.0),
    "b1": (0.0, 1.0),
    "b2": (0.0, 1.0),
    "eps": (0.0, np.inf),
    "weight_decay": (0.0, np.inf),
    "clip_norm": (0.0, np.inf),
    "dropout": (0.0, 1.0),
    "label_smoothing": (0.0, 1.0),
}


def product(
    hparams: Mapping[str, Any], seeds: int | Sequence[int]
) -> tuple[HParams, list[int]]:
    """Every combination of the hyper-parameters' values with every seed.

    Args:
        hparams: name -> one value or a list of values.
        seeds: how many (0, 1, ...), or the seeds themselves.

    Returns:
        HParams of float arrays [P] (None where nothing was given), and the seed of
        each member [P]; the seeds run fastest.

    >>> members, seeds = product({"learning_rate": [0.1, 0.2]}, seeds=2)
    >>> members.learning_rate.tolist(), seeds
    ([0.1, 0.1, 0.2, 0.2], [0, 1, 0, 1])
    """
    seeds = _seeds(seeds)
    values = {name: _values(name, value) for name, value in hparams.items()}
    if "learning_rate" not in values:
        raise UserError("hparams has no 'learning_rate': give one or a list of them")
    grid = np.meshgrid(*values.values(), np.arange(len(seeds)), indexing="ij")
    columns = dict(zip(values, (axis.ravel() for axis in grid), strict=False))
    return HParams(**columns), [seeds[i] for i in grid[-1].ravel()]


def check_used(
    hparams: HParams, make_optimizer: Callable, model: Model, loss: Callable
) -> None:
    """Refuse a hyper-parameter that nobody reads: sweeping it would mean nothing."""
    read: set[str] = set()

    class Spy(HParams):
        __slots__ = ()

        def __getattribute__(self, name):
            read.add(name)
            return super().__getattribute__(name)

    first = [None if values is None else float(values[0]) for values in hparams]
    make_optimizer(Spy(*first))
    read |= {
        "clip_norm",
        *supported_kwargs(model.apply, hparams),
        *supported_kwargs(loss, hparams),
    }
    for name, values in hparams._asdict().items():
        if values is not None and name not in read:
            raise UserError(
                f"hyper-parameter '{name}' is used neither by the optimizer "
                f"{name_of(make_optimizer)} nor by the model or the loss: leave it out"
            )


def name_of(function: Callable) -> str:
    """The name under which a function is written into a config."""
    inner = getattr(function, "func", function)  # functools.partial
    return getattr(inner, "__name__", type(inner).__name__)


def _seeds(seeds: int | Sequence[int]) -> list[int]:
    if isinstance(seeds, (int, np.integer)):
        if seeds < 1:
            raise UserError(f"seeds is {seeds}: train at least one member")
        return list(range(int(seeds)))
    seeds = [int(seed) for seed in seeds]
    if not seeds or min(seeds) < 0 or max(seeds) >= 2**32:
        raise UserError(f"seeds are {seeds}: give one or more in 0 ... 2**32 - 1")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds are {seeds}: each may come once only")
    return seeds


def _values(name: str, value: Any) -> np.ndarray:
    if name not in RANGES:
        raise unknown("hyper-parameter", name, RANGES)
    try:
        values = np.atleast_1d(np.asarray(value, np.float64))
    except (TypeError, ValueError):
        raise UserError(
            f"hyper-parameter '{name}' is {value!r}: give a number or a list of them"
        ) from None
    low, high = RANGES[name]
    inside = np.isfinite(values) & (values >= low) & (values < high)
    if values.ndim != 1 or not values.size or not inside.all():
        raise UserError(
            f"hyper-parameter '{name}' is {value!r}: give one or more numbers in "
            f"[{low:g}, {high:g})"
        )
    return values
