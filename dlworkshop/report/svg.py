"""Drawings and images as SVG elements that can share one page.

The ids of a drawing start with its name, so that many drawings fit into one page.
Letters are paths, so that a drawing looks the same without its font; letters that the
font lacks are text, which the browser renders. Equal data give equal SVG. Matplotlib is
used through its objects: no window, no global state.
"""

import base64
import functools
import io
import re
import textwrap
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_mixed import MixedModeRenderer
from matplotlib.backends.backend_svg import FigureCanvasSVG, RendererSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation
from PIL import Image
from rich.cells import cell_len

from dlworkshop.report.interactive import as_attributes

MOST_PIXELS = 160  # of the longer side of an image
FONT, WEIGHTS = "DejaVu Sans", ("normal", "bold")  # part of matplotlib
STYLE: dict[Any, Any] = {
    "font.family": FONT,
    "font.size": 14,
    "figure.titlesize": 15,
    "figure.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,  # bars cover the grid
    "grid.color": "#e3e6ea",
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.image_inline": True,
    "image.composite_image": False,  # images may belong to different frames
    "text.parse_math": False,  # a class may be called "$5"
}


@contextmanager
def drawing(
    name: str, title: str, size: tuple[float, float], panels: int = 1, caption: str = ""
) -> Iterator[tuple[Figure, Any, list[str]]]:
    """Axes to draw on in our style; at the end the SVG is appended to the list.

    Args:
        name: of the figure, unique in its page.
        title: displayed above the figure.
        size: width and height in inches.
        panels: 1 yields an Axes, more yield an array of them, side by side.
        caption: explanation of the marks; with a caption the drawing contains a
            description for screen readers.
    """
    out: list[str] = []
    name = re.sub(r"\W", "-", name)
    with mpl.rc_context():
        mpl.rcdefaults()  # ignore the user's matplotlibrc
        mpl.rcParams.update(STYLE | {"svg.hashsalt": name})
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, panels)
        # matplotlib's own wrapping would treat "$" as the start of a formula
        lines = wrapped(title, size[0])
        figure.suptitle("\n".join(lines), x=0.01, ha="left")
        yield figure, axes, out
        for axis in (axis for a in figure.axes for axis in (a.xaxis, a.yaxis)):
            if isinstance(axis.get_major_formatter(), LogFormatterSciNotation):
                axis.set_major_formatter(PlainLog())
            if isinstance(axis.get_minor_formatter(), LogFormatterSciNotation):
                axis.set_minor_formatter(PlainLog())  # visible within one decade
        text = _Canvas(figure).as_text()
    alt = f"{caption} {described(figure)}" if caption else ""
    out.append(_for_page(text, name, title, alt))


def wrapped(title: str, width: float) -> list[str]:
    """The lines of a title above a drawing of this width in inches."""
    wide = cell_len(title) - len(title)  # letters of double width
    room = max(int(7.5 * width) - wide, 20)
    return textwrap.wrap(title.replace(" %", "\u00a0%"), room)


def is_drawn(text: str) -> bool:
    """Whether our font has all letters, and all of them run from left to right.

    >>> is_drawn("\u00e9t\u00e9 \u03b1"), is_drawn("\u732b"), is_drawn("\u0642\u0637")
    (True, False, False)
    """
    turned = {"R", "AL", "NSM"}  # NSM: marks that combine with the letter before
    return all(
        ord(each) in _letters() and unicodedata.bidirectional(each) not in turned
        for each in text
    )


@functools.cache
def _letters() -> frozenset[int]:
    """The letters of the font in both weights."""
    looks = [font_manager.FontProperties(family=FONT, weight=w) for w in WEIGHTS]
    fonts = [font_manager.get_font(font_manager.findfont(look)) for look in looks]
    return frozenset.intersection(*(frozenset(font.get_charmap()) for font in fonts))


class _Renderer(RendererSVG):
    """Draws letters of our font as paths, and keeps others as text."""

    def draw_text(self, gc, x, y, s, prop, angle, ismath=False, mtext=None):
        if is_drawn(s):
            super().draw_text(gc, x, y, s, prop, angle, ismath, mtext)
            return
        with mpl.rc_context({"svg.fonttype": "none"}):
            super().draw_text(gc, x, y, s, prop, angle, ismath, mtext)

    def get_text_width_height_descent(self, s, prop, ismath):
        if not is_drawn(s):  # measure letters of about the same width instead
            s = "".join(("", "n", "@")[min(cell_len(each), 2)] for each in s) or " "
        return super().get_text_width_height_descent(s, prop, ismath)


