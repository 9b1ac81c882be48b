"""Pictures of the lab as HTML with inline SVG, drawn in milliseconds.

Matplotlib needs more time for a frame than the training of an epoch; it is used for
static figures only.
"""

import base64
import io
from collections.abc import Sequence
from typing import Any

import contourpy
import numpy as np
from PIL import Image

from dlworkshop.data.rows import evenly
from dlworkshop.lab.training import GRID, Training, View, half_side
from dlworkshop.learn.metrics import mean_and_error
from dlworkshop.report.elements import Html, join, tag
from dlworkshop.report.marks import COLOURS
from dlworkshop.report.words import count, with_error

PALE = 0.55  # share of white in the colour of a certain class
WIDE, HIGH = 600, 200  # of the curves
MOST_EPOCHS = 150  # points of a curve
LEAST, MOST = 1e-4, 1e3  # losses beyond are drawn at these borders


def frame(training: Training, seen: View) -> Html:
    """The current state of a training: a card for each learning rate, and curves."""
    cards = [_card(training, seen, rate) for rate in range(len(seen.mean))]
    return join([tag("div", *cards, class_="lab-cards"), _curves(training, seen)])


def _card(training: Training, seen: View, rate: int) -> Html:
    """The predictions of the members with a learning rate, and their spread."""
    settings = training.settings
    title = f"learning rate {settings.rates[rate]}"
    running = seen.running[rate]
    said = [
        f"validation {name} {_mean(seen, f'validation/{name}', rate)}"
        for name in ("accuracy", "loss")
    ]
    if not running.all():
        lost = f"{(~running).sum()} of {running.size} not finite, stopped"
        said.append(lost)
    answer = _svg(
        f"{title}: the classes, with the boundary of each member",
        _image(_mixed(seen.mean[rate])),
        *(_boundary(logits) for logits in seen.logits[rate]),
        *_dots(training),
    )
    spread = _svg(
        f"{title}: the spread of the members, up to {seen.spread[rate].max():.2f}",
        _image(_shaded(seen.spread[rate])),
    )
    head = tag("h3", title, style=f"border-color: {COLOURS[rate]}")
    pictures = tag("div", answer, spread, class_="lab-pair")
    return tag("section", head, pictures, tag("p", "; ".join(said)), class_="lab-card")


def _mean(seen: View, name: str, rate: int) -> str:
    """Mean and standard error over the running seeds, at the last epoch."""
    values = seen.history[name][-1, rate][seen.running[rate]]
    stat = mean_and_error(values)
    shown = with_error(stat["mean"], stat["sem"], name.partition("/")[2])
    lost = values.size - stat["n"]
    return f"{shown} (without {lost} not finite)" if lost else shown


def _svg(label: str, *parts: Html) -> Html:
    return tag(
        "svg", *parts, role="img", aria_label=label, viewBox=f"0 0 {GRID} {GRID}"
    )


def _image(pixels: np.ndarray) -> Html:
    return tag("image", href=png(pixels), width=GRID, height=GRID)


