"""The directive `lesson-cards`: what the lessons are, with their pages and notebooks.

Where `make gallery` has run them, each card has its first figure and what was found,
and links to the report, which is copied into the site.
"""

import ast
import json
import shutil
from pathlib import Path

from docutils import nodes
from lesson_pages import GALLERY, seconds
from sphinx.util.docutils import SphinxDirective

from dlworkshop.workshop import lessons, notebooks
from dlworkshop.workshop.gallery import LECTURE

SHOWN = "report.html", "figures/*.svg", "thumbnail.svg"  # of a run folder


class LessonCards(SphinxDirective):
    """A section of cards for each chapter of the lecture, and the list of the pages."""

    def run(self) -> list[nodes.Node]:
        scripts = {path.stem: path for path in lessons.scripts()}
        ordered = [n for names in LECTURE.values() for n in names if n in scripts]
        pages = "\n".join(f"lessons/{name}" for name in ordered)
        toctree = f"```{{toctree}}\n:hidden:\n\n{pages}\n```\n"
        found: list[nodes.Node] = self.parse_text_to_nodes(toctree)
        for title, names in LECTURE.items():
            cards = [card(scripts[name]) for name in names if name in scripts]
            if cards:
                section = nodes.section(ids=[nodes.make_id(title)])
                section += nodes.title(text=title)
                section += nodes.container("", *cards, classes=["lesson-cards"])
                found.append(section)
        return found


def card(script: Path) -> nodes.container:
    """One lesson: its question, what it finds, how long it takes, and its files."""
    name = script.stem
    question, *rest = (ast.get_docstring(ast.parse(script.read_text())) or "").split(
        "\n\n"
    )
    expected = next((part for part in rest if part.startswith("Expect")), "")
    expected = expected.replace("\n", " ")
    report = GALLERY / name / "report.html"
    links = {"Notebook": f"notebooks/{name}.ipynb"}
    text, parts = expected, []
    if report.is_file():
        links = {"Report": f"gallery/{name}/report.html"} | links
        summary = json.loads((report.parent / "summary.json").read_text())
        text = summary.get("finding") or text
        if summary.get("figures"):
            source = f"gallery/{name}/{summary['figures'][0]['file']}"
            image = f'<img src="{source}" alt="" loading="lazy">'
            parts.append(nodes.raw("", image, format="html"))
    time = seconds(script.read_text())
    last = nodes.paragraph(classes=["lesson-files"])
    last += nodes.literal(text=script.name)
    if time and text != expected:
        last += nodes.Text(f", {time}")
    for label, address in links.items():
        last += nodes.Text(" · ")
        last += nodes.reference("", label, refuri=address, internal=True)
    title = nodes.reference("", "", refuri=f"lessons/{name}.html", internal=True)
    title += nodes.strong(text=question.strip())
    parts += [
        nodes.paragraph("", "", title),
        nodes.paragraph(text=text),
        last,
    ]
    return nodes.container("", *parts, classes=["lesson-card"])


def write_files(app, error: Exception | None) -> None:
    """Write the notebooks, and copy what pages of the gallery show."""
    if error or app.builder.format != "html":
        return
    out = Path(app.outdir)
    (out / "notebooks").mkdir(exist_ok=True)
    for script in lessons.scripts():
        text = notebooks.from_script(script.read_text("utf-8"), script=script)
        (out / "notebooks" / f"{script.stem}.ipynb").write_text(text, "utf-8")
    shutil.rmtree(out / "gallery", ignore_errors=True)
    shown = [path for each in SHOWN for path in GALLERY.glob(f"*/{each}")]
    for path in [*GALLERY.glob("index.html"), *shown]:
        copy = out / "gallery" / path.relative_to(GALLERY)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def setup(app) -> dict[str, bool]:
    app.add_directive("lesson-cards", LessonCards)
    app.connect("build-finished", write_files)
    return {"parallel_read_safe": True}
