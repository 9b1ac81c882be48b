"""Slides of activations.py: the activations, and the gradients behind many layers."""

import numpy as np

from dlworkshop.report.lesson_figures import curves, dots
from dlworkshop.report.marks import BAND
from dlworkshop.workshop.lesson import Exercise, Figure


def shapes(activations):
    """name -> its formula and its derivative."""

    def draw(panels):
        z = np.linspace(-4, 4, 400)
        for i, label in enumerate(("activation", "derivative")):
            lines = {name: pair[i](z) for name, pair in activations.items()}
            curves(panels[i], z, lines, xlabel="z", ylabel=label, ylim=(-1.1, 2))
            leaky = list(lines).index("leaky ReLU")  # lies on ReLU for z > 0
            panels[i].lines[leaky].set_linestyle("--")
            panels[i].legend(fontsize=12)  # with the dashes

    return Figure(
        "shapes",
        draw,
        "All of them bend; ReLU and its variants keep a slope near 1 for large z",
        "Left: the activations. Right: their derivatives, by hand. ReLU and leaky ReLU "
        "(dashed) are the same for z > 0.",
        panels=2,
    )


def downwards(relative):
    """name -> log10 of |dL/dz|, |a|, |dL/dW| [3, P, depth], over those at the loss."""
    gradient = {name: 10 ** sizes[0] for name, sizes in relative.items()}  # [P, depth]
    depth = relative["ReLU"].shape[-1]
    lowest = min(each.min() for each in gradient.values())

    def draw(axes, i):
        rows = {name: each[:, i] for name, each in gradient.items()}
        dots(axes, rows, "|dL/dz| relative to the layer next to the loss")
        axes.set(xscale="log", xlim=(lowest / 3, 30))

    one, last = (gradient["sigmoid"][:, i].mean() for i in (1, -1))
    return Figure(
        "downwards",
        draw,
        f"One layer of sigmoids leaves about {one:.2g} of the gradient, {depth - 1} "
        f"layers {last:.1g}",
        f"Dots: {len(gradient['ReLU'])} networks in each row, and their arithmetic "
        "mean. The next figure has geometric means, which are lower.",
        frames=[str(i) for i in range(depth)],
        control="layers passed on the way down from the loss",
    )


def vanishing(relative):
    """name -> log10 of |dL/dz|, |a|, |dL/dW| [3, P, depth], over those at the loss."""
    shown = ("sigmoid", "tanh", "ReLU", "GELU")
    depth = relative["ReLU"].shape[-1]
    gradient, inputs, _ = 10 ** relative["ReLU"][..., -1].mean(1)

    def draw(panels):
        titles = ("gradient |dL/dz|", "activations |a|", "product |dL/dW|")
        for i, (axes, title) in enumerate(zip(panels, titles, strict=True)):
            axes.set(xlabel="layers further away from the loss", title=title)
            values = {name: 10 ** relative[name][i] for name in shown}
            curves(axes, np.arange(depth), values, yscale="log")
        panels[0].set_ylabel("relative to the layer at the loss")

    return Figure(
        "vanishing",
        draw,
        f"With ReLU, the lowest of {depth} layers has {gradient:.2g} times the "
        f"gradient and {inputs:.2g} times the activations of the highest",
        "Norms in each layer, divided by those in the layer next to the loss; the "
        "numbers in the title are geometric means, the lines arithmetic ones. a: the "
        "inputs of the layer. "
        f"{BAND}",
        panels=3,
    )


def exercises():
    """One question, about the size of the weights."""
    return [
        Exercise(
            "Set `--gain 1.41`. What changes for ReLU, and why does |dL/dW| not show "
            "it?",
            "The gradient and the activations now keep their size, within a factor of "
            "2: ReLU passes on half of the squared signal, and weights sqrt(2) times "
            "as large make up for it (He et al. 2015). |dL/dW| is their product: what "
            "one factor loses from layer to layer, the other gains, at every gain.",
        )
    ]
