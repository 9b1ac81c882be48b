"""Scores of each class on the test split: recall, precision, F1."""

import numpy as np

from dlworkshop.report.elements import Html, fold, join, note, number, table, tag
from dlworkshop.report.marks import finite_mean
from dlworkshop.report.names import in_tables
from dlworkshop.report.predictions import Predictions
from dlworkshop.report.words import count

OPEN_ROWS = 30  # a longer table is folded
WORST = 10  # classes that are shown above a folded table


def per_class(found: Predictions) -> Html:
    """Scores of each class, averaged over the members.

    With many classes only the worst ones are shown, above a folded table of all.
    """
    said, label = found.prediction, found.label  # [P, N], [N]
    rows, recalls, worth = [], [], []
    for k, name in enumerate(in_tables(found.class_names())):
        recall, precision, f1 = scores(said, label, k)
        recalls.append(recall)
        worth.append(np.mean(f1))
        shown = map(mean_percent, (recall, precision, f1))
        rows.append([name, f"{int((label == k).sum()):,}", *shown])
    recall_of_all = np.array(recalls)  # [K, P]
    balanced = recall_of_all[np.isfinite(recall_of_all).all(1)].mean(0)
    all_of_them = ["mean of classes", f"{label.size:,}", mean_percent(balanced), "", ""]
    head = ["Class", "Examples", "Recall", "Precision", "F1"]
    text = (
        f"Test split, mean of {count(len(said), 'member')}. Recall: the share "
        "of the examples of a class that are predicted as this class; precision: the "
        "share of the predictions of a class that are correct; F1: their harmonic "
        "mean. The mean of the recalls is the balanced accuracy, in which every class "
        "has the same weight, however rare it is."
    )
    parts = [note(text)]
    whole = table("Scores of each class", head, [*rows, all_of_them])
    title = f"All {count(len(rows))} classes"
    if len(rows) <= OPEN_ROWS:
        return join([*parts, whole])
    worst = np.argsort(worth, kind="stable")[:WORST]  # NaN (no example) sorts last
    some = table("Worst classes", head, [rows[k] for k in worst])
    finding = f"The {WORST} classes with the lowest F1:"
    return join([*parts, tag("p", finding), some, fold(title, whole)])


def scores(
    said: np.ndarray, label: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recall, precision and F1 [P] of class k; NaN where they are 0 / 0.

    >>> said, label = np.array([[0, 0, 1, 1]]), np.array([0, 1, 1, 1])
    >>> [float(value[0].round(3)) for value in scores(said, label, 1)]
    [0.667, 1.0, 0.8]
    """
    hits = ((said == k) & (label == k)).sum(-1)  # [P]
    true, claimed = (label == k).sum(), (said == k).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return hits / true, hits / claimed, 2 * hits / (true + claimed)


def mean_percent(values: np.ndarray) -> Html:
    """The mean of the finite fractions, in percent."""
    return number(finite_mean(values), "accuracy")
