"""Adapter: Flax Linen modules as models of ONE example."""

import contextlib
import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
from flax import errors as flax_errors
from flax import linen as nn

from dlworkshop.errors import UserError, check_flag, repr_of
from dlworkshop.identity.reads import closure
from dlworkshop.models.adapter import (
    MODES,
    Call,
    call_of,
    described,
    make_model,
    read_call,
)
from dlworkshop.models.model import Model, StatefulModel, ones_for
from dlworkshop.types import Array, PyTree

NOT_STATE = "params", "intermediates", "perturbations"
KEEPS_STATE = nn.BatchNorm, nn.SpectralNorm  # of Flax's own layers


def from_linen(
    module: nn.Module,
    config: Mapping[str, Any] | None = None,
    *,
    batched: bool = False,
    stateful: bool | None = None,
    call: Callable | None = None,
) -> Any:
    """The `Model` of a Linen module, or its `StatefulModel` if it has a state.

    The collection "params" is trained; all others ("batch_stats", ...) are the state.
    A key means training: the module gets this flag as `train`, `training`,
    `is_training`, `deterministic`, `use_running_average` or `key`, whichever its
    `__call__` takes (or, if none, its fields have). A key also gives
    `rngs={"dropout": key}`, and other streams from the same key. Other keywords of
    `__call__` may be hyper-parameters.

    A module sees ONE example: an image [H, W, C], a vector [D]. Dense, Conv, LayerNorm
    and pooling compute the same there as in a batch. GroupNorm, InstanceNorm and
    `x.reshape((x.shape[0], -1))` take the first axis for the batch, and are silently
    wrong for one example: give `batched=True` for a module that has them.

    Args:
        module: takes its inputs first.
        config: of the model, as JSON; by default the name of the module.
        batched: the module is written for inputs [B, ...], and sees each example as a
            batch of one. BatchNorm(axis_name=models.BATCH_AXES) still sees them all.
        stateful: whether the module has a state; None if its code or fields should
            decide (they refer to BatchNorm, SpectralNorm or `self.variable`).
        call: (module, inputs, ...) -> outputs; replaces `__call__`.

    Returns:
        `Model`, or `StatefulModel` whose state is a dict of collections.

    Raises:
        UserError: if the call has another parameter without a default; from `init`, if
            there is a state and `stateful` is not true; from `apply`, if a layer lacks
            the training flag, or is random without a key.

    >>> import jax.numpy as jnp
    >>> model = from_linen(nn.Dense(3))
    >>> params = model.init(jax.random.key(0), jnp.ones(4))
    >>> model.apply(params, jnp.ones(4)).shape
    (3,)
    """
    if not isinstance(module, nn.Module):
        raise UserError(
            f"from_linen got {repr_of(module)}, wanted a Linen module: give an "
            "instance, such as Net(10) of the class Net"
        )
    name = type(module).__name__
    config = described(config, name)
    if call is not None:
        inner = getattr(call, "func", call)  # functools.partial
        config["call"] = getattr(inner, "__qualname__", type(inner).__name__)
    if stateful is not None:
        check_flag("stateful", stateful)
    has_state = keeps_state(module, call) if stateful is None else stateful
    called = call_of(module, call)
    taken = read_call(called, 2, "from_linen")
    fields = {f.name for f in dataclasses.fields(module)}  # type: ignore[arg-type]
    by_field = Call(tuple(n for n in MODES if n in fields and not taken.modes), (), ())

    def in_mode(key: Array | None) -> nn.Module:
        return module.clone(**by_field.arguments(key)) if by_field.modes else module

    def init(key: Array, inputs: PyTree) -> tuple[PyTree, PyTree]:
        keywords = ones_for(taken.options) | taken.arguments(None)
        with explained(name):
            variables = in_mode(None).init(key, inputs, method=call, **keywords)
        variables = nn.meta.unbox(variables)
        state = {k: v for k, v in variables.items() if k not in NOT_STATE}
        if state and not has_state:
            raise UserError(
                f"{name} keeps {', '.join(sorted(state))} beside its parameters: give "
                "models.from_linen(module, stateful=True)"
            )
        return variables.get("params", {}), state

    def run(params, state, inputs, key, keywords):
        variables = {"params": params, **state}
        with explained(name):
            if key is None:
                apply = functools.partial(in_mode(key).apply, variables, method=call)
                return apply(inputs, **keywords), state
            return in_mode(key).apply(
                variables,
                inputs,
                method=call,
                # Linen derives other streams from "params"
                rngs={"dropout": key, "params": jax.random.fold_in(key, 0)},
                mutable=list(state),
                **keywords,
            )

    return make_model(
        init, run, taken, config, module, name, has_state=has_state, batched=batched
    )


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn Flax's errors about a missing training flag into a UserError."""
    how = f"let {name}.__call__ take one of {', '.join(MODES)} and pass it on to them"
    try:
        yield
    except flax_errors.InvalidRngError as error:
        raise UserError(
            f"{name} draws random numbers without a key, where the same inputs must "
            f"give the same outputs ({error}): {how}"
        ) from error
    except flax_errors.ModifyScopeVariableError as error:
        raise UserError(
            f"{name} changes its state without a key, where it must stay the same "
            f"({error}): {how}"
        ) from error
    except ValueError as error:
        if "must be passed to the constructor or at call time" in str(error):
            raise UserError(
                f"{name} has layers which must be told whether they train ({error}): "
                f"{how}, or give from_linen(..., call=function) a function that does"
            ) from error
        raise


