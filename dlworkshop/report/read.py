"""Run folder -> what the report says of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dlworkshop import run_files
from dlworkshop.errors import UserError
from dlworkshop.files import read_own
from dlworkshop.report import settings, svg_file
from dlworkshop.report.predictions import Numbers, Predictions, read_predictions
from dlworkshop.report.series import Series, series_of
from dlworkshop.report.words import is_fraction, unit


class RunFolder(NamedTuple):
    """The contents of a run folder that the report uses."""

    config: dict[str, Any]
    summary: dict[str, Any]
    members: Sequence[dict[str, Any]] = ()  # [P] seed, hparams, status, steps, test ...
    series: Mapping[tuple[str, str], Series] = {}  # by (split, quantity)
    predictions: Predictions | Numbers | None = None  # on the test split
    metrics: tuple[str, ...] = ()  # all quantities except the loss, the main one first
    drawings: Mapping[str, str] = {}  # file -> SVG, the figures of a lesson
    source: str = ""  # of the experiment
    data_card: dict[str, Any] | None = None
    answers: dict[str, Any] | None = None  # reliability of the predictions
    text: str = ""  # of a lesson, in Markdown

    @property
    def metric(self) -> str:
        """The main metric; "loss" if there are no metrics."""
        return self.metrics[0] if self.metrics else "loss"

    @property
    def quantities(self) -> tuple[str, ...]:
        """All metrics, then the loss."""
        return (*self.metrics, "loss")

    @property
    def split(self) -> str:
        """The split of the reported scores: "validation" if test was not read."""
        return "test" if self.summary.get("test") else "validation"

    @property
    def monitor(self) -> str:
        """The quantity that selected the best parameters and the best setting."""
        return settings.monitor(self.summary)

    @property
    def told(self) -> "RunFolder":
        """The run restricted to the members of the best setting."""
        best = settings.best(self.summary)
        if best is None or len(self.members) <= max(best["members"]):
            return self
        mine = best["members"]
        return self._replace(
            summary={**self.summary, "members": len(mine), "settings": []},
            members=[self.members[i] for i in mine],
            series={key: series.of(mine) for key, series in self.series.items()},
            predictions=self.predictions and self.predictions.of(mine),
        )

    @property
    def finite(self) -> list[bool]:
        """Which members stayed finite; the others are left out of means."""
        return [is_finite(member) for member in self.members]

    def better(self, name: str) -> str:
        """Whether "higher" or "lower" is better; "" if it is unknown."""
        if name == "loss":
            return "lower"
        found = get_nested(self.config, "metrics", name)
        known = found in ("higher", "lower")
        return found if known else "higher" if is_fraction(name) else ""

    def unit(self, name: str) -> str:
        """The unit of a quantity in words; "%" for a fraction, "" for none."""
        found = get_nested(self.config, "units", name)
        if isinstance(found, str):
            return found
        return unit(name, name_of(self.config.get("loss")))


def read_run(workdir: Path) -> RunFolder:
    """Read a finished run folder; see `dlworkshop.report.write` for its files.

    Raises:
        UserError: if the folder is not a run folder, or a file in it is damaged or
            belongs to another run.
    """
    if not workdir.is_dir():
        raise UserError(f"'{workdir}' is not a folder: give the folder of a run")
    summary = run_files.read(workdir, "summary.json")

    def optional(name: str) -> dict[str, Any] | None:
        there = (workdir / name).exists()
        return run_files.read(workdir, name, summary) if there else None

    config = run_files.read(workdir, "config.json", summary)
    run = RunFolder(
        config,
        summary,
        summary.get("population") or [],
        predictions=read_predictions(workdir / "predictions.npz", summary),
        metrics=_metric_names(config, summary),
        drawings={
            figure["file"]: _read_drawing(workdir, figure["file"])
            for figure in summary.get("figures") or []
        },
        source=_read_text(workdir / "experiment.py"),
        data_card=optional("data_card.json"),
        answers=optional("answers.json"),
        text=_read_text(workdir / "lesson.md"),
    )
    log = run_files.read_log(workdir, summary)
    return run._replace(series=series_of(log, run.finite))


def get_nested(tree: Any, *keys: str) -> Any:
    """The value under nested keys, or None if a key is missing.

    >>> get_nested({"test": {"loss": {"mean": 0.5}}}, "test", "loss", "mean")
    0.5
    >>> get_nested({"test": None}, "test", "loss", "mean") is None
    True
    """
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def name_of(value: Any) -> str:
    """The name in `"cnn"` or `{"name": "cnn", ...}`; "" if there is none."""
    value = value.get("name") if isinstance(value, dict) else value
    return value if isinstance(value, str) else ""


def is_finite(member: dict[str, Any]) -> bool:
    """Whether a member stayed finite."""
    return member.get("status") != "quarantined"


def _read_text(path: Path) -> str:
    try:
        return run_files.contents(path).decode() if path.exists() else ""
    except ValueError as error:
        raise UserError(f"'{path}' is not UTF-8 text ({error}).") from None


def _read_drawing(workdir: Path, file: str) -> str:
    path = workdir / file
    try:
        if path.resolve() != workdir.resolve() / file:
            raise ValueError("it lies outside the run folder, or is a link")
        return svg_file.parsed(read_own(path, run_files.MOST_BYTES).decode())
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"'{path}' cannot be read ({reason}), but summary.json refers to it: run "
            "the experiment again."
        ) from error


def _metric_names(config: dict[str, Any], summary: dict[str, Any]) -> tuple[str, ...]:
    """The metrics that were requested, followed by others that were measured."""
    measured = [*(summary.get("test") or {}), *(summary.get("validation") or {})]
    asked = list(config.get("metrics") or {})
    if first := name_of(config.get("metric")):
        asked = [first, *asked]
    known = [name for name in asked if name in measured or not measured]
    return tuple(name for name in dict.fromkeys(known + measured) if name != "loss")
