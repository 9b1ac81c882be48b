"""How each claim of the lesson is made false."""

import jax

FAST = {"seeds": 8}
SLOW = True


def slightly_off(by_hand):
    return lambda *args: tuple((1 + 1e-9) * dw for dw in by_hand(*args))


def half_hidden(loss):
    """Moves with the weights by a little that autodiff does not see."""
    return lambda w, x, y: loss(w, x, y) + 1e-6 * jax.lax.stop_gradient(w[0]).sum()


def careful(careless):
    return lambda s: 1 / (1 + jax.numpy.exp(-s))


PLANTED = [
    ({"careless": careful}, ["The check of a wrong gradient"]),
    (
        {"by_chain_rule": slightly_off, "by_matrices": slightly_off},
        ["The chain rule", "The matrix products"],
    ),
    ({"loss": half_hidden}, ["Central differences", "With a tenth"]),
]
