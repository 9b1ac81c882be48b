"""Shared by the adapters: how a module is called, and how its model is made.

Libraries have different keywords for the training flag and the random key; they are
found in the signature of the call.
"""

import contextlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import traverse_util

from dlworkshop.data.leaves import keeps_kind
from dlworkshop.errors import UserError, check_flag, check_function, repr_of
from dlworkshop.models.model import (
    FIRST,
    Model,
    StatefulModel,
    as_float,
    hyper_parameters,
)
from dlworkshop.types import Array, PyTree

Names = tuple[str, ...]  # the keys of a path

TRAINING = "train", "training", "is_training"  # True with a key
INFERENCE = "deterministic", "use_running_average", "inference"  # True without
KEYS = "key", "rng"  # the key itself, or None
MODES = TRAINING + INFERENCE
FLAG = re.compile("(^|_)(train|infer|eval|dropout|determin)")  # in other words
KEY = inspect.Parameter("key", inspect.Parameter.KEYWORD_ONLY, default=None)


class Call(NamedTuple):
    """The keywords that a module's call takes."""

    modes: tuple[str, ...]  # of MODES and KEYS
    reserved: tuple[str, ...]  # filled by the adapter
    options: tuple[inspect.Parameter, ...]  # possible hyper-parameters

    def arguments(self, key: Array | None) -> dict[str, Any]:
        """The keyword arguments of a call in training or evaluation.

        >>> Call(("train", "deterministic", "key"), (), ()).arguments(None)
        {'train': False, 'deterministic': True, 'key': None}
        """
        trains = key is not None
        return {
            name: key if name in KEYS else trains == (name in TRAINING)
            for name in self.modes
        }


def read_call(
    call: Callable, skip: int, adapter: str, reserved: Sequence[str] = ()
) -> Call:
    """The keywords that a call takes, from its signature.

    Args:
        call: a function, or an unbound method.
        skip: the number of leading parameters that are filled: module and inputs.
        adapter: name of the adapter, for the error.
        reserved: names that the adapter fills.

    Raises:
        UserError: if another positional parameter has no default, or a flag seems to
            say in other words whether the module trains.

    >>> def call(module, x, train, *, rate=0.1): ...
    >>> found = read_call(call, 2, "from_linen")
    >>> found.modes, [str(option) for option in found.options]
    (('train',), ['rate=0.1'])
    """
    check_function("call", call)
    modes, taken, options = [], [], []
    for place, parameter in enumerate(inspect.signature(call).parameters.values()):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            skip = 0  # no positional parameter can follow
        elif place < skip:
            continue
        elif parameter.name in reserved:
            taken.append(parameter.name)
        elif parameter.name in MODES + KEYS:
            modes.append(parameter.name)
        elif isinstance(parameter.default, bool) and FLAG.search(parameter.name):
            raise UserError(
                f"the call takes '{parameter}', which seems to say whether it trains, "
                f"but {adapter} knows {', '.join(MODES)} only: rename it, or give "
                f"{adapter}(..., call=function) a function that fills it"
            )
        elif parameter.default is parameter.empty and parameter.kind in (
            parameter.POSITIONAL_ONLY,
            parameter.POSITIONAL_OR_KEYWORD,
        ):
            raise UserError(
                f"the call takes '{parameter.name}' beside the inputs, and "
                f"{adapter} cannot know its value: let the call take one pytree of "
                "inputs, make a hyper-parameter keyword-only, or give "
                f"{adapter}(..., call=function) a function that fills it"
            )
        elif parameter.kind != parameter.POSITIONAL_ONLY:
            options.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    return Call(tuple(modes), tuple(taken), tuple(options))


def call_of(module: Any, call: Callable | None) -> Callable:
    """The function (module, inputs, ...) -> outputs: `call`, or the module's own.

    Raises:
        UserError: if `call` is bound to a module, and so takes none.
    """
    if call is None:
        return type(module).__call__
    if isinstance(getattr(call, "__self__", None), type(module)):
        raise UserError(
            f"call is a method that is bound to its module: give that of the class, "
            f"as {type(module).__name__}.{call.__name__}"
        )
    return call


def call_with(make: Callable, name: str, value: Any) -> Any:
    """Call `make` with a value, by this name if its signature has it.

    >>> call_with(lambda *, key: key, "key", 1), call_with(lambda seed: seed, "key", 1)
    (1, 1)
    """
    by_name = name in inspect.signature(make).parameters
    return make(**{name: value}) if by_name else make(value)


