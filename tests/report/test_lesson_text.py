"""The text of a lesson on its page; it may come from somebody else."""

import html.parser
import json

import pytest

from dlworkshop import report
from dlworkshop.errors import UserError
from dlworkshop.report import lesson_text


class Elements(html.parser.HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.seen = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, attrs))


def shown(text, figure=lambda file, look: None):
    return "".join(content for _, content in lesson_text.sections(text, figure))


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[click](javascript:alert(1))",
        "![](https://example.org/a.png)",
        "![a](data:image/svg+xml;base64,PHN2Zz4=)",
        '![a](x" onerror="alert(1))',
        '```python "><script>alert(1)</script>\n1\n```',
        "```\n</pre><script>alert(1)</script>\n```",
        "$\\text{\\&lt;script>}$",
    ],
)
def test_a_text_runs_and_loads_nothing(text):
    seen = Elements(shown(f"## A\n\n{text} and more")).seen
    assert seen
    for name, attributes in seen:
        assert name not in ("script", "img", "iframe", "object", "link", "style")
        for key, value in attributes:
            assert not key.startswith("on") and key not in ("src", "style")
            assert key != "href" or value.startswith(("#", "https:"))


@pytest.mark.parametrize(
    "formula",
    [
        r"\text{<script>alert(1)</script>}",
        r"\text{</mtext><script/><mtext>}",
        r"\href{javascript:alert(1)}{x}",
        r"\frac{1",
        r"\left( x",
    ],
)
def test_a_formula_is_made_of_known_elements_or_refused(formula):
    try:
        made = shown(f"## A\n\n${formula}$")
    except ValueError as error:
        assert "formula" in str(error)
    else:
        names = {name for name, _ in Elements(made).seen}
        assert "script" not in names and "javascript" not in made


def test_a_formula_stands_beside_its_code_and_a_figure_has_its_look():
    text = (
        "## A\n\n$$ a < b $$\n\n```python own.py, line 3\na < b\n```\n\n![see $a$](f)"
    )
    looks = {}
    made = shown(text, looks.setdefault)
    assert 'class="beside"><p><math display="block">' in made
    assert "<mo>&lt;</mo>" in made and "<pre>a &lt; b</pre>" in made
    assert "<figcaption>own.py, line 3</figcaption>" in made
    assert looks["f"] == 'see <math display="inline"><mi>a</mi></math>'
    assert looks["f"] in made


def test_dollars_that_are_no_formula_stay():
    assert "5 $ or $ 6" in shown("## A\n\n5 $ or $ 6") and "`" not in shown(
        "## A\n\n`$x$`"
    )


def test_a_damaged_text_is_one_sentence(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "summary.json").write_text(json.dumps({"finding": "so"}))
    (tmp_path / "lesson.md").write_text("## A\n\n$\\text{<b}$")
    with pytest.raises(UserError, match="of this run cannot be rendered") as got:
        report.write(tmp_path)
    assert "\n" not in str(got.value)
