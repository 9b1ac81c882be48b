"""Buckets of equal static values are trained, and the best with other seeds."""

import functools
import os
import subprocess
import sys
import time
from pathlib import Path
from signal import SIGKILL
from types import SimpleNamespace

import numpy as np
import optax
import pytest

from dlworkshop import fit, load_run, models, report
from dlworkshop.errors import UserError
from dlworkshop.sweeps import bucket, engines, importance
from dlworkshop.sweeps import sweep as sweep_module
from dlworkshop.sweeps.sweep import sweep
from dlworkshop.train import params_file
from tests.conftest import ROOT, SOON_THERE
from tests.sweeps.one_of_several import network, points, search

SCRIPT = Path(__file__).parent / "one_of_several.py"
# Sums over examples are taken in another order: some units in the last place of
# float32, over some dozens of steps.
CLOSE = {"rtol": 1e-4, "atol": 1e-6}
pytestmark = pytest.mark.usefixtures("unreported")
SPACE = {"width": [4, 8], "learning_rate": [1e-4, 0.05]}
HOW = {"seeds": 2, "num_epochs": 3, "batch_size": 16, "quiet": True}


@pytest.fixture
def fits(monkeypatch):
    """What every `fit` was given, with its own work done."""
    seen = []

    def fit_and_note(*args, **how):
        seen.append(how)
        return fit(*args, **how)

    for module in (bucket, sweep_module):
        monkeypatch.setattr(module, "fit", fit_and_note)
    return seen


def means(trials, score="loss"):
    """Trial -> its mean on validation."""
    found = sorted((row["trial"], row["validation"][score]["mean"]) for row in trials)
    return np.array([mean for _, mean in found])


@pytest.fixture(scope="module")
def whole():
    """A sweep that nothing disturbed."""
    return sweep(network, points(), hparams=SPACE, **HOW)


@pytest.mark.slow
def test_trials_are_what_fit_gives(whole):
    for row in whole.trials[:2]:
        setting = row["hparams"]
        rate = {"learning_rate": setting["learning_rate"]}
        alone = fit(
            network(setting["width"]), points(), hparams=rate, read_test=False, **HOW
        )
        found, wanted = row["validation"], alone.summary["validation"]
        assert found["loss"]["n"] == wanted["loss"]["n"] == 2
        for part in ("mean", "sem"):
            np.testing.assert_allclose(
                found["loss"][part], wanted["loss"][part], **CLOSE
            )


def test_the_best_is_trained_again_with_seeds_that_were_not_tried(whole):
    losses = [row["validation"]["loss"]["mean"] for row in whole.trials]
    assert losses == sorted(losses) and len(losses) == 4
    best = whole.trials[0]["hparams"]
    assert best["learning_rate"] == 0.05
    again = fit(
        network(best["width"]),
        points(),
        hparams={"learning_rate": 0.05},
        **HOW | {"seeds": [2, 3]},
    )
    for split in ("validation", "test"):
        found = whole.run.summary[split]["loss"]["mean"]
        np.testing.assert_allclose(found, again.summary[split]["loss"]["mean"], **CLOSE)
    assert [row["seed"] for row in whole.run.summary["population"]] == [2, 3]


def test_a_bucket_is_one_program_and_test_is_read_once(fits):
    """Functions are told by names, as two of them have the same."""
    nesterov = functools.partial(optax.sgd, momentum=0.9, nesterov=True)
    space = {"optimizer": {"plain": optax.sgd, "nesterov": nesterov}}
    space |= {"learning_rate": [0.001, 0.02]}
    found = sweep(models.logistic(3), points(), hparams=space, final_seeds=[7], **HOW)
    *tried, last = fits
    assert [each["optimizer"] for each in tried] == [optax.sgd, nesterov]
    assert all(len(each["hparams"]) == 2 for each in tried)  # rates
    assert not any(each["read_test"] for each in tried)
    assert last.get("read_test", True) and list(last["seeds"]) == [7]
    assert last["optimizer"] is nesterov  # momentum is a tenfold rate
    assert found.table()["optimizer"][0] == "nesterov"
    assert len(found.trials) == 4


