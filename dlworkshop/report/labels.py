"""Scores of each label on the test split, for multi-label classification."""

import numpy as np

from dlworkshop.learn import split_metrics
from dlworkshop.report.classes import mean_percent, scores
from dlworkshop.report.elements import Html, against_ensemble, folded, join, note
from dlworkshop.report.names import in_table
from dlworkshop.report.predictions import Numbers
from dlworkshop.report.words import count


def per_label(found: Numbers) -> Html:
    """A table with a row for each label, averaged over the members."""
    said, true = found.prediction > 0.5, found.target > 0.5  # [P, N, K], [N, K]
    rows, f1s = [], []
    for k in range(true.shape[1]):
        recall, precision, f1 = scores(said[..., k], true[:, k], True)
        area = _area(found.prediction[..., k], true[:, k])
        f1s.append(f1)
        rows.append(
            [
                in_table(found.names[k] or f"label {k}"),
                f"{int(true[:, k].sum()):,}",
                *map(mean_percent, (recall, precision, f1, area)),
            ]
        )
    if len(rows) > 1:
        total, average = f"{int(true.sum()):,}", mean_percent(np.concatenate(f1s))
        rows.append(["mean of labels", total, "", "", average, ""])
    head = ["Label", "Examples", "Recall", "Precision", "F1", "ROC AUC"]
    text = (
        f"Test split of {count(len(true), 'example')}, mean of "
        f"{count(len(said), 'member')}. A label is predicted if its "
        "probability is above 50 %. Recall: the share of the examples with a label "
        "for which it is predicted; precision: the share of the predictions of a label "
        "that are correct; F1: their harmonic mean; ROC AUC: how often an example with "
        "the label gets a higher probability than one without it, 50 % by chance."
    )
    title = count(true.shape[1], "label")
    return join([note(text), folded(title, "Scores of each label", head, rows)])


def ensemble(found: Numbers) -> Html | None:
    """The ensemble (mean of probabilities) beside its members; None for one member."""
    if len(found.prediction) < 2:
        return None
    members = [_scores(own, found.target) for own in found.prediction]
    text = (
        "Test split; the ensemble is the mean of the members' probabilities. ± one "
        "standard error of the mean over the members. Accuracy: the share of labels "
        "that are predicted correctly; loss: binary cross-entropy, in nats."
    )
    return against_ensemble(members, _scores(found.ensemble, found.target), text)


def _area(chance: np.ndarray, true: np.ndarray) -> np.ndarray:
    """ROC AUC [P]; NaN if all examples have the label, or none has."""
    if true.all() or not true.any():
        return np.full(len(chance), np.nan)
    return np.array([split_metrics.label_roc_auc(own, true) for own in chance])


def _scores(chance: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """The scores of probabilities [N, K] of labels."""
    least = np.finfo(np.float32).tiny  # avoids an infinite loss after rounding
    yes, no = (
        np.log(np.maximum(p, least)) for p in (chance.astype(float), 1.0 - chance)
    )
    return {
        "accuracy": float(((chance > 0.5) == (target > 0.5)).mean()),
        "f1_macro": split_metrics.label_f1_macro(chance - 0.5, target > 0.5),
        "loss": float(-(target * yes + (1 - target) * no).mean()),
    }
