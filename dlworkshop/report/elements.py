"""HTML elements that escape their contents, and the whole page."""

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dlworkshop.learn.metrics import mean_and_error
from dlworkshop.report.script import SCRIPT, policy
from dlworkshop.report.style import STYLE
from dlworkshop.report.words import is_number, quantity, titled, with_error

OPEN_ROWS, OPEN_COLUMNS = 16, 12  # a larger table is folded


class Html(str):
    """Markup; text of any other type is escaped when it is inserted."""

    __slots__ = ()


def tag(name: str, *children: Any, **attributes: Any) -> Html:
    """An element; attributes, and children that are not `Html`, are escaped.

    >>> tag("p", "a < b ", tag("b", 1), class_="x", title='"', id=None)
    '<p class="x" title="&quot;">a &lt; b <b>1</b></p>'
    """
    inside = "".join(
        child if isinstance(child, Html) else html.escape(str(child))
        for child in children
    )
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    alone = name in ("img", "input")
    return Html(f"<{name}{pairs}>" if alone else f"<{name}{pairs}>{inside}</{name}>")


def prose(text: str) -> Html:
    """Text in which `code` between backquotes is marked up.

    >>> prose("Set `a < b`.")
    'Set <code>a &lt; b</code>.'
    """
    parts = text.split("`")
    return Html(
        "".join(
            tag("code", part) if i % 2 else html.escape(part)
            for i, part in enumerate(parts)
        )
    )


def join(pieces: Iterable[str]) -> Html:
    """Several elements in sequence."""
    return Html("\n".join(pieces))


def data(text: str, value: Any) -> Html:
    """A formatted number that also carries its exact value, for scripts."""
    return tag("data", text, value=value) if is_number(value) else tag("span", text)


def number(value: Any, name: str, decimals: int = 1) -> Html:
    """`data` of a measured quantity with its unit.

    >>> number(0.5, "accuracy"), number(None, "loss")
    ('<data value="0.5">50.0 %</data>', '<span>—</span>')
    """
    return data(quantity(value, name, decimals), value)


def mean(stat: Mapping[str, Any], name: str) -> Html:
    """`data` of the `mean` of a quantity, with its standard error `sem`."""
    value = stat.get("mean")
    return data(with_error(value, stat.get("sem"), name), value)


def beside(title: str, name: str, members: Sequence[float], together: float) -> list:
    """A row of a table: title, mean of the members, score of their ensemble."""
    return [title, mean(mean_and_error(members), name), number(together, name, 2)]


def note(text: str) -> Html:
    """A paragraph in small type."""
    return tag("p", text, class_="note")


def table(
    label: str,
    head: Sequence[str],
    rows: Sequence[Sequence[Any]],
    classes: Sequence[str | None] = (),
    class_: str | None = None,
) -> Html:
    """A table in a box that scrolls, also by keyboard, if it is too wide.

    Args:
        label: of the box, for screen readers.
        head: titles of the columns; empty for a table of names and values.
        rows: cells; the first cell of a row is its title.
        classes: CSS class of each row.
        class_: CSS class of the table: "sortable" if a click on a title sorts the rows.
    """
    cells = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(tag("td", cell) for cell in row[1:]),
            class_=classes[i] if classes else None,
        )
        for i, row in enumerate(rows)
    ]
    titles = [tag("th", title, scope="col") for title in head]
    top = tag("thead", tag("tr", *titles)) if head else ""
    return scroll(label, tag("table", top, tag("tbody", *cells), class_=class_))


def against_ensemble(
    members: Sequence[Mapping[str, float]], together: Mapping[str, float], text: str
) -> Html:
    """A table of the scores, name -> value, of the members and their ensemble."""
    rows = [
        beside(titled(name), name, [each[name] for each in members], value)
        for name, value in together.items()
    ]
    head = ["", "One member", "Ensemble"]
    return join([table("Ensemble against single members", head, rows), note(text)])


def scroll(label: str, content: Html) -> Html:
    """A box that scrolls horizontally, so that the page does not."""
    return tag(
        "div", content, class_="scroll", role="region", aria_label=label, tabindex=0
    )


def chart(
    svg: str,
    caption: str,
    class_: str = "",
    inches: float | None = None,
    above: str = "",
    id_: str | None = None,
) -> Html:
    """A figure with a caption.

    Args:
        svg: the drawing.
        caption: text below the drawing.
        class_: CSS class that limits the width.
        inches: width of the drawing, used instead of `class_` so that its text is as
            large as the text of the page; the drawing scrolls on a small screen.
        above: content before the drawing, such as a `control`.
        id_: target of links.
    """
    drawn, style = Html(svg), None
    if inches is not None:
        style = f"max-width: {5.6 * inches:.1f}rem; --least: {4 * inches:.1f}rem"
        drawn = scroll("The figure", drawn)
    name = "sized" if inches is not None else f"chart {class_}".strip()
    under = tag("figcaption", caption)
    return tag("figure", above, drawn, under, class_=name, style=style, id_=id_)


def control(label: str, frames: Sequence[str]) -> Html:
    """A slider over the frames of a drawing; without JavaScript only the last name.

    Args:
        label: of the slider.
        frames: name of each frame.
    """
    last = len(frames) - 1
    slider = tag(
        "input",
        type="range",
        min=0,
        max=last,
        value=last,
        hidden="hidden",
        data_names=json.dumps(list(frames)),
    )
    text = tag("label", tag("span", f"{label}: "), slider)
    return tag("p", text, tag("output", frames[-1]), class_="control")


def fold(title: str, content: Html, is_open: bool = False) -> Html:
    """A section that the reader can open and close."""
    return tag(
        "details", tag("summary", title), content, open="open" if is_open else None
    )


def folded(title: str, label: str, head: Sequence[str], rows: Sequence, *more) -> Html:
    """A `table` of these arguments, folded under a title if it is large."""
    is_small = len(rows) <= OPEN_ROWS and len(head) <= OPEN_COLUMNS
    return fold(title, table(label, head, rows, *more), is_small)


def document(title: str, body: Html, images: str = "data:", style: str = "") -> str:
    """The whole page.

    Args:
        title: of the window.
        body: of the page.
        images: the image sources that its policy allows.
        style: rules added to the style sheet.
    """
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy(images)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{STYLE}{style}</style>
</head>
<body>
{body}
<script>{SCRIPT}</script>
</body>
</html>
"""
