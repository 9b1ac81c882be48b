"""Elements that the pages of the lab share: heading, error messages, and the run."""

import functools
import html
import re
from pathlib import Path

import marimo as mo

from dlworkshop.errors import UserError
from dlworkshop.lab.server import PAGES
from dlworkshop.serve.load import load
from dlworkshop.train.result import Run


def heading(title: str, words: str) -> mo.Html:
    """The title of a page, links to the other pages, and a description."""
    links = " · ".join(
        f"[{name}](../{page}/)" for page, (name, _) in PAGES.items() if name != title
    )
    return mo.md(f"# {title}\n\n{links}\n\n{words}")


def sentence(error: UserError) -> mo.Html:
    """The message of an error."""
    return mo.callout(mo.Html(html.escape(str(error))), kind="danger")


class Number(mo.ui.number):
    """A field for a number whose accessible name is its label as plain text.

    marimo sets the HTML that its label becomes as `aria-label`, with all of its tags.
    """

    @property
    def text(self) -> str:
        """The element, with its label as text."""
        name = html.escape(f'"{self._plain}"', quote=True)
        return re.sub("data-label='[^']*'", f"data-label='{name}'", super().text)

    def __init__(self, *limits: float, label: str):
        self._plain = label
        super().__init__(*limits, label=label)


def styled(*parts: str) -> mo.Html:
    """HTML in the style of the lab."""
    return mo.Html(f"<div class='lab'>{''.join(parts)}</div>")


def run_of_page() -> tuple[Path, Run]:
    """The run folder of the command and its run; stops the cell if there is none."""
    request = mo.app_meta().request
    path = request.meta.get("run") if request is not None else None
    if path is None:
        words = "This page shows a run: start `dlworkshop lab RUN` with a run folder."
        mo.stop(True, mo.callout(mo.md(words), kind="warn"))
    assert path is not None  # `mo.stop` has raised
    return Path(path), _loaded(path)


@functools.lru_cache(maxsize=4)
def _loaded(path: str) -> Run:
    return load(Path(path))
