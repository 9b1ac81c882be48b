"""The site: built strictly and offline, every link, every public name, every block."""

import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

import dlworkshop
from dlworkshop.workshop import lessons

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
WRITTEN = DOCS / "lessons"  # by the build
PAGES = sorted(
    str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if page.parent != WRITTEN
)
ELSEWHERE = {  # whose blocks other tests run
    "index.md": "test_readme.py",
    "models.md": "models/test_adapters.py",
    "observing.md": "test_observing.py",
    "recipes.md": "test_recipes.py",
    "sweeps.md": "sweeps/test_docs.py",
}
BLOCK = re.compile(r"^```python\n(.*?)^```", re.S | re.M)


class Links(HTMLParser):
    """The ids of a page, what it leads to, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.leads: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "a" and found.get("href"):
            self.leads.append(found["href"])
        elif found.get("href") and found.get("rel") not in ("canonical", "author"):
            self.loads.append(found["href"])
        self.loads += [found["src"]] if found.get("src") else []


@pytest.fixture
def lesson_pages(tmp_path, monkeypatch):
    """The writer of the pages of lessons, with an empty gallery."""
    pytest.importorskip("docutils", reason="a part of Sphinx")
    monkeypatch.syspath_prepend(DOCS / "_extensions")
    module = importlib.import_module("lesson_pages")
    monkeypatch.setattr(module, "GALLERY", tmp_path)
    return module


def test_a_page_without_a_run_says_where_its_figures_are(lesson_pages):
    text = lesson_pages.page(lessons.FOLDER / "xor.py")
    assert "make gallery" in text.partition("## ")[0]
    titles = re.findall("^## (.*)", text, re.M)
    assert titles[0] == "What you will be able to do"
    assert titles[-1] == "Run it yourself"
    assert "Expect at most" in text.partition("## Run it yourself")[2]


def test_a_page_of_a_run_shows_the_captions(lesson_pages, tmp_path):
    (tmp_path / "xor/figures").mkdir(parents=True)
    (tmp_path / "xor/figures/a.svg").write_text('<svg viewBox="0 0 1000 300"></svg>')
    figure = {"file": "figures/a.svg", "title": "A < B", "caption": "Band: x_1 & x_2."}
    summary = {"figures": [figure], "exercises": []}
    (tmp_path / "xor/summary.json").write_text(json.dumps(summary))
    written = "## The idea\n\n![Look *here*.](figures/a.svg)\n"
    (tmp_path / "xor/lesson.md").write_text(written)
    text = lesson_pages.page(lessons.FOLDER / "xor.py")
    caption = text.partition("<figcaption>")[2].partition("</figcaption>")[0]
    assert re.search(r"Look \*here\*\..*<p>Band: x_1 &amp; x_2\.</p>", caption, re.S)
    assert 'alt="A &lt; B"' in text and 'tabindex="0"' in text
    assert "1000px" in text  # it scrolls on a narrower page
    assert "make gallery" not in text


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("sphinx", reason="the site is built by Sphinx")
    out = tmp_path_factory.mktemp("site")
    options = ["--fail-on-warning", "--quiet", "-E", "-d", out / "doctrees"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, "-b", "html", DOCS, out / "html"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr
    return out / "html"


@pytest.fixture(scope="module")
def pages(site):
    """Path -> the links of the page."""
    found = [page for page in site.rglob("*.html") if "_static" not in page.parts]
    assert len(found) > len(PAGES)
    return {page: Links(page.read_text()) for page in found}


@pytest.mark.slow
def test_every_link_and_anchor_is_there(site, pages):
    broken = []
    for page, links in pages.items():
        for link in [*links.leads, *links.loads]:
            if re.match("https?:|mailto:|data:", link):
                continue
            path, _, anchor = unquote(link).partition("#")
            there = (page.parent / path.partition("?")[0]).resolve() if path else page
            if not there.is_file() or (
                anchor and there in pages and anchor not in pages[there].ids
            ):
                broken.append((page.name, link))
    assert not broken


@pytest.mark.slow
def test_nothing_is_fetched_from_a_network(site, pages):
    outside = {
        link for links in pages.values() for link in links.loads if "//" in link[:8]
    }
    styles = " ".join(css.read_text() for css in site.rglob("*.css"))
    fetched = re.findall(r"url\([^)]*\)|@import [^;]*", styles)
    outside |= {text for text in fetched if re.search("//", text.partition("data:")[0])}
    assert fetched and not outside


def public_names():
    """Every name that `dlworkshop`, a room or a module in `dlworkshop` exports."""
    rooms = [m for m in pkgutil.iter_modules(dlworkshop.__path__) if m.ispkg]
    names = [f"dlworkshop.{room.name}" for room in rooms]
    values = [getattr(dlworkshop, name) for name in dlworkshop.__all__]
    names += [value.__name__ for value in values if inspect.ismodule(value)]
    for name, value in zip(dlworkshop.__all__, values, strict=True):
        if not inspect.ismodule(value):
            yield f"dlworkshop.{name}"
    for name in set(names):
        module = importlib.import_module(name)
        for part in getattr(module, "__all__", ()):
            if not any(getattr(module, part) is value for value in values):
                yield f"{name}.{part}"


@pytest.mark.slow
def test_every_public_name_has_an_entry(pages):
    ids = set().union(*(links.ids for links in pages.values()))
    names = set(public_names())
    assert {"dlworkshop.fit", "dlworkshop.models.from_haiku"} <= names
    assert "dlworkshop.learn.losses.cross_entropy" in names and len(names) > 80
    assert names - ids == set()


@pytest.mark.slow
def test_it_is_searched_from_disk(site):
    index = (site / "searchindex.js").read_text()
    assert index.startswith("Search.setIndex(") and "check_gradients" in index


@pytest.mark.slow
def test_every_lesson_is_a_page_that_is_found(site, pages):
    index = (site / "searchindex.js").read_text()
    assert "receptiv" in index  # stemmed; in the text of a lesson only
    cards = pages[site / "gallery.html"].leads
    overview = pages[site / "lessons.html"].leads
    for script in lessons.scripts():
        page = site / "lessons" / f"{script.stem}.html"
        assert f"../notebooks/{script.stem}.ipynb" in pages[page].leads
        assert f"lessons/{script.stem}.html" in cards
        assert f"lessons/{script.stem}.html" in overview
        text = page.read_text()
        assert "What you will be able to do" in text and "<math" in text
        assert not re.search(r"\{\{|\]\((claim|figure):|\$\$", text)
    text = (site / "lessons" / "xor.html").read_text()
    assert "<summary>The answer</summary>" in text
    assert "lessons/activations.html" in text or 'href="activations.html"' in text


@pytest.mark.slow
def test_every_lesson_has_its_notebook(site):
    names = [f"{script.stem}.ipynb" for script in lessons.scripts()]
    assert sorted(f.name for f in (site / "notebooks").iterdir()) == names


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if BLOCK.search((DOCS / page).read_text())],
)
def test_its_blocks_run(page, tmp_path, monkeypatch, assert_gradients):
    if page in ELSEWHERE:
        assert page in (ROOT / "tests" / ELSEWHERE[page]).read_text()
        return
    monkeypatch.chdir(tmp_path)
    # what gradients.md leaves to the reader
    scope: dict = {"my_loss": lambda w: w**2, "params": 2.0}
    for block in BLOCK.findall((DOCS / page).read_text()):
        exec(compile(block, page, "exec"), scope)
    if "test_my_loss" in scope:
        scope["test_my_loss"](assert_gradients)
