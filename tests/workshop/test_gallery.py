"""The gallery: every experiment in its place, every link with something behind it."""

import re

import pytest

from dlworkshop.errors import UserError
from dlworkshop.workshop import gallery

SCRIPT = '''"""{question}

Expect 2.
"""

from dlworkshop import workshop
from dlworkshop.workshop.lesson import Figure, Lesson
from dlworkshop.verify import claims


def main(config):
    claim = claims.bounded("1 + 1 is small", 2, at_most={bound}, why="counting")

    def line(axes):
        axes.plot([1, 2])

    figure = Figure("line", line, "A line", "Two points.")
    return Lesson("1 + 1 is 2", [claim], [figure])


if __name__ == "__main__":
    workshop.start(main, workshop.Config)
'''
SCRIPTS = {
    "softmax": SCRIPT.format(question="What is softmax?", bound=2),
    "logistic_regression": SCRIPT.format(question="What is regression?", bound=1),
    "mnist_cnn": """import sys

print("error: there is no data: get some", file=sys.stderr)
sys.exit(2)
""",
    "aardvark": 'raise RuntimeError("broken")',
}


def test_a_few_are_run_and_until_then_the_page_says_how_many(tmp_path, monkeypatch):
    for name in SCRIPTS:
        (tmp_path / f"{name}.py").write_text("")
    pages = []

    def run(script, _):
        if (tmp_path / "site/index.html").exists():
            pages.append((tmp_path / "site/index.html").read_text())
        return gallery.Entry(script.stem, 1.0, "No data.")

    monkeypatch.setattr(gallery, "_run", run)
    only = "softmax", "mnist_cnn"
    entries = gallery.build(tmp_path / "site", tmp_path, only)
    assert [entry.name for entry in entries] == ["softmax", "mnist_cnn"]
    assert "1 of 2 experiments so far" in pages[0]
    assert "so far" not in (tmp_path / "site/index.html").read_text()
    with pytest.raises(UserError, match="experiment 'sofmax': did you mean 'softmax'"):
        gallery.build(tmp_path / "site", tmp_path, ["sofmax"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A gallery of a lesson, one that fails, one without data, and a broken one."""
    scripts, folder = (tmp_path_factory.mktemp(name) for name in ("scripts", "site"))
    for name, text in SCRIPTS.items():
        (scripts / f"{name}.py").write_text(text)
    entries = gallery.build(folder, scripts)
    return folder, entries, (folder / "index.html").read_text()


@pytest.mark.slow
def test_the_order_is_that_of_the_lecture(site):
    _, entries, _ = site
    names = [entry.name for entry in entries]
    assert names == ["logistic_regression", "softmax", "mnist_cnn", "aardvark"]


def test_what_is_not_true_or_not_there_is_said(site):
    _, entries, index = site
    assert [e.holds for e in entries] == [False, True, True, False]
    assert "1 of 2 claims hold" in index
    assert "2 of them did not run" in index
    assert index.count("✗ fails:") == 1 and index.count("✓ holds:") == 1
    assert "there is no data: get some" in index
    assert "RuntimeError: broken" in index


def test_every_link_leads_somewhere(site):
    folder, _, index = site
    links = re.findall(r'(?:href|src)="([^"]*)"', index)
    assert len(links) == 4  # a report and a thumbnail for each lesson that ran
    for page in [folder / "index.html", *folder.glob("*/report.html")]:
        text = page.read_text()
        ids = set(re.findall(r'\bid="([^"]*)"', text))
        for link in re.findall(r'(?:href|src)="([^"]*)"', text):
            there, _, anchor = link.partition("#")
            if there:
                assert (page.parent / there).is_file(), link
            else:
                assert anchor in ids, link


def test_it_can_be_read_without_a_network_or_a_mouse(site):
    index = site[2]
    assert not re.search(r"https?:|<script .|<link|@import", index)
    assert index.count("<script>") == 1  # its own, which the policy names by its digest
    assert "script-src 'sha256-" in index
    assert '<html lang="en">' in index and "viewport" in index
    assert "tabindex" not in index  # links and folds are reached as they come


def test_a_folder_without_experiments_is_refused(tmp_path):
    with pytest.raises(UserError, match="contains no experiments"):
        gallery.build(tmp_path / "site", tmp_path)


def test_every_experiment_has_its_place_in_the_lecture():
    there = {path.stem for path in gallery.FOLDER.glob("*.py")}
    assert there <= {name for names in gallery.LECTURE.values() for name in names}


def test_an_experiment_that_is_killed_is_no_success(tmp_path):
    (tmp_path / "aardvark.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (entry,) = gallery.build(tmp_path / "site", tmp_path)
    assert entry.problem == "Killed by SIGKILL." and not entry.holds
    assert "Killed by SIGKILL." in (tmp_path / "site/index.html").read_text()
