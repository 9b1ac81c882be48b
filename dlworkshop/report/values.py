"""Report sections on a regression: predicted against true, residuals, spread."""

import numpy as np
from matplotlib.ticker import MaxNLocator

from dlworkshop.data.rows import evenly
from dlworkshop.learn import split_metrics
from dlworkshop.report.elements import Html, beside, chart, join, note, table, tag
from dlworkshop.report.marks import BAD, COLOURS, MEMBER
from dlworkshop.report.names import short
from dlworkshop.report.predictions import Numbers
from dlworkshop.report.read import RunFolder, get_nested
from dlworkshop.report.svg import drawing
from dlworkshop.report.words import count, quantity, titled

MOST_COLUMNS = 6  # of the target that get a figure each
MOST_ROWS = 20  # of the table, one for each target column
MOST_DOTS = 800
MOST_LETTERS = 32  # of a column name at an axis


def predictions(run: RunFolder, found: Numbers) -> Html:
    """Predicted against true values, residuals, and spread over the members."""
    columns, kept = found.target.shape[1], _kept(run, found)
    if columns <= MOST_COLUMNS:
        charts = [
            _chart(f"values-{d}", _name(found, d), _numbers(found, d), kept)
            for d in range(columns)
        ]
    else:
        name, dot = f"all {columns:,} numbers of a target", "one number of an example"
        every = _numbers(found, slice(None))
        charts = [_chart("values", name, every, kept, dot)]
    return tag("div", *charts)


def ensemble(found: Numbers) -> Html | None:
    """Errors of one member and of the ensemble for each target column."""
    columns = found.target.shape[1]
    if not np.isfinite(found.ensemble).all():
        return None
    if columns > MOST_ROWS:  # for example the pixels of an image
        rows = _rows(found, slice(None), "")
    else:
        rows = []
        for d in range(columns):
            name = _name(found, d) if columns > 1 else ""
            rows += _rows(found, slice(d, d + 1), name)
    text = (
        "Test split. MAE (mean absolute error) and RMSE (root mean squared error) are "
        "in units of the target; R² is the share of its variance that is explained."
    )
    head = ["", "One member", "Mean of all members"]
    if len(found.prediction) > 1:
        text += " ± one standard error of the mean over the members."
    else:
        head, rows = ["", "The model"], [row[:2] for row in rows]
    return join([table("Errors", head, rows), note(text)])


def _rows(found: Numbers, columns: slice, name: str) -> list[list[str]]:
    target, together = found.target[:, columns], found.ensemble[:, columns]
    rows = []
    for measure, function in split_metrics.OF_VALUES.items():
        if measure == "r2" and not (target != target[:1]).any():
            continue  # not defined
        members = [function(own[:, columns], target) for own in found.prediction]
        title = f"{titled(measure)} of {name}" if name else titled(measure)
        rows.append(beside(title, measure, members, function(together, target)))
    return rows


def _name(found: Numbers, column: int) -> str:
    name = found.names[column]
    if name:
        return short(name, MOST_LETTERS)
    return "target" if len(found.names) == 1 else f"target {column}"


def _numbers(found: Numbers, columns: int | slice) -> tuple[np.ndarray, ...]:
    """Numbers of some columns: true [n], ensemble [n] and members [P, n]."""
    true, together = found.target[:, columns], found.ensemble[:, columns]
    said = found.prediction[..., columns]
    return true.ravel(), together.ravel(), said.reshape(len(said), -1)


def _chart(
    figure: str,
    name: str,
    columns: tuple[np.ndarray, ...],
    kept: str,
    dot: str = "an example",
) -> Html:
    target, together, said = columns  # [N], [N], [P, N]
    place = evenly(len(target), MOST_DOTS)
    error = target - together
    spread = said.std(0, ddof=1) if len(said) > 1 else None
    rmse = quantity(float(np.sqrt((error**2).mean())), "rmse")
    title = f"{name[:1].upper()}{name[1:]}: predictions are off by {rmse} (RMSE)"
    if (target != target[0]).any():
        title += f", {_unexplained(split_metrics.r2(together, target))}"
    svg = _drawn(
        figure,
        title,
        name if dot == "an example" else "value",
        target[place],
        together[place],
        None if spread is None else spread[place],
    )
    shown = len(place), len(target)
    return chart(svg, _caption(dot, shown, len(said)) + kept)


def _unexplained(r2: float) -> str:
    """The share of the variance that is unexplained, in words."""
    if r2 < 0:
        return "worse than predicting the mean"
    return f"{100 * (1 - r2):.3g} % of the variance is unexplained"


def _kept(run: RunFolder, found: Numbers) -> str:
    """A sentence about a test split that was too large to save as a whole."""
    total, kept = get_nested(run.config, "dataset", "test"), len(found.target)
    if not isinstance(total, int) or kept >= total:
        return ""
    return f" The first {kept:,} of {total:,} examples were saved."


def _caption(dot: str, shown: tuple[int, int], members: int) -> str:
    who = f"the mean of {count(members, 'member')}" if members > 1 else "the model"
    text = f"Test split; each dot is {dot}, predicted by {who}."
    if shown[0] < shown[1]:
        text += f" {shown[0]:,} of {shown[1]:,} dots are drawn, evenly spaced."
    text += " Left: predictions on the dashed line are exact."
    text += " Residual: true minus predicted; a pattern means that more can be learnt."
    if members > 1:
        text += (
            " Spread: standard deviation over the members, drawn in grey on the left; "
            "for dots far above the dashed line the error exceeds the spread."
        )
    return text


def _drawn(
    figure: str,
    title: str,
    name: str,
    target: np.ndarray,
    together: np.ndarray,
    spread: np.ndarray | None,
) -> str:
    panels = 2 if spread is None else 3
    alpha = 0.55 if len(target) < MOST_DOTS else 0.3
    look = {"color": MEMBER, "alpha": alpha, "linewidth": 0, "s": 22}
    with drawing(figure, title, (5.0 * panels, 4.8), panels) as (_, axes, out):
        fit, residuals = axes[:2]
        if spread is not None:
            fit.errorbar(
                target, together, spread, fmt="none", ecolor="#b4bac2", zorder=1
            )
        fit.scatter(target, together, zorder=2, **look)
        both = np.concatenate([target, together])
        ends = [float(both.min()), float(both.max())]
        fit.plot(ends, ends, "--", color=BAD, linewidth=1.6, zorder=3)
        fit.set(xlabel=f"true {name}", ylabel=f"predicted {name}")
        residuals.scatter(together, target - together, **look)
        residuals.axhline(0, linestyle="--", color=BAD, linewidth=1.6)
        residuals.set(xlabel=f"predicted {name}", ylabel="residual (true - predicted)")
        if spread is not None:
            size = np.abs(target - together)
            axes[2].scatter(spread, size, **(look | {"color": COLOURS[1]}))
            most = float(spread.max())
            axes[2].plot([0, most], [0, most], "--", color=BAD, linewidth=1.6)
            axes[2].set(xlabel="spread over the members", ylabel="size of the residual")
            axes[2].set_xlim(left=0)
            axes[2].set_ylim(bottom=0)
        for panel in axes:
            for axis in (panel.xaxis, panel.yaxis):
                if np.abs(axis.get_view_interval()).max() >= 10_000:
                    axis.set_major_formatter("{x:,.0f}")
                    axis.set_major_locator(MaxNLocator(4))
    return out[0]
