"""Strokes of a pen -> an image like the training images of a run.

The size, position and line width of the training images, and the values of background
and ink, are measured. The strokes are then drawn at FINE times the resolution.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from dlworkshop.data.rows import evenly
from dlworkshop.errors import UserError, repr_of
from dlworkshop.types import Array

FINE = 8
MOST_STROKES, MOST_POINTS = 100, 20_000
MEASURED = 1000  # training images

Stroke = Sequence[tuple[float, float]]  # x to the right and y down, in [0, 1]


class Hand(NamedTuple):
    """How the images of a data set are drawn; lengths are in pixels."""

    shape: tuple[int, int, int]  # H, W, C
    dtype: np.dtype
    size: float  # of the longer side of a drawing
    centre: tuple[float, float]  # of its mass, y (downwards) and x
    pen: float  # width of a line
    paper: float  # stored value of the background
    ink: float  # stored value of a line


def hand_of(images: Array) -> Hand:
    """Measure images [N, H, W, C].

    The width of a line is twice its area divided by its outline. The outline is the sum
    of all brightness steps along rows and columns, times pi / 4 (Crofton's formula).

    Raises:
        UserError: if the data are not images, or all images are empty.

    >>> images = np.zeros((1, 16, 16, 1), np.uint8)
    >>> images[0, 4:12, 7:9] = 255
    >>> hand = hand_of(images)
    >>> hand.size, hand.centre, hand.ink, round(hand.pen, 1)
    (8.0, (8.0, 8.0), 255.0, 2.0)
    """
    if getattr(images, "ndim", 0) != 4:
        raise UserError(
            f"the run was trained on {repr_of(images)}: give a run that was trained on "
            "images"
        )
    some = evenly(len(images), MEASURED)
    grey = np.asarray(images[some], np.float64).mean(-1)  # [n, H, W]
    edge = [grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]]
    paper = float(np.median(np.concatenate([side.ravel() for side in edge])))
    apart = grey - paper
    lighter = abs(apart.max()) >= abs(apart.min())
    peak = apart.max((1, 2)) if lighter else apart.min((1, 2))  # [n]
    written = peak != 0
    if not written.any():
        raise UserError("all training images of the run are empty: give another run")
    cover = (apart[written] / peak[written, None, None]).clip(0, 1)  # [n, H, W]
    on = cover > 0.25
    size = np.maximum(*(_extent(on.any(axis)) for axis in (1, 2)))
    mass = cover.sum((1, 2))
    down, across = (
        float((cover.sum(other) @ (np.arange(cover.shape[axis]) + 0.5) / mass).mean())
        for axis, other in ((1, 2), (2, 1))
    )
    padded = np.pad(cover, [(0, 0), (1, 1), (1, 1)])
    outline = sum(abs(np.diff(padded, axis=axis)).sum((1, 2)) for axis in (1, 2))
    pen = float((2 * mass / (outline * math.pi / 4)).mean())
    ink = paper + float(peak[written].mean())
    dtype = np.dtype(images.dtype)
    return Hand(
        images.shape[1:], dtype, float(size.mean()), (down, across), pen, paper, ink
    )


def _extent(on: np.ndarray) -> np.ndarray:
    """The length from the first to the last True: [n, L] bool -> [n]."""
    return on.shape[1] - on.argmax(1) - on[:, ::-1].argmax(1)


def strokes_of(sent: Any) -> list[np.ndarray]:
    """Strokes [T, 2] from the message of a page.

    Raises:
        UserError: if the message is malformed, or too long.

    >>> strokes_of([[[0.5, 2.0]]])
    [array([[0.5, 1. ]])]
    >>> strokes_of([["a"]])
    Traceback (most recent call last):
    dlworkshop.errors.UserError: a stroke is a list of points [x, y]: draw again
    """
    if not isinstance(sent, list | tuple) or len(sent) > MOST_STROKES:
        raise UserError(f"give at most {MOST_STROKES} strokes: draw again")
    try:
        strokes = [np.asarray(stroke, np.float64) for stroke in sent]
    except (TypeError, ValueError):
        strokes = [np.zeros(0)]
    for stroke in strokes:
        if stroke.shape != (len(stroke), 2) or not np.isfinite(stroke).all():
            raise UserError("a stroke is a list of points [x, y]: draw again")
    if sum(map(len, strokes)) > MOST_POINTS:
        raise UserError(f"give at most {MOST_POINTS:,} points: draw again")
    return [stroke.clip(0, 1) for stroke in strokes if len(stroke)]


def image_of(strokes: Sequence[np.ndarray], hand: Hand) -> np.ndarray:
    """Draw strokes [T, 2] as an image [H, W, C] like the training images.

    Raises:
        UserError: if there are no strokes.

    >>> hand = Hand((8, 8, 1), np.dtype("uint8"), 6.0, (4.0, 4.0), 2.0, 0.0, 255.0)
    >>> image_of([np.array([[0.5, 0.2], [0.5, 0.7]])], hand)[4, :, 0].tolist()
    [0, 0, 0, 255, 255, 0, 0, 0]
    """
    if not strokes:
        raise UserError("nothing is drawn yet")
    points = np.concatenate(strokes)
    low, high = points.min(0), points.max(0)
    longest = max(float((high - low).max()), 0.05)  # a dot is not enlarged
    scale = max(hand.size - hand.pen, 1.0) / longest
    drawn = [(stroke - (low + high) / 2) * scale for stroke in strokes]
    middle = np.array(hand.shape[1::-1]) / 2  # x, y
    cover = _cover([stroke + middle for stroke in drawn], hand)
    mass = max(cover.sum(), 1e-9)
    there = np.array(
        [
            cover.sum(axis) @ (np.arange(cover.shape[1 - axis]) + 0.5) / mass
            for axis in (0, 1)
        ]
    )
    room = np.maximum(middle - ((high - low) * scale + hand.pen) / 2, 0)
    shift = (np.array(hand.centre[::-1]) - there).clip(-room, room)
    cover = _cover([stroke + middle + shift for stroke in drawn], hand)
    image = hand.paper + (hand.ink - hand.paper) * cover[..., None]
    if hand.dtype.kind in "iu":
        image = image.round()
    return np.broadcast_to(image, hand.shape).astype(hand.dtype)


def _cover(strokes: Sequence[np.ndarray], hand: Hand) -> np.ndarray:
    """The share of each pixel [H, W] that strokes in pixels cover."""
    height, width, _ = hand.shape
    fine = Image.new("L", (width * FINE, height * FINE))
    pen, radius = ImageDraw.Draw(fine), hand.pen * FINE / 2
    for stroke in strokes:
        line = [tuple(point) for point in (stroke * FINE).tolist()]
        pen.line(line, 255, round(2 * radius))
        for x, y in line:  # round ends and joints
            pen.ellipse((x - radius, y - radius, x + radius - 1, y + radius - 1), 255)
    return np.asarray(fine.resize((width, height), Image.Resampling.BOX)) / 255
