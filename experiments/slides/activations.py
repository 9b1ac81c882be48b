"""Slides of activations.py: the activations, and what they leave of a gradient."""

import numpy as np

from dlworkshop.report.figures import BAND
from dlworkshop.report.lesson_figures import curves
from dlworkshop.workshop.lesson import Exercise, Figure


def shapes(activations):
    """name -> its formula and its derivative."""

    def draw(panels):
        z = np.linspace(-4, 4, 400)
        for i, label in enumerate(("activation", "derivative")):
            lines = {name: pair[i](z) for name, pair in activations.items()}
            curves(panels[i], z, lines, xlabel="z", ylabel=label, ylim=(-1.1, 2))

    return Figure(
        "shapes",
        draw,
        "All bend; only ReLU and its kin keep a slope near 1 for large z",
        "Left: the activations. Right: their derivatives, by hand.",
        panels=2,
    )


def vanishing(relative):
    """name -> log10 of the gradients [P, depth], over that next to the loss."""
    depth = relative["sigmoid"].shape[1]
    lowest = relative["sigmoid"].min()
    lost = 10 ** -relative["sigmoid"][:, -1].mean()

    def draw(panels):
        axis = {"yscale": "log", "ylim": (10**lowest, 30)}
        for axes, title, names in (
            (panels[0], "of the course", ("sigmoid", "tanh", "ReLU")),
            (panels[1], "later", ("leaky ReLU", "GELU", "SiLU")),
        ):
            values = {name: 10 ** relative[name] for name in names}
            axes.set(xlabel="layers further away from the loss", title=title, **axis)
            curves(axes, np.arange(depth), values)
        panels[0].set_ylabel("gradient, relative")

    return Figure(
        "vanishing",
        draw,
        f"{depth} layers of sigmoids shrink a gradient {lost:,.0f}-fold",
        f"|dL/dW| of a layer, over that of the layer next to the loss. {BAND}",
        panels=2,
    )


def exercises():
    """One question, of the size of the weights."""
    return [
        Exercise(
            "Take `--gain 1.41`. Whose gradients does it leave as they were, and why?",
            "Those of ReLU and leaky ReLU: c times z gives c times as much, so that "
            "all layers get larger gradients alike. The others bend at a certain "
            "size: sigmoid's fall a tenth as far, GELU's and SiLU's even grow, to more "
            "than twice as much.",
        )
    ]
