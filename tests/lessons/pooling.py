"""How each claim of the lesson is made false."""

import jax
import jax.numpy as jnp

from dlworkshop import models

FAST = {"seeds": 8, "num_epochs": 6}


def one_pixel_late(pool):
    return lambda image: pool(image[1:])


def half_hidden(pool):
    """Values that move without their gradient."""
    return lambda image: pool(image + 1e-3 * jnp.sin(jax.lax.stop_gradient(image)))


def smoother(_):
    return lambda image: models.average_pool(models.average_pool(image))


def reversed_pools(pools):
    return dict(zip(pools, reversed(pools.values()), strict=True))


PLANTED = [
    (
        {
            "max_pool": one_pixel_late,
            "mean_pool": half_hidden,
            "POOLS": reversed_pools,
            "every_second": smoother,
        },
        [
            "The example",
            "Loops over windows",
            "H x W numbers",
            "The gradient goes back",
            "A spot that moves",
            "With max pooling",
            "A shift changes the mean",
        ],
    ),
]
