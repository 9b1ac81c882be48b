"""How each claim of the lesson is made false."""

import jax

FAST = {"seeds": 8, "widths": (4, 128)}


def slightly_off(by_hand):
    return lambda *args: tuple((1 + 1e-9) * dw for dw in by_hand(*args))


def dear(operations):
    """What jax.grad returns wraps the function that it was given."""
    return lambda f, *args: (
        operations(f, *args) * (9 if hasattr(f, "__wrapped__") else 1)
    )


def half_hidden(loss):
    """Moves with the weights by a little that autodiff does not see."""
    return lambda w, x, y: loss(w, x, y) + 1e-6 * jax.lax.stop_gradient(w[0]).sum()


PLANTED = [
    (
        {
            "by_chain_rule": slightly_off,
            "by_matrices": slightly_off,
            "operations": dear,
            "seconds": lambda _: lambda f, *args: 1.0,
        },
        [
            "The chain rule",
            "The matrix products",
            "A gradient costs",
            "Back-propagation takes",
        ],
    ),
    (
        {"loss": half_hidden, "sigma": lambda _: lambda z: z},
        ["Central differences", "A factor left out"],
    ),
]
