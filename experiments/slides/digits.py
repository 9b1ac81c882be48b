"""Slides of digits.py: calibration of ensembles of one or more networks."""

import numpy as np

from dlworkshop.learn.metrics import calibration_error, reliability
from dlworkshop.report.marks import BAD, COLOURS
from dlworkshop.workshop.lesson import Exercise, Figure

BINS = 10


def calibration(label, logits):
    """Classes [N] of the test split, and the logits of each network [P, N, K]."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    each = powers / powers.sum(-1, keepdims=True)
    sizes = np.arange(1, len(each) + 1)
    together = np.cumsum(each, 0) / sizes[:, None, None]  # of the first 1, 2, ...
    sure, right = together.max(-1), together.argmax(-1) == label  # [P, N]
    error = [
        100 * calibration_error(s, r, BINS) for s, r in zip(sure, right, strict=True)
    ]

    def frame(panels):
        panels[0].plot([0, 100], [0, 100], "--", color=BAD)
        panels[0].set(xlabel="confidence (%)", ylabel="accuracy (%)", title="each bin")
        panels[1].plot(sizes, error, color="black", linewidth=1)
        panels[1].set(xlabel="networks in the ensemble", ylim=(0, None))
        panels[1].set_title("calibration error (%)")

    def draw(panels, i):
        rows = reliability(sure[i], right[i], BINS)
        share, confidence, accuracy = rows[rows[:, 0] > 0].T
        area = 20 + 600 * share / share.sum()
        place = 100 * confidence, 100 * accuracy
        panels[0].scatter(*place, s=area, color=COLOURS[0], alpha=0.6)
        panels[0].plot(*place, color=COLOURS[0])
        panels[1].plot(sizes[i], error[i], "o", color=COLOURS[1], markersize=12)

    return Figure(
        "ensembles",
        draw,
        f"{right[0].mean():.1%} of test digits are right with one network, "
        f"{right[-1].mean():.1%} with {len(each)} together",
        "An ensemble averages the probabilities of its networks. Left: test digits in "
        f"{BINS} bins of confidence; the area of a dot shows their number, and on the "
        "dashed line accuracy equals confidence. Right: the mean distance from it.",
        panels=2,
        frames=[str(size) for size in sizes],
        control="networks in the ensemble",
        shared=frame,
    )


def exercises():
    """A question about learning rates, and about the split that may choose."""
    return [
        Exercise(
            "Set `--learning-rate 0.0005 0.005 0.05`. Which rate would you keep, "
            "and which split may decide?",
            "0.005: its validation accuracy is 98.5 % ± 0.2 %, against 95.5 % with a "
            "tenth of it. With ten times as much it is 98.1 % ± 0.3 %, a difference "
            "that eight seeds hardly show. The test split must not decide: a rate "
            "chosen there would owe some of its test accuracy to chance.",
        ),
    ]
