"""Lessons: experiments that end with claims, and how their run folders are written."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dlworkshop import report
from dlworkshop.errors import UserError
from dlworkshop.files import atomic_write
from dlworkshop.learn import schedules
from dlworkshop.models.model import Model
from dlworkshop.train import disk, run_folder
from dlworkshop.train.fit import fit
from dlworkshop.train.result import Run, device, versions
from dlworkshop.train.sweep import by_setting
from dlworkshop.types import Claim, Dataset, PyTree


class Figure(NamedTuple):
    """A figure of a lesson, drawn when the run folder is written."""

    name: str  # of its file
    draw: Callable[[Any], None]  # on matplotlib axes, or on an array of `panels`
    title: str  # what it shows, with the numbers that were measured
    caption: str  # what its lines, bands and colours stand for
    panels: int = 1  # side by side


class Exercise(NamedTuple):
    """A line to change, what to expect, and the claim that checks it, if any."""

    question: str
    answer: str
    claim: Claim | None = None


class Lesson(NamedTuple):
    """The result of `main` of a lesson."""

    finding: str  # one sentence with the number that matters most
    claims: Sequence[Claim]
    figures: Sequence[Figure]
    exercises: Sequence[Exercise] = ()
    summary: Mapping[str, Any] = {}  # more entries: dataset, model, members ...
    run: Run | None = None  # a `fit` into the same folder, if there was one

    @property
    def failed(self) -> list[Claim]:
        """The claims that do not hold, including those of exercises."""
        asked = [e.claim for e in self.exercises if e.claim is not None]
        return [c for c in [*self.claims, *asked] if c.verdict != "holds"]

    def __repr__(self) -> str:
        return f"Lesson({self.finding!r})"  # what is measured may be long

    def _repr_html_(self) -> str:
        """What a notebook shows: the finding, claims, figures and exercises."""
        from dlworkshop.workshop.shown import as_html  # noqa: PLC0415 (of matplotlib)

        return as_html(self)


def write(lesson: Lesson, workdir: Path, script: Path, doc: str, config, seconds):
    """Write the run folder of a lesson; returns the lesson with its complete summary.

    Args:
        lesson: what `main` returned.
        workdir: the run folder; that of an earlier run of the same experiment is
            written anew.
        script: the experiment's file, of which a copy is kept.
        doc: its header: the question, a blank line, and the rest.
        config: its frozen dataclass.
        seconds: name -> seconds that its parts took.

    Raises:
        UserError: if the folder holds another experiment, or cannot be written.
    """
    question, _, about = doc.strip().partition("\n")
    settings = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name != "workdir"  # the folder may be moved
    }
    with run_folder.lock_run_dir(workdir), disk.disk_errors(workdir):
        found = workdir / "config.json"
        before = run_folder.read_config(workdir)
        if before.get("experiment", script.stem) != script.stem:
            raise UserError(
                f"{workdir} holds a run of {before['experiment']}: choose another "
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
                "seconds": trained.get("seconds", {}) | seconds,
                "device": device(jax.local_devices()),
                "versions": versions(),
            }
        )
        atomic_write(workdir / "experiment.py", script.read_bytes())
        if not lesson.run:
            run_folder.write_json(
                found, {"experiment": script.stem, "settings": settings}
            )
        summary = run_folder.write_summary(workdir, summary)
        report.write(workdir)
    return lesson._replace(summary=summary)


def _exercise(exercise: Exercise) -> dict[str, Any]:
    claim = exercise.claim and exercise.claim._asdict()
    return exercise._asdict() | {"claim": claim}


def _draw(figure: Figure, workdir: Path) -> dict[str, str]:
    """Draw a figure into the folder; returns its entry in the summary."""
    from dlworkshop.report import svg  # noqa: PLC0415 (it brings matplotlib)

    name = figure.name
    size = (7.4, 4.7) if figure.panels == 1 else (5.4 * figure.panels, 4.7)
    with svg.drawing(name, figure.title, size, figure.panels, figure.caption) as canvas:
        _, axes, out = canvas
        figure.draw(axes)
    folder = workdir / "figures"
    folder.mkdir(exist_ok=True)
    atomic_write(folder / f"{name}.svg", svg.as_file(out[0]))
    return {
        "file": f"figures/{name}.svg",
        "title": figure.title,
        "caption": figure.caption,
    }


def vmap_grid(one: Callable[..., Any]) -> Callable[..., Any]:
    """Apply `one` to all pairs of the first and the second arguments, in one program.

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
    """Train with every seed at every learning rate; keep the best rate by validation.

    Adam on batches of 64; the rate falls to 0 along a cosine. As in a `sweep` the test
    split stays unread.

    Returns:
        The rate, and the parameters [P, ...] of its members, one for each seed.

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
    best = by_setting(run)[0]["hparams"]
    chosen = [row["hparams"] == best for row in run.summary["population"]]
    params = jax.tree.map(lambda leaf: np.asarray(leaf)[chosen], run.params)
    return best["learning_rate"], params


def contents(lesson: Lesson, folder: Path) -> dict[str, Any]:
    """What a lesson shows, as entries of its summary; its figures are drawn there."""
    return {
        "finding": lesson.finding,
        "claims": [claim._asdict() for claim in lesson.claims],
        "exercises": [_exercise(e) for e in lesson.exercises],
        "figures": [_draw(figure, folder) for figure in lesson.figures],
    }
