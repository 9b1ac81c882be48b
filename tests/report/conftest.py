"""Run folders as `fit` leaves them, made up in a moment."""

import functools
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlworkshop.report import calibration, figures, values
from dlworkshop.train.settings import ranked

CLASSES = tuple("0123456789")
STEPS_PER_EPOCH = 20
DRAWN: dict[bytes, str] = {}  # what was drawn -> its figure
DRAW = [(figures, name) for name in ("learning_curves", "confusion", "sweep")]
DRAW += [(calibration, "_diagram"), (values, "_drawn")]


@pytest.fixture(scope="module", autouse=True)
def drawn():
    """Equal figures are drawn once: most pages here are of the same few runs."""

    def remembered(draw):
        @functools.wraps(draw)
        def known_or_drawn(*args, **more):
            known = pickle.dumps((draw.__qualname__, args, more))
            if known not in DRAWN:
                DRAWN[known] = draw(*args, **more)
            return DRAWN[known]

        return known_or_drawn

    with pytest.MonkeyPatch.context() as patch:
        for module, name in DRAW:
            patch.setattr(module, name, remembered(getattr(module, name)))
        yield DRAWN


def make_run(
    folder: Path,
    learning_rates: list[float],
    seeds: list[int],
    quarantined: tuple[int, ...] = (),
    stopped: tuple[int, ...] = (),
    num_epochs: int = 6,
    classes: tuple[str, ...] = CLASSES,
) -> Path:
    """A run of one member per (learning rate, seed), with digits-like pictures."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    grid = [(rate, seed) for rate in learning_rates for seed in seeds]
    num_members = len(grid)
    rates = np.array([rate for rate, _ in grid])
    pace = 3 * rates / (rates + 0.1) * rng.uniform(0.9, 1.1, num_members)
    last = np.full(num_members, num_epochs * STEPS_PER_EPOCH)
    last[list(stopped)] = last[0] * 2 // 3
    last[list(quarantined)] = last[0] // 4
    rows, test = _rows(rng, pace, last, num_epochs)
    found = _predictions(rng, test["accuracy"], classes)
    test["accuracy"] = (found["prediction"] == found["label"]).mean(axis=1)  # [P]
    finite = [i for i in range(num_members) if i not in quarantined]
    population = [
        {
            "member": i,
            "seed": seed,
            "hparams": {"learning_rate": rate, "momentum": None, "weight_decay": 1e-4},
            "status": "quarantined"
            if i in quarantined
            else "stopped early"
            if i in stopped
            else "finished",
            "steps": int(last[i]),
            "best_validation_loss": float(test["loss"][i] * 1.05),
            "validation": {name: float(test[name][i]) for name in test},
            "test": {name: float(test[name][i]) for name in test},
        }
        for i, (rate, seed) in enumerate(grid)
    ]
    for i in quarantined:
        population[i]["note"] = f"loss not finite at step {last[i]}"
    write_json(folder / "config.json", _config(grid, num_epochs))
    stats = {name: _stat(test[name][finite]) for name in test}
    summary = _summary(stats, population, last)
    settings = ranked(population, "loss", "lower")
    summary["settings"] = settings if len(settings) > 1 else []
    write_json(folder / "summary.json", summary)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(lines)
    np.savez(folder / "predictions.npz", **found)
    return folder


def _rows(rng, pace, last, num_epochs):
    rows, num_steps = [], num_epochs * STEPS_PER_EPOCH
    for step in range(2, num_steps + 1, 2):
        done = step / STEPS_PER_EPOCH
        loss = 2.3 * np.exp(-pace * done) + 0.03 * rng.lognormal(0, 0.3, len(pace))
        row: dict[str, Any] = {"step": step, "epoch": done}
        row["train"] = _values(loss, step, last)
        if step % STEPS_PER_EPOCH == 0:
            seen = 2.3 * np.exp(-pace * done) + 0.07 * rng.lognormal(0, 0.2, len(pace))
            row["validation"] = _values(seen, step, last)
        rows.append(row)
    accuracy = np.clip(1 - 0.35 * seen, 0.1, 1)
    return rows, {"accuracy": accuracy, "loss": seen}


def _values(loss, step, last):
    accuracy = np.clip(1 - 0.35 * loss, 0.1, 1)
    cut = {"loss": loss, "accuracy": accuracy}
    return {
        name: [float(v) if step <= end else None for v, end in zip(value, last)]  # noqa: B905
        for name, value in cut.items()
    }


def _predictions(rng, accuracy, classes, num_examples=360):
    num_classes = len(classes)
    label = rng.integers(0, num_classes, num_examples)
    hard = rng.random(num_examples)  # the same examples are hard for all members
    noise = 0.02 * rng.standard_normal((len(accuracy), num_examples))
    wrong = hard + noise > accuracy[:, None]
    taken = (label + 1 + (rng.random(num_examples) < 0.3)) % num_classes
    prediction = np.where(wrong, taken, label).astype(np.int32)
    loss = np.where(wrong, 2 + hard, 0.02 * hard).astype(np.float32)
    worst = np.argsort(-loss.mean(axis=0))[:30]
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    rings = [
        np.exp(-8 * (np.hypot(x, y * (1 + 0.1 * k)) - 0.5) ** 2) for k in worst % 9
    ]
    return {
        "label": label.astype(np.int32),
        "prediction": prediction,
        "loss": loss,
        "worst_index": worst,
        "worst_image": (255 * np.stack(rings)[..., None]).astype(np.uint8),
        "classes": np.array(classes),
    }


def _stat(values):
    n = len(values)
    sem = float(values.std(ddof=1) / n**0.5) if n > 1 else None
    return {"mean": float(values.mean()) if n else None, "sem": sem, "n": n}


def _config(grid, num_epochs):
    return {
        "experiment": "digits population",
        "dataset": {
            "name": "digits",
            "fingerprint": "5f0c1d",
            "train": 1200,
            "validation": 237,
            "test": 360,
        },
        "model": {"name": "cnn", "widths": [32, 64, 256]},
        "optimizer": "sgd",
        "schedule": {"name": "cosine", "warmup_steps": 10},
        "loss": "cross_entropy",
        "metric": "accuracy",
        "hparams": {"learning_rate": [rate for rate, _ in grid]},
        "seeds": [seed for _, seed in grid],
        "num_epochs": num_epochs,
        "batch_size": 60,
        "patience": None,
    }


def _summary(stats, population, last):
    return {
        "experiment": "digits population",
        "dataset": "digits",
        "model": "cnn",
        "members": len(population),
        "steps": int(last.max()),
        "test": stats,
        "validation": stats,
        "seconds": {"compile": 4.21, "train": 38.5, "total": 51.07},
        "examples_per_second": 26431.7,
        "device": "cpu (2 cores)",
        "versions": {"python": "3.11.2", "jax": "0.10.2", "numpy": "2.4.0"},
        "parameters": 167306,
        "table": "layer      output         parameters\n"
        "conv 3x3   28 x 28 x 32          320\n"
        "dense      10                  2,570\n",
        "claims": [
            {
                "statement": "8 models reach 95 % test accuracy",
                "value": 0.97,
                "bound": ">= 0.95",
                "verdict": "holds",
            }
        ],
        "population": population,
    }


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def edit_json(path: Path, **changes: Any) -> None:
    """Replaces top-level entries of a JSON file."""
    write_json(path, json.loads(path.read_text()) | changes)


@pytest.fixture
def make(tmp_path):
    """Makes a run folder; see `make_run`."""
    return lambda *args, **kwargs: make_run(tmp_path / "run", *args, **kwargs)


@pytest.fixture
def edit():
    """Changes a JSON file; see `edit_json`."""
    return edit_json


KINDS: dict[str, dict[str, Any]] = {
    # eight members; one quarantined, one stopped early
    "population": {
        "learning_rates": [0.1],
        "seeds": list(range(8)),
        "quarantined": (5,),
        "stopped": (2,),
    },
    "single": {"learning_rates": [0.1], "seeds": [0]},
    "sweep": {
        "learning_rates": [0.01, 0.1, 1.0],
        "seeds": [0, 1, 2],
        "quarantined": (8,),
    },
}


@pytest.fixture(scope="session", params=KINDS)
def any_run(request, tmp_path_factory):
    """A run folder of each kind, for tests that only read it."""
    folder = tmp_path_factory.mktemp("report") / request.param
    return make_run(folder, **KINDS[request.param])


@pytest.fixture
def population(tmp_path):
    return make_run(tmp_path / "population", **KINDS["population"])


@pytest.fixture
def single(tmp_path):
    return make_run(tmp_path / "single", **KINDS["single"])


@pytest.fixture
def sweep(tmp_path):
    return make_run(tmp_path / "sweep", **KINDS["sweep"])
