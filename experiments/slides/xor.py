"""Slides of xor.py: borders of networks, and how many units it takes."""

import numpy as np

from dlworkshop.report.lesson_figures import borders, table
from dlworkshop.workshop.lesson import Exercise, Figure


def border(points, side, heights, right):
    """name -> what networks answer on the grid of `side`, [P, G], and `units`' shares.

    The networks drawn are those with all of their hidden units.
    """

    def draw(panels):
        for axes, name in zip(panels, ("no activation", "tanh", "ReLU"), strict=True):
            borders(axes, points, side, {"black": heights[name]}, level=0)
            axes.set_title(f"{name}: {right[name][-1].mean():.0%} right")

    return Figure(
        "xor",
        draw,
        "Without a bend the border is a line, and XOR needs more than one",
        "Dots: points of the two classes. Lines: decision borders of networks "
        f"with 8 hidden units, {len(heights['ReLU'])} networks.",
        panels=3,
    )


def units(numbers, right):
    """name -> the share of points on their side, [U, P]."""
    all_right = np.array([(share == 1).mean(1) for share in right.values()])

    def draw(axes):
        texts = np.char.mod("%.0f %%", 100 * all_right)
        table(axes, all_right, texts, "Blues", vmin=0, vmax=2, aspect="auto")
        axes.set_yticks(range(len(right)), list(right))
        axes.set_xticks(range(len(numbers)), numbers)
        axes.set_xlabel("hidden units")

    return Figure(
        "units",
        draw,
        "Two units that rise can learn XOR; one that dips, GELU or SiLU, can alone",
        "Networks that get all of XOR right. With two units that rise all could, but "
        "many do not learn it.",
    )


def exercises(one_unit):
    """A question of another activation, with the claim that answers it."""
    return [
        Exercise(
            'Let "tanh" be `jnp.abs`. How many units does it take, and with which '
            "weights? Write them down before you look.",
            "One: 1 - |x_1 + x_2| folds the plane along a line through both clouds of "
            "class 1, and maps those of class 0 onto each other. All networks find it.",
            one_unit,
        )
    ]
