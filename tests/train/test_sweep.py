"""A sweep chooses on validation, and only what it chose reads the test split."""

import numpy as np
import pytest

from dlworkshop import models, optimizers
from dlworkshop.errors import UserError
from dlworkshop.train import sweep as sweep_module
from dlworkshop.train.sweep import sweep

pytestmark = pytest.mark.usefixtures("unreported")

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
        monitor="accuracy",
        hparams=RATES,
        seeds=2,
        batch_size=16,
        num_epochs=2,
        workdir=tmp_path,
    )
    (closed, many), (whole, one) = fits
    assert closed is whole is quadrants
    assert not many["read_test"] and one.get("read_test", True)
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


def tried(monitor, better, *scores):
    """What a sweep of settings says, one after the other: status and validation."""
    rows = [
        {
            "hparams": {"learning_rate": rate},
            "status": "finished" if value is not None else "quarantined",
            "validation": {monitor: value, "loss": loss},
        }
        for rate, value, loss in scores
    ]
    summary = {"monitor": monitor, "better": better, "population": rows}
    return sweep_module.Run(None, None, summary)


def test_who_reads_nothing_right_is_not_taken_for_unknown():
    scores = (1.0, None, None), (0.1, 0.0, 3.0), (0.2, 0.0, 2.0)
    rows = sweep_module.by_setting(tried("accuracy", "higher", *scores))
    assert [row["hparams"]["learning_rate"] for row in rows] == [0.2, 0.1, 1.0]
    assert rows[0]["accuracy"]["n"] == 1 and rows[-1]["accuracy"]["n"] == 0


def test_a_lower_error_is_better():
    scores = (0.1, 3.0, 1.0), (0.2, 2.0, 5.0), (0.3, 4.0, 0.0)
    rows = sweep_module.by_setting(tried("rmse", "lower", *scores))
    assert [row["rmse"]["mean"] for row in rows] == [2.0, 3.0, 4.0]


def test_a_lone_survivor_does_not_win():
    scores = (1e20, None, None), (1e20, 0.99, 0.1), (0.1, 0.9, 0.3), (0.1, 0.8, 0.4)
    rows = sweep_module.by_setting(tried("accuracy", "higher", *scores))
    assert [row["hparams"]["learning_rate"] for row in rows] == [0.1, 1e20]
    assert [row["finite"] for row in rows] == [1.0, 0.5]


def test_a_sweep_that_nobody_survives_is_one_sentence():
    with pytest.raises(UserError, match="no member of any setting stayed finite"):
        sweep_module.by_setting(tried("loss", "lower", (1.0, None, None)))
