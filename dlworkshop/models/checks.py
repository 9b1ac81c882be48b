"""Checks before training that a model is one of ONE example."""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from dlworkshop.data.rows import is_lazy
from dlworkshop.errors import UserError
from dlworkshop.models.model import (
    BATCH,
    BATCH_AXES,
    EXAMPLE,
    Model,
    StatefulModel,
    as_float,
    stateful,
)
from dlworkshop.types import Array, PyTree

# JAX's error for an output that must not differ along a vmapped axis: outside and
# inside a trace
_DIFFERS = r"(axis spec None but output was batched|mapped output .*out_axes is None)"


def check_one_example(
    model: Model | StatefulModel,
    params: PyTree,
    state: PyTree,
    inputs: PyTree,
    **hparams: Array,
) -> None:
    """Reject a model that takes the first axis of ONE example for the batch.

    The model runs on two examples under `jax.vmap` and, if possible, on batches of two
    and of one. A model was written for batches if its outputs for a batch of two equal
    those for batches of one, but not those for single examples. The parameters are
    perturbed first, because a layer of zeros has the same outputs for all inputs. No
    key is given, so there is no randomness.

    Args:
        model: of one example.
        params: its parameters, or their shapes, which are initialised if needed.
        state: its state, () or {} if it has none, or its shapes.
        inputs: leaves [B, ...], B at least 1.
        hparams: [] each, keywords of `apply`.

    Raises:
        UserError: if the model was written for batches, or depends on its batch in
            evaluation.

    >>> def init(key, x):
    ...     return jax.random.normal(key, (x.shape[-1], 3))
    >>> right = Model(init, lambda params, x, *, key=None: x @ params)
    >>> params, inputs = right.init(jax.random.key(0), jnp.ones(4)), jnp.eye(4)[:2]
    >>> check_one_example(right, params, (), inputs)
    >>> def flat(params, x, *, key=None):  # of each image [H, W] in a batch, its row
    ...     return x.reshape((x.shape[0], -1)) @ params
    >>> wrong = Model(lambda key, x: init(key, x.reshape((x.shape[0], -1))), flat)
    >>> images = jnp.ones((2, 5, 4))
    >>> check_one_example(wrong, wrong.init(jax.random.key(0), images[0]), (), images)
    Traceback (most recent call last):
    ...
    dlworkshop.errors.UserError: the model takes the first axis of an example for ...
    """
    lifted = stateful(model)
    two = jax.tree.map(lambda x: np.asarray(x)[[0, -1]], inputs)
    one = jax.tree.map(lambda x: x[0], two)
    both = params, state

    def answer(both: PyTree, example: PyTree) -> PyTree:
        return lifted.apply(*both, as_float(example), **hparams)[0]

    try:
        alone = jax.eval_shape(answer, both, one)
        jax.eval_shape(jax.vmap(answer, in_axes=(None, 0)), both, two)
    except NameError as error:
        raise explain(error) or error from error
    if _keeps_the_first_axis(lifted, alone, one, two, hparams):
        raise _for_batches()
    try:
        pair = jax.eval_shape(answer, both, two)
        single = jax.eval_shape(answer, both, _first(two))
    except Exception:  # a model of one example rejects a batch
        return
    if not (_has_batch(pair, alone, 2) and _has_batch(single, alone, 1)):
        return
    if isinstance(jax.tree.leaves(both)[0], jax.ShapeDtypeStruct):
        init = jax.jit(lambda key, example: lifted.init(key, as_float(example)))
        both = init(jax.random.key(0), one)

    if jax.jit(functools.partial(_is_for_batches, answer))(both, two):
        raise _for_batches()


def _is_for_batches(answer: Callable, both: PyTree, two: PyTree) -> Array:
    """Whether a model treats two examples as a batch, and not as single ones."""
    both = _moved(both[0]), both[1]
    side_by_side = jax.vmap(answer, in_axes=(None, 0))(both, two)
    batches_of_one = [
        answer(both, jax.tree.map(lambda x, i=i: x[i : i + 1], two)) for i in (0, 1)
    ]
    ones = _flat(jax.tree.map(lambda *x: jnp.concatenate(x), *batches_of_one))
    takes_batches = _same(_flat(answer(both, two)), ones)
    return takes_batches & ~_same(_flat(side_by_side), ones)


