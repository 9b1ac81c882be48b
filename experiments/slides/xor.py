"""Slides of xor.py: borders of networks, and the number of units they need."""

import numpy as np

from dlworkshop.report.lesson_figures import borders, points_of, table
from dlworkshop.workshop.lesson import Exercise, Figure

SHOWN = "no activation", "tanh", "ReLU"
DRAWN = 12  # networks


def border(points, side, heights, learning, hundredths):
    """name -> what networks answer on the way at the grid of `side`, [P, looks, G].

    `learning` has their shares right, name -> [U, P, looks], and `hundredths` [looks]
    are hundredths of the updates done. The networks drawn have all of their units.
    """
    updates = [str(number // 100) for number in hundredths]

    def dots(panels):
        for axes in panels:
            points_of(axes, points)

    def draw(panels, i):
        for axes, name in zip(panels, SHOWN, strict=True):
            borders(axes, side, {"black": heights[name][:, i]}, level=0)
            axes.set_title(f"{name}: {learning[name][-1, :, i].mean():.0%} right")

    return Figure(
        "xor",
        draw,
        "Without a bend the border is a line, and XOR needs more than one",
        "Dots: points of the two classes. Lines: decision borders of "
        f"{len(heights['ReLU'])} networks with 8 hidden units. Percentages: means over "
        "all networks.",
        panels=3,
        frames=updates,
        control="updates",
        shared=dots,
    )


def members(points, side, heights):
    """name -> what networks answer on the way at the grid of `side`, [P, looks, G]."""
    size = len(side)
    place = [side[0], side[-1]] * 2
    most = {name: np.quantile(abs(heights[name][:, -1]), 0.8) for name in SHOWN}

    def dots(panels):
        for axes in panels:
            points_of(axes, points)

    def draw(panels, i):
        for axes, name in zip(panels, SHOWN, strict=True):
            z = heights[name][i, -1].reshape(size, size)
            look = {"cmap": "BrBG_r", "vmin": -most[name], "vmax": most[name]}
            look |= {"interpolation": "none", "alpha": 0.6, "zorder": 0}
            axes.imshow(z, origin="lower", extent=place, **look)
            borders(axes, side, {"black": heights[name][i : i + 1, -1]}, level=0)
            axes.set_title(name)

    return Figure(
        "members",
        draw,
        "Each network draws its own border through the empty space between the clouds",
        "One network with 8 hidden units after all updates. Line: its border. Colour: "
        "its output z, brown for class 0 and green for class 1.",
        panels=3,
        frames=[str(i) for i in range(len(heights["ReLU"]))],
        control="seed",
        shared=dots,
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
        "Two units that rise can learn XOR; a unit that dips, GELU or SiLU, can do it "
        "alone",
        "Share of networks that get all of XOR right. With two rising units all of "
        "them could, but many do not learn it.",
    )


def exercises(one_unit):
    """A question about another activation, with the claim that answers it."""
    return [
        Exercise(
            'Let "tanh" be `jnp.abs`. How many units does it take, and with which '
            "weights? Write them down before you look.",
            "One: 1 - |x_1 + x_2| folds the plane along a line through both clouds of "
            "class 1, and maps those of class 0 onto each other.",
            one_unit,
        )
    ]
