"""Arrays -> figures as SVG: learning curves, confusion matrix, sweeps.

The `name` of a figure must be unique in its page; its `title` is displayed. Quantities
that are fractions are drawn in percent.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import PowerNorm
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from rich.cells import cell_len

from dlworkshop.report.interactive import SERIES, marking, tip, tips
from dlworkshop.report.marks import BAD, COLOURS, MEMBER, band, finite_mean
from dlworkshop.report.series import Series
from dlworkshop.report.svg import drawing, wrapped
from dlworkshop.report.words import is_fraction, quantity

FEW = 12  # a matrix of at most so many classes has large cells


def learning_curves(
    name: str, title: str, label: str, series: dict[str, Series], measured: str
) -> str:
    """A quantity over time: thin lines for members, their mean, and a band.

    Args:
        name, title: see above.
        label: of the vertical axis, with unit.
        series: by group, such as a split. Members that did not stay finite have dashed
            lines and are left out of the mean, the band (1 standard deviation) and the
            limits of the axis.
        measured: name of the quantity.
    """
    scale = 100 if is_fraction(measured) else 1
    with drawing(name, title, (7.4, 4.7)) as (_, axes, out):
        for colour, (group, values) in zip(COLOURS, series.items(), strict=False):
            with marking(axes, SERIES, group):
                _draw_group(axes, group, values, colour, scale)
        shown = _shown(series, scale)
        _choose_scale(axes, shown, is_log=_spans(shown, 20) and scale == 1)
        axes.set_ylabel(label + (", log scale" if axes.get_yscale() == "log" else ""))
        axes.set_xlabel(_time_label(next(iter(series.values()))))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # epochs or steps
        axes.legend(loc="best", fontsize=13)
        longest = max(series.values(), key=lambda s: len(s.step))
        tips(axes, _time(longest), _means(series, longest, measured))
    return out[0]


def _means(series: dict[str, Series], longest: Series, name: str) -> list[str]:
    """Text with the latest mean of each group, for each time of the longest series."""
    word = "epoch" if np.isfinite(longest.epoch).all() else "step"
    texts = []
    for step, time in zip(longest.step, _time(longest), strict=True):
        parts = []
        for group, values in series.items():
            until = values.step <= step
            if until.any():
                mean = finite_mean(values.value[until][-1, values.finite])
                parts.append(f"{group} {quantity(mean, name)}")
        texts.append(f"{word} {time:.4g}: {', '.join(parts)}")
    return texts


def _draw_group(
    axes: Axes, group: str, series: Series, colour: str, scale: float
) -> None:
    time, value = _time(series), series.value.T * scale  # [T], [P, T]
    for lost in value[~series.finite]:
        axes.plot(time, lost, color=BAD, linestyle="--", linewidth=1.4)
    fine = value[series.finite]
    label = f"{group}: mean of {len(fine)}" if len(fine) > 1 else group
    band(axes, time, fine, label, colour)


def confusion(
    name: str,
    counts: np.ndarray,
    classes: Sequence[str],
    title: str,
    links: Mapping[tuple[int, int], str] = MappingProxyType({}),
) -> str:
    """A confusion matrix.

    Args:
        name, title: see above.
        counts: [K, K] examples, true class by predicted class, mean over members; or
            [K, K + 1] with a last column for predicted classes that are not shown.
        classes: [K] short names.
        links: (row, column) -> id of the element that the cell links to.
    """
    columns = [*classes, "another"][: counts.shape[1]]
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    width, height = confusion_size(columns, title)
    with drawing(name, title, (width, height)) as (figure, axes, out):
        # with a square-root scale a mistake in one of a hundred examples is visible
        image = axes.imshow(
            share, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="none"
        )
        marks = [0, 0.01, 0.1, 0.5, 1] if len(columns) > 4 else [0, 0.1, 0.5, 1]
        bar = figure.colorbar(image, ax=axes, shrink=0.8, ticks=marks)
        bar.ax.set_yticklabels([f"{100 * mark:g} %" for mark in marks])
        bar.set_label("share of the true class")
        bar.ax.collections[0].set_rasterized(True)  # instead of 256 shapes
        size = 13 if len(columns) <= FEW else 11
        look: dict[str, Any] = {"fontsize": size}
        axes.set_yticks(range(len(classes)), classes, **look)
        if _tilts(columns):  # names end at the matrix, whatever font the reader has
            look |= {"rotation": 90, "ha": "right", "va": "center"}
            look |= {"rotation_mode": "anchor"}
        axes.set_xticks(range(len(columns)), columns, **look)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        axes.grid(visible=False)
        for (i, j), number in np.ndenumerate(counts):
            ink = "white" if share[i, j] > 0.35 else "black"
            text = _count(number) if number > 0 else ""
            size = 13 if len(columns) <= FEW else 10
            axes.text(j, i, text, ha="center", va="center", color=ink, fontsize=size)
            if number > 0:
                said = f"{classes[i]} taken for {columns[j]}"
                if i == j:
                    said = f"{classes[i]}, correct"
                part = quantity(share[i, j], "accuracy")
                said = f"{said}: {number:.3g} examples, {part} of the true class"
                link = f"#{links[i, j]}" if (i, j) in links else None
                tip(axes, (j - 0.5, i - 0.5), (1, 1), said, url=link)
    return out[0]


def confusion_size(columns: Sequence[str], title: str) -> tuple[float, float]:
    """Width and height of a matrix in inches, by the number of classes."""
    few = len(columns) <= FEW
    matrix = max(2.0, len(columns) * (0.5 if few else 0.34))
    names = (0.12 if few else 0.1) * max(map(cell_len, columns))
    width = matrix + names + 1.9
    lines = 0.27 * len(wrapped(title, width))
    return width, matrix + (names if _tilts(columns) else 0.3) + 0.6 + lines


def _tilts(columns: Sequence[str]) -> bool:
    """Whether the names below a matrix must be rotated to fit."""
    most = 3 if len(columns) > 3 else 6
    return max(map(cell_len, columns)) > most


def sweep(
    name: str,
    title: str,
    labels: tuple[str, str],
    value: np.ndarray,
    result: np.ndarray,
    quantity: str,
    alike: np.ndarray,
) -> str:
    """A result against a hyper-parameter: dots for members, mean and spread per value.

    Args:
        name, title: see above.
        labels: of the two axes, with units.
        value: [P] of the hyper-parameter.
        result: [P]; NaN is drawn as a cross at the bottom.
        quantity: name of the result.
        alike: [P] bool, members that differ in this hyper-parameter only; the others
            are left out of the means.
    """
    result = result * (100 if is_fraction(quantity) else 1)
    distinct, counts = np.unique(value), alike & np.isfinite(result)
    groups = [result[(value == v) & counts] for v in distinct]
    with drawing(name, title, (7.4, 4.7)) as (_, axes, out):
        look: dict[str, Any] = {"alpha": 0.6, "zorder": 3}
        if not alike.all():
            label = "one member of another setting"
            axes.plot(
                value[~alike], result[~alike], "o", color=BAD, label=label, **look
            )
        look["color"] = MEMBER
        axes.plot(value[alike], result[alike], "o", label="one member", **look)
        if any(len(group) > 1 for group in groups):
            means = [finite_mean(group) for group in groups]
            spread = [np.std(g, ddof=1) if len(g) > 1 else 0.0 for g in groups]
            look = {"color": "#D55E00", "capsize": 5, "linewidth": 2.2}
            text = "mean ± 1 standard deviation"
            axes.errorbar(distinct, means, spread, fmt="s-", label=text, **look)
        lost = value[~np.isfinite(result)]
        if lost.size:
            bottom = axes.get_xaxis_transform()  # height as a share of the axis
            look = {"color": BAD, "markersize": 10, "markeredgewidth": 2.5}
            text = "no result (quarantined)"
            low = np.full(lost.shape, 0.04)
            axes.plot(lost, low, "x", transform=bottom, label=text, **look)
        if _spans(value, 8):
            axes.set_xscale("log")
            _plain_ticks(axes.xaxis)
        if len(distinct) <= 8:
            axes.set_xticks(distinct, [f"{v:g}" for v in distinct])
        axes.set_xlabel(labels[0] + (", log scale" if _spans(value, 8) else ""))
        axes.set_ylabel(labels[1])
        axes.legend(loc="best", fontsize=13)
    return out[0]


def _shown(series: dict[str, Series], scale: float) -> np.ndarray:
    """Finite values of the finite members; of the others if there are none."""
    for wanted in (True, False):
        every = [s.value[:, s.finite == wanted].ravel() for s in series.values()]
        values = np.concatenate(every)
        if np.isfinite(values).any():
            break
    return values[np.isfinite(values)] * scale


def _spans(values: np.ndarray, factor: float) -> bool:
    """Whether values are positive and span more than this factor."""
    return bool(
        values.size and values.min() > 0 and values.max() > factor * values.min()
    )


def _choose_scale(axes: Axes, shown: np.ndarray, is_log: bool) -> None:
    """Set limits by the finite values, so that a diverging member hides nothing."""
    if not shown.size:
        return
    low, high = float(shown.min()), float(shown.max())
    if is_log:
        axes.set_yscale("log")
        _plain_ticks(axes.yaxis)
        axes.set_ylim(low / 1.2, high * 1.2)
    elif high > low:
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def _plain_ticks(axis: Axis) -> None:
    """Set ticks at 0.2 0.5 1 2 5 instead of powers of ten."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def _count(value: float) -> str:
    if value >= 9.95 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.1f}".removeprefix("0")


def _time(series: Series) -> np.ndarray:
    return series.epoch if np.isfinite(series.epoch).all() else series.step


def _time_label(series: Series) -> str:
    if not np.isfinite(series.epoch).all() or series.epoch[-1] <= 0:
        return "steps"
    return f"epochs (of {series.step[-1] / series.epoch[-1]:,.0f} steps each)"
