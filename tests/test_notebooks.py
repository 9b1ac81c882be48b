"""Lessons as files and notebooks: three are executed here, all with NOTEBOOKS=all."""

import os
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
        title, begin, *parts, run, shown = (cell.source for cell in book.cells)
        source = (lessons.FOLDER / f"{path.stem}.py").read_text()
        question = source.partition("\n")[0].strip('"')
        assert title.startswith(f"# {question}\n")
        assert "%pip install --quiet dlworkshop\n" in begin
        whole = [line for line in source.partition('"""\n\n')[2].splitlines() if line]
        code = [line for part in parts for line in part.splitlines() if line]
        assert [*code, *whole[-2:]] == whole and "__main__" in whole[-2]
        assert run.startswith("lesson = main(Config())") and shown == "lesson"


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
    (shown,) = book.cells[-2].outputs
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
