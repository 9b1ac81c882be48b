"""Report section on the trials of a sweep: table, parallel coordinates, importance."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlworkshop.report.elements import (
    Html,
    chart,
    folded,
    join,
    mean,
    note,
    scroll,
    tag,
)
from dlworkshop.report.marks import BAD, COLOURS
from dlworkshop.report.read import RunFolder
from dlworkshop.report.settings import varied
from dlworkshop.report.svg import drawing
from dlworkshop.report.words import (
    count,
    humanize,
    is_number,
    plain,
    quantity,
    titled,
)

MOST_LINES = 200  # the best trials, which are drawn
FEW = 8  # with more values, only the ends of an axis are labelled
LOG = 8  # an axis is logarithmic if its values span more than this factor


def trials(run: RunFolder) -> Html | None:
    """The trials of a sweep, after which the best setting was trained again."""
    told = run.summary.get("sweep") or {}
    rows, names = told.get("trials") or [], varied(told.get("trials") or [])
    if len(rows) < 2 or not names:
        return None
    seeds, programs = len(told.get("seeds") or []), told.get("buckets")
    where = f" in {count(programs, 'program')}" if programs else ""
    text = (
        f"{count(len(rows), 'trial')} with {count(seeds, 'seed')} each{where}, the "
        f"best by validation {humanize(run.monitor)} first; ± one standard error of "
        "the mean over the seeds. The best of many trials owes some of its score to "
        "luck, so its setting was trained again with other seeds, which the rest of "
        "this page describes."
    )
    parts = [note(text)]
    svg, caption = _parallel(run, rows, names, run.monitor)
    drawn = [chart(scroll("All trials", Html(svg)), caption, "wide")]
    if importance := told.get("importance"):
        drawn.append(chart(*_importance(importance)))
    parts.append(tag("div", *drawn, class_="charts"))
    return join([*parts, _table(rows, names, run.monitor)])


def _table(rows: Sequence[Mapping[str, Any]], names: list[str], monitor: str) -> Html:
    scores = [n for n in dict.fromkeys([monitor, "loss"]) if n in rows[0]["validation"]]
    head = ["Trial", *map(titled, names), "Seeds"]
    head += [titled(f"validation_{name}") for name in scores]
    shown = []
    for row in rows:
        stats = [row["validation"].get(name) or {} for name in scores]
        shown.append(
            [
                f"{row['trial']}",
                *(plain(row["hparams"].get(name)) for name in names),
                plain(stats[0].get("n")),
                *(mean(stat, name) for stat, name in zip(stats, scores, strict=True)),
            ]
        )
    classes = ["best", *[None] * (len(rows) - 1)]
    return folded(count(len(rows), "trial"), "Trials", head, shown, classes)


def _parallel(
    run: RunFolder, rows: Sequence[Mapping[str, Any]], names: list[str], monitor: str
) -> tuple[str, str]:
    """Parallel coordinates: a line for each trial over its values and its score.

    Returns:
        The drawing and its caption.
    """
    rows = rows[:MOST_LINES]
    scales = [_axis([row["hparams"].get(name) for row in rows]) for name in names]
    means = [(row["validation"].get(monitor) or {}).get("mean") for row in rows]
    known = np.array([*map(is_number, means)])
    score, marks = _axis([*filter(is_number, means)], few=2)
    if run.better(monitor) != "higher":  # the best is on top
        score, marks = 1 - score, [(1 - at, value) for at, value in marks]
    height = np.full(len(rows), -0.12)  # of trials without a score
    height[known] = score
    lines = np.stack([*(place for place, _ in scales), height], 1)  # [N, D + 1]
    title = f"The best trial has a validation {humanize(monitor)} of "
    title += quantity(means[0], monitor)
    with drawing("trials", title, (11, 4.9)) as (_, axes, out):
        _draw_lines(axes, lines, known)
        for i, (_, ticks) in enumerate(scales):
            _draw_axis(axes, i, [(at, _short(value)) for at, value in ticks], "right")
        ticks = [(at, quantity(value, monitor)) for at, value in marks]
        _draw_axis(axes, len(names), ticks, "left")
        labels = [*map(humanize, names), f"validation {humanize(monitor)}"]
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlim(-0.5, len(names) + 0.5)
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.tick_params(bottom=False)
    shown = "" if len(rows) < MOST_LINES else f" The best {len(rows)} are drawn."
    dashed = "" if known.all() else " Dashed: no member stayed finite."
    return out[0], (
        "One line for each trial; better trials are darker, the best one is orange."
        f"{dashed}{shown}"
    )


def _draw_lines(axes: Any, lines: np.ndarray, known: np.ndarray) -> None:
    """Draw the trials [N, D + 1], the best last, so that it is on top."""
    for i, line in reversed(list(enumerate(lines))):
        share = 1 - i / max(len(lines) - 1, 1)
        look: dict[str, Any] = {"color": COLOURS[0], "alpha": 0.15 + 0.6 * share}
        if not known[i]:
            look = {"color": BAD, "linestyle": "--", "alpha": 0.6}
        if i == 0:
            look = {"color": COLOURS[1], "linewidth": 3.5}
        axes.plot(line, **look)


def _draw_axis(axes: Any, i: int, ticks: list[tuple[float, str]], align: str) -> None:
    """Draw the i-th vertical axis with labels beside it."""
    axes.axvline(i, color="black", linewidth=1)
    paper = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1}
    look = {"ha": align, "va": "center", "fontsize": 12, "bbox": paper}
    for height, text in ticks:
        shift = (6 if align == "left" else -6, 0)
        axes.annotate(text, (i, height), shift, textcoords="offset points", **look)


def _axis(
    values: Sequence[Any], few: int = FEW
) -> tuple[np.ndarray, list[tuple[float, Any]]]:
    """Heights of values [N] on an axis from 0 to 1, and its labels (height, value).

    Numbers that span a large range have a logarithmic axis; of more than `few` numbers
    only the ends are labelled. Text values are spread evenly.

    >>> _axis([1.0, 10.0, 100.0])
    (array([0. , 0.5, 1. ]), [(0.0, 1.0), (0.5, 10.0), (1.0, 100.0)])
    >>> _axis(["relu", "tanh"])[1]
    [(0.0, 'relu'), (1.0, 'tanh')]
    """
    distinct = list(dict.fromkeys(values))
    if not all(map(is_number, values)):
        step = 1 / max(len(distinct) - 1, 1)
        places = {value: i * step for i, value in enumerate(distinct)}
        marks = [(at, value) for value, at in places.items()]
        return np.array([places[value] for value in values]), marks
    if not distinct:
        return np.zeros(0), []
    number = np.array(values, float)
    if number.min() > 0 and number.max() > LOG * number.min():
        number = np.log(number)
    span = np.ptp(number)
    place = (number - number.min()) / span if span else np.full(number.shape, 0.5)
    shown = sorted(distinct) if len(distinct) <= few else [min(values), max(values)]
    return place, [(float(place[list(values).index(v)]), v) for v in shown]


def _short(value: Any) -> str:
    return f"{value:.4g}" if is_number(value) else plain(value)


def _importance(found: Mapping[str, float]) -> tuple[str, str]:
    names = list(found)[::-1]
    first = next(iter(found))
    title = f"{titled(first)} mattered most"
    with drawing("importance", title, (7.4, 1.4 + 0.5 * len(names))) as (_, axes, out):
        axes.barh(range(len(names)), [100 * found[n] for n in names], color=COLOURS[0])
        axes.set_yticks(range(len(names)), [humanize(name) for name in names])
        axes.set_xlabel("share in the ranking of the trials (%)")
        axes.set_xlim(0, 100)
    return out[0], (
        "How much worse a forest of trees predicts the rank of a trial when the values "
        "of one hyper-parameter are permuted, as a share of the sum over all. With few "
        "trials the estimate is poor."
    )
