"""Slides of a gallery: a page for each chapter, whole, and as harmless as a report."""

import json
import re

import pytest

from dlworkshop import cli
from dlworkshop.report import slides as deck
from dlworkshop.verify import claims
from dlworkshop.workshop import slides

SVG = """<svg xmlns="http://www.w3.org/2000/svg" aria-labelledby="t" viewBox="0 0 9 9">
<title id="t">Two</title><clipPath id="c"><rect/></clipPath>
<g clip-path="url(#c)" data-tip="url(#c)"/></svg>"""


def lesson_run(folder, question, num_claims=1):
    """The run folder of a lesson with one figure and one exercise."""
    (folder / "figures").mkdir(parents=True)
    (folder / "figures/a.svg").write_text(SVG)
    (folder / "config.json").write_text("{}")
    (folder / "lesson.md").write_text("## The idea\n\nOf it.\n")
    claim = claims.bounded("1 < 2", 1, at_most=2, why="counting")._asdict()
    summary = {
        "experiment": folder.name,
        "question": question,
        "finding": "1 < 2",
        "claims": [claim] * num_claims,
        "exercises": [{"question": "Why `<`?", "answer": "So.", "claim": None}],
        "figures": [{"file": "figures/a.svg", "title": "Two", "caption": "Dots: <i>."}],
    }
    (folder / "summary.json").write_text(json.dumps(summary))


@pytest.fixture
def gallery(tmp_path):
    lesson_run(tmp_path / "site/xor", "Why <b>?")
    lesson_run(tmp_path / "site/softmax", "Which class?")
    lesson_run(tmp_path / "site/seeds", "Is A better?", num_claims=deck.MOST_CLAIMS + 1)
    (tmp_path / "site/halving").mkdir()  # it did not run
    return tmp_path / "site"


def sections(text):
    return re.findall("<section.*?</section>", text, re.S)


def test_each_chapter_with_a_lesson_is_a_page(gallery, tmp_path, capsys):
    written = slides.write(gallery, tmp_path / "out")
    names = "fully_connected_networks.html", "populations.html"
    assert [path.name for path in written] == list(names)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == list(names)
    assert "Deep learning: left out" in capsys.readouterr().out
    text = written[0].read_text()
    chapter, *rest = sections(text)
    assert re.findall(r'href="#(.*?)"', chapter) == ["lesson-0", "lesson-1"]
    assert chapter.index("Which class?") < chapter.index("Why &lt;b&gt;?")
    assert len(rest) == 8  # question, figure, claims, exercise of two lessons
    question, figure, found, exercise = rest[4:]
    assert "Why &lt;b&gt;?" in question and 'id="lesson-1"' in question
    assert "<svg" in figure and "Dots: &lt;i&gt;." in figure
    assert "Found: 1 &lt; 2." in found and found.count("✓ holds") == 1
    assert "Why <code>&lt;</code>?" in exercise
    assert re.search("<details><summary>.*</summary><p>So", exercise)


def test_a_page_is_complete_in_itself(gallery, tmp_path):
    text = slides.write(gallery, tmp_path)[0].read_text()
    assert "default-src 'none'" in text
    assert not re.search(r'https?:|<link|@import|src=|<a [^>]*href="[^#]', text)
    ids = re.findall(r'\bid="(.*?)"', text)
    assert len(ids) == len(set(ids)) == 6  # both figures are called `a`
    assert text.count("clip-path=") == 2
    for i in "01":
        assert f'clip-path="url(#{i}-0-c)"' in text and f'id="{i}-0-c"' in text
    assert text.count('data-tip="url(#c)"') == 2  # a text, no reference


def test_many_claims_take_several_slides(gallery, tmp_path):
    text = slides.write(gallery, tmp_path)[1].read_text()
    counts = [each.count("✓ holds") for each in sections(text)]
    assert [count for count in counts if count] == [4, 3]


def test_a_folder_that_is_no_gallery_is_refused(tmp_path, capsys):
    assert cli.main(["slides", str(tmp_path), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "contains no lesson that has run" in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_damaged_lesson_is_named(gallery, tmp_path, capsys):
    (gallery / "xor/figures/a.svg").write_text("<svg><script/></svg>")
    assert cli.main(["slides", str(gallery), str(tmp_path / "out")]) == 2
    assert "a.svg" in capsys.readouterr().err