@pytest.mark.parametrize("sampled", [False, True])
def test_every_value_is_checked_before_the_folder_is_made(tmp_path, sampled):
    """The last value of the second bucket is out of the range of Adam."""
    rates = {"batch_size": [16, 32], "learning_rate": [0.1, 0.2, -1.0]}
    how = {key: value for key, value in HOW.items() if key != "batch_size"}
    if sampled:
        samplers = pytest.importorskip("optuna").samplers
        how |= {"sampler": samplers.RandomSampler, "num_trials": 1}
    with pytest.raises(UserError, match="'learning_rate' is -1: adam takes numbers"):
        sweep(network(4), points(), hparams=rates, workdir=tmp_path / "run", **how)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"monitor": "acuracy"}, "did you mean 'accuracy'"),
        ({"save_every_steps": 0}, "save_every_steps is 0: give a whole number"),
        ({"outputs": "logit"}, "did you mean 'logits'"),
    ],
)
def test_every_option_is_checked_before_the_folder_is_made(tmp_path, option, said):
    rates, folder = {"learning_rate": [0.1, 0.2]}, tmp_path / "run"
    with pytest.raises(UserError, match=said):
        sweep(network(4), points(), hparams=rates, workdir=folder, **HOW | option)
    assert not folder.exists()


@pytest.mark.parametrize("width", [8.5, "8", True])
def test_a_maker_gets_the_whole_numbers_that_it_asks_for(width):
    def make(width: int):
        return models.mlp((width,))

    with pytest.raises(UserError, match=f"'width' is {width!r}: give whole numbers"):
        sweep(make, points(), hparams={"width": [8, width]}, **HOW)


@pytest.mark.parametrize("name", [".", "0000", "claims", "claims/final"])
def test_nothing_is_written_through_a_link(name, tmp_path):
    mine, linked = tmp_path / "mine", tmp_path / "run" / "sweep" / name
    mine.mkdir()
    linked.parent.mkdir(parents=True, exist_ok=True)
    linked.symlink_to(mine)
    with pytest.raises(UserError, match="is a link"):
        sweep(network, points(), hparams=SPACE, workdir=tmp_path / "run", **HOW)
    assert not list(mine.iterdir())


@pytest.mark.slow
def test_what_was_finished_is_read_and_the_rest_trained(whole, fits, tmp_path):
    class PowerFailureError(Exception):
        pass

    def fail(snapshot):
        if len(fits) == 2 and snapshot.step > 15:
            raise PowerFailureError

    how = HOW | {"workdir": tmp_path, "save_every_steps": 6, "steps_per_chunk": 3}
    with pytest.raises(PowerFailureError):
        sweep(network, points(), hparams=SPACE, observe=[fail], **how)
    steps = []
    observe = [lambda snapshot: steps.append(snapshot.step)]
    found = sweep(network, points(), hparams=SPACE, observe=observe, **how)
    assert len(fits) == 4  # both buckets, the second again, and the best
    assert steps[0] > 3  # it went on
    np.testing.assert_allclose(means(found.trials), means(whole.trials), **CLOSE)
    assert not (tmp_path / "sweep" / "0000" / "predictions.npz").exists()

    again = sweep(network, points(), hparams=SPACE, **how)  # nothing is trained
    assert again.trials == found.trials and len(fits) == 5
    assert again.run.summary["test"] == found.run.summary["test"]
    assert load_run(tmp_path).summary["sweep"]["trials"] == found.trials
    with pytest.raises(UserError, match="num_epochs was 3 and is now 4"):
        sweep(network, points(), hparams=SPACE, **how | {"num_epochs": 4})
    with pytest.raises(UserError, match="another config"):
        sweep(network, points(), hparams={**SPACE, "width": [4, 9]}, **how)


@pytest.mark.slow
def test_only_the_best_setting_has_a_report(tmp_path):
    sweep(network, points(), hparams=SPACE, workdir=tmp_path, **HOW)
    assert list(tmp_path.rglob("report.html")) == [tmp_path / "report.html"]


@pytest.mark.slow
def test_a_run_that_needs_no_report_is_whole_without_one(tmp_path):
    how = HOW | {"workdir": tmp_path}
    with report.left_out():
        first = fit(network(4), points(), **how)
        written = (tmp_path / "summary.json").stat().st_mtime_ns
        again = fit(network(4), points(), **how)
    assert again.summary == first.summary
    assert (tmp_path / "summary.json").stat().st_mtime_ns == written
    assert not (tmp_path / "report.html").exists()
    fit(network(4), points(), **how)
    assert (tmp_path / "report.html").exists()