def png(pixels: np.ndarray) -> str:
    """Pixels [H, W, 3] or [H, W] uint8 as the data URL of a PNG.

    >>> png(np.zeros((2, 2), np.uint8))[:26]
    'data:image/png;base64,iVBO'
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _mixed(chance: np.ndarray) -> np.ndarray:
    """Probabilities [G, G, K] as a mixture of pale colours [G, G, 3] uint8."""
    inks = np.array([_rgb(colour) for colour in COLOURS[: chance.shape[-1]]])
    return (chance @ (255 * PALE + (1 - PALE) * inks)).clip(0, 255).astype(np.uint8)


def _shaded(spread: np.ndarray) -> np.ndarray:
    """A spread [G, G] as [G, G, 3] uint8, white for 0 to black for 0.5."""
    white = 255 * (1 - np.clip(spread / 0.5, 0, 1))
    return np.repeat(white[..., None], 3, -1).astype(np.uint8)


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def _boundary(logits: np.ndarray) -> Html:
    """The decision boundary of a member, from its logits [G, G, K]."""
    classes = logits.shape[-1]
    lines: list[np.ndarray] = []
    for k in range(classes if classes > 2 else 1):
        others = np.delete(logits, k, -1).max(-1)
        margin = logits[..., k] - others  # [G, G]
        if np.isfinite(margin).all():
            found: Any = contourpy.contour_generator(z=margin).lines(0.0)
            lines += found
    return tag(
        "path", d="".join(_path(line + 0.5) for line in lines), class_="lab-line"
    )


def _path(points: np.ndarray) -> str:
    """A line through points [T, 2].

    >>> _path(np.array([[0.0, 1.0], [2.26, 3.0]]))
    'M0.0 1.0L2.3 3.0'
    """
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points.tolist())


def _dots(training: Training) -> list[Html]:
    """The points of train (filled) and of validation (hollow)."""
    half = half_side(training.data)
    dots = []
    for name, kind in (("train", "lab-train"), ("validation", "lab-held")):
        split = getattr(training.data, name)
        scaled = split.inputs * [1, -1] / (2 * half) + 0.5  # in [0, 1], downwards
        for k, colour in enumerate(COLOURS[: len(training.data.classes)]):
            own = 0.5 + scaled[split.targets == k] * (GRID - 1)
            path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in own.tolist())
            dots.append(tag("path", d=path, class_=kind, stroke=colour))
    return dots


def _curves(training: Training, seen: View) -> Html:
    """The validation loss of all members, and the mean of each learning rate."""
    loss = seen.history["validation/loss"]  # [T, R, S]
    every = evenly(len(loss), MOST_EPOCHS)
    shown = _scaled(loss[every])
    low, high = np.floor(shown.min()), np.ceil(shown.max())
    x = 40 + (WIDE - 50) * every / max(len(loss) - 1, 1)

    def height(powers):
        return 10 + (HIGH - 40) * (high - powers) / max(high - low, 1)

    parts = [_tick(height(power), power) for power in np.arange(low, high + 1)]
    for rate, colour in enumerate(COLOURS[: loss.shape[1]]):
        for seed in range(loss.shape[2]):
            y = height(shown[:, rate, seed])
            parts.append(_line(x, y, colour, "lab-member"))
        own = np.ma.masked_invalid(loss[every][:, rate, seen.running[rate]])
        if own.size:
            mean = own.mean(-1).filled(np.nan)  # as in the card
            parts.append(_line(x, height(_scaled(mean)), colour, "lab-mean"))
    last = tag("text", f"epoch {len(loss) - 1}", x=WIDE - 10, y=HIGH - 6, class_="end")
    final = [
        f"{rate}: {_mean(seen, 'validation/loss', i)}"
        for i, rate in enumerate(training.settings.rates)
    ]
    drawn = tag(
        "svg",
        *parts,
        last,
        role="img",
        aria_label=f"Validation loss by learning rate, now {'; '.join(final)}",
        viewBox=f"0 0 {WIDE} {HIGH}",
    )
    names = [
        tag("li", f"{rate}", style=f"border-color: {colour}")
        for rate, colour in zip(training.settings.rates, COLOURS, strict=False)
    ]
    words = (
        "Validation loss (nats) by learning rate; thin lines: members; thick lines: "
        "mean of those that run, as in the cards"
    )
    beyond = ~((loss >= LEAST) & (loss <= MOST)).all(0)  # [R, S], also of NaN
    if beyond.any():
        words += (
            f"; {count(int(beyond.sum()), 'member')} had losses that are not finite or "
            f"not in {LEAST:g} to {MOST:g}, which are drawn at the border"
        )
    caption = tag("figcaption", words, tag("ul", *names))
    return tag("figure", drawn, caption, class_="lab-curves")


def _scaled(loss: np.ndarray) -> np.ndarray:
    """The logarithms of losses, within the borders; what is no number is the upper."""
    return np.log10(np.nan_to_num(loss, nan=MOST, posinf=MOST).clip(LEAST, MOST))


def _tick(y: float, power: float) -> Html:
    line = tag("path", d=f"M40 {y:.1f}H{WIDE - 10}", class_="lab-grid")
    return join([line, tag("text", f"{10**power:g}", x=36, y=f"{y + 4:.1f}")])


def _line(x: np.ndarray, y: Sequence[float], colour: str, kind: str) -> Html:
    points = np.stack([x, y], -1)
    return tag("path", d=_path(points), class_=kind, stroke=colour)
