"""Wrappers that standardise, bin or downscale inputs, and rescale outputs.

The constants are part of the model and its config, so that predictions and exported
files need nothing else. They are statistics of the training split, computed by
`fitted_scale` and `fitted_edges`.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dlworkshop.data.leaves import as_floats
from dlworkshop.errors import UserError, check_whole, repr_of
from dlworkshop.models.augment import Augment
from dlworkshop.models.model import (
    AnyModel,
    StatefulModel,
    as_float,
    check_model,
    check_rank,
)
from dlworkshop.types import Array

PIECE = 4096  # examples that are processed at a time


def standardized(model: AnyModel, mean: Array, deviation: Array) -> AnyModel:
    """The model with inputs standardised: minus a mean, divided by a deviation.

    Args:
        model: of one example [D] or [H, W, C].
        mean: [D] of the columns, or [C] of the channels.
        deviation: likewise, > 0.

    >>> from dlworkshop.models import logistic
    >>> model = standardized(logistic(2), [5.0, 1.0], [2.0, 1.0])
    >>> params = model.init(jax.random.key(0), jnp.ones(2))
    >>> at_mean = model.apply(params, jnp.array([5.0, 1.0]))
    >>> at_mean.tolist() == params["Dense_0"]["bias"].tolist()
    True
    """
    mean, deviation = _numbers("mean", mean), _numbers("deviation", deviation)
    if mean.shape != deviation.shape or not (deviation > 0).all():
        raise UserError(
            f"mean has shape {list(mean.shape)} and deviation "
            f"{list(deviation.shape)}: give a mean and a deviation above 0 for each "
            "column or channel"
        )

    def change(inputs):
        inputs = as_float(inputs)
        _check_fits("an input", inputs, mean)
        return (inputs - mean) / deviation

    known = {"mean": mean.tolist(), "deviation": deviation.tolist()}
    made = on_inputs(change, model, standardized=known)
    return made._replace(module=model.module)  # its layers see the same shapes


def piecewise_linear(model: AnyModel, edges: Sequence[Sequence[float]]) -> AnyModel:
    """The model with columns encoded piecewise linearly, bin by bin.

    A number x of a column with edges b_0 < ... < b_T becomes T numbers: that of bin t
    is (x - b_(t-1)) / (b_t - b_(t-1)), at least 0 except in the first bin and at most 1
    except in the last. So a linear model can represent any piecewise linear function of
    each column. A column of one bin is only shifted and scaled.

    Args:
        model: of a vector [sum of T].
        edges: the T + 1 ascending edges of each of the D columns.

    Source: Gorishniy et al. (2022), On embeddings for numerical features in tabular
    deep learning, for the piecewise linear encoding.

    >>> from dlworkshop.models import logistic
    >>> model = piecewise_linear(logistic(2), [[0.0, 1.0, 3.0], [0.0, 1.0]])
    >>> params = model.init(jax.random.key(0), jnp.ones(2))
    >>> params["Dense_0"]["kernel"].shape
    (3, 2)
    >>> encode([[0.0, 1.0, 3.0], [0.0, 1.0]])(jnp.array([2.0, 0.25])).tolist()
    [1.0, 0.5, 0.25]
    """
    encoded, known = encode(edges), [list(map(float, each)) for each in edges]
    return on_inputs(encoded, model, piecewise_linear={"edges": known})


def encode(edges: Sequence[Sequence[float]]) -> Callable[[Array], jax.Array]:
    """Piecewise linear encoding: columns [D] -> [sum of T]; see `piecewise_linear`."""
    column, low, width, first, last = bins(edges)

    def change(inputs):
        if jnp.shape(inputs) != (len(edges),):
            raise UserError(
                f"an input has shape {list(jnp.shape(inputs))}, and there are edges of "
                f"{len(edges)} columns: give edges for each column"
            )
        full = (as_float(inputs)[column] - low) / width  # [sum of T]
        full = jnp.where(first, full, jnp.maximum(full, 0))
        return jnp.where(last, full, jnp.minimum(full, 1))

    return change


def bins(edges: Sequence[Sequence[float]]) -> tuple[np.ndarray, ...]:
    """Column, lower edge, width, and flags of the first and the last bin, for each bin.

    Raises:
        UserError: if the edges do not ascend.

    >>> [each.tolist() for each in bins([[0.0, 1.0, 3.0]])]
    [[0, 0], [0.0, 1.0], [1.0, 2.0], [True, False], [False, True]]
    """
    each = [_numbers("edges", one) for one in edges] if np.iterable(edges) else []
    if not each or not all(
        one.ndim == 1 and len(one) > 1 and (np.diff(one) > 0).all() for one in each
    ):
        raise UserError(
            f"edges is {repr_of(edges)}: give at least two ascending numbers for each "
            "column"
        )
    return (
        np.repeat(np.arange(len(each)), [len(one) - 1 for one in each]),
        np.concatenate([one[:-1] for one in each]),
        np.concatenate([np.diff(one) for one in each]),
        np.concatenate([np.arange(len(one) - 1) == 0 for one in each]),
        np.concatenate([np.arange(len(one) - 1) == len(one) - 2 for one in each]),
    )


def rescaled(model: AnyModel, mean: Array, deviation: Array) -> AnyModel:
    """The model with outputs multiplied by a deviation, plus a mean.

    So the network itself learns standardised numbers.

    Args:
        model: of one example, with one array as outputs.
        mean, deviation: [] or the shape of the outputs; the deviation is above 0.

    >>> from dlworkshop.models import logistic
    >>> model = rescaled(logistic(1), 100.0, 10.0)
    >>> params = model.init(jax.random.key(0), jnp.ones(2))
    >>> params = jax.tree.map(jnp.zeros_like, params)
    >>> model.apply(params, jnp.ones(2)).tolist()
    [100.0]
    """
    check_model(model)
    _check_once("rescaled", model)
    mean, deviation = _numbers("mean", mean), _numbers("deviation", deviation)
    if not (deviation > 0).all():
        raise UserError(f"deviation is at least {deviation.min():g}: give one above 0")

    def scaled(outputs):
        _check_fits("an output", outputs, mean)
        _check_fits("an output", outputs, deviation)
        return outputs * deviation + mean

    @functools.wraps(model.apply)
    def apply(*given, **more):
        answer = model.apply(*given, **more)
        if isinstance(model, StatefulModel):
            outputs, state = answer
            return scaled(outputs), state
        return scaled(answer)

    known = {"mean": mean.tolist(), "deviation": deviation.tolist()}
    return model._replace(apply=apply, config={**model.config, "rescaled": known})


def on_first_channel(model: AnyModel) -> AnyModel:
    """A model of [H, W, 1] applied to the first channel: for grey images stored as RGB.

    >>> from dlworkshop.models import logistic
    >>> model = on_first_channel(logistic(2))
    >>> model.init(jax.random.key(0), jnp.ones((4, 4, 3)))["Dense_0"]["kernel"].shape
    (16, 2)
    """

    def change(image):
        check_rank(image, (3,), "an image [H, W, C]")
        return image[..., :1]

    return on_inputs(change, model, on_first_channel={})


def fitted_scale(inputs: Array) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of columns of [N, D], or of channels of [N, H, W, C].

    Columns of only 0 and 1 are not standardised: mean 0 and deviation 1. A constant
    column has deviation 1. uint8 is scaled to [0, 1], as in a step.

    >>> mean, deviation = fitted_scale(np.array([[1.0, 0.0], [3.0, 1.0]]))
    >>> mean.tolist(), deviation.tolist()
    ([2.0, 0.0], [1.0, 1.0])
    """
    size = inputs.shape[-1]
    count, total, squares = 0, np.zeros(size), np.zeros(size)
    marks = np.full(size, len(inputs.shape) == 2)
    shift = _float64(inputs[:1]).reshape(-1, size)[0]  # avoids cancellation
    for first in range(0, len(inputs), PIECE):
        rows = _float64(inputs[first : first + PIECE]).reshape(-1, size)
        count += len(rows)
        total += (rows - shift).sum(0)
        squares += ((rows - shift) ** 2).sum(0)
        marks &= ((rows == 0) | (rows == 1)).all(0)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    mean = mean + shift
    deviation = np.where(deviation > 1e-7 * np.maximum(1, np.abs(mean)), deviation, 1.0)
    return np.where(marks, 0.0, mean), np.where(marks, 1.0, deviation)


