"""Lessons as files and notebooks: three are executed here, all with NOTEBOOKS=all."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dlworkshop import cli
from dlworkshop.errors import UserError
from dlworkshop.workshop import lessons, notebooks
from tests.conftest import SOON_THERE

reason = "a notebook is executed by nbformat, nbclient and ipykernel"
nbformat = pytest.importorskip("nbformat", reason=reason)
nbclient = pytest.importorskip("nbclient", reason=reason)
pytest.importorskip("ipykernel", reason=reason)

ROOT = Path(__file__).parent.parent
CHEAP = "convolution", "feedforward", "why_depth"
NAMES = [script.stem for script in lessons.scripts()]
RUN = NAMES if os.environ.get("NOTEBOOKS") == "all" else CHEAP


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    assert cli.main(["notebooks", str(folder)]) == 0
    return folder


def test_every_lesson_is_a_valid_notebook_with_all_of_its_code(folder):
    assert sorted(path.stem for path in folder.iterdir()) == NAMES
    for path in folder.iterdir():
        book = nbformat.read(path, 4)
        nbformat.validate(book)
        title = book.cells[0].source
        begin, *parts, run, shown = sources(book, "code")
        source = (lessons.FOLDER / f"{path.stem}.py").read_text()
        question = source.partition("\n")[0].strip('"')
        assert title.startswith(f"# {question}\n")
        assert "# %pip install git+https://HOST/OWNER/dlworkshop\n" in begin
        whole = [line for line in source.partition('"""\n\n')[2].splitlines() if line]
        code = [line for part in parts for line in part.splitlines() if line]
        assert [*code, *whole[-2:]] == whole and "__main__" in whole[-2]
        assert run.startswith("lesson = main(Config())") and shown == "lesson"


def sources(book, kind):
    return [cell.source for cell in book.cells if cell.cell_type == kind]


@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_text_of_its_page_and_nothing_unfilled(name, folder):
    book = nbformat.read(folder / f"{name}.ipynb", 4)
    page = (lessons.FOLDER / "pages" / f"{name}.md").read_text()
    text = "\n\n".join(sources(book, "markdown"))
    for gap in ("{{", "](claim:", "](figure:", "```code"):
        assert gap not in text
    for formula in re.findall(r"\$\$.*?\$\$", page, re.DOTALL):
        assert formula in text
    titles = re.findall(r"^## (.*)$", page, re.MULTILINE)
    places = {
        title: i
        for i, cell in enumerate(book.cells)
        for title in titles
        if cell.source.startswith(f"## {title}\n")
    }
    assert list(places) == titles  # each once, in the same order
    kinds = [cell.cell_type for cell in book.cells]
    last = len(kinds) - 1 - kinds[::-1].index("code")  # shows the lesson
    assert book.cells[last].source == "lesson"
    goals, idea, look, claimed, limits, reading = places.values()
    assert goals < idea < kinds.index("code")
    assert kinds.index("code") < look < claimed < last < limits < reading


def test_exercises_fold_their_answers_after_the_run(folder):
    book = nbformat.read(folder / "xor.ipynb", 4)
    (asked,) = [s for s in sources(book, "markdown") if "## Exercises\n" in s]
    assert asked.count("<details><summary>The answer</summary>\n\n") == 1
    question, _, answer = asked.partition("<details>")
    assert "`jnp.abs`. How many units does it take" in question
    assert "One: 1 - |x_1 + x_2| folds the plane" in answer


SCRIPT = '''"""Why?

Because.
"""

class Config:
    seeds: int = 3
    rates: tuple = (0.1, 0.2)

def main(config):
    return 1
'''
PAGE = """## What to see

Of {{seeds}} seeds, {{rates}}, [most](claim:One
is) won by {{claim:One is}}: [look](figure:one).

![What do
you see?](figure:one)

```code
main.return
```
"""
SLIDES = """
def exercises(found):
    return [Exercise(f"Of {found}?", "Yes."), Exercise("Two" "?", "No.", found)]
"""


