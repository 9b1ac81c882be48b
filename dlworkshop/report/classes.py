"""How each class fares on the test split: recall, precision, F1, and their mean."""

import numpy as np

from dlworkshop.report.elements import Html, data, fold, join, table, tag
from dlworkshop.report.read import RunFolder, finite_mask
from dlworkshop.report.words import count, quantity

OPEN_ROWS = 20  # a longer table waits to be opened


def per_class(run: RunFolder) -> Html:
    """A row for each class, mean over the finite members."""
    found = run.predictions
    finite = finite_mask(run.members, 0 if found is None else len(found.prediction))
    if found is None or not finite.any():
        lacks = "predictions of classes" if found is None else "finite member"
        return tag("p", f"There is no {lacks}, so there are no scores.", class_="note")
    said, label = found.prediction[finite], found.label  # [P, N], [N]
    rows, recalls = [], []
    for k, name in enumerate(found.classes):
        recall, precision, f1 = scores(said, label, k)
        recalls.append(recall)
        cells = [recall, precision, f1]
        rows.append(
            [
                str(name),
                f"{int((label == k).sum()):,}",
                *(_percent(values) for values in cells),
            ]
        )
    balanced = np.nanmean(recalls, 0)  # [P]
    rows.append(["mean of classes", f"{label.size:,}", _percent(balanced), "", ""])
    head = ["Class", "Examples", "Recall", "Precision", "F1"]
    note = (
        f"Test split, mean of {count(int(finite.sum()), 'member')}. Recall: the share "
        "of a class that is found; precision: the share of those said to be of a class "
        "that are; F1: their harmonic mean. The mean of the recalls is the balanced "
        "accuracy: every class counts the same, however rare."
    )
    shown = table("Scores of each class", head, rows)
    title = f"{count(len(found.classes))} classes"
    return join(
        [tag("p", note, class_="note"), fold(title, shown, len(rows) <= OPEN_ROWS)]
    )


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


def _percent(values: np.ndarray) -> Html:
    finite = values[np.isfinite(values)]
    mean = float(finite.mean()) if finite.size else None
    return data(quantity(mean, "accuracy"), mean)
