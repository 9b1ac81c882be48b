"""Slides of universal_approximation.py: stairs, fits, and errors by width."""

from dlworkshop.report.figures import BAND
from dlworkshop.report.lesson_figures import curves, fits
from dlworkshop.workshop.lesson import Exercise, Figure


def proof(x, curve, stairs, steepest):
    """width -> a staircase [T] along a curve [T] that is nowhere steeper than that."""
    shown = (16, 64)

    def draw(panels):
        drawn = {f"{width} units": stairs[width] for width in shown}
        fits(panels, x, curve, drawn, ylim=(-2, 2))
        for axes, width in zip(panels, shown, strict=True):
            stair = steepest / width
            axes.fill_between(x, curve - stair, curve + stair, alpha=0.15)

    return Figure(
        "proof",
        draw,
        "The proof by hand: each unit is one stair, and more stairs are lower",
        "Shaded: one stair, 4 pi / N, to both sides of the curve, dashed.",
        panels=len(shown),
    )


def wider(widths, x, curve, learnt, error):
    """What networks made of a curve [T]: [W, P, T], and their errors [P, W]."""
    shown = sorted({0, len(widths) // 2, len(widths) - 1})
    off = error.mean(0)

    def draw(panels):
        drawn = {f"{widths[i]} units: off by {off[i]:.2g}": learnt[i] for i in shown}
        fits(panels, x, curve, drawn, ylim=(-1.7, 1.7))

    return Figure(
        "wider",
        draw,
        f"{widths[0]} units cannot bend often enough; {widths[-1]} follow the wave",
        f"Dashed: the curve to be learnt. {BAND}",
        panels=len(shown),
    )


def errors(widths, error, by_hand):
    """curve -> errors [P, W], and those of the wave's staircases [W]."""

    def draw(axes):
        values = error | {"wave, by hand": by_hand}
        labels = {"xlabel": "hidden units", "ylabel": "largest error on [0, 1]"}
        curves(axes, widths, values, xscale="log", yscale="log", **labels)

    return Figure(
        "errors",
        draw,
        "More units, smaller errors, but not at a jump, which is not promised",
        "The theorem says that weights exist, as those by hand do, not that Adam finds "
        f"them. {BAND}",
    )


def exercises():
    """A question of what is no activation."""
    return [
        Exercise(
            "Let `sigma` return `z**2`. What do 512 units then learn?",
            "A parabola: a sum of squares of straight lines has no third power. With "
            "any polynomial the width is wasted; any other activation will do (Leshno "
            "et al. 1993).",
        )
    ]
