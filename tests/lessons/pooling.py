"""How each claim of the lesson is made false."""

import jax.numpy as jnp

FAST = {"seeds": 6, "learning_rates": (0.03,), "num_epochs": 2}
COMPUTING = SLOW = True


def one_pixel_late(pool):
    return lambda x: pool(jnp.pad(x, [(1, 0), (0, 0), (0, 0)]))


def swapped(pools):
    """What is called max pooling leaves pixels out, and the others pool."""
    return (
        pools
        | {"max": pools["every second"]}
        | dict.fromkeys(["every second", "none"], pools["max"])
    )


PLANTED = [
    (
        {
            "max_pool": one_pixel_late,
            "mean_pool": lambda pool: lambda x: pool(x) + 1e-3,
            "POOLS": swapped,
        },
        [
            "The largest of each window",
            "H x W numbers",
            "What moves within",
            "With max pooling",
            "It also moves",
            "The means of",
        ],
    ),
]
