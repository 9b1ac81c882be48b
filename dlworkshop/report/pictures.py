"""Sections of the page with figures, each with its finding as the title."""

from collections import Counter

import numpy as np

from dlworkshop.report import figures, marks, settings
from dlworkshop.report.confusion import is_picture
from dlworkshop.report.elements import Html, chart, join, note, tag
from dlworkshop.report.names import short
from dlworkshop.report.predictions import Predictions
from dlworkshop.report.read import RunFolder, get_nested
from dlworkshop.report.series import Series
from dlworkshop.report.svg import picture
from dlworkshop.report.words import humanize, is_number, quantity, titled

MOST_MISTAKES = 24


def curves(run: RunFolder) -> Html | None:
    """Loss and metrics over time on train and validation; None if none is finite."""
    charts = []
    for name in ("loss", *run.metrics):
        series = {
            split: run.series[split, name].averaged(marks.MOST_POINTS)
            for split in ("train", "validation")
            if (split, name) in run.series
        }
        if any(np.isfinite(s.value).any() for s in series.values()):
            charts.append(_curve(run, name, series))
    return tag("div", *charts, class_="charts") if charts else None


def _curve(run: RunFolder, name: str, series: dict[str, Series]) -> Html:
    ends = [
        f"{quantity(_final(s), name)} on {split}"
        for split, s in series.items()
        if is_number(_final(s))
    ]
    title = f"{titled(name)} ends at {', '.join(ends)}"
    if not ends:
        title = f"{titled(name)}: no member stayed finite"
    svg = figures.learning_curves(
        f"curve-{name}", title, label(run, name), series, name
    )
    return chart(svg, _curve_caption(series))


def _curve_caption(series: dict[str, Series]) -> str:
    finite = max((s.finite for s in series.values()), key=len)
    if len(finite) == 1:
        return "One member: a line without a band."
    text = "Thin lines: members. Band: mean ± 1 standard deviation of the members"
    text += " still training."
    if any(len(s.step) == marks.MOST_POINTS for s in series.values()):
        text += f" Each of the {marks.MOST_POINTS} points is a mean over time."
    if len(finite) > marks.MOST_LINES:
        text += f" {marks.MOST_LINES} of {len(finite)} members have a line."
    if not finite.all():
        text += " Dashed: quarantined members, left out of the mean."
    if min(len(s.step) for s in series.values()) == 1:
        text += " A split with a single measurement is a dot."
    return text


def _final(series: Series) -> float | None:
    """The mean over the finite members of their last values."""
    members = series.value.T[series.finite]  # [P, T]
    last = [row[np.isfinite(row)][-1] for row in members if np.isfinite(row).any()]
    return float(np.mean(last)) if last else None


def mistakes(found: Predictions) -> Html | None:
    """The examples with the largest loss, as images; None if data are no images."""
    if not is_picture(found.worst_image):
        return None
    said = found.prediction[:, found.worst_index]  # [P, M]
    wrong = (said != found.label[found.worst_index]).any(axis=0)  # [M]
    shown = np.flatnonzero(wrong)[:MOST_MISTAKES]
    if not shown.size:
        return None
    intro = "Test examples with the largest loss (mean over members), worst first."
    items = [tag("li", _mistake(found, int(m))) for m in shown]
    return join([note(intro), tag("ol", *items, class_="mistakes")])


def _mistake(found: Predictions, m: int) -> Html:
    index, classes = int(found.worst_index[m]), found.class_names()
    of_class, said = int(found.label[index]), found.prediction[:, index]
    true = _class(classes, of_class)
    (answer, votes), *_ = Counter(int(k) for k in said if k != of_class).most_common(1)
    verdict = f"{votes} of {len(said)} say {_class(classes, answer)}"
    loss = quantity(marks.finite_mean(found.loss[:, index]), "loss")
    svg = picture(f"mistake-{m}", found.worst_image[m], f"True class {true}; {verdict}")
    words = [tag("strong", f"True: {true}"), tag("span", verdict)]
    caption = tag("figcaption", *words, tag("span", f"loss {loss}"))
    return tag("figure", Html(svg), caption)


