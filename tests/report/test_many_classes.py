"""Classes of every number and name: readable, and each its own, on page and picture."""

import html
import json
import re

import numpy as np
import pytest

from dlworkshop import run_files
from dlworkshop.report import confusion, figures, names, svg, write

LONG = "a very long name of a class that differs only at its very end, number "
OTHERS = ["猫", "かわいい犬", "قطة سوداء", "חתול", "👩‍👩‍👧 family", "", "x\u202ey"]
MANY = tuple(OTHERS + [LONG + str(k) for k in range(235)])


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Of 242 classes, with its words."""
    from tests.report.conftest import make_run  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("many") / "run"
    return write(make_run(folder, [0.1], [0, 1], classes=MANY)).read_text()


def drawn_rows(page):
    """The figure of the confusion matrix with its caption."""
    matrix = page[page.index('aria-labelledby="confusion-title') :]
    return matrix[: matrix.index("</figure>")]


def test_names_in_a_picture_are_short_and_each_its_own():
    shown = names.in_picture(MANY)
    assert len(set(shown)) == len(MANY)
    assert max(map(len, shown)) <= 18 + len("#241 ") + 2
    assert shown[0] == "#0 猫" and shown[5] == "#5"
    assert shown[-1] == "a very lo…mber 234"
    assert "\u202e" not in "".join(shown)
    assert shown[3] == f"#3 \u2068{OTHERS[3]}\u2069"  # nothing around it is turned


def test_what_is_cut_keeps_the_marks_of_its_letters():
    family = "👩‍👩‍👧"
    cut = names.short(family * 12, 9)
    assert cut.strip("…").replace("…", "") in (family * 2, family * 3, family * 4)
    assert names.short("e\u0301" * 30, 5) == "e\u0301" * 2 + "…" + "e\u0301" * 2


def test_letters_that_the_font_lacks_are_set_by_the_reader():
    with svg.drawing("names", "貓 beside a cat", (6, 4)) as (_, axes, out):
        axes.set_yticks([0, 1], ["猫" * 9, "cat"])
    texts = re.findall(r"<text [^>]*>([^<]*)</text>", out[0])
    assert set(texts) == {"猫" * 9, "貓 beside a cat"}
    assert "'DejaVu Sans', sans-serif" in out[0]
    anchor = re.search(r"<text ([^>]*)>猫", out[0])[1]
    assert "text-anchor: end" in anchor
    at = float(re.search(r' x="([\d.]+)"', anchor)[1])
    assert at > 9 * 14  # there is room for nine wide letters to its left


def test_a_page_of_many_classes_shows_the_most_confused(page):
    matrix = drawn_rows(page)
    assert re.search("shows the (19|20) of 242 classes that are confused most", matrix)
    assert "A number before a name is the class number in the table" in matrix
    assert "Most common mistakes" in page
    assert "The 10 classes with the lowest F1" in page
    text = html.unescape(re.sub("<[^>]*>", "\n", page))
    for name in (*OTHERS[:5], LONG + "234"):
        assert names.one_line(name)[:40] in text
    assert "All 242 classes" in text
    assert len(page) < 1_500_000


def test_names_in_answers_and_settings_are_those_of_tables(make):
    arabic, long = OTHERS[2], "q" * 300
    folder = make([0.1], [0], classes=(arabic, long, "cat"))
    near = {"name": "a<b.png", "true": long, "distance": 0.5}
    row = {"name": "b.png", "true": arabic, "said": f"{arabic} (97 %)"}
    found = {"looked_at": 9, "rows": [row | {"nearest": [near]}]}
    (folder / "answers.json").write_text(json.dumps({"mistakes": found}))
    config = json.loads((folder / "config.json").read_text())
    config["dataset"]["classes"] = [arabic, long]
    (folder / "config.json").write_text(json.dumps(config))
    page = write(folder).read_text()
    part = page[page.index('aria-label="Nearest to the mistakes"') :]
    part = part[: part.index("</table>")]
    alone = names.in_table(arabic)
    assert f"<td>{alone}</td>" in part and f"<td>{alone}\n (97 %)</td>" in part
    assert f"{names.in_table('a<b.png')}: {names.in_table(long)} (0.5 off)" in part
    settings = page[page.index("dataset.classes") :]
    assert "q" * 300 not in re.sub("<wbr>|title=.*?>", "", settings)


def test_rows_of_a_part_are_whole(tmp_path, make, monkeypatch):
    seen = []
    monkeypatch.setattr(
        figures, "confusion", lambda name, counts, *_: seen.append(counts) or "<svg/>"
    )
    folder = make([0.1], [0], classes=tuple(f"c{k:03}" for k in range(40)))
    write(folder)
    with np.load(folder / "predictions.npz") as found:
        label = found["label"]
    assert seen[0].shape == (20, 21)
    assert set(seen[0].sum(1)) <= set(np.bincount(label).astype(float))


def test_two_classes_do_not_fill_the_page():
    width, height = figures.confusion_size(
        ["no", "yes"], "Commonest mistake: no as yes"
    )
    assert 5.6 * width < 32 and height < 4.5
    many = figures.confusion_size([f"class {k}" for k in range(30)], "one line")
    assert many[0] > 2 * width


def test_no_mistakes_are_a_sentence(make):
    folder = make([0.1], [0])
    with np.load(folder / "predictions.npz") as found:
        arrays = dict(found)
    arrays["prediction"][:] = arrays["label"]
    np.savez(folder / "predictions.npz", **arrays)
    page = write(folder).read_text()
    assert "No mistakes on the test split" in page
    assert "confusion-title" not in page


def test_numbers_of_several_settings_are_not_mixed(sweep, tmp_path):
    summary = json.loads((sweep / "summary.json").read_text())
    best = summary["settings"][0]
    page = html.unescape(write(sweep).read_text()).replace("\u00a0", " ")
    mean = best["test"]["accuracy"]["mean"]
    rate = f"{best['hparams']['learning_rate']:g}"
    setting = f"with learning rate {rate}, the best of 3 settings by validation loss"
    assert re.search(rf"models reach {100 * mean:.1f}\S* ?% [^<]*{setting}", page)
    rows = [row["test"]["accuracy"] for row in summary["population"]]
    mixed = float(np.mean([accuracy for accuracy in rows if accuracy is not None]))
    assert str(mixed) not in page and str(mean) in page
    older = {k: v for k, v in summary.items() if k != "sha256"}
    older["test"] = {name: {"mean": mixed} for name in summary["test"]}
    (tmp_path / "summary.json").write_text(json.dumps(older))
    assert run_files.read(tmp_path, "summary.json")["test"] == best["test"]
    assert f"Test split, mean of {best['test']['accuracy']['n']} members" in page


def test_the_most_confused_are_those_of_the_commonest_pairs():
    mistakes = np.zeros((6, 6))
    mistakes[4, 1], mistakes[2, 3], mistakes[0, 5] = 9, 5, 1
    assert confusion.most_confused(mistakes, 4).tolist() == [1, 2, 3, 4]
    assert confusion.most_confused(mistakes, 5).tolist() == [1, 2, 3, 4]
