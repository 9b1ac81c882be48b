"""The page of a run: first the finding, then the evidence."""

import re
from collections import Counter
from typing import Any

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
    values,
)
from dlworkshop.report.elements import (
    Html,
    data,
    document,
    fold,
    join,
    mean,
    note,
    number,
    scroll,
    table,
    tag,
)
from dlworkshop.report.names import in_table
from dlworkshop.report.read import RunFolder, get_nested, is_finite, name_of
from dlworkshop.report.words import (
    count,
    duration,
    flatten,
    humanize,
    is_fraction,
    is_number,
    plain,
    titled,
    with_error,
)

OPEN_ROWS, OPEN_COLUMNS = 16, 12  # a larger table is folded


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
        ("Timings", _timings(run)),
        ("Configuration", _config(run)),
        ("Environment", _environment(run)),
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
        ("Key numbers", _tiles(run)),
        ("Search", search.search(run)),
        ("Trials", sweep.trials(run)),
        ("Settings", settings.settings_table(run.summary, run.metric)),
        ("Scores", _scores(told)),
        ("Learning curves", pictures.curves(told)),
        *_predictions(told),
        ("Importance of columns", answers.importance(run)),
        ("Saliency", answers.saliency(run)),
        ("Nearest to the mistakes", answers.mistakes(run)),
        ("Augmentation", data_card.augmentation(run)),
        ("Members", _members(run)),
        ("Hyper-parameters", pictures.sweeps(run)),
        ("Model", _model(run)),
    ]


def _predictions(run: RunFolder) -> list[tuple[str, Html | None]]:
    """Sections on the test predictions, according to the kind of outputs."""
    if run.predictions is not None:
        return [
            ("Confusion matrix", confusion.confusion(run)),
            ("Each class", classes.per_class(run)),
            ("Calibration", calibration.calibration(run)),
            ("Ensemble", calibration.ensemble(run)),
            ("Worst mistakes", pictures.mistakes(run)),
        ]
    if run.values is not None:
        return [
            ("Predictions", values.predictions(run, run.values)),
            ("Ensemble", values.ensemble(run, run.values)),
        ]
    if run.labels is not None:
        return [
            ("Each label", labels.per_label(run, run.labels)),
            ("Ensemble", labels.ensemble(run, run.labels)),
        ]
    return []


def _notes(run: RunFolder) -> Html | None:
    """Remarks on the results, and the reason if there are no predictions."""
    found = list(run.summary.get("notes") or [])
    several = run.predictions, run.values, run.labels
    if _has_trained(run) and all(kept is None for kept in several):
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
    num_lost = sum(not is_finite(member) for member in run.members)
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
        stopped = f"Training was interrupted after {_steps(run.summary)}."
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


def _tiles(run: RunFolder) -> Html | None:
    """The key numbers."""
    summary, states = run.summary, Counter(m.get("status") for m in run.members)
    tally = ", ".join(f"{n} {plain(state)}" for state, n in states.items() if state)
    tiles = [
        _stat_tile(run.told, split, name)
        for split in dict.fromkeys((run.split, "validation"))
        for name in dict.fromkeys((run.metric, "loss"))
    ]
    seconds = get_nested(summary, "seconds", "total")
    for title, value, text, more in (
        ("Members", summary.get("members"), count, tally),
        ("Parameters", summary.get("parameters"), count, "in each member"),
        ("Time", seconds, duration, f"for {_steps(summary)}"),
        ("Throughput", summary.get("examples_per_second"), count, "examples a second"),
    ):
        if is_number(value):
            tiles.append(_tile(title, data(text(value), value), more))
    tiles.append(_saved_tile(summary))
    shown = [tile for tile in tiles if tile]
    return tag("dl", *shown, class_="tiles") if shown else None


def _saved_tile(summary: dict[str, Any]) -> Html | None:
    """The updates of all members, if early stopping saved any."""
    done, saved = (
        get_nested(summary, "model_steps", name) or 0 for name in ("done", "saved")
    )
    if not saved:
        return None
    share = 100 * saved / (done + saved)
    of = f"of all members; {count(saved)} more ({share:.0f} %) were saved"
    return _tile("Model steps", data(count(done), done), of)


def _steps(summary: dict[str, Any]) -> str:
    return count(summary.get("steps"), "step")


