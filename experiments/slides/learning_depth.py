"""Slides of learning_depth.py: learnt curves, their errors, and their pieces."""

import numpy as np

from dlworkshop.report.lesson_figures import curves, fits
from dlworkshop.report.marks import BAND
from dlworkshop.workshop.lesson import Exercise, Figure


def fitted(x, truth, answers, error, folds):
    """depth -> outputs of networks, [P, T], and their errors, [P]."""
    titles = [f"depth {d}: error {e.mean():.2f}" for d, e in error.items()]
    learnt = dict(zip(titles, answers.values(), strict=True))
    least = min(e.mean() for e in error.values())

    def draw(panels):
        fits(panels, x, truth, learnt, ylim=(-0.3, 1.3))

    return Figure(
        "learnt_fits",
        draw,
        f"The mean error is {least:.2f} at the best depth; by hand it is 0",
        f"Dashed: the curve to learn, {folds} folds. The networks have about 300 "
        f"parameters. {BAND}",
        panels=len(answers),
    )


def tuning(rates, tried, chosen):
    """depth -> training errors [rates, P], and the number of the chosen rate."""
    best = [f"{rates[i]:g}" for i in chosen.values()]

    def draw(axes):
        labels = {"xlabel": "learning rate", "ylabel": "training error (RMS)"}
        values = {f"depth {depth}": each.T for depth, each in tried.items()}
        curves(axes, rates, values, xscale="log", **labels)

    return Figure(
        "tuning",
        draw,
        f"The best rates for depths {', '.join(map(str, tried))} are {', '.join(best)}",
        f"The rate with the lowest mean training error is used. {BAND}",
    )


def errors(error, limit):
    """depth -> errors of networks, [P]; below the limit they have found the curve."""
    off = np.stack(list(error.values()), 1)  # [P, depths]
    low, high = off.mean(0).min(), off.mean(0).max()

    def draw(axes):
        axes.axhline(12**-0.5, color="black", linestyle=":", label="always 1/2")
        rows = {"learnt": off, "by hand": np.zeros(len(error))}
        labels = {"xlabel": "hidden layers", "ylabel": "root mean square error"}
        curves(axes, list(error), rows, ylim=(-0.02, 0.4), **labels)

    return Figure(
        "errors",
        draw,
        f"Over the depths, the mean error is between {low:.2f} and {high:.2f}",
        "All depths have about 300 parameters, and each has its own rate. Dotted: the "
        f"error of always answering 1/2. Networks with an error below {limit:g}: "
        f"{(off < limit).sum()} of {off.size}. {BAND}",
    )


def counts(pieces, folds):
    """depth -> straight pieces of networks, [P]."""
    found = np.stack(list(pieces.values()), 1)  # [P, depths]

    def draw(axes):
        axes.axhline(2**folds, color="black", linestyle=":", label="of the curve")
        labels = {"xlabel": "hidden layers", "ylabel": "straight pieces"}
        top = 1.1 * max(found.max(), 2**folds)
        curves(axes, list(pieces), {"learnt": found}, ylim=(0, top), **labels)

    return Figure(
        "pieces",
        draw,
        f"Learnt networks have {found.mean():.0f} pieces on average, the curve has "
        f"{2**folds}",
        "A new piece is counted where the slope changes by more than 1 in 10,000. "
        f"{BAND}",
    )


def exercises():
    """One question, about an easier curve."""
    return [
        Exercise(
            "Set `--folds 3`. Does depth help now?",
            "All depths come close, with mean errors of 0.01 to 0.07, so the last "
            "claim fails. One layer comes closest: 100 units have enough bends for 8 "
            "pieces. That a deep network needs fewer units says nothing about how "
            "easily training finds their weights.",
        )
    ]
