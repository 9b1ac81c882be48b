"""Slides of digits.py: calibration of ensembles of one or more networks."""

import numpy as np

from dlworkshop.learn.metrics import calibration_error, reliability
from dlworkshop.report.marks import BAD, COLOURS
from dlworkshop.workshop.lesson import Exercise, Figure

BINS = 15  # as in the section on calibration


def ensembles(label, logits):
    """Confidence and correctness of ensembles of 1, 2, ..., P networks, [P, P, N] each.

    For each size there are P ensembles, of networks that follow each other in a circle,
    so that every network counts equally and no single one decides what one achieves.

    Args:
        label: [N], classes.
        logits: [P, N, K], of each network.
    """
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    total, sure, right = 0, [], []
    for each in range(len(logits)):
        total = total + np.roll(powers / powers.sum(-1, keepdims=True), -each, axis=0)
        sure.append(total.max(-1) / (each + 1))
        right.append(total.argmax(-1) == label)
    return np.array(sure), np.array(right)


def calibration(label, logits):
    """Classes [N] of the test split, and the logits of each network [P, N, K]."""
    sure, right = ensembles(label, logits)  # [P, P, N] by size
    sizes = np.arange(1, len(logits) + 1)
    error = [
        np.mean([100 * calibration_error(*one, BINS) for one in zip(*of, strict=True)])
        for of in zip(sure, right, strict=True)
    ]

    def frame(panels):
        panels[0].plot([0, 100], [0, 100], "--", color=BAD)
        panels[0].set(xlabel="confidence (%)", ylabel="accuracy (%)", title="each bin")
        panels[1].plot(sizes, error, color="black", linewidth=1)
        panels[1].set(xlabel="networks in the ensemble", ylim=(0, 1.1 * max(error)))
        panels[1].xaxis.get_major_locator().set_params(integer=True)
        panels[1].set_title("calibration error (%)")

    def draw(panels, i):
        rows = reliability(sure[i].ravel(), right[i].ravel(), BINS)
        share, confidence, accuracy = rows[rows[:, 0] > 0].T
        area = 20 + 600 * share / share.sum()
        place = 100 * confidence, 100 * accuracy
        panels[0].scatter(*place, s=area, color=COLOURS[0], alpha=0.6)
        panels[0].plot(*place, color=COLOURS[0])
        look = {"color": COLOURS[1], "markersize": 12, "clip_on": False}
        panels[1].plot(sizes[i], error[i], "o", **look)

    return Figure(
        "ensembles",
        draw,
        f"{right[0].mean():.1%} of test digits are right with one network, "
        f"{right[-1].mean():.1%} with {len(logits)} together",
        "An ensemble averages the probabilities of its networks. Each size is a mean "
        f"over {len(logits)} ensembles in which all networks count equally: for one "
        f"network, the mean of all. Left: test digits in {BINS} bins of confidence; "
        "the area of a dot shows their number, and on the dashed line accuracy equals "
        "confidence. Right: the mean distance from it.",
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
