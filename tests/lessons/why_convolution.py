"""How each claim of the lesson is made false."""

from dlworkshop import models

SLOW = True
FAST = {"seeds": 5, "sizes": (300, 600), "learning_rates": (0.02,), "num_steps": 250}
COMPUTING = True


PLANTED = [
    (
        {
            "num_weights": lambda f: lambda *args: 2 * f(*args),
            "NETWORKS": lambda n: {"CNN": models.mlp((33,)), "MLP": n["CNN"]},
        },
        [
            "A dense layer grows",
            "The networks that",
            "The CNN reads more shifted",
            "With half the examples",
            "The dense layers have",
        ],
    ),
]
