"""How each claim of the lesson is made false."""

import numpy as np

FAST = {"seeds": 7, "widths": (4, 32, 128)}
SLOW = True


def dear(operations):
    """Whatever is not the forward pass costs nine times as much."""

    def wrong(function, *args):
        factor = 1 if function.__name__ == "loss" else 9
        if hasattr(function, "__wrapped__"):  # jax.grad names what it returns alike
            factor = 9
        return factor * operations(function, *args)

    return wrong


PLANTED = [
    (
        {
            "operations": dear,
            "in_turns": lambda _: lambda calls, turns: np.ones((turns, len(calls))),
        },
        [
            "A gradient costs",
            "Back-propagation takes",
            "The more weights",
            "A slope along",
        ],
    ),
]
