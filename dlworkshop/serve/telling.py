"""Predictions as rows, depending on the meaning of the outputs."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy

from dlworkshop.answers.conformal import sets
from dlworkshop.answers.limits import logits_of
from dlworkshop.data.readers.reader import Source
from dlworkshop.data.units import in_own_units
from dlworkshop.errors import UserError
from dlworkshop.train.predictions import LINKS
from dlworkshop.train.result import Run


class Prediction(NamedTuple):
    """A predicted class, from the mean of the members' probabilities.

    The last two are None if the run was not studied: see `answers.study`.
    """

    name: str  # the file, or the file and the row
    prediction: str  # the class of the largest probability
    probability: float  # in [0, 1], of that class
    spread: float | None  # standard deviation of it over the members; None for one
    entropy: float  # of all probabilities, in nats, in [0, log K]
    set: str | None = None  # classes that include the true one with probability 0.9
    unlike: str | None = None  # columns that are unlike train; "" for none


class Value(NamedTuple):
    """A predicted number: the mean over the members, in the units of the target.

    For a target of several columns, name -> number.
    """

    name: str
    prediction: float | dict[str, float]
    spread: float | dict[str, float] | None  # standard deviation over the members
    low: float | dict[str, float] | None = None  # of the interval that includes
    high: float | dict[str, float] | None = None  # the truth with probability 0.9
    unlike: str | None = None  # columns that are unlike train; "" for none


class Labels(NamedTuple):
    """Predicted labels, several of which may be true at once."""

    name: str
    prediction: str  # labels with a probability above 0.5, joined by " + "
    probability: dict[str, float]  # label -> mean over the members, in [0, 1]
    unlike: str | None = None  # columns that are unlike train; "" for none


Said = Prediction | Value | Labels
Answers = Callable[[list[Source], np.ndarray], Iterator[Said]]


def answering(
    run: Run, classes: Sequence[str], studied: Mapping[str, Any], calibrated: bool
) -> Answers:
    """The function that turns outputs [P, B, ...] into rows.

    Args:
        run: that makes the outputs.
        classes: [K] names; () if there are none.
        studied: the result of `answers.study`; may be empty.
        calibrated: whether logits are divided by its temperature.

    Raises:
        UserError: if `calibrated` is true and there is no temperature.
    """
    kind, fitted = run.summary["outputs"], run.target
    columns = [column["name"] for column in (fitted or {}).get("columns", ())]
    heat = _temperature(studied) if calibrated else 1.0
    if kind == "values":
        half = [each["half"] for each in studied.get("intervals") or ()]
        return functools.partial(_values, columns, fitted, half)
    if kind == "binary_logits":
        return functools.partial(_labels, columns)
    most = (studied.get("sets") or {}).get("threshold")
    return functools.partial(_classes, classes, kind, most, heat)


def _temperature(studied: Mapping[str, Any]) -> float:
    found = studied.get("temperature") or {}
    if "temperature" in found:
        return found["temperature"]
    if "error" in found:
        raise UserError(
            f"the calibration error of the run, {100 * found['error']:.1f} %, is "
            f"within chance (up to {100 * found['noise']:.1f} %), so there is no "
            "temperature: leave calibrated (--calibrated) out"
        )
    raise UserError(
        "the calibration of this run is unknown: leave calibrated (--calibrated) out, "
        "or use answers.study, for a run that predicts classes"
    )


def _classes(
    classes: Sequence[str],
    kind: str,
    most: float | None,
    heat: float,
    decoded: list[Source],
    outputs: np.ndarray,
) -> Iterator[Prediction]:
    chance = LINKS[kind](outputs)  # [P, B, K]
    # the threshold was measured without a temperature
    inside = None if most is None else sets(chance.mean(0), most)
    if heat != 1:
        chance = scipy.special.softmax(logits_of(kind, outputs) / heat, -1)
    together = chance.mean(0)  # [B, K]
    unnamed = range(len(classes), together.shape[-1])
    names = [*classes, *map(str, unnamed)]
    best = together.argmax(-1)  # [B]
    entropy = scipy.special.entr(together).sum(-1)  # [B]
    for i, source in enumerate(decoded):
        members = chance[:, i, best[i]]  # [P]
        yield Prediction(
            source.name,
            names[best[i]],
            float(members.mean()),
            float(members.std(ddof=1)) if len(members) > 1 else None,
            float(entropy[i]),
            None
            if inside is None
            else " + ".join(names[k] for k in np.flatnonzero(inside[i])),
        )


def _values(
    columns: Sequence[str],
    fitted: dict[str, Any] | None,
    half: Sequence[float],
    decoded: list[Source],
    outputs: np.ndarray,
) -> Iterator[Value]:
    names = _names(columns, outputs)
    said = outputs if fitted is None else in_own_units(outputs, fitted)
    said = said.reshape(*said.shape[:2], -1)  # [P, B, D]
    together = said.mean(0)
    spread = said.std(0, ddof=1) if len(said) > 1 else None
    reach = np.array(half) if len(half) == len(names) else None  # [D]

    def each(numbers: np.ndarray) -> float | dict[str, float]:
        if len(names) == 1:
            return float(numbers[0])
        return dict(zip(names, numbers.tolist(), strict=True))

    for i, source in enumerate(decoded):
        yield Value(
            source.name,
            each(together[i]),
            None if spread is None else each(spread[i]),
            None if reach is None else each(together[i] - reach),
            None if reach is None else each(together[i] + reach),
        )


def _labels(
    columns: Sequence[str], decoded: list[Source], outputs: np.ndarray
) -> Iterator[Labels]:
    names = _names(columns, outputs)
    chance = LINKS["binary_logits"](outputs).mean(0)  # [B, ...]
    for source, row in zip(decoded, chance.reshape(len(chance), -1), strict=True):
        told = dict(zip(names, row.tolist(), strict=True))
        said = " + ".join(name for name, p in told.items() if p > 0.5)
        yield Labels(source.name, said, told)


def _names(columns: Sequence[str], outputs: np.ndarray) -> list[str]:
    """Names of the outputs [P, B, ...]; numbers if they have no names.

    Raises:
        UserError: if the outputs do not fit into a row.
    """
    if outputs.ndim > 3:
        raise UserError(
            f"a prediction has shape {list(outputs.shape[2:])}, which does not fit "
            "into a row: use Run.predict in Python"
        )
    size = int(np.prod(outputs.shape[2:]))
    return list(columns) if len(columns) == size else [str(d) for d in range(size)]
