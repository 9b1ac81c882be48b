"""The page of a run: first the finding, then the evidence."""

import re

from dlworkshop.report import (
    answers,
    calibration,
    classes,
    confusion,
    data_card,
    labels,
    lesson,
    pictures,
    search,
    settings,
    sweep,
    tables,
    values,
)
from dlworkshop.report.elements import Html, document, join, note, tag
from dlworkshop.report.predictions import Predictions
from dlworkshop.report.read import RunFolder, get_nested, name_of
from dlworkshop.report.words import (
    count,
    humanize,
    is_fraction,
    is_number,
    plain,
    with_error,
)


def render(run: RunFolder) -> str:
    """The whole page as text, a deterministic function of the run."""
    taught = lesson.sections(run)
    sections = [
        ("Notes", _notes(run)),
        *(taught if run.text else []),  # the question comes before its data
        ("Baselines", search.baselines_table(run)),
        ("Reliability of the predictions", answers.reliability(run)),
        ("Data", data_card.data_card(run)),
        *([] if run.text else taught),
        *(_training(run) if _has_trained(run) else []),
        ("Run it yourself" if run.text else "About", lesson.about(run)),
        ("Code", lesson.code(run)),
        ("Timings", tables.timings(run)),
        ("Configuration", tables.config(run)),
        ("Environment", tables.environment(run)),
    ]
    shown = [(title, content) for title, content in sections if content]
    links = [tag("li", tag("a", t, href=f"#{_anchor(t)}")) for t, _ in shown]
    title = plain(run.summary.get("experiment") or run.config.get("experiment"))
    top = tag(
        "header",
        *_headline(run, title),
        note(_note(run)),
        tag("nav", tag("ul", *links), aria_label="Parts of this report"),
    )
    body = [
        tag("section", tag("h2", t, id=_anchor(t)), content, aria_labelledby=_anchor(t))
        for t, content in shown
    ]
    foot = tag("footer", "Written by dlworkshop; this file needs no network.")
    return document(f"{title}: {finding(run)}", join([top, tag("main", *body), foot]))


def _headline(run: RunFolder, title: str) -> list[Html]:
    """The question and the finding; a lesson emphasises the question."""
    found = finding(run).replace(" %", "\u00a0%")
    if run.text:
        question = plain(run.summary.get("question") or title)
        return [
            tag("h1", question, class_="finding"),
            tag("p", f"Found: {found}.", class_="lead"),
        ]
    return [tag("h1", _subtitle(run, title)), tag("p", found, class_="finding")]


def _has_trained(run: RunFolder) -> bool:
    """Whether the run was trained by `fit`, possibly as part of a lesson."""
    return "steps" in run.summary or "finding" not in run.summary


def _training(run: RunFolder) -> list[tuple[str, Html | None]]:
    """Sections of a training run; with several settings, of the best one."""
    told = run.told
    return [
        ("Key numbers", tables.key_numbers(run)),
        ("Search", search.search(run)),
        ("Trials", sweep.trials(run)),
        ("Settings", settings.settings_table(run.summary, run.metric)),
        ("Scores", tables.scores(told)),
        ("Learning curves", pictures.curves(told)),
        *_predictions(told),
        ("Importance of columns", answers.importance(run)),
        ("Saliency", answers.saliency(run)),
        ("Nearest to the mistakes", answers.mistakes(run)),
        ("Augmentation", data_card.augmentation(run)),
        ("Members", tables.members(run)),
        ("Hyper-parameters", pictures.sweeps(run)),
        ("Model", tables.model(run)),
    ]


def _predictions(run: RunFolder) -> list[tuple[str, Html | None]]:
    """Sections on the test predictions of the finite members."""
    if run.predictions is None:
        return []
    found = run.predictions.of(run.finite or slice(None))
    if not len(found.prediction):
        none = "All members were quarantined, so there are no predictions."
        return [("Predictions", note(none))]
    if isinstance(found, Predictions):
        return [
            ("Confusion matrix", confusion.confusion(found)),
            ("Each class", classes.per_class(found)),
            ("Calibration", calibration.calibration(found)),
            ("Ensemble", calibration.ensemble(found)),
            ("Worst mistakes", pictures.mistakes(found)),
        ]
    if found.are_labels:
        return [
            ("Each label", labels.per_label(found)),
            ("Ensemble", labels.ensemble(found)),
        ]
    return [
        ("Predictions", values.predictions(run, found)),
        ("Ensemble", values.ensemble(found)),
    ]


