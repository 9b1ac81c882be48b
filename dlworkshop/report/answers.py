"""Report sections on `answers.json`: reliability and explanation of predictions."""

from collections.abc import Mapping
from typing import Any

from dlworkshop.report.data_card import strip
from dlworkshop.report.elements import Html, data, fold, join, note, table, tag
from dlworkshop.report.read import RunFolder, get_nested
from dlworkshop.report.words import count, humanize, is_fraction, quantity, titled

OPEN_ROWS = 20  # a longer table waits to be opened


def reliability(run: RunFolder) -> Html | None:
    """Coverage of sets and intervals, and the rate of inputs flagged as unlike."""
    found = run.answers
    if not found:
        return None
    lines = [*_sets(found), *_intervals(run, found), *_unlike(found)]
    lines += _temperature(found)
    if not lines:
        return None
    return join([tag("ul", *(tag("li", line) for line in lines)), _rests_on(found)])


def _sets(found: Mapping[str, Any]) -> list[str]:
    own = found.get("sets")
    if not own:
        return []
    return [
        f"Sets of classes: a class is in the set where its probability is at least "
        f"{_percent(1 - own['threshold'])}, and the likeliest one always is. "
        f"{_counted(own['test'])} hold the true class, where "
        f"{_percent(found['level'])} were wanted; a set has {own['size']:.2f} classes "
        f"on average, and {_percent(own['alone'])} have one."
    ]


def _intervals(run: RunFolder, found: Mapping[str, Any]) -> list[str]:
    lines = []
    columns = run.values.names if run.values is not None else []
    for d, own in enumerate(found.get("intervals") or []):
        name = columns[d] if d < len(columns) and columns[d] else "the target"
        lines.append(
            f"Intervals of {name}: the prediction ± {own['half']:.4g}. "
            f"{_counted(own['test'])} hold the truth, where {_percent(found['level'])} "
            "were wanted."
        )
    return lines


def _unlike(found: Mapping[str, Any]) -> list[str]:
    own = found.get("unlike")
    if not own:
        return []
    looked_at = "the numbers of a row, each by itself"
    if "brightness" in own["names"]:
        looked_at = f"of an image its {', '.join(own['names'])}"
    looked_at += " and the energy of its logits" * ("energy" in own)
    return [
        f"Unlike the training data: looked at are {looked_at}. The limits are set so "
        f"that {_percent(own['rate'])} of examples like those of train are said to be "
        f"unlike them; {_counted(own['test'])} are."
    ]


def _temperature(found: Mapping[str, Any]) -> list[str]:
    own = found.get("temperature")
    if not own:
        return []
    text = (
        f"Calibration error of the ensemble on validation: {_percent(own['error'])}; "
        f"chance alone makes up to {_percent(own['noise'])}"
    )
    if "temperature" not in own:
        return [f"{text}, so there is nothing to correct."]
    before, after = own["test"]["before"], own["test"]["after"]
    return [
        f"{text}. Logits divided by {own['temperature']:.3g} have an error of "
        f"{_percent(after)} on test, instead of {_percent(before)}: "
        "dlworkshop predict --calibrated does that."
    ]


def _rests_on(found: Mapping[str, Any]) -> Html:
    """The data that the thresholds were computed on."""
    held = found.get("held_out") or {}
    size = count(held.get("examples"), "example")
    who = f"{size} of validation"
    if held.get("folds"):
        who = (
            f"{size} of train and validation, each answered by members that held it out"
        )
    text = (
        f"The thresholds come from {who} (split conformal prediction, Vovk et al. "
        "2005). The same examples have stopped the training and chosen the setting, so "
        "what is wanted is not guaranteed exactly; test, which nothing was chosen by, "
        "says what it is. It holds for new examples that are drawn as these were, on "
        "average over all of them."
    )
    return note(text)


def importance(run: RunFolder) -> Html | None:
    """A row for each column of a table, the most important first."""
    found = get_nested(run.answers, "importance")
    if not found:
        return None
    name = found["score"]
    scale, unit = (100, "points") if is_fraction(name) else (1, run.unit(name))
    rows = []
    for each in found["columns"]:
        said = f"{scale * each['mean']:.3g}"
        said += f" ± {scale * each['sem']:.2g}" if each["sem"] is not None else ""
        rows.append([each["column"], data(said, each["mean"])])
    verb = "falls" if is_fraction(name) else "rises"
    text = (
        f"How much the {humanize(name)} of the ensemble {verb} where the cells of a "
        f"column are shuffled among {count(found['examples'], 'test example')} "
        "(Breiman 2001); ± one standard error over the shuffles. What two columns both "
        "say is in neither's importance."
    )
    title = count(len(rows), "column")
    head = f"{titled(name)} {verb} by" + f" ({unit})" * bool(unit)
    shown = table("Importance", ["Column", head], rows)
    return join([note(text), fold(title, shown, len(rows) <= OPEN_ROWS)])


def saliency(run: RunFolder) -> Html | None:
    """Images beside their saliency maps."""
    found = get_nested(run.answers, "saliency")
    if not found:
        return None
    rows = [
        [
            each["name"],
            each["true"],
            each["said"],
            data(f"{100 * each['fell']:.0f} points", each["fell"]),
            strip(
                each["pictures"], f"saliency-{i}", f"{each['name']} and its saliency"
            ),
        ]
        for i, each in enumerate(found)
    ]
    text = (
        "Orange: where the probability of what is said falls if that part is covered "
        "with the mean colour of the image, at 8 x 8 places (Zeiler & Fergus 2014). "
        "First mistakes on test, then right answers."
    )
    head = ["Test example", "True", "Said", "Falls by up to", ""]
    return join([note(text), table("Saliency", head, rows)])


def mistakes(run: RunFolder) -> Html | None:
    """The worst mistakes: their sources, and the nearest examples of train."""
    found = get_nested(run.answers, "mistakes")
    if not found:
        return None
    rows = []
    for i, each in enumerate(found["rows"]):
        near = [
            tag("div", f"{n['name']}: {n['true']} ({n['distance']:.3g} off)")
            for n in each["nearest"]
        ]
        row = [each["name"], each["true"], each["said"], join(near)]
        if "pictures" in each:
            title = f"{each['name']}, then the nearest training examples"
            row.append(strip(each["pictures"], f"nearest-{i}", title))
        rows.append(row)
    images = "pictures" in found["rows"][0]
    how = "pixels of the image made small" if images else "numbers of a row as learnt"
    text = (
        "The test examples of which the ensemble is most wrong, by their names or row "
        f"numbers, and the nearest of {count(found['looked_at'], 'training example')}: "
        f"off is the root of the mean squared difference of the {how}. A label that "
        "differs among near examples may be a wrong one."
    )
    head = ["Test example", "True", "Said", "Nearest in train", ""][: 4 + images]
    return join([note(text), table("Nearest to the mistakes", head, rows)])


def _counted(share: Mapping[str, Any]) -> str:
    """A proportion of the test examples, with its interval."""
    low, high = (quantity(share[end], "accuracy") for end in ("low", "high"))
    return (
        f"{_percent(share['share'])} of {count(share['examples'], 'test example')} "
        f"({low} to {high})"
    )


def _percent(share: float) -> str:
    return quantity(share, "accuracy")
