"""How to compute is measured once, remembered, may be forced, and is resumed."""

import json
import time

import jax
import numpy as np
import pytest

from dlworkshop import fit, models, optimizers
from dlworkshop.errors import UserError
from dlworkshop.models.convolution import HOWS
from dlworkshop.run import tuning
from dlworkshop.run.programs import Choice
from tests.run.test_resume import stop_after

CNN = models.cnn((4,), (8,), num_classes=4)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def train(dataset, **changes):
    settings = {"seeds": 2, "batch_size": 16, "devices": jax.devices()[:1]}
    return fit(
        CNN,
        dataset,
        optimizers.sgd,
        hparams={"learning_rate": 0.1},
        **settings,
        **changes,
    )


def pretend(seconds, tried):
    def try_out(choice):
        tried.append(choice)
        return lambda: time.sleep(seconds.get(choice, 0.02))

    return try_out


def test_the_fastest_is_taken_and_remembered(cache):
    best, tried, said = Choice("shifts", False), [], []
    try_out = pretend({best: 0.005}, tried)
    for _ in range(2):
        assert tuning.fastest(try_out, 2, {"a": 1}, said.append) == best
    ways = len(HOWS) - 1  # on a CPU without XLA's own
    assert len(tried) == 2 * ways  # in the first round only
    assert "shifts" in said[1] and "side by side" in said[1]
    assert said[2].endswith("(measured before)")
    tuning.fastest(try_out, 1, {"a": 2}, said.append)  # something else: measured anew
    assert len(tried) == 3 * ways
    folder = cache / "dlworkshop" / "choices"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(list(folder.iterdir())) == 2


def test_what_is_hopeless_is_tried_once(cache):
    slow, calls = Choice("patches", True), []  # the first of all

    def try_out(choice):
        def call():
            calls.append(choice)
            time.sleep(0.05 if choice == slow else 0.001)

        return call

    tuning.fastest(try_out, 2, {}, print)
    assert calls.count(slow) == 1
    assert calls.count(Choice("shifts", True)) == 1 + tuning.ROUNDS


def test_every_way_trains_the_same(quadrants):
    runs = {how: train(quadrants, convolution=how) for how in HOWS}
    for how, run in runs.items():
        for a, b in zip(
            jax.tree.leaves(runs["lax"].params),
            jax.tree.leaves(run.params),
            strict=True,
        ):
            # six updates in float32, sums in another order
            np.testing.assert_allclose(
                np.asarray(a), np.asarray(b), rtol=0, atol=1e-5, err_msg=how
            )


def test_an_unknown_way_names_the_nearest(quadrants):
    with pytest.raises(UserError, match="did you mean 'patches'"):
        train(quadrants, convolution="patch")


def test_a_long_run_is_measured_and_says_so(
    quadrants, cache, monkeypatch, capsys, tmp_path
):
    train(quadrants, workdir=tmp_path / "short")
    assert "fastest" not in capsys.readouterr().err
    monkeypatch.setattr(tuning, "WORTH", 0.0)
    train(quadrants, workdir=tmp_path / "long")
    assert "convolutions by" in capsys.readouterr().err
    config = json.loads((tmp_path / "long" / "config.json").read_text())
    assert config["computed"]["convolution"] in HOWS


def test_a_resumed_run_computes_as_it_did(quadrants, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        stop_after(patch, 1)
        train(
            quadrants,
            workdir=tmp_path,
            convolution="shifts",
            num_epochs=2,
            steps_per_chunk=3,
        )
    run = train(quadrants, workdir=tmp_path, num_epochs=2, steps_per_chunk=3)
    assert run.summary["steps"] == 12
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["computed"]["convolution"] == "shifts"
    with pytest.raises(UserError, match=r"computed.convolution was 'shifts'"):
        train(
            quadrants,
            workdir=tmp_path,
            convolution="lax",
            num_epochs=2,
            steps_per_chunk=3,
        )
