"""Slides of softmax.py: class borders, and where a literal e^z overflows."""

import jax
import numpy as np

from dlworkshop.report.lesson_figures import borders, curves, points_of
from dlworkshop.report.marks import COLOURS
from dlworkshop.workshop.lesson import Exercise, Figure


def regions(points, runs, softmax):
    """Training points, and for each number of epochs the run of that length."""
    side = np.linspace(-1.3, 1.3, 90)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2).astype(np.float32)

    def draw(panels):
        for axes, (epochs, run) in zip(panels, runs.items(), strict=True):
            p = np.asarray(jax.vmap(jax.vmap(softmax))(run.predict(grid)))  # [P, G, K]
            each = dict(zip(COLOURS, np.moveaxis(p, -1, 0), strict=False))
            points_of(axes, points)
            borders(axes, side, each, level=0.5)
            axes.set_title(f"epochs: {epochs}")

    return Figure(
        "regions",
        draw,
        "Networks with different seeds come to agree on the class borders",
        "Dots: training points. Lines: where a network gives a class the probability "
        "1/2, one line for each network and class.",
        panels=len(runs),
    )


def overflow(softmax, literal_softmax):
    """Both functions on logits to which a number was added."""
    added = np.linspace(0, 120, 241, dtype=np.float32)
    z = np.array([1, 0, -1], np.float32) + added[:, None]  # [241, 3]
    p, literal = (np.asarray(jax.vmap(f)(z)) for f in (softmax, literal_softmax))

    def draw(axes):
        lines = {f"shifted, p_{k + 1}": line for k, line in enumerate(p.T)}
        axes.plot(added, literal, "k:", linewidth=3, zorder=3)
        labels = {"xlabel": "number added to all logits", "ylabel": "probability"}
        curves(axes, added, lines, **labels)

    return Figure(
        "overflow",
        draw,
        "A literal e^z overflows at z = 88.7 in float32",
        "Coloured: softmax with the largest logit subtracted. Dotted: the formula as "
        "it is written. On a CPU it drops to 0 where 1 / sum of the powers is smaller "
        "than 1.2e-38, since XLA sets such subnormal numbers to 0. Where a line ends, "
        "its values are NaN.",
    )


def exercises(overflows):
    """What the shift is for, with the claim that counts the cases."""
    return [
        Exercise(
            "Drop `- z.max()` in `softmax`. Which claim fails?",
            "The one about logits of 10,000: inf / inf is NaN, and so is 0 / 0, where "
            "all logits are -10,000. For ordinary logits nothing changes.",
            overflows,
        )
    ]
