"""Report of a run with several settings: the best one, and a table of all.

Scores of different settings are never averaged: the report describes the members of the
setting with the best validation score.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dlworkshop.report.elements import Html, folded, join, mean, note
from dlworkshop.report.words import count, humanize, plain, titled


def best(summary: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The best of several settings; None for a single setting, or without a result."""
    found = summary.get("settings") or []
    return found[0] if found and found[0]["finite"] else None


def monitor(summary: Mapping[str, Any]) -> str:
    """The quantity that selected the best parameters and the best setting."""
    return summary.get("monitor") or "loss"


def in_words(summary: Mapping[str, Any]) -> str:
    """The best setting, named by the hyper-parameters that vary.

    >>> settings = [{"hparams": {"a_b": a, "c": 0}, "finite": 1} for a in (1.0, 2.0)]
    >>> in_words({"settings": settings})
    'a b 1, the best of 2 settings by validation loss'
    >>> alike = [{"hparams": {"rate": a}, "finite": 1} for a in (0.1, 0.10000001)]
    >>> in_words({"settings": alike})
    'rate 0.1, the best of 2 settings by validation loss'
    >>> in_words({})
    ''
    """
    trials = (summary.get("sweep") or {}).get("trials") or []
    if best(summary) is None and len(trials) < 2:
        return ""
    by = humanize(monitor(summary))
    if len(trials) < 2 and _has_places(summary):
        name = plain((summary.get("scheduler") or {}).get("name"))
        who = f"{count(len(summary['settings']), 'member')} of each seed"
        return f"{name}, the best of {who} by validation {by}"
    rows = trials if len(trials) > 1 else summary["settings"]
    chosen = rows[0]["hparams"]
    own = [f"{humanize(n)} {plain(chosen.get(n))}" for n in varied(rows)]
    many = count(len(rows), "trial" if rows is trials else "setting")
    named = ", ".join(filter(None, [" and ".join(own), f"the best of {many}"]))
    return f"{named} by validation {by}"


def settings_table(summary: Mapping[str, Any], score: str) -> Html | None:
    """A row for each setting with the monitored quantity and a `score`, the best first.

    None for a single setting.
    """
    found = summary.get("settings") or []
    names = varied(found)
    if len(found) < 2:
        return None
    splits = [s for s in ("validation", "test") if found[0].get(s)]
    scores = dict.fromkeys([monitor(summary), score])
    shown = [(s, n) for s in splits for n in scores if n in found[0][s]]
    steps = _steps(summary)
    rows = []
    for row, trained in zip(found, steps, strict=True):
        total, finite = len(row["members"]), round(row["finite"] * len(row["members"]))
        rows.append(
            [
                *(plain(row["hparams"].get(name)) for name in names),
                f"{total}" if finite == total else f"{finite} of {total} finite",
                *([trained] if len(set(steps)) > 1 else []),
                *(mean(row[split][name], name) for split, name in shown),
            ]
        )
    head = [*map(titled, names), "Members", *["Steps"] * (len(set(steps)) > 1)]
    head += [*(titled(f"{s}_{n}") for s, n in shown)]
    by = humanize(monitor(summary))
    text = f"Best by validation {by} first; ± one standard error of the mean."
    if told := _scheduled(summary):
        text = f"{text} {told}"
    title = count(len(rows), "place" if _has_places(summary) else "setting")
    classes = ["best", *[None] * (len(rows) - 1)]
    return join([note(text), folded(title, "Settings", head, rows, classes)])


def _has_places(summary: Mapping[str, Any]) -> bool:
    """Whether members have places instead of settings, which change during training."""
    return any("place" in row for row in summary.get("population") or ())


def _steps(summary: Mapping[str, Any]) -> list[str]:
    """For each setting, the largest number of steps of a member."""
    members = dict(enumerate(summary.get("population") or ()))
    return [
        count(max(members.get(i, {}).get("steps") or 0 for i in row["members"]))
        for row in summary.get("settings") or []
    ]


def _scheduled(summary: Mapping[str, Any]) -> str:
    """How many members a scheduler continued, in a sentence.

    >>> rungs = {"name": "successive halving", "rungs": {"1": 3, "3": 1, "9": 1}}
    >>> _scheduled({"members": 9, "scheduler": rungs})
    'Successive halving: of 9 members, 3 continue after epoch 1 and 1 after epoch 3.'
    """
    scheduler = summary.get("scheduler") or {}
    rungs, members = scheduler.get("rungs") or {}, summary.get("members")
    left, before = [], members
    for epoch, n in rungs.items():
        if n != before:  # some members are stopped
            left.append(f"{plain(n)} after epoch {plain(epoch)}")
        before = n
    if not left:
        return ""
    left[0] = left[0].replace(" after", " continue after", 1)
    name = plain(scheduler.get("name")).capitalize()
    listed = " and ".join(filter(None, (", ".join(left[:-1]), left[-1])))
    return f"{name}: of {count(members, 'member')}, {listed}."


def varied(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The hyper-parameters that differ between rows."""
    settings = [row["hparams"] for row in rows]
    names = dict.fromkeys(name for own in settings for name in own)
    return [n for n in names if len({repr(own.get(n)) for own in settings}) > 1]
