"""How each claim of the lesson is made false."""

import jax.numpy as jnp

from dlworkshop import models

FAST = {"seeds": 5, "sizes": (300, 600), "learning_rates": (0.02,), "num_steps": 250}


def knowing_its_place(layer):
    """Features that know where they are, and what is far away."""

    def wrong(image, kernel):
        features = layer(image, kernel)
        place = jnp.arange(len(features))[:, None, None]
        return features + 1e-6 * place * image.sum()

    return wrong


PLANTED = [
    (
        {
            "tied": lambda tied: lambda *args: tied(*args) * (1 + 1e-13),
            "layer": knowing_its_place,
            "num_weights": lambda f: lambda init, shape: f(init, shape) + shape[0],
            "NETWORKS": lambda n: {"CNN": models.mlp((33,)), "MLP": n["CNN"]},
        },
        [
            "A dense layer grows",
            "A convolution is a dense",
            "A shifted image",
            "A unit sees",
            "The networks that",
            "The CNN reads more shifted",
            "With half the examples",
        ],
    ),
]
