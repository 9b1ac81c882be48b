"""A lesson as HTML for a notebook."""

import tempfile
from pathlib import Path

from dlworkshop.report import lesson as sections
from dlworkshop.report import svg_file
from dlworkshop.report.elements import Html, join, tag
from dlworkshop.report.read import RunFolder
from dlworkshop.train.run_folder import to_jsonable
from dlworkshop.workshop.lesson import Lesson, contents

STYLE = """
.dlworkshop .charts svg { max-width: 45em }
.dlworkshop .facts span { margin-right: 1.5em }
"""


def as_html(lesson: Lesson) -> Html:
    """The finding, figures, claims and exercises of a lesson, as in its report."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        summary = to_jsonable(contents(lesson, folder))
        files = [figure["file"] for figure in summary["figures"]]
        texts = {file: (folder / file).read_text("utf-8") for file in files}
    drawings = {file: svg_file.parsed(text) for file, text in texts.items()}
    run = RunFolder({}, summary, drawings=drawings)
    titled = {
        "Figures": sections.figures(run),
        sections.claims_summary(run): sections.claims(run),
        "Exercises": sections.exercises(run),
    }
    parts = [
        join([tag("h3", title), content])
        for title, content in titled.items()
        if content
    ]
    finding = tag("p", tag("strong", summary["finding"]))
    style = Html(f"<style>{STYLE}</style>")
    return tag("div", style, finding, *parts, class_="dlworkshop")
