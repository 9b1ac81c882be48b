"""How each claim of the lesson is made false."""

import jax

FAST = {"seeds": 8, "num_steps": 1000}
SLOW = True


def squared_and_half_hidden(_):
    def error(y, z):
        hidden = jax.lax.stop_gradient(z)  # moves the loss, not its gradient
        return (jax.nn.sigmoid(z) - y) ** 2 + 1e-6 * hidden

    return error


PLANTED = [
    (
        {"gradient": lambda gradient: lambda *args: gradient(*args) * (1 + 1e-9)},
        ["The gradient by hand"],
    ),
    ({"error": squared_and_half_hidden}, ["The loss changes", "The curvature"]),
    (
        {
            "descend": lambda descend: lambda w, *args: (w, descend(w, *args)[1]),
            "sigma": lambda _: lambda z: z,
        },
        ["Every start", "That minimum", "Its weights", "The squared error"],
    ),
]
