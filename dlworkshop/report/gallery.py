"""Many run folders -> the index of a static site, in the order of the course."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dlworkshop.files import atomic_write
from dlworkshop.report import lesson, page, pictures, read
from dlworkshop.report.elements import Html, document, fold, join, tag
from dlworkshop.report.svg_file import written
from dlworkshop.report.words import count, duration, humanize, plain


class Entry(NamedTuple):
    """One experiment of a gallery: a run folder, or the reason why there is none."""

    name: str  # of the experiment and of its folder
    seconds: float | None = None  # its run time; None if it has not been run yet
    problem: str = ""  # one sentence if it wrote no report
    holds: bool = True  # False if a claim fails, or the experiment crashed


def write(folder: Path, chapters: Mapping[str, Sequence[Entry]]) -> Path:
    """Write `folder/index.html` atomically; returns its path.

    Args:
        folder: of the site; it contains the run folder of each entry.
        chapters: title -> entries, both in the order of the page.
    """
    entries = [entry for chapter in chapters.values() for entry in chapter]
    runs = {
        entry.name: read.read_run(folder / entry.name)
        for entry in entries
        if entry.seconds is not None and not entry.problem
    }
    parts = []
    for title, chapter in chapters.items():
        cards = [_card(folder, entry, runs.get(entry.name)) for entry in chapter]
        shown = tag("ol", *cards, class_="cards")
        parts.append(tag("section", tag("h2", title), shown))
    claims = [claim for run in runs.values() for claim in lesson.all_claims(run)]
    held = sum(lesson.state(claim) == "good" for claim in claims)
    total = sum(entry.seconds or 0 for entry in entries)
    without = [entry for entry in entries if entry.problem]
    of_those = f" {len(without)} of them did not run, as noted." if without else ""
    num_done = sum(entry.seconds is not None for entry in entries)
    tried = count(len(entries), "experiment")
    if num_done < len(entries):
        tried = f"{num_done} of {tried} so far"
    top = tag(
        "header",
        tag("h1", "Deep learning workshop"),
        tag("p", f"{held} of {count(len(claims), 'claim')} hold", class_="finding"),
        tag(
            "p",
            f"{tried}, run in {duration(total)}, in the "
            f"order of the lecture. Each opens its report.{of_those}",
            class_="note",
        ),
    )
    foot = tag("footer", "Written by dlworkshop; this site needs no network.")
    body = join([top, tag("main", *parts), foot])
    target = folder / "index.html"
    atomic_write(target, document("Deep learning workshop", body, "'self' file:"))
    return target


def _card(folder: Path, entry: Entry, run: read.RunFolder | None) -> Html:
    title = humanize(entry.name)
    if run is None:
        said = entry.problem or "Not run yet."
        return tag("li", tag("h3", title), tag("p", said, class_="note"), class_="card")
    question = plain(run.summary.get("question") or title)
    source = _thumbnail(folder, run, entry.name)
    picture = tag("img", src=source, alt="", loading="lazy") if source else ""
    return tag(
        "li",
        tag("a", picture, tag("h3", question), href=f"{entry.name}/report.html"),
        tag("p", page.finding(run)),
        _verdicts(run),
        tag("p", f"{title}, {duration(entry.seconds)}", class_="note"),
        class_="card",
    )


def _verdicts(run: read.RunFolder) -> Html:
    """The claims of a run; the list is folded if all of them hold."""
    claims = run.summary.get("claims") or []
    items = []
    for claim in claims:
        mark = "✓ holds:" if lesson.state(claim) == "good" else "✗ fails:"
        verdict = tag("span", mark, class_=lesson.state(claim))
        items.append(tag("li", verdict, f" {plain(claim.get('statement'))}"))
    fails = any(lesson.state(claim) == "bad" for claim in lesson.all_claims(run))
    listed = tag("ul", *items, class_="verdicts")
    return (
        fold(lesson.claims_summary(run), listed, is_open=fails) if items else Html("")
    )


def _thumbnail(folder: Path, run: read.RunFolder, name: str) -> str:
    """The address of the first figure of a lesson, or of the learning curves."""
    if run.summary.get("figures"):
        return f"{name}/{run.summary['figures'][0]['file']}"
    curves = pictures.curves(run)
    if curves is None:
        return ""
    svg = curves[curves.index("<svg") : curves.index("</svg>") + len("</svg>")]
    atomic_write(folder / name / "thumbnail.svg", written(svg))
    return f"{name}/thumbnail.svg"