def _stat_tile(run: RunFolder, split: str, name: str) -> Html | None:
    stat = get_nested(run.summary, split, name) or {}
    if not is_number(stat.get("mean")):
        return None
    measure = run.unit(name)
    of = f"mean of {count(stat.get('n'), 'member')}"
    if measure and measure != "%":
        of = f"{measure}, {of}"
    return _tile(titled(f"{split}_{name}"), mean(stat, name), of)


def _tile(title: str, value: Html, more: str) -> Html:
    return tag("div", tag("dt", title), tag("dd", value), tag("dd", more))


def _scores(run: RunFolder) -> Html | None:
    """All scores; None if the key numbers contain them already."""
    splits = [name for name in ("test", "validation") if run.summary.get(name)]
    names = [
        n for n in run.quantities if any(get_nested(run.summary, s, n) for s in splits)
    ]
    if len(names) <= len({run.metric, "loss"}):
        return None
    rows = []
    for name in names:
        means = [mean(get_nested(run.summary, s, name) or {}, name) for s in splits]
        measure, better = run.unit(name).strip("%"), run.better(name)
        rows.append(
            [titled(name), *means, measure, f"{better} is better" * bool(better)]
        )
    head = ["", *(titled(split) for split in splits), "Unit", "Direction"]
    text = "Mean over the members ± one standard error of the mean."
    return join([note(text), table("Scores", head, rows)])


def _members(run: RunFolder) -> Html | None:
    if not run.members:
        return None
    hparams = dict.fromkeys(
        name
        for member in run.members
        for name, value in (member.get("hparams") or {}).items()
        if value is not None
    )
    head = ["Member", "Seed", *map(titled, hparams)]
    head += ["Status", "Steps", titled(f"best_validation_{_monitor(run)}")]
    head += [titled(f"{run.split}_{name}") for name in run.quantities]
    rows = [_member_row(run, i, list(hparams)) for i in range(len(run.members))]
    classes = [None if is_finite(member) else "bad" for member in run.members]
    title = count(len(rows), "member")
    is_open = len(rows) <= OPEN_ROWS and len(head) <= OPEN_COLUMNS
    shown = table("Members", head, rows, classes, "sortable")
    return fold(title, shown, is_open)


def _member_row(run: RunFolder, i: int, hparams: list[str]) -> list[Any]:
    member = run.members[i]
    status = tag("span", plain(member.get("status")))
    if not is_finite(member):
        status = tag("span", "✗ ", plain(member["status"]), class_="bad")
    scores = [(name, get_nested(member, run.split, name)) for name in run.quantities]
    best = member.get(f"best_validation_{_monitor(run)}")
    return [
        plain(member.get("member", i)),
        plain(member.get("seed")),
        *(plain(get_nested(member, "hparams", name)) for name in hparams),
        join([status, tag("small", member.get("note") or "")]),
        count(member.get("steps")),
        number(best, _monitor(run)),
        *(number(value, name, 2) for name, value in scores),
    ]


def _monitor(run: RunFolder) -> str:
    """The quantity that selected the best parameters."""
    return run.summary.get("monitor") or "loss"


def _model(run: RunFolder) -> Html | None:
    text = run.summary.get("table")
    if not text:
        return None
    return scroll("Layers of the model", tag("pre", text.rstrip()))


def _timings(run: RunFolder) -> Html | None:
    seconds = run.summary.get("seconds") or {}
    rows = [
        [titled(name), data(duration(value), value)] for name, value in seconds.items()
    ]
    rate = run.summary.get("examples_per_second")
    if is_number(rate):
        rows.append(["Examples a second", data(count(rate), rate)])
    return table("Timings", [], rows) if rows else None


def _config(run: RunFolder) -> Html | None:
    rows: list[tuple[str, str]] = [
        (name, in_table(value) if name.endswith(".classes") else value)
        for name, value in flatten(run.config)
    ]
    if not rows:
        return None
    title = count(len(rows), "setting")
    return fold(title, table("Configuration", [], rows), len(rows) <= OPEN_ROWS)


def _environment(run: RunFolder) -> Html | None:
    names = [name for name in ("device", "versions") if run.summary.get(name)]
    rows = [row for name in names for row in flatten(run.summary[name], name)]
    shown = [(name.removeprefix("versions."), value) for name, value in rows]
    return table("Environment", [], shown) if rows else None


def _anchor(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower())
