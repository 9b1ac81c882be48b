"""Run folder -> arrays for the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dlworkshop import run_files
from dlworkshop.data.archive import Arrays
from dlworkshop.data.checksums import sha256
from dlworkshop.errors import UserError
from dlworkshop.files import open_own, read_own
from dlworkshop.report import settings, svg
from dlworkshop.report.lineage import ancestors
from dlworkshop.report.words import is_fraction, unit

MOST_UNNAMED = 4096  # classes that a run without class names may have
MOST_BYTES = 1 << 32  # of predictions


class Series(NamedTuple):
    """One quantity over time, for all members; NaN where a member has no value."""

    step: np.ndarray  # [T] updates done
    epoch: np.ndarray  # [T] passes over train; NaN if it was not logged
    value: np.ndarray  # [T, P]
    finite: np.ndarray  # [P] bool; the others are left out of means

    def of(self, members: Any) -> "Series":
        """The series of some members, given by an index or a mask [P]."""
        value, finite = self.value[:, members], self.finite[members]
        return self._replace(value=value, finite=finite)


def averaged(series: Series, most: int) -> Series:
    """At most `most` points in time, each the mean of a group of points.

    A curve of single chunks of a few steps would be too noisy.
    """
    total = len(series.step)
    if total <= most:
        return series
    parts = np.array_split(np.arange(total), most)
    value = np.full((most, series.value.shape[1]), np.nan)
    for row, part in zip(value, parts, strict=True):
        inside = np.isfinite(series.value[part])  # [part, P]
        some = inside.any(0)
        total_of = np.where(inside, series.value[part], 0).sum(0)
        row[some] = (total_of / np.maximum(inside.sum(0), 1))[some]
    last = [part[-1] for part in parts]
    return Series(series.step[last], series.epoch[last], value, series.finite)


class Probabilities(NamedTuple):
    """Confidence and likelihood of the members, and of their ensemble."""

    confidence: np.ndarray  # [P, N] largest probability
    likelihood: np.ndarray  # [P, N] probability of the true class
    ensemble_prediction: np.ndarray  # [N] int
    ensemble_confidence: np.ndarray  # [N]
    ensemble_likelihood: np.ndarray  # [N]


class Mistakes(NamedTuple):
    """Misclassified test examples, some for each pair of classes."""

    example: np.ndarray  # [S] int in [0, N)
    image: np.ndarray  # [S, H, W, C] uint8


class Predictions(NamedTuple):
    """Class predictions of the members on the test split, and the worst examples."""

    label: np.ndarray  # [N] int
    prediction: np.ndarray  # [P, N] int
    loss: np.ndarray  # [P, N] nats
    worst_index: np.ndarray  # [M] int in [0, N), the worst first
    worst_image: np.ndarray  # [M, H, W, C] uint8, or [M, D] features
    classes: np.ndarray  # [K] names
    probabilities: Probabilities | None = None  # None if they were not saved
    mistakes: Mistakes | None = None  # None if no images were saved


class Numbers(NamedTuple):
    """Numeric predictions of the members on the test split.

    Values are in the units of the targets. A very large split is truncated.
    """

    target: np.ndarray  # [N, D]
    said: np.ndarray  # [P, N, D] values, or probabilities of labels
    ensemble: np.ndarray  # [N, D] their mean over the finite members
    names: list[str]  # [D] of the columns; "" for a column without a name


class RunFolder(NamedTuple):
    """The contents of a run folder that the report uses."""

    config: dict[str, Any]
    summary: dict[str, Any]
    members: list[dict[str, Any]]  # [P] seed, hparams, status, steps, test ...
    series: dict[tuple[str, str], Series]  # by (split, quantity)
    predictions: Predictions | None  # of classes
    metrics: tuple[str, ...]  # all quantities except the loss, the main metric first
    drawings: dict[str, str]  # file -> SVG, the figures of a lesson
    source: str  # of the experiment; "" if it was not saved
    data_card: dict[str, Any] | None = None
    values: Numbers | None = None  # of a regression
    labels: Numbers | None = None  # of a multi-label classification
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
    def told(self) -> "RunFolder":
        """The run restricted to the members of the best setting."""
        best = settings.best(self.summary)
        if best is None or len(self.members) <= max(best["members"]):
            return self
        mine = best["members"]
        changed: dict[str, Any] = {
            "summary": {**self.summary, "members": len(mine), "settings": []},
            "members": [self.members[i] for i in mine],
            "series": {
                key: series.of(mine)
                for key, series in self.series.items()
                if series.value.shape[1] == len(self.members)
            },
        }
        if (found := self.predictions) is not None:
            own = {name: getattr(found, name)[mine] for name in ("prediction", "loss")}
            changed["predictions"] = found._replace(**own)
            if (sure := found.probabilities) is not None:
                own = {n: getattr(sure, n)[mine] for n in ("confidence", "likelihood")}
                changed["predictions"] = changed["predictions"]._replace(
                    probabilities=sure._replace(**own)
                )
        for name in ("values", "labels"):
            if (numbers := getattr(self, name)) is not None:
                changed[name] = numbers._replace(said=numbers.said[mine])
        return self._replace(**changed)

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
    members = summary.get("population") or []
    figures = summary.get("figures") or []
    predictions = _read_predictions(workdir / "predictions.npz", summary)
    return RunFolder(
        config,
        summary,
        members,
        _read_series(run_files.read_log(workdir, summary), members),
        predictions if isinstance(predictions, Predictions) else None,
        _metric_names(config, summary),
        {f["file"]: _read_drawing(workdir, f["file"]) for f in figures},
        _read_text(workdir / "experiment.py"),
        optional("data_card.json"),
        answers=optional("answers.json"),
        text=_read_text(workdir / "lesson.md"),
        **(predictions if isinstance(predictions, dict) else {}),
    )


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
    """Whether a member stayed finite; the others are left out of means."""
    return member.get("status") != "quarantined"


def finite_mask(members: list[dict[str, Any]], size: int) -> np.ndarray:
    """[size] bool; members that the summary does not list count as finite."""
    known = [is_finite(member) for member in members[:size]]
    return np.array(known + [True] * (size - len(known)), bool)


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
        return svg.from_file(read_own(path, run_files.MOST_BYTES).decode())
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


def _read_series(
    lines: list[dict[str, Any]], members: list[dict[str, Any]]
) -> dict[tuple[str, str], Series]:
    """(split, quantity) -> Series; if a step was logged twice, the last entry counts.

    Values before a member was replaced by a copy are those of the copied member.
    """
    rows = [row for _, row in sorted({row["step"]: row for row in lines}.items())]
    splits = "train", "validation", "hparams"
    found = [row.get(split) or {} for row in rows for split in splits]
    known = next((values for each in found for values in each.values()), ())
    places = ancestors(rows, len(known))
    points: dict[tuple[str, str], list[tuple[int, float, list[Any]]]] = {}
    for row, before in zip(rows, places, strict=True):
        time = row["step"], np.nan if row["epoch"] is None else row["epoch"]
        for split in splits:
            for name, values in (row.get(split) or {}).items():
                mine = [values[i] for i in before]
                points.setdefault((split, name), []).append((*time, mine))
    return {key: _stack(rows, members) for key, rows in points.items()}


def _stack(
    rows: list[tuple[int, float, list[Any]]], members: list[dict[str, Any]]
) -> Series:
    step, epoch, values = zip(*rows, strict=True)
    value = np.array(values, float)  # [T, P]; null becomes NaN
    value[~np.isfinite(value)] = np.nan
    finite = finite_mask(members, value.shape[1])
    return Series(np.array(step), np.array(epoch, float), value, finite)


def _read_predictions(
    path: Path, summary: dict[str, Any]
) -> Predictions | dict[str, Numbers] | None:
    """Predictions of classes, or {"values" or "labels": `Numbers`}; None if empty."""
    if not path.exists():
        return None
    try:
        with open_own(path):
            pass  # it is a regular file, and not a link
        known = summary.get("sha256", {}).get(path.name)
        if known is not None and sha256(path) != known:
            raise ValueError("it was changed since the run wrote it")
        arrays = Arrays(path, most=MOST_BYTES)
        found: Predictions | dict[str, Numbers] | None
        found = _numbers(arrays) if "target" in arrays else _classes(arrays)
        said = arrays["probability" if "probability" in arrays else "prediction"]
    except (KeyError, ValueError, OSError) as error:
        what = getattr(error, "strerror", None) or error
        what = f"{error} is missing" if isinstance(error, KeyError) else what
        raise UserError(f"'{path}' cannot be read as predictions: {what}.") from None
    if not said.size or not found:
        return None
    run_files.check_members(path, {len(said)}, summary)
    return found


def _classes(arrays: Mapping[str, np.ndarray]) -> Predictions | None:
    """Class predictions with checked shapes, dtypes and indices."""
    named: list[Any] = [arrays[name] for name in Predictions._fields[:-2]]
    found = Predictions(*named)
    examples = found.label.size
    each = (*found.prediction.shape[:1], examples)  # of each member
    shapes: dict[str, tuple[int, ...]] = {"label": (examples,)}
    shapes |= dict.fromkeys(("prediction", "loss"), each)
    shapes |= {name: (arrays[name].size,) for name in ("classes", "worst_index")}
    images = {"worst_index": found.worst_image}
    if "mistake_index" in arrays:
        kept = Mistakes(arrays["mistake_index"], arrays["mistake_image"])
        found = found._replace(mistakes=kept)
        shapes["mistake_index"], images["mistake_index"] = (
            (kept.example.size,),
            kept.image,
        )
    if set(Probabilities._fields) <= arrays.keys():
        sure = {name: arrays[name] for name in Probabilities._fields}
        found = found._replace(probabilities=Probabilities(**sure))
        shapes |= dict.fromkeys(Probabilities._fields[:2], each)
        shapes |= dict.fromkeys(Probabilities._fields[2:], (examples,))
    for name, shape in shapes.items():
        whole = name.endswith(("label", "prediction", "index"))
        kinds = "U" if name == "classes" else "iu" if whole else "f"
        array = arrays[name]
        if array.shape != shape or array.dtype.kind not in kinds:
            raise ValueError(f"{name} is {array.dtype}{list(array.shape)}")
    most = max(found.classes.size, MOST_UNNAMED)
    if not found.classes.size:
        raise ValueError("it contains no class names")
    for name, image in images.items():
        index = arrays[name]
        if index.size != len(np.atleast_1d(image)) or (
            index.size and not 0 <= index.min() <= index.max() < examples
        ):
            raise ValueError("its worst examples are not examples of the test split")
    for array in (found.label, found.prediction):
        if array.size and array.max() >= most:
            raise ValueError(f"it contains the class {array.max()}, of {most}")
    return found if found.label.size else None


def _numbers(arrays: Mapping[str, np.ndarray]) -> dict[str, Numbers]:
    kind, key = "values", "prediction"
    if "probability" in arrays:
        kind, key = "labels", "probability"
    target, said, ensemble = (arrays[name] for name in ("target", key, "ensemble"))
    for name, array in (("target", target), (key, said), ("ensemble", ensemble)):
        if array.dtype.kind not in "biuf" or not array.ndim:
            raise ValueError(f"{name} is {array.dtype}{list(array.shape)}")
    if said.shape[1:] != target.shape or ensemble.shape != target.shape:
        raise ValueError(
            f"{key} has the shape {list(said.shape)}, target {list(target.shape)} and "
            f"ensemble {list(ensemble.shape)}"
        )
    if not said.size:
        return {}
    size = len(target)
    target, ensemble = target.reshape(size, -1), ensemble.reshape(size, -1)
    names = [str(name) for name in np.ravel(arrays["names"])]
    if len(names) != target.shape[1]:
        names = [""] * target.shape[1]
    said = said.reshape(len(said), *target.shape)
    return {kind: Numbers(target, said, ensemble, names)}
