"""How each claim of the lesson is made false."""

import jax.numpy as jnp

FAST = {"num_rates": 20}
SLOW = True


def twice(descend):
    """Steps twice as far as it is told to."""
    return lambda w, rate, *rest: descend(w, 2 * rate, *rest)


PLANTED = [
    ({"descend": twice}, ["Below 2", "The first"]),
    (
        {
            "curvature": lambda curvature: lambda xs: curvature(xs) * (1 + 1e-9),
            "limit": lambda _: lambda xs: abs(xs).max(),
        },
        ["The curvature", "Inputs half"],
    ),
    (
        {"limit": lambda _: jnp.linalg.norm},
        ["Inputs without"],
    ),
]