def check_state(
    model: Model | StatefulModel,
    params: PyTree,
    state: PyTree,
    inputs: PyTree,
    **hparams: Array,
) -> None:
    """Reject a model whose new state differs between the examples of a batch.

    The model is traced as in training, with four examples on two devices, but not run.
    The arguments are those of `check_one_example`.

    Raises:
        UserError: if the new state differs between examples or devices, has another
            form than the old one, or uses an unknown axis name.
    """
    lifted = stateful(model)
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((2, 2, *jnp.shape(x)[1:]), jnp.result_type(x)),
        inputs,
    )

    def step(params, state, example, key):
        return lifted.apply(params, state, as_float(example), key=key, **hparams)[1]

    lift = step
    for axis in (EXAMPLE, BATCH):
        lift = jax.vmap(lift, (None, None, 0, 0), out_axes=None, axis_name=axis)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), (2, 2)))
    try:
        new = jax.eval_shape(lift, params, state, shapes, keys)
    except (NameError, ValueError) as error:
        raise explain(error) or error from error
    old = jax.eval_shape(lambda: state)
    if _form(old) != _form(new):
        raise UserError(
            f"the model's state was {_form(old)} and becomes {_form(new)} in a step: "
            "let apply return a state with the same structure, shapes and dtypes"
        )


def check_lookups(
    model: Model | StatefulModel, inputs: PyTree, where: str, **hparams: Array
) -> None:
    """Reject integer inputs with which the model indexes out of bounds.

    JAX would use the nearest row, or NaN. The model runs on the examples with the
    highest and the lowest number of each array of `inputs` [N, ...]; an error that
    zeros cause too does not count. Arrays on disk are skipped.

    Raises:
        UserError: if an index is out of bounds; `where` is the name of the inputs, such
            as "the train split of 'text'".
    """
    lifted = stateful(model)

    def answer(example: PyTree) -> PyTree:
        inputs = as_float(example)
        begun = lifted.init(jax.random.key(0), inputs)
        return lifted.apply(*begun, inputs, **hparams)[0]

    if found := beyond(answer, inputs, inputs):
        path, row, said = found
        raise UserError(
            f"inputs{path} of example {row} of {where} are whole numbers that the "
            f"model uses as indices: {said}: make that array larger, or clip the "
            "inputs with jnp.clip"
        )


def beyond(
    function: Callable, examples: PyTree, looked_at: PyTree
) -> tuple[str, int, str] | None:
    """An index out of bounds in a function of one example.

    Args:
        function: example -> anything.
        examples: leaves [N, ...].
        looked_at: a part of `examples`; the function runs on the examples with the
            highest and the lowest number of each of its integer arrays in memory.

    Returns:
        The path of the array, the number of the example, and checkify's words; None if
        all indices are in bounds, or already zeros are not.
    """

    @jax.jit  # removes everything but the indices
    def ask(example):
        return checkify.checkify(function, errors=checkify.index_checks)(example)[0]

    for path, leaf in jax.tree.leaves_with_path(looked_at):
        whole = leaf.dtype.kind in "iu" and leaf.dtype != np.uint8
        if is_lazy(leaf) or not whole or not leaf.size:
            continue
        rows = np.asarray(leaf).reshape(len(leaf), -1)  # [N, D]
        for row in (rows.max(1).argmax(), rows.min(1).argmin()):
            example = jax.tree.map(lambda x, i=row: jnp.asarray(x[i]), examples)
            try:
                said = ask(example).get() or ""
                always = said and ask(jax.tree.map(jnp.zeros_like, example)).get()
            except Exception:  # checkify does not support the function
                return None
            if said.startswith("out-of-bounds indexing for") and not always:
                words = said.splitlines()[0].rstrip(". ")
                return jax.tree_util.keystr(path), int(row), words
    return None


