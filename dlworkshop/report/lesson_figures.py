"""Figures shared by lessons: curves, fits, decision boundaries, dots, pictures."""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlworkshop.data.rows import evenly
from dlworkshop.report.interactive import tips
from dlworkshop.report.marks import COLOURS, band
from dlworkshop.types import Array, Batch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_TICKS = 8  # with at most so many settings, each gets a tick
MOST_TIPS = 60  # places along an axis that show numbers on hovering


def curves(axes: "Axes", x: Array, values: Mapping[str, Array], **looks: Any) -> None:
    """Members, mean and band for each label, in different colours, with a legend.

    Args:
        axes: to draw on.
        x: [T], shared by all labels; a few values get a tick each.
        values: label -> [P, T], or [T] for a single curve.
        looks: arguments of `axes.set`, such as xlabel, ylabel, xscale.
    """
    for colour, (label, members) in zip(COLOURS, values.items(), strict=False):
        _draw(axes, x, members, label, colour)
    axes.set(**looks)  # after drawing: a limit of None is the end of the curves
    if len(x) <= MOST_TICKS:
        axes.set_xticks(x, [f"{value:g}" for value in x])
        axes.xaxis.minorticks_off()
    axes.legend(fontsize=12)
    places = np.argsort(x, kind="stable")[evenly(len(x), MOST_TIPS)]
    means = {k: np.reshape(v, (-1, len(x))).mean(0) for k, v in values.items()}
    texts = [
        f"{axes.get_xlabel()} {x[i]:.4g}: "
        + "; ".join(f"{label} {mean[i]:.3g}" for label, mean in means.items())
        for i in places
    ]
    tips(axes, np.asarray(x)[places], texts)


def fits(
    panels: Sequence["Axes"],
    x: Array,
    curve: Array,
    learnt: Mapping[str, Array],
    **looks: Any,
) -> None:
    """A target curve, dashed, and the members' fits under each title.

    Args:
        panels: one for each title.
        x: [T], shared by all panels.
        curve: [T], the target.
        learnt: title -> [P, T], or [T] for a single curve.
        looks: arguments of `axes.set` for all panels, such as xlim, ylim.
    """
    for axes, (title, members) in zip(panels, learnt.items(), strict=True):
        axes.plot(x, curve, "k--", linewidth=1)
        _draw(axes, x, members, title, COLOURS[0])
        axes.set(title=title, xlabel="x", **looks)


def points_of(axes: "Axes", points: Batch) -> None:
    """Points of two inputs, [N, 2], coloured by class, [N]."""
    for k, colour in enumerate(COLOURS[: points.targets.max() + 1]):
        axes.plot(
            *points.inputs[points.targets == k].T, ".", color=colour, markersize=4
        )
    axes.set(xlabel="x_1", ylabel="x_2", aspect="equal")


def borders(
    axes: "Axes", side: Array, heights: Mapping[str, Array], level: float
) -> None:
    """The decision boundary of each member, in the plane of two inputs.

    Args:
        axes: to draw on.
        side: [S], coordinates along each side of a square grid.
        heights: colour -> [P, S * S] on the grid, row by row; each member is drawn as
            its contour line at `level`.
        level: of the contour lines.
    """
    for colour, members in heights.items():
        look: dict[str, Any] = {"colors": colour, "linewidths": 0.6, "alpha": 0.5}
        for member in np.asarray(members):
            with warnings.catch_warnings():  # a boundary may lie outside the grid
                warnings.filterwarnings("ignore", "No contour levels")
                axes.contour(side, side, member.reshape(len(side), -1), [level], **look)


def dots(axes: "Axes", rows: Mapping[str, Array], xlabel: str) -> None:
    """A row for each label: a dot for each seed, and the mean as a number.

    Args:
        axes: to draw on.
        rows: label -> [P]; the first row is on top.
        xlabel: name of the values, with their unit.
    """
    for place, values in enumerate(rows.values()):
        heights = np.full(len(values), place)
        axes.plot(values, heights, "o", color=COLOURS[0], alpha=0.5)
        mean = np.mean(values)
        axes.text(mean, place - 0.2, f"{mean:.3g}", ha="center", fontsize=12)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set(xlabel=xlabel, ylim=(len(rows) - 0.5, -0.7))


def picture(
    axes: "Axes", pixels: Array, title: str, colours: str = "gray", **limits: Any
) -> None:
    """A picture without axes, or several pictures in rows, one pixel apart.

    Args:
        axes: to draw on.
        pixels: [H, W], or [N, H, W] for N pictures, laid out as square as N allows.
        title: of the panel.
        colours: a colour map of matplotlib; "PuOr" suits values of both signs.
        limits: vmin and vmax.
    """
    pixels = np.ma.asarray(pixels, float)
    if pixels.ndim == 3:
        number, height, width = pixels.shape
        rows = next(r for r in range(int(number**0.5), 0, -1) if number % r == 0)
        apart = np.pad(
            pixels, [(0, 0), (0, 1), (0, 1)], constant_values=np.nan
        )  # [N, H + 1, W + 1]
        grid = apart.reshape(rows, number // rows, height + 1, width + 1)
        pixels = grid.transpose(0, 2, 1, 3).reshape(rows * (height + 1), -1)[:-1, :-1]
    axes.imshow(pixels, colours, interpolation="none", **limits)
    axes.set_title(title)
    axes.set_axis_off()


def table(
    axes: "Axes", shades: Array, texts: Array, colours: str, **looks: Any
) -> None:
    """A table with a text in each coloured cell.

    Args:
        axes: to draw on; the caller sets the ticks.
        shades: [H, W] numbers, mapped to colours by `colours`.
        texts: [H, W], converted by `str`.
        colours: a colour map of matplotlib.
        looks: arguments of `axes.imshow`, such as vmin, vmax, origin and aspect.
    """
    axes.imshow(shades, colours, **looks)
    axes.grid(visible=False)
    for (i, j), text in np.ndenumerate(texts):
        axes.text(j, i, str(text), ha="center", va="center", fontsize=14)


def _draw(axes: "Axes", x: Array, values: Array, label: str, colour: str) -> None:
    """Members with mean and band, or a single line."""
    if np.ndim(values) > 1:
        band(axes, x, values, label, colour)
    else:
        marker = "o-" if len(x) <= MOST_TICKS else "-"
        axes.plot(x, values, marker, color=colour, linewidth=2.4, label=label)