@contextlib.contextmanager
def making(adapter: str, make: Any, given: str) -> Iterator[None]:
    """Report in one sentence that `make` is no function (given) -> module.

    `given` is the name of its argument: "rngs" or "key".
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{adapter} cannot make a module of {repr_of(make)} ({reason:.200}): give "
            f"the module, or a function ({given}) -> module, as lambda {given}: "
            f"Net(..., {given}={given})"
        ) from error


def described(config: Any, name: str) -> dict[str, Any]:
    """The config of a model; by default its name."""
    if config is not None and not isinstance(config, Mapping):
        raise UserError(
            f"config is {repr_of(config)}: give a dict of JSON values that describes "
            "the model"
        )
    return dict(config or {"name": name})


def make_model(
    init: Callable[[Array, PyTree], tuple[PyTree, PyTree]],
    run: Callable[..., tuple[PyTree, PyTree]],
    call: Call,
    config: Mapping[str, Any] | None,
    module: Any,
    name: str,
    *,
    has_state: bool,
    batched: bool,
) -> Model | StatefulModel:
    """A model whose `apply` lists the hyper-parameters of the module's call.

    Args:
        init: (key, inputs) -> (params, state).
        run: (params, state, inputs, key, keywords) -> (outputs, state).
        call: the keywords of the module's call.
        config: of the model; None is the name of the module.
        module: stored in the model for display.
        name: of the module.
        has_state: whether the model is a `StatefulModel`.
        batched: whether the module is written for inputs [B, ...].
    """
    check_flag("batched", batched)
    options = hyper_parameters(f"the call of {name}", call.options)
    known = {option.name for option in options}

    def prepare(inputs: PyTree) -> PyTree:
        inputs = as_float(inputs)
        return jax.tree.map(lambda x: x[None], inputs) if batched else inputs

    def answer(params, state, inputs, key, hparams):
        if not known.issuperset(hparams):
            names = ", ".join(sorted(set(hparams) - known))
            takes = ", ".join(sorted(known)) or "none"
            raise TypeError(f"{name} takes no keyword {names} (it takes: {takes})")
        keywords = {**hparams, **call.arguments(key)}
        outputs, new_state = run(params, state, prepare(inputs), key, keywords)
        outputs = jax.tree.map(jnp.asarray, outputs)
        if batched:
            outputs = jax.tree.map(_squeeze, outputs)
        if key is None:
            return outputs, state
        form, before = jax.tree.structure(new_state), jax.tree.structure(state)
        if str(form) != str(before):
            raise UserError(
                f"{name} has another structure of state after a step, as Linen's sow "
                "gives it: return such values with the outputs, for an objective"
            )
        return outputs, jax.tree.map(_as_before, new_state, state)

    config = described(config, name) | ({"batched": True} if batched else {})
    if has_state:

        def stateful_init(key, inputs):
            return init(key, prepare(inputs))

        def stateful_apply(params, state, inputs, /, *, key=None, **hparams):
            return answer(params, state, inputs, key, hparams)

        _sign(stateful_apply, FIRST, options)
        return StatefulModel(stateful_init, stateful_apply, config, module)

    def plain_init(key, inputs):
        return init(key, prepare(inputs))[0]

    def plain_apply(params, inputs, /, *, key=None, **hparams):
        return answer(params, {}, inputs, key, hparams)[0]

    _sign(plain_apply, [FIRST[0], FIRST[2]], options)
    return Model(plain_init, plain_apply, config, module)


def _sign(apply: Any, first: list[inspect.Parameter], options) -> None:
    """Give `apply` a signature with the hyper-parameters of the module."""
    apply.__signature__ = inspect.Signature([*first, KEY, *options])


def _as_before(now: Array, before: Array) -> Array:
    """A state with the dtype that it had, unless that would cut off fractions."""
    # the state of the next step must have the same dtype; `check_state` refuses others
    dtype = jnp.result_type(before)
    return jnp.asarray(now, dtype if keeps_kind(now, before) else None)


def _squeeze(output: Array) -> Array:
    """The outputs of one example from a batch of one; scalars are unchanged."""
    if output.ndim and output.shape[0] != 1:
        raise UserError(
            f"an output of a batch of one has shape {output.shape}, wanted [1, ...]: "
            "give batched=True only to modules with examples on the first axis"
        )
    return output[0] if output.ndim else output


def plain(tree: PyTree, renamed: Mapping[Names, Names] | None = None) -> dict:
    """A pytree as nested dicts of its leaves, for checkpoints.

    The keys of a path are replaced by what they are `renamed` to.

    >>> plain({"layers": [{"w": 1.0}, {"w": 2.0}], "none": None})
    {'layers': {'0': {'w': 1.0}, '1': {'w': 2.0}}}
    """
    leaves = jax.tree.leaves_with_path(tree)
    found = {names(path): leaf for path, leaf in leaves}
    return traverse_util.unflatten_dict(
        {(renamed or {}).get(path, path): leaf for path, leaf in found.items()}
    )


def restored(
    like: PyTree, nested: Mapping, renamed: Mapping[Names, Names] | None = None
) -> PyTree:
    """The inverse of `plain`: a pytree with the structure of `like`.

    >>> restored([0, {"a": 0}], {"0": 1.0, "1": {"a": 2.0}})
    [1.0, {'a': 2.0}]
    """
    leaves = traverse_util.flatten_dict(dict(nested))

    def leaf(path, _):
        found = names(path)
        return leaves[(renamed or {}).get(found, found)]

    return jax.tree.map_with_path(leaf, like)


def names(path: tuple) -> Names:
    """The keys of a path as text; "" for a single leaf."""
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path) or ("",)
