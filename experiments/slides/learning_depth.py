"""Slides of learning_depth.py: what was learnt, its errors, and its pieces."""

import numpy as np

from dlworkshop.report.figures import BAND
from dlworkshop.report.lesson_figures import curves, fits
from dlworkshop.workshop.lesson import Exercise, Figure


def fitted(x, truth, answers, error, folds):
    """depth -> what networks answer, [P, T], and how far off they are, [P]."""
    titles = [f"depth {d}: off by {e.mean():.2f}" for d, e in error.items()]
    learnt = dict(zip(titles, answers.values(), strict=True))

    def draw(panels):
        fits(panels, x, truth, learnt, ylim=(-0.3, 1.3))

    return Figure(
        "learnt_fits",
        draw,
        "What depth can do, learning hardly finds: off by "
        f"{min(e.mean() for e in error.values()):.2f} at best, by hand 0",
        f"Dashed: {folds} folds, to be learnt with some 300 parameters. {BAND}",
        panels=len(answers),
    )


def errors(error):
    """depth -> how far off networks are, [P]."""
    off = np.stack(list(error.values()), 1)  # [P, depths]
    low, high = off.mean(0).min(), off.mean(0).max()

    def draw(axes):
        axes.axhline(12**-0.5, color="black", linestyle=":", label="always 1/2")
        rows = {"learnt": off, "by hand": np.zeros(len(error))}
        labels = {"xlabel": "hidden layers", "ylabel": "error (root of mean square)"}
        curves(axes, list(error), rows, ylim=(-0.02, 0.4), **labels)

    return Figure(
        "errors",
        draw,
        f"No depth helps much: the errors are {low:.2f} to {high:.2f}",
        f"All depths with some 300 parameters. {BAND}",
    )


def counts(pieces, folds):
    """depth -> straight pieces of networks, [P]."""
    found = np.stack(list(pieces.values()), 1)  # [P, depths]

    def draw(axes):
        axes.axhline(2**folds, color="black", linestyle=":", label="of the curve")
        labels = {"xlabel": "hidden layers", "ylabel": "straight pieces"}
        top = 1.1 * found.max()
        curves(axes, list(pieces), {"learnt": found}, ylim=(0, top), **labels)

    return Figure(
        "pieces",
        draw,
        f"It is not for want of pieces: learning makes {found.mean():.0f}, the curve "
        f"has {2**folds}",
        f"Counted where the slope changes by more than 1 in 10,000. {BAND}",
    )


def exercises():
    """One question, of an easier curve."""
    return [
        Exercise(
            "Take `--folds 3`. Does depth help now?",
            "All depths come close, so that the last claim fails, and one layer closer "
            "than four: 100 units have bends enough for 8 pieces. That depth needs "
            "fewer units says nothing about how easily they are found.",
        )
    ]
