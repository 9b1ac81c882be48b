"""Slides of pooling.py: an example by hand, and what a shift does to the logits."""

import numpy as np

from dlworkshop.report.lesson_figures import curves, table
from dlworkshop.report.marks import BAND
from dlworkshop.workshop.lesson import Exercise, Figure


def worked_example(numbers, largest):
    """Numbers [4, 4], and the largest [2, 2] of their windows."""

    def draw(panels):
        windows = np.arange(4).reshape(2, 2)
        table(panels[0], np.kron(windows, np.ones((2, 2))), numbers, "Pastel2")
        table(panels[1], windows, largest, "Pastel2")
        for axes in panels:
            axes.set_axis_off()

    return Figure(
        "worked_example",
        draw,
        "Max over 2x2: 16 numbers become 4, the largest of each window",
        "Left: the numbers, with a colour for each window. Right: the maxima.",
        panels=2,
    )


def by_shift(distances, found):
    """For each pooling: change of the logits, accuracy (%) [P, distances], rate."""

    def draw(panels):
        labels = "change of logits / spread", "test accuracy (%)"
        for part, (axes, label) in enumerate(zip(panels, labels, strict=True)):
            values = {f"{name}, rate {f[2]:g}": f[part] for name, f in found.items()}
            curves(axes, distances, values, xlabel="shift (pixels)", ylabel=label)

    right = {name: values[:, 1].mean() for name, (_, values, _) in found.items()}
    return Figure(
        "by_shift",
        draw,
        f"After a shift by a pixel, {right['max']:.0f} % of digits are recognised with "
        f"max pooling, {right['mean']:.0f} % with the mean, {right['none']:.0f} % "
        "without",
        "Change: root mean square over test digits, classes and 4 directions. Spread: "
        f"standard deviation between digits. {BAND}",
        panels=2,
    )


def exercises(means):
    """A question, and the claim that checks its answer."""
    return [
        Exercise(
            "What does mean pooling give for EXAMPLE, the 4x4 numbers of the figure?",
            "3.25 and 5.25 in the first row, 2 and 2 in the second.",
            means,
        ),
    ]
