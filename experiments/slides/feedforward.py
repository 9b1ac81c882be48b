"""Slides of feedforward.py: connections, and the influence of an input."""

import numpy as np

from dlworkshop.report.marks import BAND, band, network
from dlworkshop.workshop.lesson import Exercise, Figure


def connections(x, weights, a, output):
    """A network of one hidden layer: x [6], W1 [6, 4] and W2 [4, 1], a [4], []."""
    inputs, hidden = weights[0].shape

    def draw(axes):
        names = ["x", "a = sigma(x W1)", "output = a W2"]
        network(axes, [x, a, [output]], weights, names)

    return Figure(
        "network_figure",
        draw,
        f"{inputs} x {hidden} + {hidden} x 1 = {inputs * hidden + hidden} connections "
        f"turn {inputs} numbers into one",
        "A network with random weights. Lines: weights; thick lines are large, blue "
        "ones positive, orange ones negative. Circles: values.",
    )


def depths(along, sweeps, reach):
    """Outputs [depth, P, T] along x_1, and how far they move [P, depth]."""
    deepest, num_members, _ = np.shape(sweeps)
    first, last = reach.mean(0)[[0, -1]]

    def draw(panels):
        for axes, depth in zip(panels, (1, deepest), strict=True):
            band(axes, along, sweeps[depth - 1], f"mean of {num_members}")
            axes.set(title=f"hidden layers: {depth}", xlabel="input x_1", ylim=(-2, 2))
        panels[0].set_ylabel("output minus its mean")

    return Figure(
        "depth_figure",
        draw,
        f"x_1 changes the output by {first:.2f} through one hidden layer, by "
        f"{last:.4f} through {deepest}",
        f"{BAND} Each member is a network with random weights.",
        panels=2,
    )


def exercises():
    """Swapped indices, and a network without an activation."""
    return [
        Exercise(
            "Swap `i` and `j` in `w[i, j]`, in the loops. What happens?",
            "W1 is 6x4, so the loops soon ask for column 4 of 4 columns (0 to 3), an "
            "IndexError. With a square W1 there would be no error, and the numbers "
            "would be wrong.",
        ),
        Exercise(
            "Let `sigma` return z. Which claims fail, and what does the second figure "
            "show?",
            "The first fails, because the loops have a sigma of their own, and the "
            "last: without a bend nothing flattens, and every line is straight, "
            "however many layers there are. `xor.py` shows what such a network cannot "
            "learn.",
        ),
    ]
