"""Functions in the config of a model, such as activations, as JSON and back."""

import dataclasses
import functools
import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from dlworkshop import identity
from dlworkshop.errors import UserError
from dlworkshop.models import layers

# Field of a network -> the module whose functions have names in a config.
ROOMS: dict[str, ModuleType] = {"activation": nn, "pooling": layers}
# The advice for a run whose model cannot be built from its folder.
OWN = (
    "a run folder keeps no code, so give load_run(folder, model) in Python the model "
    "that the run was made with, to evaluate, predict or export"
)


def config_of(name: str, module: Any) -> dict[str, Any]:
    """The config of a network of this package: its name, and the fields of its module.

    >>> from dlworkshop.models.mlp import Mlp
    >>> config_of("mlp", Mlp((8,), nn.relu, 0.0, 3, jnp.bfloat16))
    {'name': 'mlp', 'widths': [8], 'activation': 'relu', 'dropout': 0.0,
    'num_classes': 3, 'dtype': 'bfloat16'}
    """
    config: dict[str, Any] = {"name": name}
    for field in dataclasses.fields(module):
        value = getattr(module, field.name)
        if field.name in ROOMS:
            value = describe_function(value, ROOMS[field.name])
        elif field.name == "dtype" and value is not None:
            value = jnp.dtype(value).name
        if field.name not in ("parent", "name"):  # fields of every Linen module
            config[field.name] = list(value) if isinstance(value, tuple) else value
    return config


def describe_function(function: Callable, room: ModuleType) -> Any:
    """The JSON of `function` in a config.

    Returns:
        The name of a function in the module `room`, such as `flax.linen`;
        {"partial": name, "keywords": {...}} for one with keywords that JSON can store;
        {"own": name, "identity": 24 hex digits} for any other function, which
        `find_function` rejects.

    Raises:
        UserError: if `function` is not callable.

    >>> describe_function(nn.relu, nn)
    'relu'
    >>> describe_function(functools.partial(nn.leaky_relu, negative_slope=0.2), nn)
    {'partial': 'leaky_relu', 'keywords': {'negative_slope': 0.2}}
    >>> describe_function(lambda x: x, nn)
    {'own': '<lambda>', 'identity': '...'}
    >>> describe_function(10, nn)
    Traceback (most recent call last):
    dlworkshop.errors.UserError: the model got 10 instead of a function, ...
    """
    if not callable(function):
        raise UserError(
            f"the model got {function!r:.60} instead of a function, such as an "
            "activation: give a function, and numbers by keyword, as in num_classes=10"
        )
    name = _name_in(room, function)
    if name is not None:
        return name
    if isinstance(function, functools.partial) and not function.args:
        name, keywords = _name_in(room, function.func), dict(function.keywords)
        if name is not None and _is_json(keywords):
            return {"partial": name, "keywords": keywords}
    named = function.func if isinstance(function, functools.partial) else function
    own = getattr(named, "__name__", type(named).__name__)
    return {"own": own, "identity": identity.digest(function)}


def find_function(known: Any, room: ModuleType, place: str) -> Callable:
    """The function that `describe_function` described.

    Raises:
        UserError: if the function is the user's own, or is not a function of `room` or
            JAX.

    >>> find_function({"partial": "elu", "keywords": {"alpha": 0.5}}, nn, "activation")(
    ...     -100.0).item()
    -0.5
    """
    partial = isinstance(known, dict) and "partial" in known
    name = known["partial"] if partial else known
    function = getattr(room, name, None) if isinstance(name, str) else None
    # a config must not name other members of the room, such as modules and transforms
    home = getattr(function, "__module__", None) or ""
    allowed = home == room.__name__ or home.startswith("jax.")
    if not callable(function) or isinstance(function, type) or not allowed:
        named = name.get("own") if isinstance(name, dict) else name
        raise UserError(
            f"the {place} '{named}' of the model is not one of {room.__name__}: {OWN}"
        )
    return functools.partial(function, **known["keywords"]) if partial else function


def _name_in(room: ModuleType, function: Any) -> str | None:
    """The public name of a function in the module `room`, if any."""
    name = getattr(function, "__name__", None)
    public = isinstance(name, str) and not name.startswith("_")
    if public and getattr(room, str(name), None) is function:
        return name
    # the name of some functions differs from their `__name__`: `nn.swish` is `silu`
    names = (key for key, value in vars(room).items() if value is function)
    return next((key for key in names if not key.startswith("_")), None)


def _is_json(keywords: dict[str, Any]) -> bool:
    """Whether a value survives a round trip through JSON."""
    try:
        again = json.loads(json.dumps(keywords))
    except (TypeError, ValueError):
        return False
    return identity.digest(again) == identity.digest(keywords)
