"""How each claim of the lesson is made false."""

import jax
import numpy as np

SLOW = True
FAST = {"seeds": 9, "members": (1, 64), "num_steps": 5}
COMPUTING = True


def hindered(side_by_side):
    """Each member gets a little more than it would get alone."""

    def wrong(one):
        def more(params, batches):
            return jax.tree.map(lambda w: w + 1e-9, one(params, batches))

        return side_by_side(more)

    return wrong


PLANTED = [
    (
        # a clock that stands still
        {
            "side_by_side": hindered,
            "in_turns": lambda _: lambda calls, turns: np.ones((turns, len(calls))),
        },
        ["Side by side", "Small networks", "Large networks"],
    )
]
