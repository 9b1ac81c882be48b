"""Settings of the playground, checked, and their conversion from and to a URL query.

A page may send anything, so names are looked up in the tables below, numbers must be
within limits, and everything else is rejected.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax
from flax import linen as nn

from dlworkshop.data import toy
from dlworkshop.errors import UserError, check_known, repr_of, unknown
from dlworkshop.learn import optimizers
from dlworkshop.report.marks import COLOURS

POINTS: dict[str, Callable] = {
    "moons": toy.moons,
    "rings": toy.rings,
    "spirals": toy.spirals,
    "xor": toy.xor,
}
ACTIVATIONS: dict[str, Callable] = {
    "relu": nn.relu,
    "tanh": nn.tanh,
    "sigmoid": nn.sigmoid,
    "gelu": nn.gelu,
    "none": jax.nn.identity,
}
OPTIMIZERS: dict[str, Callable] = {
    "sgd": optax.sgd,
    "momentum": functools.partial(optax.sgd, momentum=0.9),
    "rmsprop": optax.rmsprop,
    "adam": optax.adam,
    "muon": optimizers.muon,
}
NAMED = {"points": POINTS, "activation": ACTIVATIONS, "optimizer": OPTIMIZERS}
WHOLE = {
    "size": (40, 1000),
    "depth": (0, 6),
    "width": (1, 64),
    "batch": (1, 600),
    "seeds": (1, 8),
}
MOST_NOISE, FASTEST = 0.5, 100.0
MOST_RATES = len(COLOURS)  # each learning rate has its colour


class Settings(NamedTuple):
    """The settings of a population of the playground."""

    points: str = "moons"
    size: int = 200  # points; 60 % of them are training points
    noise: float = 0.15  # standard deviation of the coordinates
    depth: int = 2  # hidden layers
    width: int = 16  # units of each hidden layer
    activation: str = "tanh"
    optimizer: str = "adam"
    batch: int = 20  # points in an update
    rates: tuple[float, ...] = (0.001, 0.01, 0.1)  # learning rates, per update
    seeds: int = 4  # for each learning rate

    @property
    def members(self) -> int:
        """The size of the population."""
        return len(self.rates) * self.seeds


def settings_of(given: Mapping[str, Any]) -> Settings:
    """Settings from a query or the controls of a page; missing ones have defaults.

    Args:
        given: name -> value, of its own type or as text; learning rates may be a text
            with commas.

    Raises:
        UserError: if a name is unknown, or a value is out of its range.

    >>> settings_of({"depth": "3", "rates": "0.1, 1"}).rates
    (0.1, 1.0)
    >>> settings_of({"optimizer": "adm"})
    Traceback (most recent call last):
    dlworkshop.errors.UserError: unknown optimizer 'adm': did you mean 'adam'? ...
    """
    found = {name: _read(name, value) for name, value in given.items()}
    settings = Settings(**found)
    train = settings.size * 6 // 10
    if settings.batch > train:
        raise UserError(
            f"batch is {settings.batch}, but {train} of {settings.size} points are for "
            f"training: give at most {train}"
        )
    return settings


def to_query(settings: Settings) -> dict[str, str]:
    """Settings as the query of a URL, which `settings_of` reads.

    >>> to_query(Settings())["rates"], settings_of(to_query(Settings())) == Settings()
    ('0.001,0.01,0.1', True)
    """
    query = {name: str(value) for name, value in settings._asdict().items()}
    return query | {"rates": ",".join(map(str, settings.rates))}


def _read(name: str, value: Any) -> Any:
    if name in NAMED:
        check_known(name, value, NAMED[name])
        return value
    if name in WHOLE:
        return _whole(name, value, *WHOLE[name])
    if name == "noise":
        return _number("the noise", value, 0, MOST_NOISE)
    if name == "rates":
        return _rates(value)
    raise unknown("setting", name, Settings._fields)


def _whole(name: str, value: Any, low: int, high: int) -> int:
    try:
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        number = value
    is_whole = isinstance(number, int) and not isinstance(number, bool)
    if not is_whole or not low <= number <= high:
        raise UserError(
            f"{name} is {repr_of(value)}: give a whole number from {low} to {high}"
        )
    return number


def _number(name: str, value: Any, low: float, high: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not low <= number <= high:
        raise UserError(
            f"{name} is {repr_of(value)}: give a number from {low:g} to {high:g}"
        )
    return number


def _rates(value: Any) -> tuple[float, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not 1 <= len(parts) <= MOST_RATES:
        raise UserError(
            f"the learning rates are {repr_of(value)}: give 1 to {MOST_RATES} numbers "
            "separated by commas"
        )
    rates = tuple(_number("a learning rate", part, 1e-8, FASTEST) for part in parts)
    if len(set(rates)) < len(rates):
        raise UserError("a learning rate is given twice: give each once")
    return rates
