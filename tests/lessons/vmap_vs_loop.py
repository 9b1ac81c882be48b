"""How each claim of the lesson is made false."""

import jax

FAST = {"seeds": 9, "members": (1, 64), "num_steps": 5}


def hindered(side_by_side):
    """Each member gets a little more than it would get alone."""

    def wrong(one):
        def more(params, batches):
            return jax.tree.map(lambda w: w + 1e-9, one(params, batches))

        return side_by_side(more)

    return wrong


def copies(params):
    """How many numbers there are to learn, in next to no time."""
    return sum(leaf.size for leaf in jax.tree.leaves(params)) * 1e-15


PLANTED = [
    (
        {
            "side_by_side": hindered,
            # a clock that stands still, and a compiler that repeats each member
            "seconds": lambda _: lambda *args: 1.0,
            "compiling": lambda _: lambda lift, widths, params, batches: copies(params),
        },
        ["Side by side", "Small networks", "Large networks", "Compiling", "One short"],
    )
]
