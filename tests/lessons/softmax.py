"""How each claim of the lesson is made false."""

import jax.numpy as jnp
import numpy as np

SLOW = True
FAST = {"seeds": 5, "num_epochs": (1, 20)}


def shuffled(spirals):
    def wrong(size):
        points = spirals(size)
        return points._replace(
            targets=np.random.default_rng(0).permutation(points.targets)
        )

    return wrong


class ShuffledToy:
    def __init__(self, toy):
        self.spirals, self.split = shuffled(toy.spirals), toy.split


PLANTED = [
    (
        {
            "softmax": lambda _: lambda z: jnp.exp(z) / jnp.exp(z).sum() + 1e-12 * z,
            "literal_softmax": lambda _: lambda z: z,
            "toy": ShuffledToy,
        },
        [
            "The outputs of the 6-4-3 network",
            "Adding the same number",
            "Softmax of two classes",
            "The gradient of the cross-entropy",
            "Logits of 10,000",
            "The literal formula",
            "Trained networks",
        ],
    ),
    ({"softmax": lambda _: lambda z: z / z.sum()}, ["Every output lies"]),
]
