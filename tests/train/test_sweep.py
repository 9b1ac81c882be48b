"""A sweep chooses on validation, and only what it chose reads the test split."""

import numpy as np
import pytest

from dlworkshop import models, optimizers
from dlworkshop.train import sweep as sweep_module
from dlworkshop.train.sweep import sweep

MODEL = models.mlp((), num_classes=4)
RATES = {"learning_rate": [1e-5, 0.05, 1e-4], "weight_decay": 0.1}


@pytest.fixture
def fits(monkeypatch):
    """What every `fit` was given, with its own work done."""
    seen = []

    def fit(model, dataset, *args, **how):
        seen.append((dataset, how))
        return real(model, dataset, *args, **how)

    real = sweep_module.fit
    monkeypatch.setattr(sweep_module, "fit", fit)
    return seen


def test_the_best_by_validation_is_trained_again(quadrants, fits, tmp_path):
    found = sweep(
        MODEL,
        quadrants,
        optimizers.adamw,
        hparams=RATES,
        seeds=2,
        batch_size=16,
        num_epochs=2,
        workdir=tmp_path,
    )
    (closed, many), (whole, one) = fits
    assert closed.test is quadrants.validation and whole.test is quadrants.test
    assert many.get("workdir") is None and one["workdir"] == tmp_path
    best = found.settings[0]
    assert best["hparams"] == one["hparams"]
    assert best["hparams"]["learning_rate"] == pytest.approx(0.05)
    means = [row["accuracy"]["mean"] for row in found.settings]
    assert means == sorted(means, reverse=True) and len(means) == 3
    assert [row["accuracy"]["n"] for row in found.settings] == [2, 2, 2]
    again = found.run.summary["validation"]["accuracy"]
    np.testing.assert_allclose(again["mean"], best["accuracy"]["mean"])
    assert found.run.summary["members"] == 2


def test_who_reads_nothing_right_is_not_taken_for_unknown():
    def run(*scores):
        members = [
            {"hparams": {"learning_rate": rate}, "test": {"accuracy": a, "loss": loss}}
            for rate, a, loss in scores
        ]
        return sweep_module.Run(
            None, None, {"test": {"accuracy": 0}, "population": members}, None
        )

    rows = sweep_module.by_setting(
        run((1.0, None, None), (0.1, 0.0, 3.0), (0.2, 0.0, 2.0))
    )
    assert [row["hparams"]["learning_rate"] for row in rows] == [0.2, 0.1, 1.0]
    assert rows[0]["accuracy"]["n"] == 1 and rows[-1]["accuracy"]["n"] == 0
