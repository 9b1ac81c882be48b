"""How each claim of the lesson is made false."""

import jax.numpy as jnp

FAST = {"seeds": 5}


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
        },
        [
            "A convolution is a dense",
            "A shifted image",
            "A unit sees",
            "Three kernels",
        ],
    ),
]
