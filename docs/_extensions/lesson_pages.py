"""A page of the site for each lesson: its text, exercises and files.

The pages are written to `docs/lessons/`, which git ignores, before Sphinx reads its
sources. Their text is that of the notebook without its code cells; where `make gallery`
has run the lesson, it is that of the report, with the figures.
"""

import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

from dlworkshop.files import atomic_write
from dlworkshop.workshop import lessons, notebooks
from dlworkshop.workshop.gallery import LECTURE

GALLERY = Path(__file__).parents[2] / "gallery"
ORDER = [name for names in LECTURE.values() for name in names]
LINKED = "lessons", "teaching"  # pages whose names of lessons become links
BEGIN = "---\nmyst:\n  enable_extensions: [dollarmath]\n---\n"
AFTER_EXERCISES = "## Where it breaks down"
PREREQUISITES = "Prerequisites: derivatives, matrix products and a little Python."
NO_RUN = """\
<p class="lesson-files">This site was built without a run of this lesson: its figures
and measured values appear here if <code>make gallery</code> comes before
<code>make docs</code>.</p>"""
ANSWER = "<details><summary>The answer</summary>\n\n{}\n\n</details>"


def write_pages(app) -> None:
    """Write the pages that differ from those that are there; remove any others."""
    folder = Path(app.srcdir) / "lessons"
    folder.mkdir(exist_ok=True)
    texts = {f"{script.stem}.md": page(script) for script in lessons.scripts()}
    for path in folder.glob("*.md"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text("utf-8") != text:
            atomic_write(path, text)


def page(script: Path) -> str:
    """The Markdown of the page of a lesson."""
    book = json.loads(notebooks.from_script(script.read_text("utf-8"), script=script))
    cells = [cell for cell in book["cells"] if cell["cell_type"] == "markdown"]
    header, *rest = ["".join(cell["source"]) for cell in cells]
    title, _, about = header.partition("\n")
    sections = [each for each in rest if not each.startswith("## Exercises")]
    asked = "".join(each for each in rest if each not in sections)
    asked = asked.replace(notebooks.EXERCISES, "## Exercises")
    run, top = GALLERY / script.stem, facts(script)
    if (run / "lesson.md").is_file():
        summary = json.loads((run / "summary.json").read_text("utf-8"))
        text = as_run((run / "lesson.md").read_text("utf-8"), script.stem, summary)
        sections = re.split(r"^(?=## )", text, flags=re.M)
        asked = exercises(summary)
    else:
        top += f"\n\n{NO_RUN}"
    text = "\n\n".join(each.strip() for each in sections)
    text = text.replace("the value measured below", "the measured value")
    text = text.replace(AFTER_EXERCISES, f"{asked}\n\n{AFTER_EXERCISES}")
    text = linked(f"{text}\n\n## Run it yourself\n\n{about.strip()}", script.stem)
    return f"{BEGIN}{title}\n\n{top}\n\n{text}\n"


def facts(script: Path) -> str:
    """How long a lesson takes, its files, and what comes before it."""
    name = script.stem
    parts = [f'<a href="../notebooks/{name}.ipynb">Open as notebook</a>']
    if (GALLERY / name / "report.html").is_file():
        report = f'<a href="../gallery/{name}/report.html">Report with all figures</a>'
        parts.insert(0, report)
    if time := seconds(script.read_text("utf-8")):
        parts.insert(0, f"{time} on two CPU cores")
    found = f'<p class="lesson-files">{" · ".join(parts)}</p>'
    before = ", ".join(f"`{other}.py`" for other in earlier(name))
    lead = f" Lessons that lead here: {before}." if before else ""
    return f"{found}\n\n{linked(PREREQUISITES + lead, name)}"


def seconds(header: str) -> str:
    """The time that the header of a script expects, in words; "" if it names none."""
    expected = header.partition("Expect")[2].partition("\n\n")[0].replace("\n", " ")
    found = re.search(r"(?:about )?(?:(?:\d+|a few) seconds|a minute)", expected)
    return found[0] if found else ""


def earlier(name: str) -> list[str]:
    """The earlier lessons of the lecture whose pages name this one as a next lesson."""
    found = []
    for other in ORDER[: ORDER.index(name)] if name in ORDER else ():
        path = lessons.FOLDER / "pages" / f"{other}.md"
        text = path.read_text("utf-8") if path.exists() else ""
        if f"`{name}.py`" in text.rpartition("- Next lesson")[2]:
            found.append(other)
    return found


def as_run(text: str, name: str, summary: dict[str, Any]) -> str:
    """The text of a report: its figures and claims are in the folder of the run."""
    home = f"../gallery/{name}"
    drawn = {each["file"]: each for each in summary.get("figures") or []}

    def figure(found: re.Match) -> str:
        look, file = found.groups()
        about = drawn.get(file, {})
        title, marks = (html.escape(about.get(k) or "") for k in ("title", "caption"))
        if about.get("frames"):
            look += f' (<a href="{home}/report.html">with a slider in the report</a>)'
        image = f'<img src="{home}/{file}" alt="{title}"{width(GALLERY / name / file)}>'
        box = '<div class="drawing" role="region" aria-label="The figure" tabindex="0">'
        caption = f"<figcaption>\n\n{look}\n\n<p>{marks}</p>\n</figcaption>"
        figure = f"{box}{image}</div>\n{caption}"
        return f'<figure class="lesson-figure">\n{figure}\n</figure>'

    text = re.sub(r"^!\[(.*?)\]\((figures/[^)]+)\)$", figure, text, flags=re.S | re.M)
    report = rf'<a href="{home}/report.html\2">\1</a>'
    text = re.sub(r"\[([^][]*)\]\((#[^)]+)\)", report, text)
    place = "```{code-block} python\n:caption: \\1"
    return re.sub(r"^```python (.*)$", place, text, flags=re.M)


def width(drawing: Path) -> str:
    """The style of an image: at most a quarter smaller than drawn, to be read."""
    found = re.search(r'viewBox="\S+ \S+ ([\d.]+) ', drawing.read_text("utf-8")[:1000])
    if not found:
        return ""
    drawn = float(found[1])
    return f' style="width: clamp({0.75 * drawn:.0f}px, 100%, {drawn:.0f}px)"'


def exercises(summary: dict[str, Any]) -> str:
    """The exercises of a run, with folded answers."""
    asked = [
        f"**{i}.** {each['question']}\n\n{ANSWER.format(each['answer'])}"
        for i, each in enumerate(summary.get("exercises") or [], 1)
    ]
    return "\n\n".join(["## Exercises", *asked]) if asked else ""


def linked(text: str, own: str = "", folder: str = "") -> str:
    """Text in which `NAME.py` links to the page of that lesson, except in code."""
    names = [script.stem for script in lessons.scripts() if script.stem != own]
    name = re.compile(rf"(?<!\[)`({'|'.join(names)})\.py`")
    parts = re.split(r"(^```.*?^```$)", text, flags=re.S | re.M)
    parts[::2] = [name.sub(rf"[`\1.py`]({folder}\1.md)", part) for part in parts[::2]]
    return "".join(parts)


def read_source(app, docname: str, source: list[str]) -> None:
    """Make names of lessons links."""
    if docname in LINKED:
        source[0] = linked(source[0], folder="lessons/")


def renderer(display: str) -> Callable:
    """What writes a formula as MathML, which needs no script and no font."""

    def visit(translator, node) -> None:
        made = convert(node.astext().strip(), display=display)
        if display == "block":
            made = f'<div class="math-block" tabindex="0">{made}</div>'
        translator.body.append(made)
        raise nodes.SkipNode

    return visit


def setup(app) -> dict[str, bool]:
    app.add_html_math_renderer(
        "mathml", (renderer("inline"), None), (renderer("block"), None)
    )
    app.connect("builder-inited", write_pages)
    app.connect("source-read", read_source)
    return {"parallel_read_safe": True}