def explain(error: Exception) -> UserError | None:
    """A clear error for JAX's error about a model that treats its batch wrongly.

    Returns:
        A UserError, or None if the error is about something else.

    >>> try:
    ...     jax.vmap(lambda x: x, out_axes=None)(jnp.ones(2))
    ... except ValueError as error:
    ...     print(explain(error))
    the model's new state differs between the examples of a batch: give BatchNorm ...
    """
    text, axes = str(error), f"models.BATCH_AXES, {BATCH_AXES}"
    if isinstance(error, ValueError) and re.search(_DIFFERS, text):
        return UserError(
            "the model's new state differs between the examples of a batch: give "
            f"BatchNorm axis_name={axes} (cross_replica_axis in Haiku), so that its "
            "statistics are those of the whole batch"
        )
    if isinstance(error, NameError) and "unbound axis name" in text:
        if re.search(rf"axis name: ({'|'.join(BATCH_AXES)})\b", text):
            return UserError(
                f"the model looks at its batch without a key ({text}), where it sees "
                "one example at a time: let it use its running statistics there, as "
                "nn.BatchNorm(use_running_average=not train) does"
            )
        return UserError(
            f"the model takes a mean over an axis that is not there ({text}): give "
            f"axis_name={axes}"
        )
    return None


def _for_batches() -> UserError:
    return UserError(
        "the model takes the first axis of an example for the batch (as GroupNorm and "
        "reshape((x.shape[0], -1)) do), so its answers for an example alone are wrong: "
        "give batched=True to models.from_linen, from_nnx, from_equinox or from_haiku, "
        "or write it for one example"
    )


def _keeps_the_first_axis(
    model: StatefulModel, alone: PyTree, one: PyTree, two: PyTree, hparams: Any
) -> bool:
    """Whether a model initialised on a batch gives outputs [B, ...].

    This is the case if a module begins with `reshape((x.shape[0], -1))`: for one
    example its parameters have another shape, and its outputs are [H, K].
    """
    lengths = {x.shape[0] if x.ndim else None for x in jax.tree.leaves(one)}
    firsts = {x.shape[0] if x.ndim else None for x in jax.tree.leaves(alone)}
    if len(lengths) != 1 or firsts != lengths or firsts <= {None, 1, 2}:
        return False

    def begun(inputs: PyTree) -> PyTree:
        params, state = model.init(jax.random.key(0), as_float(inputs))
        return model.apply(params, state, as_float(inputs), **hparams)[0]

    try:
        pair, single = jax.eval_shape(begun, two), jax.eval_shape(begun, _first(two))
    except Exception:  # a model of one example rejects a batch
        return False
    rest = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), alone)
    return _has_batch(pair, rest, 2) and _has_batch(single, rest, 1)


def _has_batch(outputs: PyTree, of_one: PyTree, num_examples: int) -> bool:
    """Whether the outputs are those of one example with a batch axis in front."""
    wanted = jax.tree.map(lambda x: (num_examples, *x.shape), of_one)
    return jax.tree.map(lambda x: x.shape, outputs) == wanted


def _form(state: PyTree) -> PyTree:
    return jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", state)


def _first(inputs: PyTree) -> PyTree:
    """A batch of the first example alone."""
    return jax.tree.map(lambda x: x[:1], inputs)


def _flat(outputs: PyTree) -> Array:
    """All outputs of two examples: [2, D]."""
    leaves = [x.reshape(2, -1) for x in jax.tree.leaves(outputs)]
    return jnp.concatenate([x.astype(float) for x in leaves], axis=1)


def _same(a: Array, b: Array) -> Array:
    """Whether values are equal up to rounding, which deep networks accumulate."""
    return ~(jnp.abs(a - b).max() > 0.01 * jnp.abs(b).max())


def _moved(params: PyTree) -> PyTree:
    """Parameters perturbed by half a standard deviation; constant ones by 0.1."""
    leaves, form = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(0), max(len(leaves), 1))

    def moved(leaf, key):
        leaf = jnp.asarray(leaf)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        spread = leaf.std()
        by = jnp.where(spread > 0, 0.5 * spread, 0.1)
        return leaf + (by * jax.random.normal(key, leaf.shape)).astype(leaf.dtype)

    return jax.tree.unflatten(form, map(moved, leaves, keys))
