"""The learning curves of a run for a notebook cell."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from dlworkshop.report import figures, marks
from dlworkshop.report.series import Series
from dlworkshop.report.words import humanize, is_fraction

SPLITS = ("train", "validation")
WIDTH = 420  # pixels of a figure: two stand side by side in a cell


def curves(
    history: Any,
    finite: Sequence[bool] | None = None,
    members: Sequence[int] | None = None,
) -> str:
    """The loss and the first metric over epochs, as HTML; "" if nothing was logged.

    Args:
        history: the `History` of a run.
        finite: [P] bool, which members stayed finite; None for all. The others are left
            out of the means.
        members: numbers of the members to show, for example of one setting; None for
            all.

    >>> import types
    >>> curves(types.SimpleNamespace(names=[])) == ""
    True
    """
    names = list(dict.fromkeys(n.partition("/")[2] for n in history.names))
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


def _figure(
    history: Any,
    name: str,
    finite: Sequence[bool] | None,
    members: Sequence[int] | None,
) -> str:
    """One quantity on the splits on which it was measured."""
    series = {}
    for split in SPLITS:
        if f"{split}/{name}" not in history.names:
            continue
        value = history.lineage(f"{split}/{name}")  # [T, P]
        measured = np.isfinite(value).any(1)  # validation has gaps within an epoch
        well = np.ones(value.shape[1], bool) if finite is None else np.array(finite)
        if measured.any():
            found = history.step[measured], history.epoch[measured], value[measured]
            of = slice(None) if members is None else list(members)
            shown = Series(*found, well).of(of)
            series[split] = shown.averaged(marks.MOST_POINTS)
    if not series:
        return ""
    title = humanize(name)
    unit = " (%)" if is_fraction(name) else ""
    content = b"".join(each.value.tobytes() for each in series.values())
    # unique ids, because a notebook is one page with many runs
    page_name = f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"
    return figures.learning_curves(page_name, title, f"{title}{unit}", series, name)
