"""How each claim of the lesson is made false."""

import jax.numpy as jnp

FAST = {"seeds": 10, "num_rates": 16, "num_steps": (20, 200)}
COMPUTING = SLOW = True


def ascending(minimize):
    """Every update makes the loss larger, and a small rate the least so."""

    def wrong(loss, *rest):
        return minimize(lambda *args: -loss(*args), *rest)

    return wrong


def largest(learn):
    """The larger the rate, the lower the validation loss that is told."""

    def wrong(num_steps, rate, *rest):
        looks, test, seen = learn(num_steps, rate, *rest)
        return jnp.ones_like(looks) / rate, test, seen

    return wrong


def stuck(feed):
    return jnp.ones(len(feed.targets))


HALF = "With fresh seeds, the suggested rate has at most half the loss of "
PLANTED = [
    ({"minimize": ascending}, [HALF + "a tenth", "With more"]),
    ({"learn": largest}, [HALF + "a tenth", "With fresh seeds, its loss"]),
    (
        {"minimize": lambda _: lambda loss, w, optimizer, feed: (w, stuck(feed))},
        [HALF + "ten times"],
    ),
]
