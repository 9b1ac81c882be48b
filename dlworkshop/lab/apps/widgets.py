"""The widgets of the lab: a player for a training, and a square to draw in."""

from pathlib import Path
from typing import Any

import anywidget
import traitlets

from dlworkshop.lab import pictures, training
from dlworkshop.lab.settings import Settings

HERE = Path(__file__).parent


class Player(anywidget.AnyWidget):
    """A training with Run, Stop, Step and Start over; each frame is an epoch."""

    _esm = HERE / "player.js"
    _css = HERE / "lab.css"
    asked = traitlets.Int(0).tag(sync=True)  # number of requested epochs
    starts = traitlets.Int(0).tag(sync=True)  # number of restarts
    view = traitlets.Dict().tag(sync=True)

    def __init__(self, settings: Settings):
        self._training = training.begin(settings)
        super().__init__(view=self._seen())
        self.observe(self._advance, "asked")
        self.observe(self._start_over, "starts")

    def _advance(self, _change: Any) -> None:
        self._training = training.advance(self._training)
        self.view = self._seen()

    def _start_over(self, _change: Any) -> None:
        self._training = training.begin(self._training.settings)
        self.view = self._seen()

    def _seen(self) -> dict[str, Any]:
        seen, now = training.view(self._training), self._training
        said = f"epoch {now.epoch}, {now.settings.members} members"
        html = str(pictures.frame(now, seen))
        return {"html": html, "said": said, "ended": not seen.running.any()}


class Canvas(anywidget.AnyWidget):
    """A square to draw in; its strokes are lists of [x, y] in [0, 1]."""

    _esm = HERE / "canvas.js"
    _css = HERE / "lab.css"
    strokes: traitlets.List = traitlets.List().tag(sync=True)
