"""Calibration of the members, and the gain of their ensemble."""

import numpy as np

from dlworkshop.learn.metrics import calibration_error, mean_and_error, reliability
from dlworkshop.report.elements import Html, against_ensemble, chart, join, tag
from dlworkshop.report.marks import BAD, COLOURS
from dlworkshop.report.predictions import Predictions
from dlworkshop.report.svg import drawing
from dlworkshop.report.words import count, quantity, with_error

BINS = 15  # as in Guo et al. (2017)


def calibration(found: Predictions) -> Html | None:
    """The reliability diagram and its error; None if probabilities are unknown."""
    sure = found.probabilities
    if sure is None:
        return None
    right = found.prediction == found.label  # [P, N]
    errors = mean_and_error(
        [
            calibration_error(*pair, BINS)
            for pair in zip(sure.confidence, right, strict=True)
        ]
    )
    title = (
        f"{compared(float(sure.confidence.mean()), float(right.mean()))}; calibration "
        f"error {with_error(errors['mean'], errors['sem'], 'accuracy')}"
    )
    many = len(right) > 1
    every = reliability(sure.confidence.ravel(), right.ravel(), BINS)
    bins = {"members" if many else "model": every}
    if many:
        together = sure.ensemble_prediction == found.label  # [N]
        bins["ensemble"] = reliability(sure.ensemble_confidence, together, BINS)
    caption = (
        f"Test split, {BINS} bins of equal width in the largest probability; the area "
        "of a dot is its share of the examples. On the dashed line, 70 % of the "
        "predictions with 70 % confidence are correct. Calibration error: |accuracy - "
        "confidence| of a bin, mean over the examples (Guo et al. 2017)."
    )
    return chart(_diagram(title, bins), caption, "single")


def compared(confidence: float, accuracy: float) -> str:
    """A sentence that compares confidence and accuracy as they are printed.

    >>> compared(0.995, 0.992)
    'Confidence is 99.5 %, higher than the accuracy of 99.2 %'
    >>> compared(0.9916, 0.9924)
    'Confidence is 99.2 %, the same as the accuracy to one decimal'
    """
    sure, right = quantity(confidence, "accuracy"), quantity(accuracy, "accuracy")
    if sure == right:
        return f"Confidence is {sure}, the same as the accuracy to one decimal"
    side = "higher" if confidence > accuracy else "lower"
    return f"Confidence is {sure}, {side} than the accuracy of {right}"


def _diagram(title: str, bins: dict[str, np.ndarray]) -> str:
    with drawing("reliability", title, (7.4, 6.2)) as (_, axes, out):
        axes.plot([0, 100], [0, 100], "--", color=BAD, label="perfect calibration")
        for colour, (name, rows) in zip(COLOURS, bins.items(), strict=False):
            size, sure, right = rows[rows[:, 0] > 0].T
            axes.plot(100 * sure, 100 * right, color=colour, linewidth=2, label=name)
            area = 20 + 400 * size / size.sum()
            axes.scatter(100 * sure, 100 * right, s=area, color=colour, alpha=0.6)
        axes.set_xlim(0, 103)
        axes.set_ylim(0, 103)
        axes.set_xlabel("confidence (%)")
        axes.set_ylabel("accuracy (%)")
        axes.legend(loc="upper left", fontsize=13)
    return out[0]


def ensemble(found: Predictions) -> Html | None:
    """The ensemble (mean of probabilities) beside its members; None for one member."""
    sure, right = found.probabilities, found.prediction == found.label  # [P, N]
    if sure is None or len(right) < 2:
        return None
    each = zip(right, sure.confidence, sure.likelihood, strict=True)
    members = [_scores(*one) for one in each]
    together = _scores(
        sure.ensemble_prediction == found.label,
        sure.ensemble_confidence,
        sure.ensemble_likelihood,
    )
    change = 100 * (together["accuracy"] - float(right.mean()))
    text = "as accurate as one member"
    if abs(change) >= 0.005:
        than = "more" if change > 0 else "less"
        text = f"{abs(change):.2f} points {than} accurate than one member"
    who = count(len(members), "member")
    finding = f"The mean of the probabilities of {who} is {text}."
    text = "Test split; ± one standard error of the mean over the members."
    return join([tag("p", finding), against_ensemble(members, together, text)])


def _scores(
    right: np.ndarray, sure: np.ndarray, likelihood: np.ndarray
) -> dict[str, float]:
    """The scores of one predictor: right or not, confidence and likelihood [N]."""
    least = np.finfo(np.float32).tiny  # avoids an infinite loss after rounding
    return {
        "accuracy": float(right.mean()),
        "loss": float(-np.log(np.maximum(likelihood.astype(float), least)).mean()),
        "calibration error": calibration_error(sure, right, BINS),
    }
