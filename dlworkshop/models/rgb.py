"""Wrapper for networks pretrained on RGB images of 32x32 and more."""

import jax
import jax.numpy as jnp

from dlworkshop.models.model import AnyModel
from dlworkshop.models.scaling import on_inputs
from dlworkshop.types import Array

LEAST = 32  # pixels of a side


def rgb(image: Array) -> jax.Array:
    """An image [H, W, 1 or 3] as RGB, with pixels repeated up to sides of 32 or more.

    >>> rgb(jnp.ones((8, 10, 1))).shape, rgb(jnp.ones((40, 33, 3))).shape
    ((32, 40, 3), (40, 33, 3))
    """
    scale = -(-LEAST // min(image.shape[:2]))
    image = jnp.asarray(image).repeat(scale, 0).repeat(scale, 1)
    return jnp.broadcast_to(image, (*image.shape[:2], 3))


def on_rgb(model: AnyModel) -> AnyModel:
    """A model of RGB images [H, W, 3], applied to images of any kind.

    >>> from dlworkshop.models import vgg16
    >>> image, model = jnp.zeros((8, 8, 1)), on_rgb(vgg16())
    >>> params = jax.eval_shape(model.init, jax.random.key(0), image)
    >>> jax.eval_shape(model.apply, params, image).shape
    (1, 1, 512)
    """
    return on_inputs(rgb, model, on_rgb=True)
