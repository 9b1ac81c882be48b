"""Report sections on `answers.json`: reliability and explanations of predictions."""

import re
from collections.abc import Mapping
from typing import Any

from dlworkshop.report.data_card import strip
from dlworkshop.report.elements import Html, data, folded, join, note, table, tag
from dlworkshop.report.names import in_table
from dlworkshop.report.predictions import Numbers
from dlworkshop.report.read import RunFolder, get_nested
from dlworkshop.report.words import (
    count,
    humanize,
    is_fraction,
    quantity,
    titled,
    with_error,
)


def reliability(run: RunFolder) -> Html | None:
    """Coverage of sets and intervals, and the share of inputs flagged as unusual."""
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
        f"Prediction sets: a set contains the most likely class and every class with a "
        f"probability of at least {_percent(1 - own['threshold'])}. "
        f"{_counted(own['test'])} have the true class in their set (target: "
        f"{_percent(found['level'])}). A set has {own['size']:.2f} classes on average, "
        f"and {_percent(own['alone'])} of the sets have one."
    ]


def _intervals(run: RunFolder, found: Mapping[str, Any]) -> list[str]:
    lines = []
    columns = run.predictions.names if isinstance(run.predictions, Numbers) else []
    for d, own in enumerate(found.get("intervals") or []):
        name = columns[d] if d < len(columns) and columns[d] else "the target"
        half = f"{quantity(own['half'], '')} {own.get('unit', '')}".strip()
        lines.append(
            f"Prediction interval of {name}: the prediction ± {half}. "
            f"{_counted(own['test'])} have the true value in their interval (target: "
            f"{_percent(found['level'])})."
        )
    return lines


def _unlike(found: Mapping[str, Any]) -> list[str]:
    own = found.get("unlike")
    if not own:
        return []
    checked = "each number of a row by itself"
    if "brightness" in own["names"]:
        checked = f"the {', '.join(own['names'])} of an image"
    checked += " and the energy of the logits" * ("energy" in own)
    return [
        f"Unlike the training data: the check compares {checked} with limits, which "
        f"are set to flag {_percent(own['rate'])} of examples that resemble the "
        f"training data; {_counted(own['test'])} are flagged."
    ]


def _temperature(found: Mapping[str, Any]) -> list[str]:
    own = found.get("temperature")
    if not own:
        return []
    text = (
        f"Calibration error of the ensemble on validation: {_percent(own['error'])}; "
        f"chance alone explains up to {_percent(own['noise'])}"
    )
    if "temperature" not in own:
        return [f"{text}, so there is nothing to correct."]
    before, after = own["test"]["before"], own["test"]["after"]
    return [
        f"{text}. Dividing the logits by {own['temperature']:.3g}, as in dlworkshop "
        f"predict --calibrated, changes the error on test from {_percent(before)} to "
        f"{_percent(after)}."
    ]


def _rests_on(found: Mapping[str, Any]) -> Html:
    """The data that the thresholds were computed on."""
    held = found.get("held_out") or {}
    size = count(held.get("examples"), "example")
    who = f"{size} of validation"
    if held.get("folds"):
        who = (
            f"{size} of train and validation, each predicted by members that were "
            "trained without it"
        )
    return note(
        f"The thresholds come from {who} (split conformal prediction, Vovk et al. "
        "2005). The same examples decided early stopping and the choice of the "
        "setting, so the target is not guaranteed exactly; the test split, which "
        "decided nothing, shows the actual coverage. The coverage is an average over "
        "new examples drawn from the same distribution."
    )


def importance(run: RunFolder) -> Html | None:
    """A table with a row for each column of the data, the most important first."""
    found = get_nested(run.answers, "importance")
    if not found:
        return None
    name = found["score"]
    scale, unit = (100, "points") if is_fraction(name) else (1, run.unit(name))
    rows = []
    for each in found["columns"]:
        error = None if each["sem"] is None else scale * each["sem"]
        said = with_error(scale * each["mean"], error, "")
        rows.append([each["column"], data(said, each["mean"])])
    verb = "falls" if is_fraction(name) else "rises"
    text = (
        f"How much the {humanize(name)} of the ensemble {verb} when the values of a "
        f"column are shuffled among {count(found['examples'], 'test example')} "
        "(Breiman 2001); ± one standard error over the shuffles. Information that two "
        "columns share counts for neither of them."
    )
    head = ["Column", f"{titled(name)} {verb} by" + f" ({unit})" * bool(unit)]
    title = count(len(rows), "column")
    return join([note(text), folded(title, "Importance", head, rows)])


def saliency(run: RunFolder) -> Html | None:
    """Images beside their saliency maps."""
    found = get_nested(run.answers, "saliency")
    if not found:
        return None
    rows = [
        [
            in_table(each["name"]),
            in_table(each["true"]),
            _said(each["said"]),
            data(f"{100 * each['fell']:.0f} points", each["fell"]),
            strip(
                each["pictures"], f"saliency-{i}", f"{each['name']} and its saliency"
            ),
        ]
        for i, each in enumerate(found)
    ]
    text = (
        "Orange: covering this part of the image with its mean colour lowers the "
        "probability of the predicted class; 8 x 8 parts were covered in turn (Zeiler "
        "& Fergus 2014). Mistakes on test come first, then correct predictions."
    )
    head = ["Test example", "True", "Predicted", "Falls by up to", ""]
    return join([note(text), table("Saliency", head, rows)])


def mistakes(run: RunFolder) -> Html | None:
    """The worst mistakes: their sources, and the nearest training examples."""
    found = get_nested(run.answers, "mistakes")
    if not found:
        return None
    rows = []
    for i, each in enumerate(found["rows"]):
        near = [
            tag(
                "div",
                *(in_table(n["name"]), ": ", in_table(n["true"])),
                f" ({n['distance']:.3g} off)",
            )
            for n in each["nearest"]
        ]
        row = [in_table(each["name"]), in_table(each["true"])]
        row += [_said(each["said"]), join(near)]
        if "pictures" in each:
            title = f"{each['name']}, followed by the nearest training examples"
            row.append(strip(each["pictures"], f"nearest-{i}", title))
        rows.append(row)
    images = "pictures" in found["rows"][0]
    how = "pixels of the reduced images" if images else "inputs of the network"
    text = (
        "The worst errors of the ensemble on test, by name or row number, and the "
        f"nearest of {count(found['looked_at'], 'training example')}: 'off' is the "
        f"root mean squared difference between the {how}. If near examples have "
        "different labels, one of the labels may be wrong."
    )
    head = ["Test example", "True", "Predicted", "Nearest in train", ""][: 4 + images]
    return join([note(text), table("Nearest to the mistakes", head, rows)])


def _said(text: str) -> Html:
    """A prediction: a name or a number, and the probability of a class in brackets."""
    found = re.search(r" \(\d+ %\)$", text)
    chance = found[0] if found else ""
    return join([in_table(text.removesuffix(chance)), Html(chance)])


def _counted(share: Mapping[str, Any]) -> str:
    """A proportion of the test examples, with its interval."""
    low, high = (quantity(share[end], "accuracy") for end in ("low", "high"))
    return (
        f"{_percent(share['share'])} of {count(share['examples'], 'test example')} "
        f"({low} to {high})"
    )


def _percent(share: float) -> str:
    return quantity(share, "accuracy")
