"""How each claim of the lesson is made false."""

import jax

FAST = {"seeds": 6, "learning_rates": (0.01,), "num_epochs": 8}
COMPUTING = SLOW = True


def half_hidden(log_probability):
    """An answer of which a part has no gradient."""

    def wrong(params, x, label):
        moved = log_probability(params, x, label)
        return moved + 1e-5 * jax.lax.stop_gradient((x**2).sum())

    return wrong


PLANTED = [
    (
        {
            "convolve": lambda f: lambda *args, **more: f(*args, **more) * (1 + 1e-9),
            "log_probability": half_hidden,
            "SHOWN": lambda shown: shown[::-1],
            "saliency": lambda f: lambda *args: -abs(f(*args)) - 1e-9,
        },
        [
            "The stages written out",
            "The answer changes",
            "The later the stage",
            "Fewer images are read",
        ],
    ),
]
