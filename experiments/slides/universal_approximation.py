"""Slides of universal_approximation.py: stairs, fits, and errors by width."""

from dlworkshop.report.lesson_figures import curves, fits
from dlworkshop.report.marks import BAND
from dlworkshop.workshop.lesson import Exercise, Figure


def proof(x, curve, stairs, steepest):
    """width -> a staircase [T] along a curve [T] with slopes up to `steepest`."""
    shown = (16, 64)

    def draw(panels):
        drawn = {f"{width} units": stairs[width] for width in shown}
        fits(panels, x, curve, drawn, ylim=(-2, 2))
        for axes, width in zip(panels, shown, strict=True):
            half = steepest / width / 2
            axes.fill_between(x, curve - half, curve + half, alpha=0.15)

    return Figure(
        "proof",
        draw,
        "The proof by hand: each unit is a step, and more units make lower steps",
        "Dashed: the curve. Shaded: half a step, 2 pi / N, above and below it.",
        panels=len(shown),
    )


def wider(widths, x, truth, learnt, error):
    """Curves [F, T], what was learnt [W, F, P, T], and curve -> errors [P, W]."""

    def draw(panels, i):
        for f, (name, off) in enumerate(error.items()):
            title = f"{name}: off by {off.mean(0)[i]:.2g}"
            drawn = {title: learnt[i][f]}
            fits(panels[f : f + 1], x, truth[f], drawn, ylim=(-1.7, 1.7))

    off = error["wave"].mean(0)
    return Figure(
        "wider",
        draw,
        f"On the wave, {widths[0]} units are off by {off[0]:.2g}, {widths[-1]} units "
        f"by {off[-1]:.2g}",
        f"Dashed: the curve to learn. {BAND}",
        panels=len(error),
        frames=[str(width) for width in widths],
        control="hidden units",
    )


def errors(widths, error, by_hand):
    """curve -> errors [P, W], and the errors of staircases along the wave [W]."""
    wave, jump = (error[name].mean(0)[[0, -1]] for name in ("wave", "jump"))

    def draw(axes):
        values = error | {"wave, by hand": by_hand}
        labels = {"xlabel": "hidden units", "ylabel": "largest error on [0, 1]"}
        curves(axes, widths, values, xscale="log", yscale="log", **labels)

    return Figure(
        "errors",
        draw,
        f"From {widths[0]} to {widths[-1]} units, the error goes from {wave[0]:.2g} to "
        f"{wave[1]:.2g} on the wave, from {jump[0]:.2g} to {jump[1]:.2g} at the jump",
        "The theorem says that such weights exist, like those by hand; it does not say "
        f"that Adam finds them. {BAND}",
    )


def exercises():
    """Two conditions of the theorem: the activation, and the closed interval."""
    return [
        Exercise(
            "Let `sigma` return `z**2`. What do 512 units then learn?",
            "A parabola: a sum of squares of straight lines contains no third power. "
            "With any polynomial, more width does not help; other activations will do, "
            "under mild conditions (Leshno et al. 1993).",
        ),
        Exercise(
            "Let `POINTS` be `np.linspace(-1, 2, 1001)`: the networks still learn on "
            "[0, 1]. Do more units help?",
            "No: on the wave, 2 units are off by 1.67 and 512 by 1.74, and all claims "
            "but that on the tent fail. The theorem is about a closed interval. "
            "Outside it each sigmoid levels off, while the wave goes on.",
        ),
    ]