def sweeps(run: RunFolder) -> Html | None:
    """The effect of each hyper-parameter that differs between members."""
    charts = [
        _changes(run, name, series)
        for (split, name), series in run.told.series.items()
        if split == "hparams"
    ]
    for name, values in varied(run).items():
        value, alike = np.array(values), _alike(run, name)
        charts.append(_sweep(run, name, value, alike))
        if 1 < len(set(value[alike])) <= len(marks.COLOURS):
            charts += _curves_by_value(run, name, value, alike)
    return tag("div", *charts, class_="charts") if charts else None


def _changes(run: RunFolder, name: str, series: Series) -> Html:
    """A hyper-parameter that changed during training, over time."""
    word = humanize(name)
    title = f"{word.capitalize()} over time, of the best members"
    shown = {word: series.averaged(marks.MOST_POINTS)}
    svg = figures.learning_curves(f"changes-{name}", title, word, shown, name)
    text = "A member that continued as a copy has the history of its source."
    return chart(svg, f"{text} {_curve_caption(shown)}")


def varied(run: RunFolder) -> dict[str, list[float]]:
    """The numeric hyper-parameters [P] that differ between members."""
    rows = [member.get("hparams") or {} for member in run.members]
    return {
        name: [float(row[name]) for row in rows]
        for name in (rows[0] if rows else {})
        if all(is_number(row.get(name)) for row in rows)
        and len({row[name] for row in rows}) > 1
    }


def _alike(run: RunFolder, name: str) -> np.ndarray:
    """Which members [P] differ from the best setting in this hyper-parameter only."""
    best = (settings.best(run.summary) or {}).get("hparams")
    rows = [{**(member.get("hparams") or {}), name: None} for member in run.members]
    wanted = rows[0] if best is None else {**best, name: None}
    return np.array([row == wanted for row in rows])


def _curves_by_value(
    run: RunFolder, name: str, values: np.ndarray, alike: np.ndarray
) -> list[Html]:
    """Validation loss over time, one colour for each value; empty if not logged."""
    series = run.series.get(("validation", "loss"))
    if series is None:
        return []
    word = humanize(name)
    groups = {
        f"{word} {v:g}": series.of(alike & (values == v))
        for v in np.unique(values[alike])
    }
    title = f"Validation loss by {word}"
    ends = {v: end for v, own in groups.items() if (end := _final(own)) is not None}
    if ends:
        title = f"Validation loss ends lowest at {min(ends, key=lambda v: ends[v])}"
    axis = f"validation {label(run, 'loss')}"
    svg = figures.learning_curves(f"by-{name}", title, axis, groups, "loss")
    return [chart(svg, f"One colour for each {word}. {_curve_caption(groups)}")]


def _sweep(run: RunFolder, name: str, value: np.ndarray, alike: np.ndarray) -> Html:
    scores = [get_nested(member, run.split, run.metric) for member in run.members]
    result = np.array(
        [
            score if finite and is_number(score) else np.nan
            for score, finite in zip(scores, run.finite, strict=True)
        ]
    )  # [P]
    word, metric = humanize(name), humanize(run.metric)
    title = f"{run.split.capitalize()} {metric} against {word}"
    better = run.better(run.metric)
    if better and np.isfinite(result[alike]).any():
        means = {
            v: marks.finite_mean(result[alike & (value == v)])
            for v in np.unique(value[alike])
        }
        known = {v: mean for v, mean in means.items() if np.isfinite(mean)}
        choose = max if better == "higher" else min
        best = choose(known, key=lambda v: known[v])
        top, most = quantity(known[best], run.metric), f"{better[:-2]}est"
        title = f"{run.split.capitalize()} {metric} is {most} at {word} {best:g}: {top}"
    labels = (word, f"{run.split} {label(run, run.metric)}")
    args = labels, value, result, run.metric, alike
    svg = figures.sweep(f"sweep-{name}", title, *args)
    text = "Spread over seeds."
    if not alike.all():
        text = (
            f"Coloured: members that differ from the best setting in the {word} only, "
            "and their spread over seeds. Grey: members that differ in more."
        )
    if run.split == "test":
        text += " Do not choose by the test split: choose by validation."
    return chart(svg, text)


def label(run: RunFolder, name: str) -> str:
    """A quantity with its unit, for an axis."""
    measure = run.unit(name)
    return f"{humanize(name)} ({measure})" if measure else humanize(name)


def _class(classes: list[str], k: int) -> str:
    return short(classes[k]) if 0 <= k < len(classes) else str(k)
