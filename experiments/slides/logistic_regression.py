"""Slides of logistic_regression.py: the descents, and the probabilities sigma(z)."""

import numpy as np

from dlworkshop.report.marks import BAND, COLOURS, band
from dlworkshop.workshop.lesson import Exercise, Figure


def descents(above):
    """How far the loss is above its minimum [P, T], from every start, at every step."""
    num_starts, num_steps = above.shape

    def draw(axes):
        band(axes, np.arange(num_steps), above + 1e-13, "mean")  # a log has no 0
        axes.set(xlabel="step", ylabel="loss above the minimum (nats)", yscale="log")

    return Figure(
        "starts_figure",
        draw,
        f"{num_starts} random starts descend to one minimum",
        BAND,
    )


def squashed(sigma, z, y):
    """The tumours on the curve of `sigma`: z [N] at the minimum, and labels y [N]."""

    def draw(axes):
        line = np.linspace(-30, 20, 300)
        axes.plot(line, sigma(line), color="black", label="sigma(z)")
        for k, name in enumerate(("malignant", "benign")):
            jitter = np.random.default_rng(k).uniform(-0.04, 0.04, (y == k).sum())
            look = {"color": COLOURS[k], "alpha": 0.5, "label": name}
            axes.plot(z[y == k], k + jitter, ".", **look)
        axes.set(xlabel="z = x^T w", ylabel="probability of benign", xlim=(-30, 20))
        axes.legend(loc="center left")

    return Figure(
        "sigma_figure",
        draw,
        f"sigma turns z into a probability: {((z > 0) == y).mean():.1%} of the tumours "
        "are on the right side of 1/2",
        "Dots: the tumours, shifted a little up or down for visibility.",
    )


def exercises(bends_down):
    """A question, and the claim that checks its answer."""
    return [
        Exercise(
            "Let `error` be the square of sigma(z) - y. Is there still one minimum?",
            "That is no longer guaranteed: where the output is confident and wrong, "
            "the curve bends down, so the curvature is negative there.",
            bends_down,
        )
    ]
