"""How each claim of the lesson is made false."""

import jax
import jax.numpy as jnp

FAST = {"seeds": 8, "depth": 5}
SLOW = True


def slightly_off(activations):
    """Values that move without their gradient, and derivatives that are too large."""

    def wrong(f, derivative):
        return (
            lambda z: f(z) + 1e-6 * jnp.sin(jax.lax.stop_gradient(z)),
            lambda z: derivative(z) * (1 + 1e-9),
        )

    return {name: wrong(*pair) for name, pair in activations.items()}


PLANTED = [
    (
        {"ACTIVATIONS": slightly_off},
        ["Each formula", "Each derivative", "Each activation", "With ReLU"],
    ),
    (
        {
            "ACTIVATIONS": lambda all: {
                name: (lambda z: z, jnp.ones_like) for name in all
            }
        },
        [
            "Sigmoids shrink",
            "Through all layers ReLU keeps",
            "Through all layers ReLU passes",
        ],
    ),
]
