"""Report sections on a search by `autofit`, and on baselines."""

from typing import Any

from dlworkshop.report.elements import (
    Html,
    data,
    folded,
    join,
    mean,
    note,
    number,
    table,
    tag,
)
from dlworkshop.report.read import RunFolder, get_nested
from dlworkshop.report.words import (
    count,
    duration,
    humanize,
    is_fraction,
    plain,
    quantity,
    titled,
    with_error,
)


def baselines_table(run: RunFolder) -> Html | None:
    """Scores of the ensemble, its members and the baselines on the test split."""
    simple = run.summary.get("baselines")
    if not simple:
        return None
    together = run.summary.get("ensemble") or {}
    names = [name for name in together if any(name in own for own in simple.values())]
    rows: list[list[Any]] = [["Ensemble", *(number(together[n], n, 2) for n in names)]]
    alone = {name: get_nested(run.summary, "test", name) or {} for name in names}
    rows.append(["One member", *(mean(stat, name) for name, stat in alone.items())])
    rows += [
        [titled(b), *(number(own.get(n), n, 2) for n in names)]
        for b, own in simple.items()
    ]
    text = "All on the test split; ± one standard error of the mean over the members."
    if of_new := run.summary.get("expected"):
        intervals = [
            f"{humanize(name)} {quantity(own['mean'], name)} "
            f"({quantity(own['low'], name)} to {quantity(own['high'], name)})"
            for name, own in of_new.items()
            if isinstance(own, dict)
        ]
        text += (
            f" Expected on new data: {', '.join(intervals)}. The 95 % intervals were "
            f"estimated on {count(of_new.get('examples'), 'example')} of train and "
            "validation, each predicted by members that were trained without it."
        )
    return join([table("Baselines", ["", *map(titled, names)], rows), note(text)])


def search(run: RunFolder) -> Html | None:
    """The settings that were tried, with their validation scores."""
    found = run.summary.get("search")
    if not found:
        return None
    rows, judged = found.get("rows") or [], found.get("judged_by", "loss")
    parts = []
    tried = found.get("tried") or {}
    worked = [
        f"{name}: {count(own.get('members'), 'member')} ({plain(own.get('repeats'))}), "
        f"{count(own.get('updates'))} updates each, {duration(own.get('seconds'))} "
        f"(planned {duration(own.get('planned'))})"
        for name, own in tried.items()
        if "members" in own
    ]
    worked += found.get("left_out") or []
    if rows:
        names = list(dict.fromkeys(name for row in rows for name in row["hparams"]))
        shown = [_row(row, names, judged) for row in rows]
        classes = ["best" if row.get("chosen") else None for row in rows]
        head = ["Network", *map(titled, names), titled(f"validation_{judged}")]
        head += ["Behind the best", ""]
        title = count(len(rows), "setting")
        parts.append(folded(title, "Settings", head, shown, classes))
        parts.append(note(f"Chosen: {found.get('rule')}."))
    else:
        given = "All settings were given, so nothing was searched."
        parts.append(tag("p", "No settings were compared." if worked else given))
    budget = run.summary.get("budget") or {}
    if budget:
        worked.append(
            f"Time used: {duration(budget['used_seconds'])} of "
            f"{duration(60 * budget['minutes'])}."
        )
    parts.append(tag("ul", *(tag("li", line) for line in worked)))
    return join(parts)


def _row(row: dict[str, Any], names: list[str], judged: str) -> list[Any]:
    behind, sem = row.get("behind"), row.get("behind_sem")
    scale, unit = (100, " points") if is_fraction(judged) else (1, "")
    lost = "—"
    if behind is not None:
        error = None if sem is None else scale * sem
        lost = with_error(scale * behind, error, "") + unit
    return [
        row["candidate"],
        *(plain(row["hparams"].get(name)) for name in names),
        mean(row, judged),
        data(lost, behind),
        "✓ chosen" if row.get("chosen") else "",
    ]
