"""How each claim of the lesson is made false."""

import jax

FAST = {"folds": 4}

PLANTED = [
    (
        {"relu": lambda _: jax.nn.silu},  # a bend that is everywhere
        ["Layers of 2 units", "One layer of 2^k", "k folds have", "In one layer"],
    ),
]
