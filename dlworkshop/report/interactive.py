"""Parts of a drawing that a page can show, hide or explain: frames, series, tips.

Marked artists become groups `<g>` of the SVG. A group with `data-frame="3"` belongs to
frame 3 of a slider, `data-series="train"` to a series with a checkbox, and `data-tip`
contains a text that is shown on hovering. Without JavaScript, and in print, the last
frame is visible. `svg.drawing` writes these attributes and `script.SCRIPT` uses them.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from dlworkshop.types import Array

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

FRAME, SERIES, TIP = "frame", "series", "tip"
MARK = re.compile(rf'<g id="({FRAME}|{SERIES}|{TIP}):([^"]*)">')
LINK = re.compile(r"(<title>([^<]*)</title>\s*<g[^>]*>\s*<a [^>]*>)")  # of a tip


def mark(artist: "Artist", kind: str, value: Any) -> None:
    """Put the output of an artist into a group of its own.

    Args:
        artist: of matplotlib, on axes of `svg.drawing`.
        kind: FRAME, SERIES or TIP.
        value: number of the frame, name of the series, or text of the tip.
    """
    draw: Any = artist.draw

    def grouped(renderer, *args, **kwargs):
        renderer.open_group(kind, gid=f"{kind}:{value}")
        draw(renderer, *args, **kwargs)
        renderer.close_group(kind)

    artist.draw = grouped  # type: ignore[method-assign]


@contextmanager
def marking(panels: Any, kind: str, value: Any) -> Iterator[None]:
    """Mark all artists that are added to some axes in this context, except legends.

    Args:
        panels: an Axes, or an array of them.
        kind, value: as in `mark`.
    """
    before = set(_drawn(panels))
    yield
    legends = [axes.get_legend() for axes in _each(panels)]
    for artist in _drawn(panels):
        if artist not in before and artist not in legends:
            mark(artist, kind, value)


def draw_frames(panels: Any, draw: Callable[[Any, int], None], number: int) -> None:
    """Draw all frames of a figure on the same axes.

    The frames share limits and labels, and the legend of the last frame. The title of
    a panel may differ between frames.

    Args:
        panels: an Axes, or an array of them.
        draw: (panels, frame) draws one frame.
        number: of frames.
    """
    for i in range(number):
        titles = [axes.get_title() for axes in _each(panels)]
        with marking(panels, FRAME, i):
            draw(panels, i)
            for axes, before in zip(_each(panels), titles, strict=True):
                _title_as_text(axes, before)
                legend = axes.get_legend()
                if i < number - 1:  # the legend would list every labelled artist
                    for artist in axes.get_legend_handles_labels()[0]:
                        artist.set_label("_")
                    if legend is not None:
                        legend.remove()


def tip(axes: "Axes", corner: Any, size: Any, text: str, **look: Any) -> None:
    """Add an invisible rectangle that shows a text on hovering.

    Args:
        axes: to draw on.
        corner: (x, y) of the lower left corner.
        size: (width, height).
        text: of the tip.
        look: properties of the rectangle, such as transform and url.
    """
    from matplotlib.patches import Rectangle  # noqa: PLC0415 (see `marks`)

    shape: dict[str, Any] = {"facecolor": "none", "edgecolor": "none"}
    area = Rectangle(corner, *size, **shape | {"transform": axes.transData} | look)
    axes.figure.add_artist(area)  # on the axes, a legend would avoid it
    mark(area, TIP, text)


def tips(axes: "Axes", x: Array, texts: Sequence[str]) -> None:
    """Add a tip of full height for each place along the horizontal axis.

    Args:
        axes: to draw on; its scale must be set before.
        x: [T], increasing; otherwise no tip is added.
        texts: [T].
    """
    x = np.asarray(x, float)
    if len(x) < 2 or (np.diff(x) <= 0).any():
        return
    log = axes.get_xscale() == "log"
    ends = np.log(x) if log else x
    edges = np.concatenate([ends[:1], (ends[1:] + ends[:-1]) / 2, ends[-1:]])
    edges = np.exp(edges) if log else edges
    for low, high, text in zip(edges[:-1], edges[1:], texts, strict=True):
        place = axes.get_xaxis_transform()  # height as a share of the axis
        tip(axes, (low, 0), (high - low, 1), text, transform=place)


def as_attributes(svg: str) -> str:
    """Turn marks into attributes of their groups, and hide all frames but the last.

    The link of a tip is named by its text.

    >>> as_attributes('<g id="frame:0"></g><g id="frame:1"></g>')
    '<g data-frame="0" display="none"></g><g data-frame="1"></g>'
    >>> as_attributes('<g id="tip:0.5 &lt; 1"></g>')
    '<g data-tip="0.5 &lt; 1" pointer-events="all"><title>0.5 &lt; 1</title></g>'
    """
    frames = [int(value) for kind, value in MARK.findall(svg) if kind == FRAME]
    last = max(frames, default=0)

    def attributes(found: re.Match) -> str:
        kind, value = found.groups()
        hidden = ' display="none"' if kind == FRAME and int(value) < last else ""
        if kind == TIP:
            return f'<g data-tip="{value}" pointer-events="all"><title>{value}</title>'
        return f'<g data-{kind}="{value}"{hidden}>'

    return LINK.sub(r"\1<title>\2</title>", MARK.sub(attributes, svg))


def _each(panels: Any) -> list["Axes"]:
    return list(np.atleast_1d(np.asarray(panels, object)).ravel())


def _drawn(panels: Any) -> list["Artist"]:
    """The artists of the axes and of their figure."""
    every = _each(panels)
    children = [child for axes in every for child in axes.get_children()]
    return [*children, *every[0].figure.artists]


def _title_as_text(axes: "Axes", before: str) -> None:
    """Replace a new title of a panel by a text artist, so that frames can differ."""
    title = axes.get_title()
    if title != before:
        axes.set_title(before)
        look: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": "large"}
        axes.text(0.5, 1.02, title, transform=axes.transAxes, **look)
