"""Parts of a drawing that a page can show, hide or read out: frames, series, tips.

What is drawn inside a mark becomes a group `<g>` of the SVG: `data-frame="3"` belongs
to frame 3 of a slider, `data-series="train"` to a series with a box to tick, and
`data-tip` has a text that shows on hovering. The last frame is the one that is seen
where no script runs, and on paper. `svg.drawing` turns marks into these attributes,
`script.SCRIPT` brings them to life.
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


def mark(artist: "Artist", kind: str, value: Any) -> None:
    """Put what an artist draws into a group of its own.

    Args:
        artist: of matplotlib, on axes of `svg.drawing`.
        kind: FRAME, SERIES or TIP.
        value: the number of the frame, the name of the series, the text of the tip.
    """
    draw: Any = artist.draw

    def grouped(renderer, *args, **kwargs):
        renderer.open_group(kind, gid=f"{kind}:{value}")
        draw(renderer, *args, **kwargs)
        renderer.close_group(kind)

    artist.draw = grouped  # type: ignore[method-assign]


@contextmanager
def marking(panels: Any, kind: str, value: Any) -> Iterator[None]:
    """Mark all that is drawn on some axes inside the block, but for legends.

    Args:
        panels: an Axes, or an array of them.
        kind, value: as of `mark`.
    """
    before = set(_drawn(panels))
    yield
    legends = [axes.get_legend() for axes in _each(panels)]
    for artist in _drawn(panels):
        if artist not in before and artist not in legends:
            mark(artist, kind, value)


def draw_frames(panels: Any, draw: Callable[[Any, int], None], number: int) -> None:
    """Draw all frames of a figure, one above the other, on the same axes.

    Limits and labels are shared, and the legend is that of the last frame. The title
    of a panel may differ from frame to frame.

    Args:
        panels: an Axes, or an array of them.
        draw: (panels, frame) draws one of them.
        number: of frames.
    """
    for i in range(number):
        titles = [axes.get_title() for axes in _each(panels)]
        with marking(panels, FRAME, i):
            draw(panels, i)
            for axes, before in zip(_each(panels), titles, strict=True):
                _title_as_text(axes, before)
                legend = axes.get_legend()
                if i < number - 1:  # a legend is made of all that has a label
                    for artist in axes.get_legend_handles_labels()[0]:
                        artist.set_label("_")
                    if legend is not None:
                        legend.remove()


def tip(axes: "Axes", corner: Any, size: Any, text: str, **look: Any) -> None:
    """A text that shows where one points at a rectangle.

    Args:
        axes: to draw on.
        corner: (x, y), the lower left one.
        size: (width, height).
        text: of the tip.
        look: of the rectangle, which is invisible, such as transform and url.
    """
    from matplotlib.patches import Rectangle  # noqa: PLC0415 (see `marks`)

    shape: dict[str, Any] = {"facecolor": "none", "edgecolor": "none"}
    area = Rectangle(corner, *size, **shape | {"transform": axes.transData} | look)
    _figure(axes).add_artist(area)  # on axes, a legend would make way for it
    mark(area, TIP, text)


def tips(axes: "Axes", x: Array, texts: Sequence[str]) -> None:
    """A tip for each place along the horizontal axis, from bottom to top.

    Args:
        axes: to draw on, with its scale chosen.
        x: [T] rising.
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
    """The marks in a drawing as attributes of its groups; all frames but one hidden.

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

    return MARK.sub(attributes, svg)


def _each(panels: Any) -> list["Axes"]:
    return list(np.atleast_1d(np.asarray(panels, object)).ravel())


def _drawn(panels: Any) -> list["Artist"]:
    """What is on the axes, and above them."""
    every = _each(panels)
    children = [child for axes in every for child in axes.get_children()]
    return [*children, *_figure(every[0]).artists]


def _figure(axes: "Axes") -> Any:
    return axes.get_figure()


def _title_as_text(axes: "Axes", before: str) -> None:
    """Write a new title of a panel as a text, of which each frame can have one."""
    title = axes.get_title()
    if title != before:
        axes.set_title(before)
        look: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": "large"}
        axes.text(0.5, 1.02, title, transform=axes.transAxes, **look)
