"""The script of a lesson -> a Jupyter notebook."""

import ast
from pathlib import Path

from dlworkshop.errors import UserError
from dlworkshop.workshop import lessons

BEGIN = """\
import importlib.util
import sys

if importlib.util.find_spec("dlworkshop") is None:  # as on Colab
    %pip install --quiet {install}

from dlworkshop.workshop import lessons

sys.path.insert(0, str(lessons.FOLDER))  # for the figures, in `slides`"""
END = "lesson = main(Config())  # other settings: Config(seeds=8)"
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def write(folder: Path, install: str = "dlworkshop") -> list[Path]:
    """Write every lesson as a notebook.

    Args:
        folder: made if it is missing; equal files in it are left as they are.
        install: what the first cell installs with pip where the library is missing,
            as on Colab: a name, the address of a wheel, `git+https://...`.

    Returns:
        The paths of the notebooks, by name.

    Raises:
        UserError: if nbformat is not installed, or a file of the same name has other
            content; then none is written.
    """
    scripts = lessons.scripts()
    files = {
        f"{path.stem}.ipynb": from_script(path.read_text("utf-8"), install)
        for path in scripts
    }
    lessons.write(folder, files)
    return [folder / name for name in files]


def from_script(source: str, install: str = "dlworkshop") -> str:
    """The text of a notebook made of the script of a lesson.

    The header becomes Markdown; each function and class becomes a cell, and so does
    what stands between them; the last two cells run the lesson and show it.

    Args:
        source: of the script.
        install: what pip installs where the library is missing.

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
    cells = [v4.new_markdown_cell(f"# {question}\n\n{about.strip()}")]
    codes = [BEGIN.format(install=install), *_parts(source, tree), END, "lesson"]
    cells += [v4.new_code_cell(code) for code in codes]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"  # a random one would differ each time
    book = v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
    return writes(book) + "\n"


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
