"""Elements shared by all figures: colours, bands, networks.

The functions draw on axes that the caller has made. Importing this module does not load
matplotlib, so that `--help` of a lesson stays fast.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlworkshop.data.rows import evenly
from dlworkshop.types import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which colour-blind readers can distinguish
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MEMBER, BAD = "#0072B2", "#595959"
BAND = "Thin lines: members. Band: mean ± 1 standard deviation."  # a caption
MOST_LINES = 50  # members with a line; mean and band include all members
MOST_POINTS = 120  # in time
MOST_VERTICES = 12_000  # of all thin lines of a series together


def band(
    axes: "Axes", x: Array, values: Array, label: str, colour: str = MEMBER
) -> None:
    """Members as thin lines, their mean, and a band of one standard deviation.

    Args:
        axes: to draw on.
        x: [T], shared by all members.
        values: [P, T]; non-finite values are left out of the mean and the band.
        label: of the mean, in the legend.
        colour: one of `COLOURS`.
    """
    x, values = np.asarray(x), np.asarray(values, float)
    members = evenly(len(values), MOST_LINES)
    points = evenly(len(x), min(MOST_POINTS, MOST_VERTICES // max(len(members), 1)))
    x, values = x[points], values[:, points]
    if len(values) > 1:
        for member in values[members]:
            axes.plot(x, member, color=colour, alpha=0.35, linewidth=0.8)
    num_alive = np.isfinite(values).sum(axis=0)  # [T]
    mean = np.array([finite_mean(column) for column in values.T])
    marker = "o-" if len(x) <= 12 else "-"
    some = num_alive > 0
    axes.plot(x[some], mean[some], marker, color=colour, linewidth=2.4, label=label)
    many = num_alive > 1
    if many.any():
        spread = np.nanstd(values[:, many], axis=0, ddof=1)
        # the band stays within the members: a log scale cannot show a negative loss
        low = np.maximum(mean[many] - spread, np.nanmin(values[:, many], axis=0))
        high = np.minimum(mean[many] + spread, np.nanmax(values[:, many], axis=0))
        axes.fill_between(x[many], low, high, color=colour, alpha=0.2, linewidth=0)


def network(
    axes: "Axes",
    layers: Sequence[Sequence[float]],
    weights: Sequence[np.ndarray],
    names: Sequence[str],
) -> None:
    """A small network: units as circles with their values, weights as lines.

    Args:
        axes: to draw on.
        layers: values of the units of each layer, inputs first.
        weights: [from, to] between each layer and the next, or other numbers for each
            connection, such as gradients.
        names: of the layers.
    """
    thickest = max(np.abs(w).max() for w in weights)
    for layer, w in enumerate(weights):
        for (i, j), weight in np.ndenumerate(w):
            ends = [i - (w.shape[0] - 1) / 2, j - (w.shape[1] - 1) / 2]
            width = 0.2 + 7 * abs(weight) / thickest
            look = {"color": COLOURS[int(weight < 0)], "linewidth": width}
            axes.plot([layer, layer + 1], ends, alpha=0.7, zorder=1, **look)
    for layer, values in enumerate(layers):
        for i, value in enumerate(values):
            place = layer, i - (len(values) - 1) / 2
            axes.scatter(*place, 1300, "white", edgecolors="black", zorder=2)
            axes.text(*place, f"{value:.2f}", ha="center", va="center", fontsize=12)
    most = max(map(len, layers)) / 2
    axes.set_xticks(range(len(names)), names)
    axes.set(yticks=[], ylim=(most + 0.1, -most - 0.1), xlim=(-0.3, len(weights) + 0.3))
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False)


def finite_mean(values: np.ndarray) -> float:
    """The mean of the finite values; NaN if there are none."""
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else np.nan
