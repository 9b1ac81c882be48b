"""How each claim of the lesson is made false."""

import jax
import numpy as np

from dlworkshop.data import toy

FAST = {"seeds": 5, "folds": 4, "num_steps": 600}


def found_by_hand(config, widths, key):
    """Learning that ends with the curve itself."""
    del widths, key
    points = np.linspace(0, 1, 1025)
    return toy.tent(points, config.learnt_folds), np.ones(4096)


PLANTED = [
    (
        {"relu": lambda _: jax.nn.silu},  # a bend that is everywhere
        [
            "Layers of 2 units",
            "One layer of 2^k",
            "k folds have",
            "In one layer",
            "What learns in one layer",
        ],
    ),
    (
        {
            "SHAPES": lambda shapes: shapes | {4: (16, 16, 16, 16)},
            "learn": lambda _: found_by_hand,
        },
        ["The networks that learn", "Learning finds"],
    ),
]
