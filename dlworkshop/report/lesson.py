"""Sections of a lesson's page: claims, figures, exercises, code."""

import re
from typing import Any

from dlworkshop.report.elements import (
    Html,
    chart,
    data,
    fold,
    join,
    prose,
    scroll,
    tag,
)
from dlworkshop.report.read import RunFolder
from dlworkshop.report.words import compact, count, is_number, plain

SIGNS = {"<=": "at most", ">=": "at least", "<": "below", ">": "above", "=": "exactly"}


def claims(run: RunFolder) -> Html | None:
    """Each claim with its verdict, measurement, and the reason for its bound."""
    found = run.summary.get("claims") or []
    items = [tag("li", _claim(c), class_=f"claim {state(c)}-claim") for c in found]
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


def _claim(claim: dict[str, Any]) -> Html:
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
        facts.append(f"p = {claim['p']:.2g}")
    pieces.append(tag("p", *(tag("span", fact) for fact in facts), class_="facts"))
    labels = {"why": "Why this bound", "test": "How it was decided"}
    told = [
        tag("p", f"{label}: {claim[name]}.", class_="note")
        for name, label in labels.items()
        if claim.get(name)
    ]
    if told:
        pieces.append(fold("Why and how", join(told)))
    return join(pieces)


def figures(run: RunFolder) -> Html | None:
    """The figures of a lesson, with title, caption and description."""
    drawn = []
    for figure in run.summary.get("figures") or []:
        svg, caption = Html(run.drawings[figure["file"]]), plain(figure.get("caption"))
        if _aspect(svg) > 2:  # panels side by side, which a telephone shows one by one
            drawn.append(chart(scroll("Panels", svg), caption, "wide"))
        else:
            drawn.append(chart(svg, caption))
    return tag("div", *drawn, class_="charts") if drawn else None


def _aspect(svg: str) -> float:
    """Width over height of a drawing."""
    size = r"(\d+\.?\d*)"
    found = re.search(rf'viewBox="\S+ \S+ {size} {size}"', svg)
    return float(found[1]) / max(float(found[2]), 1e-9) if found else 1.0


def exercises(run: RunFolder) -> Html | None:
    """The exercises, with folded answers."""
    items = []
    for exercise in run.summary.get("exercises") or []:
        answer = [tag("p", prose(plain(exercise.get("answer"))))]
        if exercise.get("claim"):
            checked = exercise["claim"]
            answer.append(
                tag("div", _claim(checked), class_=f"claim {state(checked)}-claim")
            )
        question = tag("p", prose(plain(exercise.get("question"))))
        items.append(tag("li", question, fold("The answer", join(answer))))
    return tag("ol", *items, class_="exercises") if items else None


def about(run: RunFolder) -> Html | None:
    """The docstring of the experiment: paragraphs and commands."""
    parts = [part for part in plain(run.summary.get("about") or "").split("\n\n")]
    shown = [
        scroll("A command", tag("pre", part.strip()))
        if part.startswith("    ")
        else tag("p", prose(part.replace("\n", " ")))
        for part in parts
        if part.strip()
    ]
    return join(shown) if shown else None


def code(run: RunFolder) -> Html | None:
    """The source of the experiment, as it was run."""
    if not run.source:
        return None
    title = count(run.source.count("\n"), "line")
    return fold(title, scroll("The experiment", tag("pre", run.source)))