def test_what_a_run_says_is_left_to_the_run(tmp_path):
    for name, text in {
        "own.py": SCRIPT,
        "pages/own.md": PAGE,
        "slides/own.py": SLIDES,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    book = notebooks.from_script(SCRIPT, script=tmp_path / "own.py")
    cells = nbformat.reads(book, 4).cells
    seen, exercises = [c.source for c in cells if c.source.startswith("## ")]
    assert seen == (
        "## What to see\n\nOf 3 seeds, 0.1, 0.2, most won by the value measured "
        "below: look.\n\n- What do\nyou see?\n\n```python\nreturn 1\n```"
    )
    assert "**1.** Two?" in exercises and "Of" not in exercises
    alone = json.loads(notebooks.from_script(SCRIPT))["cells"]
    assert [cell["cell_type"] for cell in alone].count("markdown") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_it_runs_from_top_to_bottom_with_its_figures(name, folder, tmp_path):
    book = nbformat.read(folder / f"{name}.ipynb", 4)
    holds = "assert not lesson.failed, lesson.failed"
    book.cells.append(nbformat.v4.new_code_cell(holds))
    with pytest.MonkeyPatch.context() as patch:
        path = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
        patch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
        if RUN is CHEAP:
            for variable, value in SOON_THERE.items():
                patch.setenv(variable, value)
        where = {"metadata": {"path": str(tmp_path)}}
        nbclient.NotebookClient(book, timeout=600, resources=where).execute()
    assert book.cells[-1].source == holds
    shown = next(c for c in book.cells if c.source == "lesson").outputs[0]
    html = shown.data["text/html"]
    assert "<svg" in html and "✗" not in html
    assert "<details><summary>The answer" in html
    if name in CHEAP:
        assert html.count("<svg") >= 2 and html.count("✓ holds") >= 3
    assert len(shown.data["text/plain"]) < 1000


def test_it_installs_what_is_said(tmp_path, capsys):
    address = "https://example.org/dlworkshop-0.2.0-py3-none-any.whl"
    assert cli.main(["notebooks", str(tmp_path), "--install", address]) == 0
    assert f"%pip install --quiet {address}" in (tmp_path / "xor.ipynb").read_text()
    assert capsys.readouterr().out.startswith(f"{len(NAMES)} notebooks")


def test_without_the_library_or_its_address_the_first_cell_says_what_to_do(folder):
    begin, *_ = sources(nbformat.read(folder / "xor.ipynb", 4), "code")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ModuleNotFoundError, match="see the comment above"):
            exec(begin, {})


@pytest.mark.parametrize("nothing", ["", " ", "x\nimport os"])
def test_an_address_that_is_none_is_refused(nothing, tmp_path):
    with pytest.raises(UserError, match="install in one line, such as git"):
        notebooks.write(tmp_path, nothing)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_copies_run_where_they_are(tmp_path, capsys):
    assert cli.main(["lessons", str(tmp_path / "mine")]) == 0
    done = subprocess.run(
        [sys.executable, "mine/feedforward.py", "--help"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert "What does a feed-forward network compute?" in done.stdout


def test_nothing_of_the_users_is_replaced(tmp_path):
    lessons.copy(tmp_path)
    assert lessons.copy(tmp_path)  # equal files are no mistake
    mine = tmp_path / "slides" / "xor.py"
    mine.write_text("mine")
    (tmp_path / "xor.py").unlink()
    with pytest.raises(UserError, match=r"slides/xor\.py exists already"):
        lessons.copy(tmp_path)
    assert mine.read_text() == "mine" and not (tmp_path / "xor.py").exists()


def test_without_nbformat_one_sentence_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nbformat", None)
    with pytest.raises(UserError, match=r"pip install 'dlworkshop\[notebook\]'"):
        notebooks.write(tmp_path)
