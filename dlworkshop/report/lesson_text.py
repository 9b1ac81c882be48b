"""The text of a lesson, `lesson.md` in its run folder, as sections of its page.

The text is Markdown with LaTeX formulas between `$` or `$$`, which become MathML, and
the figures of the lesson as images. The file may come from an untrusted source, so HTML
markup in it is escaped, links that run code are removed, and formulas are rebuilt from
the elements and attributes listed here.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any
from xml.etree import ElementTree

from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from dlworkshop.report.elements import Html, scroll, tag

MATHML = "{http://www.w3.org/1998/Math/MathML}"
ELEMENTS = re.findall(
    r"\w+",
    "math mrow mi mn mo mtext mspace ms msub msup msubsup mfrac msqrt mroot mover "
    "munder munderover mtable mtr mtd mstyle mpadded mphantom",
)
ATTRIBUTES = re.findall(
    r"\w+",
    "display mathvariant stretchy fence form separator accent accentunder largeop "
    "movablelimits symmetric lspace rspace minsize maxsize width height depth "
    "linethickness scriptlevel displaystyle columnalign rowspacing columnspacing",
)
FORMULA = re.compile(
    r"\$\$(?P<block>.+?)\$\$|\$(?=\S)(?P<inline>.+?)(?<=\S)\$(?!\d)", re.DOTALL
)


def sections(
    text: str, figure: Callable[[str, Html], Html | None]
) -> list[tuple[str, Html]]:
    """Title and content of each section that starts with `## `.

    Args:
        text: of `lesson.md`.
        figure: (file, description) -> the figure, or None if it does not exist.

    Raises:
        ValueError: if a formula cannot be rendered.

    >>> sections("## Idea\\n\\nOf *one* $x$ <b>.", lambda file, look: None)
    ... # doctest: +NORMALIZE_WHITESPACE
    [('Idea', '<div class="text"><p>Of <em>one</em>
      <math display="inline"><mi>x</mi></math> &lt;b&gt;.</p></div>')]
    """
    markdown = MarkdownIt("commonmark", {"html": False})
    markdown.inline.ruler.before("escape", "math", _read_math)
    markdown.add_render_rule("math", _render_math)
    markdown.add_render_rule("fence", _render_fence)
    markdown.add_render_rule("image", _render_image)
    tokens = markdown.parse(text)
    starts = [
        i for i, t in enumerate(tokens) if t.type == "heading_open" and t.tag == "h2"
    ]
    found = []
    for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True):
        title = tokens[start + 1].content
        parts = _parts(tokens[start + 3 : end], markdown, figure)
        found.append((title, Html("\n".join(parts))))
    return found


def _parts(tokens: Sequence[Token], markdown: MarkdownIt, figure: Callable):
    """Figures, formulas beside the code that computes them, and paragraphs."""
    rest: list[Token] = []

    def text():
        if rest:
            made = markdown.renderer.render(rest, markdown.options, {}).strip()
            rest.clear()
            yield tag("div", Html(made), class_="text")

    i = 0
    while i < len(tokens):
        inline = tokens[i + 1] if tokens[i].type == "paragraph_open" else None
        children = (inline.children if inline else None) or []
        only = children[0] if len(children) == 1 else None
        if only is not None and only.type == "image":
            yield from text()
            look = Html(markdown.renderInline(only.content))
            made = figure(str(only.attrs["src"]), look)
            if made is not None:
                yield made
            i += 3
        elif only is not None and only.type == "math" and only.info == "block":
            yield from text()
            pieces = [tag("p", _math(only.content, "block"))]
            i += 3
            while i < len(tokens) and tokens[i].type == "fence":
                pieces.append(_listing(tokens[i]))
                i += 1
            yield tag("div", *pieces, class_="beside" if len(pieces) > 1 else "text")
        else:
            rest.append(tokens[i])
            i += 1
    yield from text()


def _read_math(state: StateInline, silent: bool) -> bool:
    """The Markdown rule for `$...$` (inline) and `$$...$$` (a block)."""
    found = FORMULA.match(state.src, state.pos)
    if not found:
        return False
    if not silent:
        token = state.push("math", "math", 0)
        token.content = found["block"] or found["inline"]
        token.info = "block" if found["block"] else "inline"
    state.pos = found.end()
    return True


def _render_math(_self: Any, tokens: Sequence[Token], i: int, *_: Any) -> str:
    return _math(tokens[i].content, tokens[i].info)


def _render_fence(_self: Any, tokens: Sequence[Token], i: int, *_: Any) -> str:
    return _listing(tokens[i])


def _render_image(_self: Any, tokens: Sequence[Token], i: int, *_: Any) -> str:
    return tag("em", tokens[i].content)  # inside a sentence no image is loaded


def _listing(token: Token) -> Html:
    """Code with its source, which follows the language in the opening fence."""
    place = token.info.partition(" ")[2]
    code = scroll(place or "Code", tag("pre", token.content.rstrip()))
    return tag("figure", tag("figcaption", place), code, class_="listing")


def _math(latex: str, display: str) -> Html:
    """LaTeX as MathML that contains known elements only.

    >>> _math("a_1", "inline")
    '<math display="inline"><msub><mi>a</mi><mn>1</mn></msub></math>'
    """
    try:
        root = ElementTree.fromstring(convert(latex, display=display))
    except Exception as error:  # the parser raises many types
        reason = f"the formula '{latex}' cannot be rendered"
        raise ValueError(f"{reason} ({type(error).__name__})") from error
    while len(root) == 1 and root[0].tag == f"{MATHML}mrow":  # added by the converter
        root[:] = root[0][:]
    return _rebuilt(root)


def _rebuilt(element: ElementTree.Element) -> Html:
    name = element.tag.removeprefix(MATHML)
    if name not in ELEMENTS:
        raise ValueError(f"a formula contains <{name}>, which is not allowed")
    kept = {k: v for k, v in element.attrib.items() if k in ATTRIBUTES}
    return tag(name, element.text or "", *map(_rebuilt, element), **kept)
