"""Conformal limits and temperature: fitted on validation, checked on test."""

from typing import Any

import numpy as np

from dlworkshop.answers import conformal, temperature, unlike
from dlworkshop.answers.held_out import HeldOut
from dlworkshop.data.units import in_own_units
from dlworkshop.train.predictions import as_learnt, labels
from dlworkshop.train.result import Run
from dlworkshop.types import Array, Batch, Dataset

MOST_TARGETS = 50  # numbers of a target, above which intervals are left out

Two = tuple[np.ndarray, np.ndarray]  # of the held-out examples, and of test


def limits(run: Run, known: HeldOut, said: np.ndarray, test: Batch) -> dict[str, Any]:
    """Prediction sets or intervals, and the temperature."""
    kind = run.summary["outputs"]
    if kind in ("logits", "probabilities"):
        held, label = labels(known.examples.targets), labels(test.targets)
        if held is None or label is None:
            return {}
        logits = logits_of(kind, known.outputs), logits_of(kind, said)
        chance = temperature.together(logits[0]), temperature.together(logits[1])
        return {
            "sets": _sets(chance, (held, label)),
            "temperature": _temperature(logits, chance, (held, label)),
        }
    if kind == "values" and known.outputs[0].size == known.examples.targets.size:
        return {"intervals": _intervals(run, known, said, test)}
    return {}


def logits_of(kind: str, outputs: np.ndarray) -> np.ndarray:
    """Class outputs as logits: the logarithm of probabilities."""
    outputs = outputs.astype(np.float64)
    if kind == "logits":
        return outputs
    return np.log(np.maximum(outputs, np.finfo(np.float32).tiny))


def _sets(chance: Two, label: Two) -> dict[str, Any] | None:
    right = chance[0][np.arange(len(label[0])), label[0]]
    most = float(conformal.threshold(1 - right))
    if not np.isfinite(most):
        return None
    inside = conformal.sets(chance[1], most)
    return {
        "threshold": most,
        "test": conformal.counted(inside[np.arange(len(label[1])), label[1]]),
        "size": float(inside.sum(-1).mean()),
        "alone": float((inside.sum(-1) == 1).mean()),
    }


def _temperature(logits: Two, chance: Two, label: Two) -> dict[str, Any]:
    error = temperature.error(chance[0], label[0])
    found: dict[str, Any] = {
        "error": error,
        "noise": temperature.noise(chance[0].max(-1)),
    }
    if error > found["noise"]:
        found["temperature"] = temperature.fit(logits[0], label[0])
        cooled = temperature.together(logits[1], found["temperature"])
        found["test"] = {
            "before": temperature.error(chance[1], label[1]),
            "after": temperature.error(cooled, label[1]),
        }
    return found


def _intervals(
    run: Run, known: HeldOut, said: np.ndarray, test: Batch
) -> list[dict[str, Any]] | None:
    """Half-width of the interval of each target column, in its own units."""
    pairs = (known.outputs, known.examples.targets), (said, test.targets)
    (held, held_true), (mean, true) = (values(run, *pair) for pair in pairs)
    if held.shape[1] > MOST_TARGETS:
        return None
    half = conformal.threshold(np.abs(held - held_true))  # [D]
    if not np.isfinite(half).all():
        return None
    hits = np.abs(mean - true) <= half  # [N, D]
    apart = {"%": "percentage points"}
    return [
        {
            "half": float(half[d]),
            "unit": apart.get(unit, unit),
            "test": conformal.counted(hits[:, d]),
        }
        for d, unit in enumerate(units(run, len(half)))
    ]


def values(run: Run, outputs: np.ndarray, targets: Array) -> Two:
    """Ensemble predictions from [P, N, ...], and the truth: [N, D] in own units."""
    true = as_learnt(np.asarray(targets)).astype(np.float64)
    mean = outputs.astype(np.float64).mean(0).reshape(true.shape)
    if run.target is not None:
        mean, true = (in_own_units(each, run.target) for each in (mean, true))
    return mean.reshape(len(true), -1), true.reshape(len(true), -1)


def units(run: Run, size: int) -> list[str]:
    """The unit of each number of a target, as in the table; "" if it has none."""
    columns = (run.target or {}).get("columns", ())
    known = [column.get("unit", "") for column in columns]
    return known if len(known) == size else [""] * size


def limits_of_inputs(
    run: Run, dataset: Dataset, known: HeldOut | None, said: np.ndarray
) -> dict[str, Any]:
    """Limits beyond which inputs are unlike train, checked on test."""
    train, validation, test = (split.inputs for split in dataset[:3])
    limits: dict[str, Any] = {
        "names": unlike.names_of(train, dataset.preprocessing),
        **unlike.scale(train),
    }
    scores = [unlike.distances(unlike.some(validation), limits).max(1)]
    by_energy = run.summary["outputs"] == "logits" and train.ndim == 4
    if by_energy and known is not None:
        scores.append(unlike.energy(known.outputs.astype(np.float64)))
    (limits["far"], *more), limits["rate"] = unlike.thresholds(scores)
    if more:
        limits["energy"] = more[0]
    alarms = [words != "" for words in unlike.unlike(test, said, limits)]
    return {**limits, "test": conformal.counted(np.array(alarms))}