def fitted_edges(inputs: Array, most: int) -> list[list[float]]:
    """Edges of at most `most` bins per column of inputs [N, D]: its quantiles.

    Equal quantiles give one edge, so a column of few values has few bins; a constant
    column has one bin of width 1.

    >>> fitted_edges(np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0]]), most=2)
    [[0.0, 1.0, 2.0], [5.0, 6.0]]
    """
    inputs = np.asarray(inputs, np.float32).astype(np.float64)
    found = []
    for column in inputs.T:
        edges = np.unique(np.quantile(column, np.linspace(0, 1, most + 1)))
        apart = np.diff(edges) > 1e-6 * max(1.0, float(np.abs(edges).max()))
        edges = np.concatenate([edges[:1], edges[1:][apart]])
        known = edges.tolist()
        found.append(known if len(known) > 1 else [known[0], known[0] + 1.0])
    return found


def coarser(model: AnyModel, factor: int) -> AnyModel:
    """The model on images averaged over squares of `factor` x `factor` pixels.

    Incomplete squares at the bottom and on the right are cut off.

    Args:
        model: of one image [H // factor, W // factor, C].
        factor: pixels of a side of a square, at least 1.

    >>> from dlworkshop.models import logistic
    >>> model = coarser(logistic(2), 3)
    >>> params = model.init(jax.random.key(0), jnp.ones((7, 6, 1)))
    >>> params["Dense_0"]["kernel"].shape
    (4, 2)
    """

    check_whole("factor", factor)

    def change(image):
        check_rank(image, (3,), "an image [H, W, C]")
        height, width = (side // factor for side in image.shape[:2])
        if not min(height, width):
            raise UserError(
                f"an image of {image.shape[0]}x{image.shape[1]} has no square of "
                f"{factor}x{factor} pixels: give a smaller factor"
            )
        image = as_float(image)[: height * factor, : width * factor]
        return image.reshape(height, factor, width, factor, -1).mean((1, 3))

    return on_inputs(change, model, coarser={"factor": factor})


def on_inputs(change: Callable, model: AnyModel, **config: object) -> AnyModel:
    """The model applied to transformed inputs.

    The result has no module, because a table of its layers would use other inputs.
    """
    check_model(model)
    for name in config:
        _check_once(name, model)
    augment = model.augment
    if isinstance(augment, Augment) and (augment.brightness or augment.cut_out):
        raise UserError(
            "brightness and cut_out are for pixels in [0, 1], and this wrapper gives "
            "the augmented model other inputs: wrap first, and augment the result"
        )

    @functools.wraps(model.init)
    def init(key, inputs):
        return model.init(key, change(inputs))

    @functools.wraps(model.apply)  # keeps the hyper-parameters in the signature
    def apply(*given, **more):  # params, the state if there is one, inputs
        *numbers, inputs = given
        return model.apply(*numbers, change(inputs), **more)

    config = {**model.config, **config}
    return model._replace(init=init, apply=apply, config=config, module=None)


def _check_once(name: str, model: AnyModel) -> None:
    """Refuse a wrapper that a model has already: its config has one of each name."""
    if name in model.config:
        raise UserError(f"the model is wrapped by {name} already: combine both in one")


def _check_fits(what: str, array: Array, constant: np.ndarray) -> None:
    """Refuse constants that would change the shape of an array."""
    shape, own = jnp.shape(array), constant.shape
    if len(own) > len(shape) or any(
        b not in (1, a) for a, b in zip(shape[::-1], own[::-1], strict=False)
    ):
        raise UserError(
            f"{what} has shape {list(shape)}, and the constants of its scale "
            f"{list(own)}: give one for each column or channel"
        )


def _float64(array: Array) -> np.ndarray:
    array = np.asarray(array)
    return array / 255.0 if array.dtype == np.uint8 else array.astype(np.float64)


def _numbers(name: str, given: Array) -> np.ndarray:
    """Finite numbers as float32, as in the config and the step."""
    numbers = as_floats(given, name).astype(np.float32)
    if not np.isfinite(numbers).all():
        raise UserError(f"{name} has infinite numbers or NaN: give finite numbers")
    return numbers
