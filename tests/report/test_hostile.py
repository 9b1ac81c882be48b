"""A page made from somebody else's run folder runs nothing and holds no other file."""

import json

import pytest

from dlworkshop import report
from dlworkshop.errors import UserError
from dlworkshop.report import svg, svg_file
from dlworkshop.report.data_card import strip

NS = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
# a drawing of 2^40 parts, and a clip of a clip
DOUBLED = '<g id="a0"><rect/></g>' + "".join(
    f'<g id="a{i + 1}"><use href="#a{i}"/><use href="#a{i}"/></g>' for i in range(40)
)
CLIPPED = (
    '<clipPath id="c"><rect style="clip-path: url(#c)"/></clipPath>'
    '<rect clip-path="url(#c)"/>'
)


@pytest.mark.parametrize(
    ("inside", "reason"),
    [
        ("<script>alert(1)</script>", "<script>"),
        ("<foreignObject/>", "<foreignObject>"),
        ('<g onload="alert(1)"/>', "attribute onload"),
        ('<image href="file:///etc/passwd"/>', "attribute href"),
        ('<image href="data:image/svg+xml;base64,PHN2Zz4="/>', "attribute href"),
        ('<use xlink:href="https://example.org/a.svg#b"/>', "href"),
        ('<g style="fill: url(https://example.org/)"/>', "attribute style"),
        ('<g xmlns="http://www.w3.org/1999/xhtml"/>', "xhtml"),
        ('<g ONLOAD="alert(1)"/>', "attribute ONLOAD"),
        ('<g OnClick="alert(1)"/>', "attribute OnClick"),
        ('<image HREF="http://example.org/x.png"/>', "attribute HREF"),
        ('<image src="http://example.org/x.png"/>', "attribute src"),
        ('<g fill="URL(http://example.org/x)"/>', "attribute fill"),
        ("<g style=\"@IMPORT 'x'\"/>", "attribute style"),
        ("<g style=\"fill: image-set('http://x' 1x)\"/>", "attribute style"),
        ("<g style=\"fill: Image-Set('http://x' 1x)\"/>", "attribute style"),
        ('<g style="position: fixed; inset: 0"/>', "attribute style"),
        (DOUBLED, "it draws #a. too often"),
        (CLIPPED, "it draws #c too often"),
        ("<![CDATA[><script>alert(1)</script>]]>", "a declaration"),
        ("<path>", "not SVG"),
    ],
)
def test_what_is_more_than_a_drawing_is_refused(inside, reason):
    with pytest.raises(ValueError, match=reason):
        svg_file.parsed(f"<svg {NS}>{inside}</svg>")


def test_entities_are_refused_before_they_grow():
    bomb = '<!DOCTYPE svg [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;">]>'
    with pytest.raises(ValueError, match="a declaration"):
        svg_file.parsed(f"{bomb}<svg {NS}>&b;</svg>")


def test_text_that_looks_like_markup_stays_text():
    made = svg_file.parsed(f"<svg {NS}><title>&lt;script&gt;</title></svg>")
    assert made == "<svg><title>&lt;script&gt;</title></svg>"


def test_a_drawing_is_what_was_drawn():
    with svg.drawing("curve", "A title", (4, 3), caption="So") as (_, axes, out):
        axes.imshow([[0, 1], [2, 3]])
        axes.plot([0, 1], [1, 0], label="a < b")
        axes.legend()
    back = svg_file.parsed(svg_file.written(out[0]))
    assert len(back) == pytest.approx(len(out[0]), rel=0.02)
    for part in ("<title", "<desc", "a &lt; b", "data:image/png;base64", 'href="#'):
        assert back.count(part) == out[0].count(part) > 0


@pytest.mark.parametrize("linked", [False, True])
def test_a_file_outside_the_folder_is_not_copied(linked, tmp_path):
    run, mine = tmp_path / "run", tmp_path / "mine.svg"
    mine.write_text(f"<svg {NS}><title>mine</title></svg>")
    (run / "figures").mkdir(parents=True)
    name = "figures/one.svg" if linked else "../mine.svg"
    if linked:
        (run / name).symlink_to(mine)
    (run / "config.json").write_text("{}")
    figure = {"file": name, "title": "", "caption": ""}
    (run / "summary.json").write_text(json.dumps({"figures": [figure]}))
    with pytest.raises(UserError, match="lies outside the run folder"):
        report.write(run)


@pytest.mark.parametrize("name", ["experiment.py", "lesson.md", "data_card.json"])
def test_a_link_is_not_followed(name, tmp_path):
    run, mine = tmp_path / "run", tmp_path / "mine"
    mine.write_text('{"a": "secret"}')
    run.mkdir()
    for file in ("config.json", "summary.json"):
        (run / file).write_text("{}")
    (run / name).symlink_to(mine)
    with pytest.raises(UserError, match=f"{name} is a link"):
        report.write(run)


def test_pictures_of_a_card_cannot_end_their_attribute():
    shown = strip(['"/><script>alert(1)</script>', "AAAA"], "name", "title")
    assert "script" not in shown and "AAAA" in shown
