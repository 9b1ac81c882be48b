"""Sections of the page with numbers of a run: key numbers, members, times, settings."""

from collections import Counter
from typing import Any

from dlworkshop.report.elements import (
    Html,
    data,
    folded,
    join,
    mean,
    note,
    number,
    scroll,
    table,
    tag,
)
from dlworkshop.report.names import in_table
from dlworkshop.report.read import RunFolder, get_nested, is_finite
from dlworkshop.report.words import (
    count,
    duration,
    flatten,
    is_number,
    plain,
    titled,
)


def key_numbers(run: RunFolder) -> Html | None:
    """Scores, members, parameters and times as tiles."""
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
        ("Time", seconds, duration, f"for {steps(summary)}"),
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


def steps(summary: dict[str, Any]) -> str:
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


def scores(run: RunFolder) -> Html | None:
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


def members(run: RunFolder) -> Html | None:
    if not run.members:
        return None
    hparams = dict.fromkeys(
        name
        for member in run.members
        for name, value in (member.get("hparams") or {}).items()
        if value is not None
    )
    head = ["Member", "Seed", *map(titled, hparams)]
    head += ["Status", "Steps", titled(f"best_validation_{run.monitor}")]
    head += [titled(f"{run.split}_{name}") for name in run.quantities]
    rows = [_member_row(run, i, list(hparams)) for i in range(len(run.members))]
    classes = [None if finite else "bad" for finite in run.finite]
    title = count(len(rows), "member")
    return folded(title, "Members", head, rows, classes, "sortable")


def _member_row(run: RunFolder, i: int, hparams: list[str]) -> list[Any]:
    member = run.members[i]
    status = tag("span", plain(member.get("status")))
    if not is_finite(member):
        status = tag("span", "✗ ", plain(member["status"]), class_="bad")
    scores = [(name, get_nested(member, run.split, name)) for name in run.quantities]
    best = member.get(f"best_validation_{run.monitor}")
    return [
        plain(member.get("member", i)),
        plain(member.get("seed")),
        *(plain(get_nested(member, "hparams", name)) for name in hparams),
        join([status, tag("small", member.get("note") or "")]),
        count(member.get("steps")),
        number(best, run.monitor),
        *(number(value, name, 2) for name, value in scores),
    ]


def model(run: RunFolder) -> Html | None:
    text = run.summary.get("table")
    if not text:
        return None
    return scroll("Layers of the model", tag("pre", text.rstrip()))


def timings(run: RunFolder) -> Html | None:
    seconds = run.summary.get("seconds") or {}
    rows = [
        [titled(name), data(duration(value), value)] for name, value in seconds.items()
    ]
    rate = run.summary.get("examples_per_second")
    if is_number(rate):
        rows.append(["Examples a second", data(count(rate), rate)])
    return table("Timings", [], rows) if rows else None


def config(run: RunFolder) -> Html | None:
    rows: list[tuple[str, str]] = [
        (name, in_table(value) if name.endswith(".classes") else value)
        for name, value in flatten(run.config)
    ]
    title = count(len(rows), "setting")
    return folded(title, "Configuration", [], rows) if rows else None


def environment(run: RunFolder) -> Html | None:
    names = [name for name in ("device", "versions") if run.summary.get(name)]
    rows = [row for name in names for row in flatten(run.summary[name], name)]
    shown = [(name.removeprefix("versions."), value) for name, value in rows]
    return table("Environment", [], shown) if rows else None
