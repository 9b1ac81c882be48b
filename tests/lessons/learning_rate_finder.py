"""How each claim of the lesson is made false."""

import jax
import jax.numpy as jnp

FAST = {"seeds": 10, "num_rates": 11, "num_steps": (20, 60)}


def twice(descend):
    """Steps twice as far as it is told to."""
    return lambda loss, w, batches, rate: descend(loss, w, batches, 2 * rate)


def by_place(at_once):
    """Members hinder each other: each gets a little of its neighbour."""

    def wrong(*args):
        return jax.tree.map(lambda a: a + 1e-9 * jnp.roll(a, 1), at_once(*args))

    return wrong


def ascending(descend):
    """Every update makes the loss larger, and a small rate the least so."""
    return lambda loss, w, batches, rate: descend(loss, w, batches, -rate)


def upside_down(at_once):
    """Those that fly off are taken for those that learn."""

    def wrong(one, rates, keys, *shared):
        found = at_once(one, rates, keys, *shared)
        return jax.tree.map(lambda a: a[::-1], found) if shared else found

    return wrong


PLANTED = [
    ({"descend": twice, "at_once": by_place}, ["Members of", "Below 2", "The first"]),
    (
        {"descend": ascending},
        ["Fresh seeds learn more at the suggested rate than at a tenth", "With more"],
    ),
    (
        {"descend": lambda _: lambda loss, w, batches, rate: (w, 0 * rate + batches)},
        ["Fresh seeds learn more at the suggested rate than at ten"],
    ),
]
