"""The script of a lesson -> a Jupyter notebook."""

import ast
import contextlib
import re
from pathlib import Path
from typing import Any

from dlworkshop.errors import UserError
from dlworkshop.workshop import lessons, pages

BEGIN = """\
import importlib.util
import sys

if importlib.util.find_spec("dlworkshop") is None:  # as on Colab
    {install}

from dlworkshop.workshop import lessons

sys.path.insert(0, str(lessons.FOLDER))  # for the figures, in `slides`"""
UNKNOWN = """\
# dlworkshop is not on the package index: replace the next line by its address, as in
    # %pip install git+https://HOST/OWNER/dlworkshop
    raise ModuleNotFoundError("dlworkshop is not installed: see the comment above")"""
END = "lesson = main(Config())  # other settings: Config(seeds=8)"
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
BEFORE_CODE, BEFORE_RUN = 2, 4  # sections of a page: goals and idea; how to look at it
EXERCISES = """\
## Exercises

The output above has the claims that check the answers."""


def write(folder: Path, install: str | None = None) -> list[Path]:
    """Write every lesson as a notebook.

    Args:
        folder: made if it is missing; equal files in it are left as they are.
        install: what the first cell installs with pip where the library is missing,
            as on Colab: the address of a wheel, `git+https://...`, a name. By default
            the cell says where to put it in: the library is not on the package index.

    Returns:
        The paths of the notebooks, by name.

    Raises:
        UserError: if nbformat is not installed, `install` is empty, or a file of the
            same name has other content; then none is written.
    """
    if install is not None and (not install.strip() or "\n" in install):
        raise UserError(
            f"install is {install!r}: give what pip is to install in one line, such as "
            "git+https://HOST/OWNER/dlworkshop"
        )
    files = {
        f"{path.stem}.ipynb": from_script(path.read_text("utf-8"), install, path)
        for path in lessons.scripts()
    }
    lessons.write(folder, files)
    return [folder / name for name in files]


def from_script(
    source: str, install: str | None = None, script: Path | None = None
) -> str:
    """The text of a notebook made of the script of a lesson.

    The header becomes Markdown; each function and class becomes a cell, and so does
    the code between them; the last two code cells run the lesson and show it. The text
    of the page and the exercises become Markdown cells before and after the code. A
    notebook is written before it is run: settings in the text are the defaults of
    `Config`, links to claims and figures become plain text, and exercises that quote a
    result are left to the output of the lesson.

    Args:
        source: of the script.
        install: what pip installs where the library is missing, as in `write`.
        script: its file, beside which its page and slides are; without it the notebook
            has only the header and the code.

    Raises:
        UserError: if nbformat is not installed.

    >>> import json, pytest
    >>> _ = pytest.importorskip("nbformat")
    >>> text = from_script('"Why?"\\nimport math\\ndef main(config):\\n    pass\\n')
    >>> [cell["source"][0] for cell in json.loads(text)["cells"]][2:4]
    ['import math', 'def main(config):\\n']
    """
    try:
        from nbformat import v4, writes  # noqa: PLC0415 (an extra)
    except ModuleNotFoundError as error:
        raise UserError(
            "notebooks are written by nbformat, which is not installed: "
            "pip install 'dlworkshop[notebook]'"
        ) from error

    tree = ast.parse(source)
    question, _, about = (ast.get_docstring(tree) or "").partition("\n")
    text = _sections(script, tree) if script else []
    asked = _exercises(script.parent / "slides" / script.name) if script else []
    line = f"%pip install --quiet {install}" if install else UNKNOWN
    code = [BEGIN.format(install=line), *_parts(source, tree)]
    parts = [
        (v4.new_markdown_cell, [f"# {question}\n\n{about.strip()}"]),
        (v4.new_markdown_cell, text[:BEFORE_CODE]),
        (v4.new_code_cell, code),
        (v4.new_markdown_cell, text[BEFORE_CODE:BEFORE_RUN]),
        (v4.new_code_cell, [END, "lesson"]),
        (v4.new_markdown_cell, [*asked, *text[BEFORE_RUN:]]),
    ]
    cells = [make(each) for make, sources in parts for each in sources]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"  # a random one would differ each time
    book = v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
    return writes(book) + "\n"


def _sections(script: Path, tree: ast.Module) -> list[str]:
    """The sections of a page, without anything that is known only after a run."""
    page = script.parent / "pages" / f"{script.stem}.md"
    if not page.exists():
        return []
    text = page.read_text("utf-8")
    text = re.sub(r"\{\{claim:.+?\}\}", "the value measured below", text, flags=re.S)
    look = r"^!\[(.*?)\]\(figure:[^)]+\)$"  # the last code cell shows all figures
    text = re.sub(look, r"- \1", text, flags=re.S | re.M)
    text = re.sub(r"\[([^][]*)\]\(<?(?:claim|figure):[^)>]+>?\)", r"\1", text)
    text = pages.filled(text, script, [], [], _defaults(tree))
    text = re.sub(r"^```python .*$", "```python", text, flags=re.M)
    return [s.strip() for s in re.split(r"^(?=## )", text, flags=re.M) if s.strip()]


def _defaults(tree: ast.Module) -> dict[str, Any]:
    """The settings of `Config`, by name, with their defaults."""
    found: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == "Config":
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and field.value is not None:
                    with contextlib.suppress(ValueError):  # no literal
                        name = ast.unparse(field.target)
                        found[name] = ast.literal_eval(field.value)
    return found


def _exercises(slides: Path) -> list[str]:
    """A cell of questions with folded answers; none if all of them quote a run."""
    asked: list[str] = []
    for node in ast.walk(ast.parse(slides.read_text("utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Exercise":
            with contextlib.suppress(ValueError):  # a text with measured values
                question, answer = map(ast.literal_eval, node.args[:2])
                asked.append(
                    f"**{len(asked) + 1}.** {question}\n\n"
                    f"<details><summary>The answer</summary>\n\n{answer}\n\n</details>"
                )
    return ["\n\n".join([EXERCISES, *asked])] if asked else []


def _parts(source: str, tree: ast.Module) -> list[str]:
    """The source between its header and its last lines, cut before and after each
    function and class, whose comments stay above it.
    """
    lines = source.splitlines()
    header, *body = tree.body
    parts: list[str] = []
    begin, was_whole = header.end_lineno or 0, True
    for node in body:
        if isinstance(node, ast.If):  # __name__ == "__main__"
            break
        is_whole = isinstance(node, ast.FunctionDef | ast.ClassDef)
        text = "\n".join(lines[begin : node.end_lineno])
        if is_whole or was_whole:
            parts.append(text.strip("\n"))
        else:
            parts[-1] += f"\n{text}"
        begin, was_whole = node.end_lineno or begin, is_whole
    return parts
