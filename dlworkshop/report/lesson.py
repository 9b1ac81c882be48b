"""Sections of the page of a lesson: text, claims, figures, exercises, code."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dlworkshop.errors import UserError
from dlworkshop.report.elements import (
    Html,
    chart,
    control,
    data,
    fold,
    join,
    prose,
    scroll,
    tag,
)
from dlworkshop.report.read import RunFolder
from dlworkshop.report.words import compact, count, is_number, p_value, plain

CLAIMED = "What was claimed"  # title of the section that the claims follow
SIGNS = {"<=": "at most", ">=": "at least", "<": "below", ">": "above", "=": "exactly"}


def sections(run: RunFolder) -> list[tuple[str, Html | None]]:
    """The sections of a lesson, in reading order.

    Claims and exercises follow the section of the text on the claims. Figures that the
    text does not contain come last.
    """
    if not run.text:
        return [
            ("Claims", claims(run)),
            ("Change a line", exercises(run)),
            ("Figures", figures(run)),
        ]
    left = {figure["file"]: figure for figure in run.summary.get("figures") or []}
    found: list[tuple[str, Html | None]] = []
    for title, content in _text(run, left):
        found.append((title, content))
        if title.startswith(CLAIMED):
            found[-1] = title, join(filter(None, [content, claims(run)]))
            found.append(("Exercises", exercises(run)))
    return [*found, ("More figures", figures(run, left.values()))]


def _text(run: RunFolder, left: dict[str, Any]) -> list[tuple[str, Html]]:
    """Title and content of each section; its figures are removed from `left`."""
    from dlworkshop.report import lesson_text  # noqa: PLC0415 (only for lessons)

    def shown(file: str, look: Html) -> Html | None:
        figure = left.pop(file, None)
        return figure and _figure(run, figure, tag("p", look, class_="look"))

    try:
        return lesson_text.sections(run.text, shown)
    except ValueError as error:
        raise UserError(
            f"lesson.md of this run cannot be rendered ({error}): run the experiment "
            "again"
        ) from error


def claims(run: RunFolder) -> Html | None:
    """The claims with verdict, measurement, and the reason for the bound."""
    found = run.summary.get("claims") or []
    items = [one_claim(c, id_=f"claim-{i}") for i, c in enumerate(found, 1)]
    return tag("ol", *items, class_="claims") if items else None


def all_claims(run: RunFolder) -> list[dict[str, Any]]:
    """The claims of a run, including those of its exercises."""
    asked = [e["claim"] for e in run.summary.get("exercises") or [] if e.get("claim")]
    return [*(run.summary.get("claims") or []), *asked]


def claims_summary(run: RunFolder) -> str:
    """How many claims hold."""
    found = all_claims(run)
    num_held = sum(state(claim) == "good" for claim in found)
    verb = "hold" if len(found) > 1 else "holds"
    return f"{num_held} of {count(len(found), 'claim')} {verb}." if found else ""


def state(claim: dict[str, Any]) -> str:
    """The CSS class of a claim."""
    return "good" if claim.get("verdict") == "holds" else "bad"


def one_claim(claim: dict[str, Any], box: str = "li", id_: str | None = None) -> Html:
    """A claim with its verdict, what was measured, and its reason, which is folded."""
    verdict = plain(claim.get("verdict"))
    mark = "✓" if state(claim) == "good" else "✗"
    head = tag("strong", plain(claim.get("statement")))
    pieces = [tag("span", f"{mark} {verdict}", class_=f"verdict {state(claim)}"), head]
    value, relation = claim.get("value"), plain(claim.get("relation"))
    wanted = f"{SIGNS.get(relation, relation)} {compact(claim.get('bound'))}"
    facts = [join(["measured ", data(compact(value), value)]), f"wanted: {wanted}"]
    low, high = claim.get("spread") or (None, None)
    if is_number(low) and is_number(high) and low != high:
        facts.append(f"spread {compact(low)} … {compact(high)}")
    if is_number(claim.get("n")):
        facts.append(f"n = {claim['n']:,}")
    if is_number(claim.get("p")):
        facts.append(p_value(claim["p"]))
    pieces.append(tag("p", *(tag("span", fact) for fact in facts), class_="facts"))
    labels = {"why": "Why this bound", "test": "How it was decided"}
    told = [
        tag("p", f"{label}: {claim[name]}.", class_="note")
        for name, label in labels.items()
        if claim.get(name)
    ]
    if told:
        pieces.append(fold("Why and how", join(told)))
    return tag(box, join(pieces), class_=f"claim {state(claim)}-claim", id_=id_)


def figures(run: RunFolder, some: Iterable[Any] | None = None) -> Html | None:
    """The figures of a lesson, or only some of them."""
    given = run.summary.get("figures") if some is None else some
    drawn = [_figure(run, figure) for figure in given or []]
    return tag("div", *drawn, class_="charts") if drawn else None


def _figure(run: RunFolder, figure: dict[str, Any], above: str = "") -> Html:
    """A figure with its caption, and a slider if it has frames."""
    svg, caption = Html(run.drawings[figure["file"]]), plain(figure.get("caption"))
    name = f"figure-{Path(figure['file']).stem}"
    above = join(filter(None, [above, slider(figure)]))
    if _aspect(svg) > 2:  # panels side by side: a small screen scrolls over them
        return chart(scroll("Panels", svg), caption, "wide", above=above, id_=name)
    return chart(svg, caption, "single" if run.text else "", above=above, id_=name)


def slider(figure: dict[str, Any]) -> str:
    """The control over the frames of a figure; "" if it has none."""
    names = [plain(frame) for frame in figure.get("frames") or []]
    return control(plain(figure.get("control")), names) if names else ""


def _aspect(svg: str) -> float:
    """Width over height of a drawing."""
    size = r"(\d+\.?\d*)"
    found = re.search(rf'viewBox="\S+ \S+ {size} {size}"', svg)
    return float(found[1]) / max(float(found[2]), 1e-9) if found else 1.0


def exercises(run: RunFolder) -> Html | None:
    """The exercises, each with a folded answer."""
    items = [tag("li", one_exercise(e)) for e in run.summary.get("exercises") or []]
    return tag("ol", *items, class_="exercises") if items else None


def one_exercise(exercise: dict[str, Any]) -> Html:
    """A question and its folded answer, with the claim that checks it."""
    question = tag("p", prose(plain(exercise.get("question"))))
    answer = tag("p", prose(plain(exercise.get("answer"))))
    if checked := exercise.get("claim"):
        answer = join([answer, one_claim(checked, "div")])
    return join([question, fold("The answer", answer)])


def about(run: RunFolder) -> Html | None:
    """The docstring of the experiment: paragraphs and commands."""
    parts = plain(run.summary.get("about") or "").split("\n\n")
    shown = [
        scroll("A command", tag("pre", part.strip()))
        if part.startswith("    ")
        else tag("p", prose(part.replace("\n", " ")))
        for part in parts
        if part.strip()
    ]
    return join(shown) if shown else None


def code(run: RunFolder) -> Html | None:
    """The source code of the experiment, as it was run."""
    if not run.source:
        return None
    title = count(run.source.count("\n"), "line")
    return fold(title, scroll("The experiment", tag("pre", run.source)))
