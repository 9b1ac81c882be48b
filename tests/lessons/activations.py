"""How each claim of the lesson is made false."""

import jax
import jax.numpy as jnp

FAST = {"seeds": 8, "num_steps": 150, "depth": 5}


def slightly_off(activations):
    """Values that move without their gradient, and derivatives that are too large."""

    def wrong(f, derivative):
        return (
            lambda z: f(z) + 1e-6 * jnp.sin(jax.lax.stop_gradient(z)),
            lambda z: derivative(z) * (1 + 1e-9),
        )

    return {name: wrong(*pair) for name, pair in activations.items()}


def curved(network):
    """A network that is given the product of its inputs needs no bend."""
    return lambda kind, params, x: network(kind, params, x) - 99 * x[0] * x[1]


PLANTED = [
    (
        {
            "ACTIVATIONS": slightly_off,
            "FORMULAS": lambda f: (*f[:-1], lambda z: z + 1e-9 * z**2),
            "network": curved,
        },
        [
            "Each formula",
            "Each derivative",
            "Each activation",
            "Three layers",
            "Without a bend",
        ],
    ),
    (
        {"FORMULAS": lambda f: [lambda z: z] * len(f)},
        ["With ", "Sigmoids shrink", "Through all layers"],
    ),
]