def keeps_state(*things: Any) -> bool:
    """Whether the code or the fields of a module, or of its submodules, refer to state.

    A Linen module has no variables before it runs on inputs, so its code is inspected.
    `init` raises if there is a state that was not found.

    >>> keeps_state(nn.Dense(3)), keeps_state(nn.Sequential([nn.BatchNorm()]))
    (False, True)
    """
    seen: list[Any] = []  # objects rather than ids, which may be reused
    queue = list(things)
    while queue:
        thing = queue.pop()
        if any(thing is other for other in seen):
            continue
        seen.append(thing)
        cls = thing if isinstance(thing, type) else type(thing)
        if issubclass(cls, KEEPS_STATE):
            return True
        if _is_own(thing) and {"variable", "put_variable"} & set(_names(thing)):
            return True
        queue.extend(_within(thing))
    return False


def _within(thing: Any) -> Iterable[Any]:
    """The objects inside a thing that could be modules."""
    found: list[Any] = []
    if isinstance(thing, functools.partial):
        found = [thing.func, *thing.args, *thing.keywords.values()]
    elif isinstance(thing, (list, tuple)):
        found = list(thing)
    elif isinstance(thing, Mapping):
        found = list(thing.values())
    elif isinstance(thing, nn.Module):
        fields = [f.name for f in dataclasses.fields(thing) if f.name != "parent"]  # type: ignore[arg-type]
        found = [getattr(thing, name, None) for name in fields]
        # without the defaults of the fields, which the instance may override
        found += [m for m in _members(type(thing)) if isinstance(m, types.FunctionType)]
    elif isinstance(thing, type) and issubclass(thing, nn.Module):
        found = list(_members(thing))
    elif _is_own(thing):
        names = set(_names(thing))
        found = [thing.__globals__.get(name) for name in names]
        for each in found:  # the list grows, as for flax.linen.BatchNorm
            if isinstance(each, types.ModuleType):
                inside = [vars(each).get(name) for name in names]
                found += [x for x in inside if not any(x is y for y in found)]
        found += closure(thing).values()
    return found


def _members(cls: type) -> Iterator[Any]:
    """The methods of a user's module, and the defaults of its fields."""
    for base in cls.__mro__:
        if not base.__module__.startswith("flax."):
            for member in vars(base).values():
                is_method = isinstance(member, types.FunctionType)
                yield inspect.unwrap(member) if is_method else member


def _is_own(thing: Any) -> bool:
    """Whether `thing` is a function from outside the libraries, which have no state."""
    if not isinstance(thing, types.FunctionType):
        return False
    library = (thing.__module__ or "").partition(".")[0]
    return library not in ("jax", "flax", "numpy", "optax")


def _names(function: Any) -> Iterator[str]:
    """The names of globals and attributes in a function and in nested functions."""
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        yield from code.co_names
        codes += [c for c in code.co_consts if isinstance(c, types.CodeType)]


def tabulate(model: Model | StatefulModel, example: PyTree) -> str:
    """Layers with their output shapes and parameter counts, for ONE example."""
    module: Any = model.module
    taken = read_call(type(module).__call__, 2, "from_linen")
    if model.config.get("batched"):
        example = jax.tree.map(lambda x: x[None], example)
    return module.tabulate(
        jax.random.key(0),
        example,
        console_kwargs={"width": 100, "force_terminal": False},
        **ones_for(taken.options) | taken.arguments(None),
    ).strip("\n")
