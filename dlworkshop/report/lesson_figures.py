"""What the figures of several lessons share: curves by name, rows of dots, pictures."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from dlworkshop.report.figures import COLOURS, band
from dlworkshop.types import Array

MOST_TICKS = 8  # settings that each get a tick of their own


def curves(axes: Axes, x: Array, values: Mapping[str, Array], **looks: Any) -> None:
    """A mean with band and members for each name, each in its colour, and a legend.

    Args:
        axes: to draw on.
        x: [T] of all; a few settings get a tick each.
        values: label -> [P, T].
        looks: `axes.set(...)` of them, such as xlabel, ylabel, xscale.
    """
    axes.set(**looks)
    for colour, (label, members) in zip(COLOURS, values.items(), strict=False):
        band(axes, x, members, label, colour)
    if len(x) <= MOST_TICKS:
        axes.set_xticks(x, [f"{value:g}" for value in x])
        axes.xaxis.minorticks_off()
    axes.legend(fontsize=12)


def dots(axes: Axes, rows: Mapping[str, Array], xlabel: str) -> None:
    """A row for each name: a dot for each seed, and their mean as a number.

    Args:
        axes: to draw on.
        rows: label -> [P], first row on top.
        xlabel: what the values are, with their unit.
    """
    for place, values in enumerate(rows.values()):
        heights = np.full(len(values), place)
        axes.plot(values, heights, "o", color=COLOURS[0], alpha=0.5)
        mean = np.mean(values)
        axes.text(mean, place - 0.2, f"{mean:.1f}", ha="center", fontsize=12)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set(xlabel=xlabel, ylim=(len(rows) - 0.5, -0.7))


def picture(
    axes: Axes, pixels: Array, title: str, colours: str = "gray", **limits: Any
) -> None:
    """A picture without scales; several are laid out in rows, a pixel apart.

    Args:
        axes: to draw on.
        pixels: [H, W], or [N, H, W] with N the product of two whole numbers, which
            are the rows and columns.
        title: of the panel.
        colours: a colour map of matplotlib; "PuOr" for values of both signs.
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


def table(axes: Axes, values: Array, rows: Array, columns: Array, **looks: Any) -> None:
    """Numbers in a grid whose colours say how large they are, settings beside it.

    Args:
        axes: to draw on.
        values: [R, C]; what is not finite stays white.
        rows, columns: the settings [R], from below, and [C].
        looks: `axes.set(...)` of them: xlabel, ylabel.
    """
    values = np.asarray(values, float)
    axes.imshow(values, "viridis", origin="lower", aspect="auto")
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if value < middle else "black"
        text = axes.text(column, row, f"{value:.1f}", color=colour, fontsize=12)
        text.set(ha="center", va="center")
    axes.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
    axes.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
    axes.grid(visible=False)
    axes.set(**looks)