def test_a_report_has_the_trials_whenever_it_is_killed(tmp_path, monkeypatch):
    written = []

    def write(folder):
        written.append("sweep" in (folder / "summary.json").read_text())
        if written.count(True) == 1:
            raise SystemExit(128 + SIGKILL)
        (folder / "report.html").write_text("</html>")

    monkeypatch.setattr(report, "write", write)
    how = HOW | {"num_epochs": 1, "workdir": tmp_path}
    with pytest.raises(SystemExit):
        sweep(network, points(), hparams={"width": [4, 8]}, **how)
    for _ in range(2):
        sweep(network, points(), hparams={"width": [4, 8]}, **how)
        assert written == [True, True]  # killed, and then once more


def test_no_trials_are_added_when_the_best_setting_is_trained(tmp_path, monkeypatch):
    """Its run could not become that of another setting."""
    optuna = pytest.importorskip("optuna")
    rate = optuna.distributions.FloatDistribution(1e-3, 1.0, log=True)
    how = HOW | {"num_epochs": 1, "workdir": tmp_path}
    how |= {"hparams": {"width": 4, "learning_rate": rate}}
    how |= {"sampler": optuna.samplers.RandomSampler}

    whole = params_file.write_params

    def write(path, *args):
        if path.parent == tmp_path:
            raise SystemExit(128 + SIGKILL)
        whole(path, *args)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(params_file, "write_params", write)
        sweep(network, points(), num_trials=2, **how)
    with pytest.raises(UserError, match=r"has begun to train its best .* is now 12"):
        sweep(network, points(), num_trials=12, **how)
    assert len(sweep(network, points(), num_trials=2, **how).trials) == 2


@pytest.mark.slow
def test_processes_share_a_sweep_of_which_one_is_killed(tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    environment = {**os.environ, **SOON_THERE, "PYTHONPATH": str(ROOT)}
    other = subprocess.Popen([sys.executable, SCRIPT, tmp_path], env=environment)
    while not list(tmp_path.glob("sweep/0000/checkpoints/*/*")):
        assert other.poll() is None
        time.sleep(0.05)
    slept, steps = [], []

    def sleep(seconds):  # all other trials are done
        slept.append(seconds)
        (tmp_path / "go").touch()
        other.wait(60)

    monkeypatch.setattr(engines, "time", SimpleNamespace(sleep=sleep))
    observe = [lambda snapshot: steps.append(snapshot.step)]
    found = search(workdir=tmp_path, observe=observe)
    assert other.returncode == -SIGKILL and slept
    starts = [b for a, b in zip([99, *steps], steps, strict=False) if b <= a]
    assert starts[-2] > 3  # the bucket of the other one went on; then comes the best
    assert sorted(row["trial"] for row in found.trials) == list(range(6))
    rates = sorted(
        (row["trial"], row["hparams"]["learning_rate"]) for row in found.trials
    )
    alone = fit(
        network(4),
        points(),
        hparams={"learning_rate": [rate for _, rate in rates]},
        read_test=False,
        **HOW,
    )
    settings = sorted(alone.summary["settings"], key=lambda row: row["members"])
    wanted = [row["validation"]["loss"]["mean"] for row in settings]
    np.testing.assert_allclose(means(found.trials), wanted, **CLOSE)
    with pytest.raises(UserError, match="is finished and has read the test split"):
        search(workdir=tmp_path, num_trials=7)


def test_what_mattered_is_found():
    rng = np.random.default_rng(0)
    rows = [
        {"hparams": {"rate": rate, "idle": idle, "kind": kind}, "score": score}
        for rate, idle, kind in zip(
            10 ** rng.uniform(-4, 0, 60),
            rng.uniform(size=60),
            rng.choice(["a", "b"], 60),
            strict=True,
        )
        for score in [abs(np.log10(rate) + 2) + 0.5 * (kind == "b")]
    ]
    rows.sort(key=lambda row: row["score"])
    shares = importance.importance(rows)
    assert list(shares) == ["rate", "kind", "idle"]
    assert shares["rate"] > 0.6 and shares["idle"] < 0.1
    assert sum(shares.values()) == pytest.approx(1)
    assert importance.importance(rows[:3]) == {}
