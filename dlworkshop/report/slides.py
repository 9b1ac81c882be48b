"""Several lessons as one page of slides, which needs no network.

A slide is a section as high as the window; the keys that scroll a page turn the slides.
"""

import math
from collections.abc import Sequence

from dlworkshop.report import lesson, page, svg_file
from dlworkshop.report.elements import Html, chart, document, note, tag
from dlworkshop.report.read import RunFolder
from dlworkshop.report.words import plain

MOST_CLAIMS = 6  # on a slide


def render(title: str, runs: Sequence[RunFolder]) -> str:
    """The page of a chapter.

    Args:
        title: of the chapter.
        runs: its lessons, in order.
    """
    asked = [_question(run) for run in runs]
    links = [
        tag("li", tag("a", text, href=f"#lesson-{i}")) for i, text in enumerate(asked)
    ]
    first = [tag("h1", title), tag("ol", *links)]
    slides = [tag("section", *first, class_="opening")]
    for i, run in enumerate(runs):
        slides += _lesson(run, i)
    return document(title, tag("main", *slides), style=STYLE)


def _question(run: RunFolder) -> str:
    """The question that a lesson asks."""
    return plain(run.summary.get("question") or run.summary.get("experiment"))


def _lesson(run: RunFolder, number: int) -> list[Html]:
    """The slides of a lesson; the finding comes after the figures that show it."""
    asked = _question(run)
    name = note(f"{plain(run.summary.get('experiment'))}.py")
    opening = tag("h2", asked), name
    slides = [tag("section", *opening, class_="opening", id_=f"lesson-{number}")]
    above = note(asked)
    for i, figure in enumerate(run.summary.get("figures") or []):
        drawn = svg_file.renamed(run.drawings[figure["file"]], f"{number}-{i}-")
        caption, slider = plain(figure.get("caption")), lesson.slider(figure)
        shown = chart(drawn, caption, above=slider)
        title = plain(figure.get("title"))
        slides.append(tag("section", above, shown, class_="drawn", aria_label=title))
    slides += [tag("section", above, *claims) for claims in _claims(run)]
    for i, exercise in enumerate(run.summary.get("exercises") or [], 1):
        text = lesson.one_exercise(exercise)
        shown = tag("div", tag("h3", f"Exercise {i}"), text, class_="exercises")
        slides.append(tag("section", above, shown))
    return slides


def _claims(run: RunFolder) -> list[list[Html]]:
    """The finding and the claims, on several slides if there are many."""
    found = tag("h3", f"Found: {page.finding(run)}.")
    claims = [lesson.one_claim(claim) for claim in run.summary.get("claims") or []]
    if not claims:
        return [[found]]
    num_slides = math.ceil(len(claims) / MOST_CLAIMS)
    each = math.ceil(len(claims) / num_slides)
    parts = [claims[i * each : (i + 1) * each] for i in range(num_slides)]
    return [[found, tag("ol", *part, class_="claims")] for part in parts]


STYLE = """
html { scroll-snap-type: y mandatory; font-size: calc(.5rem + 1.5vmin);
  counter-reset: slide; }
header, main, footer { max-width: none; padding: 0; }
main > section { min-height: 100vh; min-height: 100dvh; margin: 0;
  padding: 1.25rem 2.5rem 1.75rem; display: flex; flex-direction: column; gap: .75rem;
  position: relative; scroll-snap-align: start; scroll-snap-stop: always; }
main > section::after { counter-increment: slide; content: counter(slide);
  position: absolute; right: 1rem; bottom: .5rem; color: var(--soft);
  font-size: .8125rem; }
section > .note { margin: 0; }
.opening { justify-content: center; }
.opening :is(h1, h2) { font-size: 2.75rem; line-height: 1.15; font-weight: 700;
  color: var(--ink); text-wrap: balance; margin: 0; max-width: 24em; }
.opening ol { margin: 0; font-size: 1.25rem; line-height: 1.6; }
h3 { font-size: 1.375rem; line-height: 1.25; margin: 0; }
.claims { gap: .5rem; font-size: 1rem; }
main > .drawn { height: max(100dvh, 26rem); }
.chart { flex: 1; min-height: 0; display: flex; flex-direction: column; }
.chart > svg { flex: 0 1 auto; min-height: 0; }
.chart > :is(.boxes, .tip) { display: none; }
.exercises { display: block; font-size: 1.25rem; max-width: 46rem; }
.exercises .claim { font-size: 1.0625rem; margin-top: .75rem; }
@page { size: 13.333in 7.5in; margin: 0; }
@media print { html { font-size: 18px; } body { font-size: 1.0625rem; }
  main > section { height: 100vh; break-after: page; break-inside: avoid; }
  main > section:last-child { break-after: auto; }
  details:not([open])::details-content { content-visibility: hidden !important;
    block-size: 0 !important; } }
"""
