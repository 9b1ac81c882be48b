"""Lessons: experiments that end with claims, and the writing of their run folders."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dlworkshop import report
from dlworkshop.errors import Range, UserError, check_number, check_whole
from dlworkshop.files import atomic_write, refuse_link
from dlworkshop.learn import schedules
from dlworkshop.models.model import Model
from dlworkshop.train import disk, run_folder
from dlworkshop.train.fit import fit
from dlworkshop.train.machine import device, versions
from dlworkshop.train.result import Run
from dlworkshop.train.settings import check_survived, ranked
from dlworkshop.types import Claim, Dataset, PyTree
from dlworkshop.workshop import pages


class Figure(NamedTuple):
    """A figure of a lesson, drawn when the run folder is written."""

    name: str  # of its file
    draw: Callable[..., None]  # draws on matplotlib axes, or an array of `panels`
    title: str  # the finding, with measured numbers
    caption: str  # the meaning of lines, bands and colours
    panels: int = 1  # side by side
    frames: Sequence[str] = ()  # names of frames; draw(axes, i) draws the i-th frame
    control: str = ""  # label of the slider over the frames
    shared: Callable[[Any], None] | None = None  # draws the background of all frames


class Exercise(NamedTuple):
    """A line to change, the expected effect, and the claim that checks it, if any."""

    question: str
    answer: str
    claim: Claim | None = None


class Lesson(NamedTuple):
    """The result of `main` of a lesson."""

    finding: str  # one sentence with the most important number
    claims: Sequence[Claim]
    figures: Sequence[Figure]
    exercises: Sequence[Exercise] = ()
    summary: Mapping[str, Any] = {}  # further entries: dataset, model, members ...
    run: Run | None = None  # of `fit` with the same workdir, if any

    @property
    def failed(self) -> list[Claim]:
        """The claims that do not hold, including those of exercises."""
        asked = [e.claim for e in self.exercises if e.claim is not None]
        return [c for c in [*self.claims, *asked] if c.verdict != "holds"]

    def __repr__(self) -> str:
        return f"Lesson({self.finding!r})"  # the fields may be long

    def _repr_html_(self) -> str:
        """The finding, claims, figures and exercises, for a notebook."""
        from dlworkshop.workshop.shown import as_html  # noqa: PLC0415 (matplotlib)

        return as_html(self)


def write(lesson: Lesson, workdir: Path, script: Path, doc: str, config, seconds):
    """Write the run folder of a lesson; returns the lesson with its complete summary.

    Args:
        lesson: the result of `main`.
        workdir: the run folder; an earlier run of the same experiment is replaced.
        script: the file of the experiment, which is copied into the folder.
        doc: its docstring: the question, a blank line, and the rest.
        config: its settings, a frozen dataclass.
        seconds: name -> run time of a part, in seconds. Those of `lesson.run` have
            precedence: they include the earlier parts of a resumed run.

    Raises:
        UserError: if the folder contains another experiment, or is not writable.
    """
    question, _, about = doc.strip().partition("\n")
    settings = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name != "workdir"  # the folder may be moved
    }
    with run_folder.lock_run_dir(workdir), disk.disk_errors(workdir):
        before = run_folder.read_config(workdir)
        if before.get("experiment", script.stem) != script.stem:
            raise UserError(
                f"{workdir} contains a run of {before['experiment']}: choose another "
                f"folder for {script.stem} with --workdir"
            )
        trained = dict(lesson.run.summary) if lesson.run else {}
        summary = run_folder.to_jsonable(
            {
                "experiment": script.stem,
                "question": question,
                "about": about.strip(),
                **trained,
                **lesson.summary,
                **contents(lesson, workdir),
                "seconds": seconds | trained.get("seconds", {}),
                "device": device(jax.local_devices()),
                "versions": versions(),
            }
        )
        atomic_write(workdir / "experiment.py", script.read_bytes())
        _write_page(workdir, script, lesson, settings)
        if not lesson.run:
            told = {"experiment": script.stem, "settings": settings}
            run_folder.write_json(workdir / "config.json", told)
        summary = run_folder.write_summary(workdir, summary)
        report.write(workdir)
    return lesson._replace(summary=summary)


def _write_page(workdir: Path, script: Path, lesson: Lesson, settings) -> None:
    """Write the text of the lesson, if any, with the results of the run filled in."""
    page, there = script.parent / "pages" / f"{script.stem}.md", workdir / "lesson.md"
    if not page.exists():
        there.unlink(missing_ok=True)  # written by an earlier run
        return
    names = [figure.name for figure in lesson.figures]
    text = page.read_text(encoding="utf-8")
    atomic_write(there, pages.filled(text, script, names, lesson.claims, settings))


def _draw(figure: Figure, workdir: Path) -> dict[str, Any]:
    """Draw a figure into the folder; returns its entry in the summary."""
    from dlworkshop.report import interactive, svg  # noqa: PLC0415 (brings matplotlib)

    name = figure.name
    size = (7.4, 4.7) if figure.panels == 1 else (5.4 * figure.panels, 4.7)
    with svg.drawing(name, figure.title, size, figure.panels, figure.caption) as canvas:
        _, axes, out = canvas
        if figure.shared:
            figure.shared(axes)
        if figure.frames:
            interactive.draw_frames(axes, figure.draw, len(figure.frames))
        else:
            figure.draw(axes)
    folder = workdir / "figures"
    refuse_link(folder)
    folder.mkdir(exist_ok=True)
    atomic_write(folder / f"{name}.svg", svg.as_file(out[0]))
    drawn = {
        "file": f"figures/{name}.svg",
        "title": figure.title,
        "caption": figure.caption,
    }
    if not figure.frames:
        return drawn
    return drawn | {"frames": list(figure.frames), "control": figure.control}


def check_settings(config: Any, **least: int) -> None:
    """Check settings of a lesson before its work: whole numbers, or tuples of them.

    Args:
        config: of the lesson.
        least: name of a setting -> the smallest number that it may have.

    Raises:
        UserError: if a number is smaller, or not whole.
    """
    for name, bound in least.items():
        for number in _numbers(config, name):
            check_whole(name, number, bound)


def check_positive(config: Any, *names: str) -> None:
    """Check that settings are positive numbers, or tuples of them; see above.

    Raises:
        UserError: if a number is not positive and finite.
    """
    for name in names:
        for number in _numbers(config, name):
            check_number(name, number, Range(0, closed=False))


def check_rising(config: Any, name: str, count: int = 2) -> None:
    """Check that a setting has at least `count` numbers, each larger than the previous.

    >>> from types import SimpleNamespace
    >>> check_rising(SimpleNamespace(widths=(8, 2)), "widths")
    Traceback (most recent call last):
    dlworkshop.errors.UserError: widths is (8, 2): give 2 or more numbers, rising
    """
    values = getattr(config, name)
    if len(values) < count or any(b <= a for a, b in itertools.pairwise(values)):
        numbers = f"{count} or more numbers" if count > 1 else "numbers"
        raise UserError(f"{name} is {values}: give {numbers}, rising")


def _numbers(config, name) -> tuple:
    """One setting or several; a tuple has at least one entry."""
    value = getattr(config, name)
    if not isinstance(value, tuple):
        return (value,)
    if not value:
        raise UserError(f"{name} is empty: give at least one number")
    return value


def vmap_grid(one: Callable[..., Any]) -> Callable[..., Any]:
    """Apply `one` to all pairs of first and second arguments, in one program.

    Args:
        one: (a, b, *shared) -> tree of arrays; b may be the key of a seed.

    Returns:
        (as [A, ...], bs [B, ...], *shared) -> the same tree, [A, B, ...].

    >>> grid = vmap_grid(lambda a, b, c: 10 * a + b + c)
    >>> grid(np.arange(2), np.arange(3), 5).tolist()
    [[5, 6, 7], [15, 16, 17]]
    """

    def table(first, second, *shared):
        def row(a):
            return jax.vmap(lambda b: one(a, b, *shared))(second)

        return jax.vmap(row)(first)

    return jax.jit(table)


def fit_best_rate(
    model: Model,
    dataset: Dataset,
    learning_rates: Sequence[float],
    seeds: int,
    num_epochs: int,
) -> tuple[float, PyTree]:
    """Train every seed with every learning rate; return the best rate by validation.

    The optimizer is Adam with batches of 64 and a cosine schedule. As in a `sweep`, the
    test split is not read.

    Returns:
        The learning rate, and the parameters [P, ...] of its members, one per seed.

    >>> from dlworkshop import data, models
    >>> digits, rates = data.load("digits"), [1e-6, 0.01]
    >>> rate, params = fit_best_rate(
    ...     models.logistic(), digits, rates, seeds=2, num_epochs=1)
    >>> rate, jax.tree.leaves(params)[1].shape
    (0.01, (2, 64, 10))
    """
    run = fit(
        model,
        dataset,
        hparams={"learning_rate": learning_rates},
        seeds=seeds,
        num_epochs=num_epochs,
        batch_size=64,
        schedule=schedules.cosine,
        monitor="accuracy",
        read_test=False,
    )
    told = run.summary
    best, *_ = ranked(told["population"], told["monitor"], told["better"])
    check_survived(best)
    params = jax.tree.map(lambda leaf: np.asarray(leaf)[best["members"]], run.params)
    return best["hparams"]["learning_rate"], params


def contents(lesson: Lesson, folder: Path) -> dict[str, Any]:
    """Entries of the summary of a lesson; the figures are written to the folder."""
    return {
        "finding": lesson.finding,
        "claims": [claim._asdict() for claim in lesson.claims],
        "exercises": [
            e._asdict() | {"claim": e.claim and e.claim._asdict()}
            for e in lesson.exercises
        ],
        "figures": [_draw(figure, folder) for figure in lesson.figures],
    }
