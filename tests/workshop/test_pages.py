"""The texts of the lessons: whole, of a length to be read, true to code and run.

That their claims and figures are there is tested where each lesson runs.
"""

import re
from pathlib import Path

import pytest

from dlworkshop.errors import UserError
from dlworkshop.report import lesson_text
from dlworkshop.verify import claims
from dlworkshop.workshop import pages

EXPERIMENTS = Path(__file__).parent.parent.parent / "experiments"
LESSONS = sorted(path.stem for path in EXPERIMENTS.glob("slides/[a-z]*.py"))
SECTIONS = [
    "What you will be able to do",
    "The idea",
    "What to look for",
    "What was claimed, and how it could have failed",
    "Where it breaks down",
    "Read next",
]
LINKS = r"\]\((claim|figure):([^)]+)\)"


class Anything(dict):
    """Settings of a run that has all of them."""

    def __contains__(self, name):
        return True

    def __missing__(self, name):
        return 5


def written(name):
    return (EXPERIMENTS / "pages" / f"{name}.md").read_text(encoding="utf-8")


def filled(name):
    """A page as in a run that has all that the page names."""
    named = re.findall(LINKS, written(name))
    made = [" ".join(text.split()) for kind, text in named if kind == "claim"]
    found = [claims.bounded(text, 1, equal_to=1, why="so") for text in made]
    figures = [text for kind, text in named if kind == "figure"]
    script = EXPERIMENTS / f"{name}.py"
    return pages.filled(written(name), script, figures, found, Anything())


@pytest.mark.parametrize("name", LESSONS)
def test_a_page_has_all_parts_and_can_be_shown(name):
    shown = []
    text = filled(name)
    found = lesson_text.sections(text, lambda file, look: shown.append((file, look)))
    assert [title for title, _ in found] == SECTIONS
    parts = dict(found)
    assert parts["What you will be able to do"].count("<li>") >= 3
    assert parts["Read next"].count("<li>") >= 2
    assert "<math" in parts["The idea"] and 'class="beside"' in parts["The idea"]
    assert shown and all(len(look.split()) >= 5 for _, look in shown)
    assert "<ol" not in "".join(parts.values())  # a line that begins with "1."
    assert "$" not in re.sub("<pre>.*?</pre>", "", "".join(parts.values()), flags=re.S)


@pytest.mark.parametrize("name", LESSONS)
def test_a_page_is_read_in_a_few_minutes(name):
    prose = re.sub(r"```.*?```|\$\$.*?\$\$", "", written(name), flags=re.DOTALL)
    words = re.sub(r"\$.*?\$", "x", prose, flags=re.DOTALL).split()
    assert 400 <= len(words) <= 900


@pytest.mark.parametrize("name", LESSONS)
def test_no_result_is_written_into_a_page(name):
    """Percentages and times are of a run; a page quotes its claims and figures."""
    prose = re.sub(r"```.*?```", "", written(name), flags=re.DOTALL)
    allowed = "95 %", "5 %", "90 %"  # levels that are agreed on
    for number in re.findall(r"\d[\d.,]* (?:%|seconds|ms|µs)", prose):
        assert number in allowed, number


SCRIPT = '''
def outer(x):
    """Twice."""
    y = 2 * x  # y = 2 x
    return y
'''


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```code\nouter.z\n```", "there is no 'z' in own.py"),
        ("```code\ndlworkshop.data.toy.nothing\n```", "no 'nothing' in toy.py"),
        ("![look](figure:one)", "unknown figure on the page of own.py 'one'.*: two"),
        ("see [this](claim:Two is)", "the claim 'Two is', which the lesson does not"),
        ("{{epochs}}", "asks for the setting 'epochs': it has seeds"),
    ],
)
def test_what_a_page_names_must_be_there(text, said, tmp_path):
    script = tmp_path / "own.py"
    script.write_text(SCRIPT)
    with pytest.raises(UserError, match=said):
        pages.filled(text, script, ["two"], [], {"seeds": 3})


def test_a_page_is_filled_in(tmp_path):
    script = tmp_path / "own.py"
    script.write_text(SCRIPT)
    claim = claims.bounded("One is 1 of {1}", 1, equal_to=1, why="so")
    text = (
        "{{seeds}} seeds, {{claim:One is}}, [so](claim:One\nis), [here](figure:one)\n\n"
        "![look\nhere](figure:one)\n\n```code\nouter.y\nouter.return\n```\n"
    )
    found = pages.filled(text, script, ["one"], [claim], {"seeds": 3})
    assert found == (
        "3 seeds, 1, [so](#claim-1), [here](#figure-one)\n\n"
        "![look\nhere](figures/one.svg)\n\n"
        "```python own.py, lines 4, 5\ny = 2 * x  # y = 2 x\nreturn y\n```\n"
    )
