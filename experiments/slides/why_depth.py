"""Slides of why_depth.py: folded tents, and the units they cost."""

from dlworkshop.report.lesson_figures import curves
from dlworkshop.report.marks import COLOURS
from dlworkshop.workshop.lesson import Exercise, Figure


def tents(x, heights, pieces):
    """Heights of the tent folded 1, 2, ... times, at x [T], and numbers of pieces."""
    most = min(len(heights), 6)  # more pieces than that cannot be told apart

    def once(axes):
        axes.plot(x, heights[0], "k--", linewidth=1, label="1 fold")

    def draw(axes, i):
        axes.plot(x, heights[i], color=COLOURS[0], linewidth=1.4)
        axes.set_title(f"{2 * (i + 1)} units in {i + 1} layers: {pieces[i]} pieces")
        axes.set(xlabel="x", ylabel="f(x)")

    return Figure(
        "tents",
        draw,
        "Each fold doubles the pieces and costs a layer of 2 units",
        "The tent map applied again and again by a network made by hand. Dashed: the "
        "tent, which has one fold.",
        frames=[str(i + 1) for i in range(most)],
        control="folds",
        shared=once,
    )


def units(folds, in_depth, in_width):
    """Units [k] of the deep networks, and the fewest that one layer needs."""

    def draw(axes):
        numbers = {"deep network": in_depth, "one layer, at least": in_width}
        labels = {"xlabel": "folds", "ylabel": "hidden units"}
        curves(axes, folds, numbers, yscale="log", **labels)

    return Figure(
        "units",
        draw,
        f"{folds[-1]} folds take {in_depth[-1]} units in a deep network, "
        f"{in_width[-1]} in one layer",
        "One layer: the number of pieces, which were counted, minus 1.",
    )


def exercises():
    """A question about tents that do not reach the top."""
    return [
        Exercise(
            "In `deep`, let `weigh` be 1.6 and -3.2, so that the tent reaches 0.8. "
            "Are there still 2^k pieces?",
            "Only up to 3 folds. Then some pieces end below 1/2, where the next fold "
            "does not bend them: 14 pieces instead of 16, and 108 instead of 256 after "
            "8 folds.",
        )
    ]