class _Canvas(FigureCanvasSVG):
    """Measures and draws with `_Renderer`."""

    def get_renderer(self) -> _Renderer:
        return self._renderer(io.StringIO(), self.figure.dpi)

    def as_text(self) -> str:
        """The figure as an SVG file."""
        buffer, dpi = io.StringIO(), self.figure.dpi
        self.figure.dpi = self.fixed_dpi
        width, height = self.figure.get_size_inches()
        own = self._renderer(buffer, dpi)
        renderer: Any = MixedModeRenderer(self.figure, width, height, dpi, own)
        self.figure.draw(renderer)
        renderer.finalize()
        return buffer.getvalue()

    def _renderer(self, buffer: io.StringIO, dpi: float) -> _Renderer:
        width, height = self.figure.get_size_inches() * self.fixed_dpi
        unsaid = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        return _Renderer(width, height, buffer, image_dpi=dpi, metadata=unsaid)


class PlainLog(LogFormatterSciNotation):
    """Labels of a logarithmic axis as plain numbers."""

    def __call__(self, value: float, place: int | None = None) -> str:
        return f"{value:g}" if super().__call__(value, place) else ""


def described(figure: Figure) -> str:
    """A description of the axes of a figure, for screen readers.

    >>> figure = Figure()
    >>> axes = figure.subplots()
    >>> _ = axes.plot([0, 10], [1, 3], label="loss"), axes.set(xlabel="step")
    >>> described(figure)
    'Horizontal axis: step, 0 to 10. Vertical axis: 1 to 3. Shown: loss.'
    """
    words = []
    for axes in figure.axes:
        if axes.get_title():
            words.append(f"{axes.get_title()}.")
        for name, axis in (("Horizontal", axes.xaxis), ("Vertical", axes.yaxis)):
            if axis.get_visible() and axes.axison:
                low, high = axis.get_data_interval()
                label = f"{axis.get_label_text()}, " if axis.get_label_text() else ""
                log = ", log scale" if axis.get_scale() == "log" else ""
                words.append(f"{name} axis: {label}{low:.3g} to {high:.3g}{log}.")
        if labels := axes.get_legend_handles_labels()[1]:
            words.append(f"Shown: {', '.join(labels)}.")
    return " ".join(words)


def _for_page(svg: str, name: str, title: str, alt: str) -> str:
    """An SVG file as an element of a page: no prologue, unique ids, a title."""
    view_box = re.search(r'viewBox="([^"]*)"', svg)
    assert view_box
    body = svg[svg.index(">", svg.index("<svg")) + 1 :].strip()
    body = re.sub(r"<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = as_attributes(body).replace(' target="_blank"', "")
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="|url\()#', rf"\1#{name}-", body)
    body = re.sub(r'\bd="[^"]*"', lambda path: _rounded(path[0]), body)
    body = body.replace(f"'{FONT}'", f"'{FONT}', sans-serif")
    said, more = f"{name}-title", ""
    if alt:
        said += f" {name}-alt"
        more = f'<desc id="{name}-alt">{escape(alt)}</desc>'
    role = "group" if "<a " in body else "img"  # role img would hide its links
    return (
        f'<svg role="{role}" aria-labelledby="{said}" viewBox="{view_box[1]}">'
        f'<title id="{name}-title">{escape(title)}</title>{more}{body}'
    )


def _rounded(path: str) -> str:
    """Coordinates rounded to hundredths of a point, which halves the page's size."""
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", path)


def picture(name: str, image: np.ndarray, title: str) -> str:
    """One image [H, W, C] uint8 with C = 1 (grey) or 3 (RGB)."""
    pixels = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    pixels.thumbnail((MOST_PIXELS, MOST_PIXELS))
    kind = "png" if max(pixels.size) <= 64 else "jpeg"  # PNG photographs are large
    buffer = io.BytesIO()
    pixels.save(buffer, kind)
    content = base64.b64encode(buffer.getvalue()).decode()
    width, height = pixels.size
    return (
        f'<svg role="img" aria-labelledby="{name}-title"'
        f' viewBox="0 0 {width} {height}"><title id="{name}-title">{escape(title)}'
        f'</title><image width="{width}" height="{height}"'
        f' href="data:image/{kind};base64,{content}"/></svg>'
    )