def _notes(run: RunFolder) -> Html | None:
    """Remarks on the results, and the reason if there are no predictions."""
    found = list(run.summary.get("notes") or [])
    if _has_trained(run) and run.predictions is None:
        found.append(_why_none(run))
    return tag("ul", *(tag("li", note) for note in found)) if found else None


def _why_none(run: RunFolder) -> str:
    """A sentence about missing predictions."""
    outputs = run.summary.get("outputs")
    if not run.summary.get("test"):
        return "The test split was not read, so there are no predictions for it."
    if "outputs" in run.summary and outputs is None:
        return (
            "The kind of the model outputs is unknown, so they are treated neither "
            'as probabilities nor as values: pass outputs="logits" or another kind to '
            "fit."
        )
    if outputs in ("logits", "probabilities") and not get_nested(
        run.config, "dataset", "classes"
    ):
        return "The data set has no class names, so there is no confusion matrix."
    return "The run folder contains no predictions for the test split."


def finding(run: RunFolder) -> str:
    """The result of the run in one sentence."""
    if run.summary.get("finding"):
        return plain(run.summary["finding"])
    if setting := settings.in_words(run.summary):
        return f"{_finding(run.told)}, with {setting}"
    return _finding(run)


def _finding(run: RunFolder) -> str:
    test = get_nested(run.summary, run.split, run.metric) or {}
    total = run.summary.get("members") or len(run.members) or test.get("n")
    num_lost = run.finite.count(False)
    if not is_number(test.get("mean")):
        if total and num_lost == total:
            return f"No result: all {count(total, 'model')} were quarantined."
        return f"This run has no test {humanize(run.metric)}."
    size = test.get("n") if is_number(test.get("n")) else total
    who = count(size, "model") if size == total else f"{size} of {total} models"
    what = with_error(test["mean"], test.get("sem"), run.metric)
    name = f"{run.split} {humanize(run.metric)}"
    if is_fraction(run.metric):
        reach = "reaches" if who == "1 model" else "reach"
        return f"{who} {reach} {what} {name}"
    has = "has" if who == "1 model" else "have"
    measure = run.unit(run.metric)
    return f"{who} {has} a {name} of {what} {measure}".strip()


def _subtitle(run: RunFolder, title: str) -> str:
    if run.summary.get("question"):
        return f"{humanize(title)}: {plain(run.summary['question'])}"
    model, dataset = (
        name_of(run.summary.get(key)) or name_of(run.config.get(key))
        for key in ("model", "dataset")
    )
    return f"{title}: {model} on {dataset}" if model and dataset else title


def _note(run: RunFolder) -> str:
    stopped = ""
    if run.summary.get("interrupted"):
        stopped = f"Training was interrupted after {tables.steps(run.summary)}."
    return " ".join(
        filter(None, (lesson.claims_summary(run), stopped, _error_note(run)))
    )


def _error_note(run: RunFolder) -> str:
    if not _has_trained(run):
        return ""
    run = run.told
    test = get_nested(run.summary, run.split, run.metric) or {}
    unread = "Nothing was measured on the test split."
    if not is_number(test.get("mean")):
        known = "The test split was read, but this score is not known."
        return known if run.split == "test" else unread
    before = "" if run.split == "test" else f"{unread} "
    if not is_number(test.get("sem")):
        there = "There is a single member"
        if len(run.members) > 1:
            there = f"A single member of {len(run.members)} has a finite score"
        return f"{before}{there} and no error bar: train more seeds."
    text = f"± one standard error of the mean over {count(test.get('n'), 'member')}"
    differing = " and ".join(humanize(name) for name in pictures.varied(run))
    return before + (f"{text} that differ in {differing}." if differing else f"{text}.")


def _anchor(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower())
