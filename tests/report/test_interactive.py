"""What a page can show and hide, and what is seen where no script runs."""

import base64
import hashlib
import re

import numpy as np
import pytest

from dlworkshop.report import interactive, svg, svg_file, write
from dlworkshop.report.elements import control
from dlworkshop.report.lesson_figures import curves


def drawn(draw, frames=0, panels=1):
    with svg.drawing("one", "A title", (4, 3), panels, caption="So") as (_, axes, out):
        if frames:
            interactive.draw_frames(axes, draw, frames)
        else:
            draw(axes)
    return svg_file.parsed(svg_file.written(out[0]))


def groups(made, name):
    return re.findall(rf'<g data-{name}="([^"]*)"([^>]*)>', made)


def test_the_last_frame_is_seen_without_a_script():
    def draw(panels, i):
        panels[0].imshow([[i, 1], [1, 0]], interpolation="none")
        panels[0].set_title(f"frame {i}")
        panels[1].plot([0, i], [0, 1], label=f"at {i}")
        panels[1].legend()

    made = drawn(draw, frames=3, panels=2)
    found = groups(made, "frame")
    assert {number for number, _ in found} == {"0", "1", "2"}
    for number, rest in found:
        assert ("display=" in rest) == (number != "2")
    assert made.count("<image") == 3  # not merged into one
    assert [made.count(f"<!-- at {i} -->") for i in range(3)] == [0, 0, 0]
    legends = re.findall(r'id="one-legend_\d+"', made)
    assert len(legends) == 1


def test_a_title_of_all_frames_stays_and_one_of_a_frame_goes_with_it():
    def draw(panels, i):
        panels[1].set_title(f"of {i}")

    with svg.drawing("one", "A title", (4, 3), 2) as (_, axes, out):
        axes[0].set_title("of all")
        interactive.draw_frames(axes, draw, 3)
        assert [panel.get_title() for panel in axes] == ["of all", ""]
    assert {number for number, _ in groups(out[0], "frame")} == {"0", "1", "2"}


def test_what_is_shared_is_drawn_once():
    once = len(drawn(lambda axes: axes.plot(range(50))))

    def draw(axes, i):
        axes.plot([i], [i], "o")

    with svg.drawing("one", "A title", (4, 3)) as (_, axes, out):
        axes.plot(range(50))
        interactive.draw_frames(axes, draw, 4)
    assert "data-frame" in out[0] and len(out[0]) < once + 4 * 3000


def test_curves_tell_their_numbers():
    x, values = np.array([1.0, 10, 100]), np.array([[1.0, 2, 3], [3.0, 4, 5]])

    def draw(axes):
        curves(axes, x, {"a < b": values}, xscale="log", xlabel="steps")

    tips = [text for text, _ in groups(drawn(draw), "tip")]
    assert tips == [
        f"steps {at}: a &lt; b {mean}" for at, mean in ((1, 2), (10, 3), (100, 4))
    ]


def test_a_tip_does_not_move_the_legend():
    def place(tips):
        with svg.drawing("one", "A title", (6, 4)) as (_, axes, _):
            axes.plot([0, 1, 2], [0, 1, 2], label="line")
            axes.legend(loc="best")
            if tips:
                interactive.tips(axes, [0, 1, 2], ["a", "b", "c"])
        return axes.get_legend().get_window_extent().bounds

    assert place(True) == pytest.approx(place(False))


def test_a_slider_says_what_it_shows():
    made = control("a & b", ["0", '<"1">'])
    assert 'max="1" value="1" hidden="hidden"' in made
    names = re.search('data-names="([^"]*)"', made)
    assert names and "<" not in names[1]
    assert "<output>&lt;&quot;1&quot;&gt;</output>" in made


def test_a_page_runs_its_own_script_and_nothing_else(population):
    text = write(population).read_text()
    (script,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall('Content-Security-Policy" content="([^"]*)"', text)
    assert f"script-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert len(re.findall("<script", text)) == 1


def test_a_click_on_a_confusion_shows_its_images(population):
    text = write(population).read_text()
    with np.load(population / "predictions.npz") as found:
        arrays = dict(found)
    assert 'class="cell"' not in text  # older runs kept no images of them
    label, said = arrays["label"], arrays["prediction"]
    wrong = np.flatnonzero((said != label).any(0))[:5].astype(np.int32)
    image = np.zeros((len(wrong), 8, 8, 1), np.uint8)
    arrays |= {"mistake_index": wrong, "mistake_image": image}
    np.savez(population / "predictions.npz", **arrays)
    text = write(population).read_text()
    links = set(re.findall(r'href="#(confusion-cell-\d+-\d+)"', text))
    assert links and links == set(re.findall(r'id="(confusion-cell-\d+-\d+)"', text))
    names = re.findall("<a [^>]*><title>[^<]+ taken for [^<]+</title>", text)
    assert len(names) == text.count('href="#confusion-cell-')
    finite = np.delete(said, 5, axis=0)  # that member was quarantined
    cells = {
        f"confusion-cell-{label[n]}-{k}"
        for n in wrong
        for k in finite[:, n]
        if k != label[n]
    }
    assert links == cells


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("mistake_index", np.array([10_000])),
        ("mistake_index", np.array([0.5])),
        ("mistake_image", np.zeros((2, 8, 8, 1), np.uint8)),
    ],
)
def test_damaged_mistakes_are_the_users_to_mend(population, name, array):
    with np.load(population / "predictions.npz") as found:
        arrays = dict(found)
    arrays |= {
        "mistake_index": np.array([0]),
        "mistake_image": np.zeros((1, 8, 8, 1), np.uint8),
    }
    np.savez(population / "predictions.npz", **arrays | {name: array})
    with pytest.raises(Exception, match="cannot be read as predictions"):
        write(population)


def test_curves_have_a_box_for_each_split_and_members_sort(population):
    text = write(population).read_text()
    assert {name for name, _ in groups(text, "series")} == {"train", "validation"}
    assert '<table class="sortable">' in text


def test_a_limit_that_is_open_holds_all_curves():
    seen = []

    def draw(axes):
        axes.axhline(5)
        curves(axes, [1, 2, 3], {"high": np.array([[1, 20, 9]])}, ylim=(0, None))
        seen.extend(axes.get_ylim())

    drawn(draw)
    assert seen[0] == 0 and seen[1] >= 20
