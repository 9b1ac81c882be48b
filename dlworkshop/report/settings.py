"""Report of a run with several settings: the best one, and a table of all.

Numbers of different settings are not mixed into one: what is told is of the members of
the setting that is the best by validation.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dlworkshop.report.elements import Html, fold, join, mean, note, table
from dlworkshop.report.words import count, humanize, plain, titled

OPEN_ROWS, OPEN_COLUMNS = 12, 12  # a larger table waits to be opened


def best(summary: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The best of the settings in a summary; None where there is one, or no result."""
    found = summary.get("settings") or []
    return found[0] if found and found[0]["finite"] else None


def in_words(summary: Mapping[str, Any]) -> str:
    """The best setting by the hyper-parameters that differ, and the number of settings.

    >>> settings = [{"hparams": {"a_b": a, "c": 0}, "finite": 1} for a in (1.0, 2.0)]
    >>> in_words({"settings": settings})
    'a b 1, the best of 2 settings by validation loss'
    >>> in_words({})
    ''
    """
    trials = (summary.get("sweep") or {}).get("trials") or []
    if best(summary) is None and len(trials) < 2:
        return ""
    rows = trials if len(trials) > 1 else summary["settings"]
    chosen = rows[0]["hparams"]
    own = [f"{humanize(n)} {plain(chosen.get(n))}" for n in varied(rows)]
    by = humanize(summary.get("monitor") or "loss")
    many = count(len(rows), "trial" if rows is trials else "setting")
    return f"{' and '.join(own)}, the best of {many} by validation {by}"


def settings_table(summary: Mapping[str, Any], score: str) -> Html | None:
    """A row for each setting, the best first, with what decides and a `score`.

    None where there is one setting.
    """
    found = summary.get("settings") or []
    names = varied(found)
    if len(found) < 2:
        return None
    splits = [s for s in ("validation", "test") if found[0].get(s)]
    scores = dict.fromkeys([summary.get("monitor") or "loss", score])
    shown = [(s, n) for s in splits for n in scores if n in found[0][s]]
    rows = []
    for row in found:
        total, finite = len(row["members"]), round(row["finite"] * len(row["members"]))
        rows.append(
            [
                *(plain(row["hparams"].get(name)) for name in names),
                f"{total}" if finite == total else f"{finite} of {total} finite",
                *(mean(row[split][name], name) for split, name in shown),
            ]
        )
    head = [*map(titled, names), "Members", *(titled(f"{s}_{n}") for s, n in shown)]
    by = humanize(summary.get("monitor") or "loss")
    text = f"Best by validation {by} first; ± one standard error of the mean."
    title = count(len(rows), "setting")
    whole = table("Settings", head, rows, ["best", *[None] * (len(rows) - 1)])
    is_open = len(rows) <= OPEN_ROWS and len(head) <= OPEN_COLUMNS
    return join([note(text), fold(title, whole, is_open)])


def varied(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The hyper-parameters in which settings differ."""
    settings = [row["hparams"] for row in rows]
    names = dict.fromkeys(name for own in settings for name in own)
    return [n for n in names if len({plain(own.get(n)) for own in settings}) > 1]
