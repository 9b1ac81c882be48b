"""Models as pure functions of ONE example, and their lift to a batch."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from dlworkshop.errors import (
    Range,
    UserError,
    check_function,
    check_number,
    check_whole,
    one_sentence,
    repr_of,
)
from dlworkshop.types import Array, PyTree

BY_KEYWORD = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
FIRST = [
    inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY)
    for name in ("params", "state", "inputs")
]  # of `apply` of a `StatefulModel`
# The named axes of a batch in training: the examples of one device, and the devices. A
# layer such as `nn.BatchNorm(axis_name=models.BATCH_AXES)` averages over both.
EXAMPLE, BATCH = BATCH_AXES = ("example", "batch")


class Model(NamedTuple):
    """A pair of pure functions, `init` and `apply`; it holds no arrays.

    Outputs may be any pytree. A key means training.
    """

    init: Callable[..., PyTree]  # (key, inputs) -> params
    apply: Callable[..., PyTree]  # (params, inputs, *, key=None, **hparams) -> outputs
    config: Mapping[str, Any] = MappingProxyType({})  # JSON to build it again
    module: Any = None  # of a library, if the pair was made from one
    augment: Callable | None = None  # applied by `apply` in training; for display


class StatefulModel(NamedTuple):
    """A model with state besides its parameters, such as running statistics.

    The new state may depend on the whole batch through `BATCH_AXES`; it is the same for
    all examples. Without a key the state does not change.
    """

    init: Callable[..., tuple]  # (key, inputs) -> (params, state)
    # (params, state, inputs, *, key=None, **hparams) -> (outputs, state)
    apply: Callable[..., tuple]
    config: Mapping[str, Any] = MappingProxyType({})
    module: Any = None
    augment: Callable | None = None


AnyModel = TypeVar("AnyModel", Model, StatefulModel)


def check_model(model: Any) -> None:
    """Raise a UserError unless `model` is a model with an `apply`."""
    if not isinstance(model, Model | StatefulModel):
        raise UserError(
            f"the model is {repr_of(model)}: give a models.Model(init, apply), or wrap "
            "a module with models.from_linen, from_nnx, from_equinox or from_haiku"
        )
    check_function("apply of the model", model.apply)
    if not isinstance(model.config, Mapping):
        raise UserError(
            f"the config of the model is {repr_of(model.config)}: give a dict of JSON "
            "values that describes the model"
        )


def stateful(model: Model | StatefulModel) -> StatefulModel:
    """The same model with a state, which is () for a `Model`.

    >>> model = Model(lambda key, x: 2.0, lambda params, x, *, key=None: params * x)
    >>> stateful(model).apply(2.0, (), 3.0)
    (6.0, ())
    """
    check_model(model)
    if isinstance(model, StatefulModel):
        key = inspect.signature(model.apply).parameters.get("key")
        if key is None or key.default is not key.empty:
            return model
        return model._replace(apply=functools.partial(model.apply, key=None))

    def apply(params, state, inputs, *, key=None, **hparams):
        return model.apply(params, inputs, key=key, **hparams), state

    # the signature keeps the hyper-parameters
    signature = inspect.signature(model.apply)
    own = list(signature.parameters.values())
    if len(own) < 2:
        raise UserError(
            f"apply of the model takes {signature}: let it take (params, inputs, *, "
            "key=None)"
        )
    options = hyper_parameters("apply of the model", own[2:])
    # ours is always given a key, or None
    own_key = inspect.Parameter("key", inspect.Parameter.KEYWORD_ONLY, default=None)
    options = [own_key if each.name == "key" else each for each in options]
    every = sorted([*FIRST, *options], key=lambda each: each.kind)
    apply.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
    return StatefulModel(
        lambda key, inputs: (model.init(key, inputs), ()),
        apply,
        model.config,
        model.module,
        model.augment,
    )


def hyper_parameters(
    what: str, parameters: Iterable[inspect.Parameter]
) -> list[inspect.Parameter]:
    """Those that are not called like an argument that `apply` is always given.

    Others of such a name keep their defaults.

    Args:
        what: the function that takes them, in messages.
        parameters: of `apply` beside the parameters and inputs, or of a module's call.

    Raises:
        UserError: if one of such a name has no default.

    >>> def apply(params, x, *, key=None, state=None, rate=0.1): ...
    >>> own = list(inspect.signature(apply).parameters.values())[2:]
    >>> [each.name for each in hyper_parameters("apply", own)]
    ['key', 'rate']
    """
    found, taken = [], [each.name for each in FIRST]
    for each in parameters:
        if each.name not in taken:
            found.append(each)
        elif each.default is each.empty and each.kind in BY_KEYWORD:
            raise UserError(
                f"{what} needs '{each.name}' by keyword, which is the name of another "
                "argument of apply: rename it"
            )
    return found


def stand_ins(model: StatefulModel) -> dict[str, Array]:
    """Ones for the hyper-parameters that `apply` requires: name -> [].

    They allow tracing `apply` without real values.

    >>> model = Model(None, lambda w, x, *, key=None, power: w * x**power)
    >>> {name: one.item() for name, one in stand_ins(stateful(model)).items()}
    {'power': 1.0}
    """
    return ones_for(list(inspect.signature(model.apply).parameters.values())[3:])


def ones_for(parameters: Iterable[inspect.Parameter]) -> dict[str, Array]:
    """Ones for the keywords without a default: name -> []."""
    return {
        parameter.name: jnp.ones(())
        for parameter in parameters
        if parameter.kind in BY_KEYWORD and parameter.default is parameter.empty
    }


def as_float(inputs: PyTree) -> PyTree:
    """Arrays as a step sees them: uint8 in 0..255 becomes float in [0, 1].

    >>> as_float({"pixel": jnp.array([0, 255], jnp.uint8)})["pixel"].tolist()
    [0.0, 1.0]
    """

    def leaf(array):
        array = jnp.asarray(array)
        return array.astype(float) / 255 if array.dtype == jnp.uint8 else array

    return jax.tree.map(leaf, inputs)


def predict(
    model: Model | StatefulModel,
    params: PyTree,
    inputs: PyTree,
    state: PyTree = (),
    **hparams: Array,
) -> PyTree:
    """Lift 1: outputs [B, ...] of a batch of inputs [B, ...], without randomness.

    Args:
        model: of one example.
        params: its parameters.
        inputs: leaves [B, ...]; uint8 become floats in [0, 1].
        state: of a `StatefulModel`: its running statistics.
        hparams: keywords of `apply`.

    >>> from dlworkshop.models import logistic
    >>> images = jnp.zeros((5, 28, 28, 1), jnp.uint8)
    >>> model = logistic(num_classes=10)
    >>> params = model.init(jax.random.key(0), images[0])
    >>> predict(model, params, images).shape
    (5, 10)
    """
    apply = stateful(model).apply
    leaves = jax.tree.leaves(inputs)
    if not leaves or not all(getattr(leaf, "shape", ()) for leaf in leaves):
        raise UserError(
            f"the inputs are {repr_of(inputs)}: give arrays [B, ...], such as x[None] "
            "for one example x"
        )

    def one(example):
        return apply(params, state, as_float(example), **hparams)[0]

    words = ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in leaves)
    with one_sentence(f"the model cannot process the inputs {words}"):
        return jax.vmap(one)(inputs)


def all_examples(tree: PyTree) -> PyTree:
    """Arrays [...] of one example -> those of all examples of its batch, [B, ...].

    For objectives that compare an example with the others. It works in training only,
    where the axes `BATCH_AXES` have names (`jax.lax.all_gather` takes one at a time).

    >>> def center(x):
    ...     return x - all_examples(x).mean(0)
    >>> over = jax.vmap(jax.vmap(center, axis_name="example"), axis_name="batch")
    >>> over(jnp.arange(4.0).reshape(2, 2)).tolist()
    [[-1.5, -0.5], [0.5, 1.5]]
    """

    def gather(leaf):
        leaves = jax.lax.all_gather(jax.lax.all_gather(leaf, EXAMPLE), BATCH)
        return leaves.reshape(-1, *leaves.shape[2:])

    return jax.tree.map(gather, tree)


def shapes(model: Model | StatefulModel, example: PyTree) -> tuple[PyTree, PyTree]:
    """The shapes of params and state, for ONE example of arrays or shapes.

    >>> from dlworkshop.models import logistic
    >>> shapes(logistic(3), jnp.zeros(4))[0]["Dense_0"]["kernel"].shape
    (4, 3)
    """
    # JAX caches the trace of the same function for the same shapes
    init = stateful(model).init
    return jax.eval_shape(init, jax.random.key(0), input_struct(example))


def input_struct(example: PyTree) -> PyTree:
    """The shapes of ONE example, with the dtypes that a model sees.

    >>> input_struct(jnp.zeros((2, 2), jnp.uint8))
    ShapeDtypeStruct(shape=(2, 2), dtype=float32)
    """
    return jax.eval_shape(as_float, example)


def check_rank(example: Array, ranks: tuple[int, ...], wanted: str) -> None:
    """Reject a batch without vmap, before it is flattened into one example."""
    if jnp.ndim(example) not in ranks:
        raise ValueError(
            f"one example must be {wanted}, got shape {jnp.shape(example)}: "
            "lift the model to a batch with jax.vmap or models.predict"
        )


def check_halvings(image: Array, times: int) -> None:
    """Reject anything but ONE image [H, W, C] that can be halved so many times."""
    check_rank(image, (3,), "an image [H, W, C]")
    if min(image.shape[:2]) < 2**times:
        raise ValueError(
            f"an image of {image.shape[0]}x{image.shape[1]} cannot be halved {times} "
            "times: use fewer features or larger images"
        )


def check_layers(
    num_classes: int, dropout: float = 0.0, dtype: Any = None, **sizes: Sequence[int]
) -> None:
    """Reject invalid settings of a network; `sizes` are the sizes of its layers."""
    for name, of_layers in sizes.items():
        if not isinstance(of_layers, Sequence) or isinstance(of_layers, str):
            raise UserError(
                f"{name} is {repr_of(of_layers)}: give a tuple of integers, one for "
                "each layer, such as (128,)"
            )
        for layer, size in enumerate(of_layers):
            check_whole(f"{name}[{layer}]", size)
    check_whole("num_classes", num_classes)
    check_number("dropout", dropout, Range(0, 1))
    try:
        real = dtype is None or jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        real = False
    if not real:
        raise UserError(
            f"dtype is {repr_of(dtype)}: give a floating dtype, such as jnp.bfloat16"
        )


def num_params(params: PyTree) -> int:
    """The number of parameters, given as arrays or shapes."""
    leaves = jax.tree.leaves(params)
    if odd := [leaf for leaf in leaves if not hasattr(leaf, "size")]:
        raise UserError(f"the parameters have {repr_of(odd[0])}: give a tree of arrays")
    return sum(leaf.size for leaf in leaves)


def table(model: Model | StatefulModel, example: PyTree) -> str:
    """Layers with their output shapes and parameter counts, for ONE example."""
    check_model(model)
    if isinstance(model.module, nn.Module) and not model.config.get("call"):
        from dlworkshop.models.linen import tabulate  # noqa: PLC0415 - imports us

        return tabulate(model, as_float(example))
    params, _ = shapes(model, example)
    rows = [
        f"{jax.tree_util.keystr(path):50} {leaf.shape!s:>20} {leaf.size:>12,}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    ]
    return "\n".join([*rows, f"{'total':50} {'':>20} {num_params(params):>12,}"])
