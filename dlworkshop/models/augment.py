"""Augmentation (key, image) -> image of ONE example, in training only.

Each function takes an image [H, W, C] of floats in [0, 1], keeps its shape and dtype,
and does nothing at zero strength. The same key always gives the same picture.
`mirrored` belongs to flips: it averages the outputs of the trained model.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from dlworkshop.errors import (
    Range,
    UserError,
    check_flag,
    check_function,
    check_number,
    check_whole,
)
from dlworkshop.models.model import (
    BY_KEYWORD,
    AnyModel,
    StatefulModel,
    as_float,
    check_model,
    check_rank,
)
from dlworkshop.types import Array


def shift(key: Array, image: Array, pixels: int) -> jax.Array:
    """Shift by up to `pixels` along both axes; the border is repeated.

    >>> image = jnp.arange(9.0).reshape(3, 3, 1)
    >>> sorted({shift(jax.random.key(i), image, 1)[1, 1].item() for i in range(99)})
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    """
    return _window(image, pixels, jax.random.randint(key, (2,), 0, 2 * pixels + 1))


def _window(image: Array, most: int, start: Array) -> jax.Array:
    """The part from `start` [2] of an image whose border is repeated `most` times."""
    padded = jnp.pad(image, ((most, most), (most, most), (0, 0)), mode="edge")
    return jax.lax.dynamic_slice(padded, (*start, 0), image.shape)


def flip(key: Array, image: Array) -> jax.Array:
    """Flip left and right with probability 1/2."""
    return jnp.where(jax.random.bernoulli(key), mirror(image), image)


def mirror(image: Array) -> jax.Array:
    """Flip left and right."""
    return image[:, ::-1]


def rotate(key: Array, image: Array, degrees: float) -> jax.Array:
    """Rotate by up to `degrees` either way about the centre."""
    return turn(image, jax.random.uniform(key, (), minval=-degrees, maxval=degrees))


def turn(image: Array, degrees: Array) -> jax.Array:
    """Rotate counter-clockwise about the centre; bilinear, the border is repeated.

    >>> image = jnp.arange(4.0).reshape(2, 2, 1)
    >>> turn(image, 90.0)[..., 0].round(4).tolist()
    [[1.0, 3.0], [0.0, 2.0]]
    """
    height, width, _ = image.shape
    angle = jnp.deg2rad(degrees)
    y = jnp.arange(height)[:, None] - (height - 1) / 2
    x = jnp.arange(width)[None, :] - (width - 1) / 2
    # the source of each pixel; rows count downwards
    from_y = y * jnp.cos(angle) + x * jnp.sin(angle) + (height - 1) / 2  # [H, W]
    from_x = x * jnp.cos(angle) - y * jnp.sin(angle) + (width - 1) / 2
    sample = functools.partial(
        map_coordinates, coordinates=[from_y, from_x], order=1, mode="nearest"
    )
    return jax.vmap(sample, in_axes=-1, out_axes=-1)(image)


def cut_out(key: Array, image: Array, pixels: int) -> jax.Array:
    """Set a random square with a side of `pixels` to grey (0.5).

    Source: DeVries & Taylor (2017), Improved regularization of convolutional neural
    networks with cutout, where the square may cross the border of the image.
    """
    height, width, _ = image.shape
    room = jnp.array([height - pixels, width - pixels])
    top, left = jax.random.randint(key, (2,), 0, room + 1)
    y, x = jnp.arange(height) - top, jnp.arange(width) - left
    inside = ((y >= 0) & (y < pixels))[:, None] & ((x >= 0) & (x < pixels))[None, :]
    return jnp.where(inside[..., None], jnp.asarray(0.5, image.dtype), image)


def brighten(key: Array, image: Array, strength: float) -> jax.Array:
    """Multiply by a random factor in [1 - strength, 1 + strength]."""
    factor = jax.random.uniform(key, (), minval=1 - strength, maxval=1 + strength)
    return jnp.clip(image * factor.astype(image.dtype), 0, 1)


@dataclasses.dataclass(frozen=True)
class Augment:
    """An augmentation (key, image) -> image of ONE example, with these strengths.

    >>> image = jnp.ones((8, 8, 3)) / 2
    >>> Augment(flip=True, shift=2)(jax.random.key(0), image).shape
    (8, 8, 3)
    """

    flip: bool = False  # left and right, in half of the examples
    shift: int = 0  # at most, in pixels, in each direction
    rotate: float = 0.0  # at most, in degrees, either way
    brightness: float = 0.0  # the factor is in [1 - brightness, 1 + brightness]
    cut_out: int = 0  # pixels a side

    def __post_init__(self) -> None:
        check_flag("flip", self.flip)
        check_whole("shift", self.shift, 0)
        check_number("rotate", self.rotate, Range(0))
        check_number("brightness", self.brightness, Range(0))
        check_whole("cut_out", self.cut_out, 0)

    def __call__(self, key: Array, image: Array) -> jax.Array:
        image = as_float(image)
        check_rank(image, (3,), "an image [H, W, C]")
        if max(self.cut_out, self.shift) >= min(image.shape[:2]):
            raise ValueError(
                f"an image of {image.shape[0]}x{image.shape[1]} is too small for a "
                f"shift of {self.shift} or a cut-out of {self.cut_out} pixels"
            )
        keys = jax.random.split(key, 5)
        if self.flip:
            image = flip(keys[0], image)
        if self.rotate:
            image = rotate(keys[1], image, self.rotate)
        if self.shift:
            image = shift(keys[2], image, self.shift)
        if self.brightness:
            image = brighten(keys[3], image, self.brightness)
        if self.cut_out:
            image = cut_out(keys[4], image, self.cut_out)
        return image


def check_pixels(augment: Any, images: Any) -> None:
    """Refuse images outside of [0, 1], which brightness and cut_out would spoil.

    Args:
        augment: of a model; those of the user are not checked.
        images: some, as stored.

    Raises:
        UserError: names their range.
    """
    own = augment.others if isinstance(augment, Moves) else augment
    if not isinstance(own, Augment) or not (own.brightness or own.cut_out):
        return
    if getattr(images, "dtype", np.uint8) == np.uint8:
        return
    low, high = float(np.min(images)), float(np.max(images))
    if low < -0.01 or high > 1.01:  # resizing overshoots
        raise UserError(
            f"the images go from {low:g} to {high:g}, and brightness and cut_out are "
            "for pixels in [0, 1]: bring the images there, or leave these out"
        )


@dataclasses.dataclass(frozen=True)
class Moves:
    """An augmentation whose flip and shift are hyper-parameters of each member.

    `flip` is a probability, and `shift` the largest shift in pixels, at most `most`.

    >>> image = jnp.arange(64.0).reshape(8, 8, 1) / 64
    >>> moves = Moves(most=2)
    >>> bool((moves(jax.random.key(0), image) == image).all())
    True
    >>> moves(jax.random.key(0), image, shift=2.0, flip=0.5).shape
    (8, 8, 1)
    """

    most: int  # pixels
    others: Augment = Augment()  # applied first, to all members

    def __call__(self, key: Array, image: Array, *, flip=0.0, shift=0.0) -> jax.Array:
        first, flip_key, shift_key = jax.random.split(key, 3)
        image = self.others(first, image)
        chosen = jax.random.bernoulli(flip_key, flip)
        image = jnp.where(chosen, mirror(image), image)
        if not self.most:
            return image
        # all integers in [-shift, shift] have the same probability
        drawn = jax.random.uniform(shift_key, (2,), minval=-1.0, maxval=1.0)
        moved = jnp.clip(jnp.round(drawn * (shift + 0.5)), -shift, shift).astype(int)
        start = jnp.clip(self.most + moved, 0, 2 * self.most)
        return _window(image, self.most, start)


def augmented(model: AnyModel, augment: Callable) -> AnyModel:
    """A model whose inputs are augmented in training, that is, given a key.

    Args:
        model: of one example.
        augment: (key, inputs) -> inputs, such as an `Augment`. Its other keywords are
            hyper-parameters of the model.

    >>> from dlworkshop.models import cnn
    >>> model = augmented(cnn((4,), (8,)), Augment(shift=1))
    >>> image = jnp.ones((8, 8, 1))
    >>> params = model.init(jax.random.key(0), image)
    >>> model.apply(params, image, key=jax.random.key(1)).shape
    (10,)
    """
    check_model(model)
    check_function("augment", augment)
    own = list(inspect.signature(augment).parameters.values())[2:]
    own = [each for each in own if each.kind in BY_KEYWORD]
    names = {each.name for each in own}

    @functools.wraps(model.apply)
    def apply(*front, key=None, **hparams):
        mine = {name: hparams.pop(name) for name in names & hparams.keys()}
        if key is None:
            return model.apply(*front, key=None, **hparams)
        augment_key, model_key = jax.random.split(key)
        inputs = augment(augment_key, front[-1], **mine)
        return model.apply(*front[:-1], inputs, key=model_key, **hparams)

    # the signature has the hyper-parameters of both
    taken = list(inspect.signature(model.apply).parameters.values())
    if both := sorted(names & {each.name for each in taken}):
        raise UserError(
            f"the augmentation and the model both take '{both[0]}': rename one of them"
        )
    taken += [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
    taken.sort(key=lambda parameter: parameter.kind)
    apply.__signature__ = inspect.Signature(taken)  # type: ignore[attr-defined]
    if isinstance(augment, Augment):
        known: Any = dataclasses.asdict(augment)
    else:  # only a name, because the identity of the model includes the code
        known = getattr(augment, "__name__", "its own")
    config = {**model.config, "augment": known}
    return model._replace(apply=apply, config=config, augment=augment)


def mirrored(model: AnyModel) -> AnyModel:
    """A model whose outputs are means over an image and its mirror image.

    In training, that is, given a key, it is the model itself. A network that learns
    from flipped images knows both views equally well, and errs less often in their mean
    than in either (docs/own_data.md). Predictions take twice as long.

    Args:
        model: of one image [H, W, C].

    Source: Krizhevsky et al. (2012), ImageNet classification with deep convolutional
    neural networks, section 4.1, where probabilities are averaged.

    >>> from dlworkshop.models import logistic
    >>> model = mirrored(logistic(2))
    >>> image = jnp.arange(6.0).reshape(2, 3, 1)
    >>> params = model.init(jax.random.key(0), image)
    >>> outputs = model.apply(params, image)
    >>> bool(jnp.allclose(outputs, model.apply(params, mirror(image))))
    True
    """
    check_model(model)

    @functools.wraps(model.apply)
    def apply(*front, key=None, **hparams):
        if key is not None:
            return model.apply(*front, key=key, **hparams)
        *numbers, image = front
        check_rank(image, (3,), "an image [H, W, C]")
        views = image, mirror(image)
        both = [model.apply(*numbers, view, key=None, **hparams) for view in views]
        if isinstance(model, StatefulModel):
            (outputs, state), (other, _) = both
            return _mean(outputs, other), state
        return _mean(*both)

    return model._replace(apply=apply, config={**model.config, "mirrored": {}})


def _mean(outputs: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: (a + b) / 2, outputs, other)
