"""How each claim of the lesson is made false."""

import jax
import numpy as np

from dlworkshop.data import toy

FAST = {"seeds": 5, "num_steps": 300}
COMPUTING = SLOW = True


def found_by_hand(config, widths, learning_rate, key):
    """Learning that ends with the curve itself, the better the smaller the rate."""
    del widths, key
    points = np.linspace(0, 1, 1025)
    return learning_rate, toy.tent(points, config.folds), np.ones(4096)


PLANTED = [
    ({"relu": lambda _: jax.nn.silu}, ["Learnt networks of one"]),
    (
        {
            "SHAPES": lambda shapes: shapes | {4: (16, 16, 16, 16)},
            "learn": lambda _: found_by_hand,
        },
        [
            "Learnt networks have",
            "The networks differ",
            "On average, learning",
            "No depth chooses",
        ],
    ),
]
