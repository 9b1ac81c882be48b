"""Slides of seeds.py: pairs of networks, and the effect of looking too often."""

import numpy as np

from dlworkshop.report.lesson_figures import curves
from dlworkshop.report.marks import COLOURS
from dlworkshop.workshop.lesson import Exercise, Figure


def pairs(a, b, found):
    """Accuracies [n] of A and of B, and the result of the test."""
    n, low, high = len(a), 100 * found.low, 100 * found.high
    left_over = (a - b).var() / (a.var() + b.var())

    def draw(panels):
        left, right = panels
        for one, other in zip(a, b, strict=True):
            colour = COLOURS[int(one <= other)]
            left.plot([0, 1], [100 * one, 100 * other], "o-", color=colour, alpha=0.6)
        left.set_xticks([0, 1], ["A", "B"])
        left.set(ylabel="test accuracy (%)", xlim=(-0.3, 1.3), title="the same seed")
        right.axvspan(low, high, color=COLOURS[2], alpha=0.25)
        right.axvline(100 * found.mean, color=COLOURS[2], linewidth=2)
        right.axvline(0, color="black", linestyle=":")
        right.plot(100 * np.sort(a - b), np.arange(n), "o", color=COLOURS[0])
        right.set(xlabel="A - B (points)", yticks=[], title="differences, sorted")

    return Figure(
        "pairs",
        draw,
        f"A - B is {100 * found.mean:.2f} points, with a 95 % interval from {low:.2f} "
        f"to {high:.2f}",
        f"{n} seeds, orange where A is not better. Green: the mean difference and its "
        f"interval. The correlation within pairs is {np.corrcoef(a, b)[0, 1]:.2f}: the "
        f"variance of a difference is {left_over:.2f} of what it would be with "
        "unrelated seeds.",
        panels=2,
    )


def looking(looks, alarms, honest):
    """Rates [looks] of false alarms up to each look, and at that look alone."""

    def draw(axes):
        axes.axhline(5, color="black", linestyle=":", label="level, 5 %")
        rates = {
            "test after every seed": 100 * alarms.mean(0),
            "test once": 100 * honest.mean(0),
        }
        labels = {"xlabel": "seeds so far", "ylabel": "false alarms (%)"}
        curves(axes, looks, rates, ylim=(0, None), **labels)

    return Figure(
        "looking",
        draw,
        f"Testing after every seed gives a false alarm in {alarms[:, -1].mean():.0%} "
        "of cases",
        f"{len(alarms):,} comparisons in which a coin for each seed decides who is A, "
        "so that every difference found is a false alarm.",
    )


def exercises(alarms_double):
    """Two questions; the claim checks the first."""
    return [
        Exercise(
            "Test after every seed from the fifth on, and stop as soon as p < 0.05. "
            "How often do you find a difference that is not there?",
            "Not in 5 % of cases, but in two to four times as many: each look is "
            "another chance. Fix the number of seeds before you begin.",
            alarms_double,
        ),
        Exercise(
            "Set `--learning-rate 0.0035 0.003`. What does the interval show now, and "
            "how many seeds would decide it?",
            "It contains 0: 20 seeds cannot tell, and the claims that A is better "
            "fail. The width of an interval is proportional to 1 / sqrt(n), so an "
            "effect a third as large takes about nine times as many seeds. The claim "
            "about false alarms may fail too: so close together, many pairs are equal, "
            "and their differences are far from normal.",
        ),
    ]
