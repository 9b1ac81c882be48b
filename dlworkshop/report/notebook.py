"""The HTML representation of a run in a notebook: small learning curves."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from dlworkshop.report import figures, marks
from dlworkshop.report.read import Series, averaged
from dlworkshop.report.words import humanize, is_fraction

SPLITS = ("train", "validation")
WIDTH = 420  # pixels of a figure: two stand side by side in a cell


def curves(
    history: Any,
    finite: Sequence[bool] | None = None,
    members: Sequence[int] | None = None,
) -> str:
    """The loss and the first metric over epochs, as HTML; "" without any.

    Args:
        history: of a run, a `History`.
        finite: which members [P] stayed finite; the others count in no mean.
        members: the numbers of those that are shown, as of one setting; None for all.

    >>> curves({}) == ""
    True
    """
    names = list(dict.fromkeys(n.partition("/")[2] for n in _names(history)))
    metric = next((n for n in names if n != "loss"), None)
    drawn = [
        _figure(history, name, finite, members)
        for name in ("loss", metric)
        if name is not None and name in names
    ]
    figure = '<div style="width: {}px; max-width: 100%">{}</div>'
    cells = "".join(figure.format(WIDTH, svg) for svg in drawn)
    style = "display: flex; flex-wrap: wrap; gap: 16px"
    return f'<div style="{style}">{cells}</div>' if cells else ""


def _names(history: Any) -> list[str]:
    return list(getattr(history, "names", history))


def _figure(
    history: Any,
    name: str,
    finite: Sequence[bool] | None,
    members: Sequence[int] | None,
) -> str:
    """One quantity, for the splits on which it was measured."""
    series = {}
    for split in SPLITS:
        if f"{split}/{name}" not in _names(history):
            continue
        value = history[f"{split}/{name}"]  # [T, P]
        measured = np.isfinite(value).any(1)  # validation is not, in between
        well = np.ones(value.shape[1], bool) if finite is None else np.array(finite)
        if members is not None:
            value, well = value[:, list(members)], well[list(members)]
        if measured.any():
            found = history.step[measured], history.epoch[measured], value[measured]
            series[split] = averaged(Series(*found, well), marks.MOST_POINTS)
    if not series:
        return ""
    title = humanize(name)
    unit = " (%)" if is_fraction(name) else ""
    content = b"".join(each.value.tobytes() for each in series.values())
    # a name of its own: a notebook is one page of many runs
    page_name = f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"
    return figures.learning_curves(page_name, title, f"{title}{unit}", series, name)
