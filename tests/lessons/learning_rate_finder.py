"""How each claim of the lesson is made false."""

import jax.numpy as jnp

FAST = {"seeds": 10, "num_rates": 11, "num_steps": (20, 60)}


def twice(descend):
    """Steps twice as far as it is told to."""
    return lambda loss, w, batches, rate: descend(loss, w, batches, 2 * rate)


def ascending(descend):
    """Every update makes the loss larger, and a small rate the least so."""
    return lambda loss, w, batches, rate: descend(loss, w, batches, -rate)


PLANTED = [
    (
        {
            "descend": twice,
            "edge": lambda edge: lambda x: edge(x) * (1 + 1e-12 * abs(x).max()),
        },
        ["Below 2", "The first", "Inputs half"],
    ),
    (
        {"descend": ascending},
        ["Fresh seeds learn more at the suggested rate than at a tenth", "With more"],
    ),
    (
        {"descend": lambda _: lambda loss, w, batches, rate: (w, rate * jnp.ones(9))},
        ["Fresh seeds learn more at the suggested rate than at ten"],
    ),
]
