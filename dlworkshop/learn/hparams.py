"""Routing of hyper-parameters to the functions with keywords of their names."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from dlworkshop.errors import UserError, nearest, unknown
from dlworkshop.types import HParams

Keywords = Mapping[str, str]  # keyword of a function -> name of the hyper-parameter
# Arguments that the engine itself passes to these functions.
RESERVED = {
    "optimizer": {"key", "seed"},
    "loss": {"outputs", "targets", "logits", "label", "key", "model", "params"}
    | {"state", "inputs"},
    "model": {"params", "state", "inputs", "key"},
    "schedule": {"num_steps"},
    "batch_transform": {"key", "batch"},
    "make_step": {"step"},
}
BY_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Routes(NamedTuple):
    """The hyper-parameters of each function of a run."""

    optimizer: Keywords = MappingProxyType({})
    loss: Keywords = MappingProxyType({})  # or of the objective, if there is one
    model: Keywords = MappingProxyType({})  # of `apply`
    schedule: Keywords = MappingProxyType({})
    batch_transform: Keywords = MappingProxyType({})
    make_step: Keywords = MappingProxyType({})


def keywords(function: Callable) -> dict[str, bool]:
    """The keywords that a function takes, and whether each is required.

    `**kwargs` takes nothing, because its names are not known.

    >>> def loss(outputs, targets, *, delta, smoothing=0.0): ...
    >>> keywords(loss)
    {'outputs': True, 'targets': True, 'delta': True, 'smoothing': False}
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a C function without a signature
        return {}
    return {
        parameter.name: parameter.default is inspect.Parameter.empty
        for parameter in parameters
        if parameter.kind in BY_KEYWORD
    }


def lacks(function: Callable, name: str) -> bool:
    """Whether a function takes a keyword and has no value for it, or None.

    >>> import functools, optax
    >>> sgd = functools.partial(optax.sgd, learning_rate=0.5)
    >>> lacks(optax.sgd, "learning_rate"), lacks(sgd, "learning_rate")
    (True, False)
    """
    if name not in keywords(function):
        return False
    default = inspect.signature(function).parameters[name].default
    return default is inspect.Parameter.empty or default is None


def is_bound(function: Callable, name: str) -> bool:
    """Whether `functools.partial` gives a keyword its value, also inside a wrapper."""
    if isinstance(function, functools.partial):
        return name in function.keywords or is_bound(function.func, name)
    inner = getattr(function, "__wrapped__", None)
    return inner is not None and is_bound(inner, name)


def route(names: Iterable[str], **functions: Callable | None) -> Routes:
    """Find the reader of each hyper-parameter.

    Args:
        names: of the hyper-parameters; `"loss.eps"` goes to the loss, or as
            `"objective.eps"` to the objective, only.
        functions: name of the reader, one of the fields of `Routes` -> function.

    Raises:
        UserError: if no function takes a name, or several do.

    >>> def adam(learning_rate, eps=1e-8): ...
    >>> def loss(outputs, targets, *, eps=0.1): ...
    >>> route(["learning_rate", "loss.eps"], optimizer=adam, loss=loss)[:2]
    ({'learning_rate': 'learning_rate'}, {'eps': 'loss.eps'})
    >>> route(["objective.eps"], loss=loss).loss
    {'eps': 'objective.eps'}
    """
    takes = {
        reader: set(keywords(function)) - RESERVED[reader]
        for reader, function in functions.items()
        if function is not None
    }
    found: dict[str, dict[str, str]] = {reader: {} for reader in takes}
    for name in names:
        reader, _, keyword = name.rpartition(".")
        if reader == "objective":
            reader = "loss"
        if reader and reader not in takes:
            raise unknown("reader of a hyper-parameter", reader, takes)
        readers = [reader] if reader else [r for r in takes if keyword in takes[r]]
        if not readers or keyword not in takes[readers[0]]:
            nobody = f"the {reader} does not take it"
            if not reader:
                nobody = f"none of {', '.join(sorted(takes))} takes it"
            taken = sorted(set().union(*takes.values()))
            near = nearest(keyword, taken)
            meant = f"did you mean '{near}'? If not, leave it" if near else "leave it"
            raise UserError(
                f"hyper-parameter '{name}' has no effect, because {nobody}: {meant} "
                f"out (known: {', '.join(taken)})"
            )
        if len(readers) > 1:
            raise UserError(
                f"hyper-parameter '{name}' is taken by {' and '.join(readers)}: name "
                f"one of them, as in '{readers[0]}.{keyword}'"
            )
        if keyword in found[readers[0]]:
            raise UserError(
                f"hyper-parameter '{name}' is given twice, as "
                f"'{found[readers[0]][keyword]}' too: give it once"
            )
        found[readers[0]][keyword] = name
    return Routes(**found)


def check_required(routes: Routes, **functions: Callable | None) -> None:
    """Refuse a function with a required keyword that is not a hyper-parameter.

    Parameters that the engine passes itself are not required.

    Raises:
        UserError: names the function and the hyper-parameter.
    """
    for reader, function in functions.items():
        if function is None:
            continue
        given = getattr(routes, reader)
        for name, required in keywords(function).items():
            handed = name in RESERVED[reader] or (
                reader != "optimizer" and name in positional(function)
            )
            if required and not handed and name not in given:
                raise UserError(
                    f"{name_of(function)} needs '{name}': give it as "
                    f"hparams={{'{name}': ...}}, or by functools.partial if it is not "
                    "a number"
                )


def positional(function: Callable) -> set[str]:
    """The parameters that may be passed by position."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY}


def given(routes: Keywords, hparams: HParams) -> dict[str, Any]:
    """The hyper-parameters of one function: keyword -> number."""
    return {keyword: hparams[name] for keyword, name in routes.items()}


def name_of(function: Callable) -> str:
    """The name under which a function appears in messages.

    >>> import functools
    >>> name_of(functools.partial(max, 3))
    'max'
    """
    inner = getattr(function, "func", function)  # functools.partial
    return getattr(inner, "__name__", type(inner).__name__)
