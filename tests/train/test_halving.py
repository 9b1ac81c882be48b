"""Successive halving and Hyperband: what they drop, save, and give back on resuming."""

import json
import re
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest

from dlworkshop import fit, load_run, models, observers
from dlworkshop.errors import UserError
from dlworkshop.learn import population as pop
from dlworkshop.train import groups
from tests.train.test_resume import assert_close, assert_same_run, lines, stop_after

pytestmark = pytest.mark.usefixtures("unreported")

RATES = np.geomspace(1e-4, 3.0, 9).tolist()


def train(dataset, workdir=None, **changes):
    settings = {
        "hparams": {"learning_rate": RATES},
        "seeds": 2,
        "num_epochs": 6,
        "batch_size": 16,
        "devices": jax.devices()[:1],
        "quiet": True,
    }
    model = models.mlp((8,), num_classes=4)
    return fit(model, dataset, optax.sgd, workdir=workdir, **settings | changes)


def epochs(run, seeds=2):
    """Epochs that each setting trained, the same for all of its seeds."""
    steps = [row["steps"] for row in run.summary["population"]]
    found = np.array(steps).reshape(-1, seeds) // 6
    assert (found == found[:, :1]).all()
    return found[:, 0].tolist()


@pytest.fixture(scope="module")
def whole(quadrants):
    """All settings, trained to the end."""
    return train(quadrants)


# --- what is dropped ---


def pruned(pruner, losses, alive, rung, last):
    """Whether Optuna prunes the trial `last`, which reports after all others.

    Args:
        pruner: of Optuna.
        losses: epoch -> [trials] losses, of the rungs so far.
        alive: epoch -> the trials that report there.
        rung: epoch at which it is asked.
        last: a trial.
    """
    import optuna  # noqa: PLC0415

    study = optuna.create_study(pruner=pruner)
    trials = {i: study.ask() for i in range(len(losses[rung]))}
    for epoch in (epoch for epoch in losses if epoch <= rung):
        for i in [i for i in alive[epoch] if i != last] + [last]:
            trials[i].report(losses[epoch][i], epoch)
            answer = trials[i].should_prune()
    return answer


@pytest.mark.parametrize(("factor", "rungs"), [(2, [1, 2, 4]), (3, [1, 3])])
def test_the_choice_is_that_of_optuna(whole, quadrants, factor, rungs):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    run = train(quadrants, observe=[observers.successive_halving(factor=factor)])
    assert run.summary["scheduler"]["rungs"].keys() == {str(rung) for rung in rungs}
    validation = whole.history["validation/loss"].reshape(-1, 9, 2).mean(2)
    assert (validation[0, 0], validation[0, -1]) > (validation[0, 5],) * 2  # no order
    losses = {rung: validation[rung - 1] for rung in rungs}
    alive = {rungs[0]: list(range(9))}
    expected = np.full(9, 6)
    for rung, after in zip(rungs, [*rungs[1:], None], strict=True):
        pruner = optuna.pruners.SuccessiveHalvingPruner(1, factor)
        gone = [i for i in alive[rung] if pruned(pruner, losses, alive, rung, i)]
        expected[gone] = rung
        alive[after] = [i for i in alive[rung] if i not in gone]
    assert epochs(run) == expected.tolist()
    assert len(alive[None]) == 1
    best = run.summary["settings"][0]["hparams"]["learning_rate"]
    assert best == whole.summary["settings"][0]["hparams"]["learning_rate"]


def snapshot(score, epoch, last, lost=(), stopped=()):
    """Of settings [S] with one member each."""
    status = np.zeros(len(score), int)
    status[list(lost)], status[list(stopped)] = pop.LOSS, pop.STOPPED
    running = status == pop.RUNNING
    return SimpleNamespace(
        step=10 * epoch,
        num_steps=10 * last,
        epoch=float(epoch),
        score=np.where(running, score, np.nan),
        running=running,
        seeds=[0] * len(score),
        num_settings=len(score),
        population=SimpleNamespace(status=status, best_score=np.asarray(score)),
    )


def test_the_brackets_of_hyperband_are_those_of_optuna():
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for least, most, factor in ((1, 27, 3), (2, 20, 2), (1, 5, 3)):
        theirs = optuna.pruners.HyperbandPruner(least, most, factor)
        study = optuna.create_study(pruner=theirs)
        study.ask().should_prune()  # begins it
        ours = observers.hyperband(least, factor)
        assert ours.shares(most) == theirs._trial_allocation_budgets
        size = sum(ours.shares(most))
        brackets = ours.brackets(size, most)
        assert [len(each.settings) for each in brackets] == ours.shares(most)
        everyone = np.concatenate([each.settings for each in brackets])
        assert sorted(everyone) == list(range(size))
        assert [each.first for each in brackets] == [
            least * factor**b for b in range(len(brackets))
        ]


def test_hyperband_drops_within_each_bracket():
    score = np.random.default_rng(0).random(49)
    hyperband = observers.hyperband()
    alive = set(range(49))
    for epoch, left in hyperband.rungs({}, 49, 27).items():
        gone = [i for i in range(49) if i not in alive]
        stop = hyperband(snapshot(score, epoch, 27, stopped=gone))
        alive -= set(np.flatnonzero(stop))
        assert len(alive) == left
    for bracket in hyperband.brackets(49, 27):
        kept = alive & set(bracket.settings)
        best = bracket.settings[np.argsort(score[bracket.settings])[: len(kept)]]
        assert kept == set(best)


def test_what_diverged_is_dropped_before_what_is_bad():
    halving = observers.successive_halving(factor=2)
    score = [0.1, 0.2, 0.3, 0.4]
    assert halving(snapshot(score, 1, 4)).tolist() == [False, False, True, True]
    # of four settings two go on, though one has ended already
    stop = halving(snapshot(score, 1, 4, lost=[0]))
    assert stop.tolist() == [False, False, False, True]
    # one that patience stopped runs no more, and takes no place
    stop = halving(snapshot(score, 1, 4, stopped=[0]))
    assert stop.tolist() == [False, False, False, True]
    assert halving(snapshot([np.nan, 2, 3, 4], 1, 4)).tolist()[0]
    assert halving(snapshot(score, 3, 4)).tolist() == 4 * [False]  # no rung
    assert halving(snapshot(score, 4, 4)).tolist() == 4 * [False]  # the end


# --- what is saved ---


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "at_once", "expected"),
    [
        (1, None, [18, 6, 6, 2, 2, 2]),
        (4, None, [20, 8, 8, 4, 4, 4]),  # a multiple of the devices
        (1, 9, [9, 9, 6, 6, 2, 2, 2]),
    ],
)
def test_what_is_dropped_costs_nothing(
    whole, quadrants, sizes, devices, at_once, expected, monkeypatch
):
    monkeypatch.setattr(groups, "WORTH", 0.0)
    run = train(
        quadrants,
        observe=[observers.successive_halving()],
        devices=jax.devices()[:devices],
        members_at_once=at_once,
    )
    assert sizes == expected
    assert run.summary["model_steps"] == {
        "done": 6 * (18 + 2 * 6 + 3 * 2),
        "saved": 6 * (12 * 5 + 4 * 3),
    }
    finished = [row["status"] == "finished" for row in run.summary["population"]]
    assert sum(finished) == 2
    # those that are left learnt what they learn among all
    left, same = (
        jax.tree.map(lambda leaf: np.asarray(leaf)[finished], each.params)
        for each in (run, whole)
    )
    assert_close(left, same, rtol=1e-4, atol=1e-5)


def test_the_summary_and_the_page_tell_it(quadrants, tmp_path, reported):
    train(quadrants, tmp_path, observe=[observers.successive_halving()])
    summary = json.loads((tmp_path / "summary.json").read_text())
    dropped = [r for r in summary["population"] if r["status"] == "stopped early"]
    notes = {row["note"] for row in dropped}
    assert notes == {f"successive halving stopped it at step {n}" for n in (6, 18)}
    page = (tmp_path / "report.html").read_text()
    assert "of 18 members, 6 continue after epoch 1 and 2 after epoch 3" in page
    assert "432 more (67 %) were saved" in page
    assert re.search(r"<dt>Model steps</dt><dd><data value=\"216\"", page)
    assert load_run(tmp_path).summary["model_steps"]["saved"] == 432


# --- going on ---


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        observers.successive_halving,
        observers.hyperband,
    ],
)
def test_a_resumed_run_has_the_same_bits(make, quadrants, tmp_path, monkeypatch):
    monkeypatch.setattr(groups, "WORTH", 0.0)
    settings = {"steps_per_chunk": 4, "patience": 4}  # two chunks in an epoch of six
    train(quadrants, tmp_path / "whole", observe=[make()], **settings)
    workdir = tmp_path / "run"
    for chunks in (2, 3):  # at a rung, and within an epoch
        with pytest.raises(SystemExit):
            train(quadrants, workdir, observe=[make(), *stop_after(chunks)], **settings)
    train(quadrants, workdir, observe=[make()], **settings)
    told = "population", "settings", "model_steps", "test"
    assert_same_run(workdir, tmp_path / "whole", *told)


@pytest.mark.slow
def test_more_epochs_where_the_rungs_are_the_same(quadrants, tmp_path):
    halving = observers.successive_halving()
    train(quadrants, tmp_path / "whole", observe=[halving], num_epochs=5)
    train(quadrants, tmp_path / "run", observe=[halving], num_epochs=4)
    with pytest.raises(UserError, match=r"scheduler.factor was 3 and is now 2"):
        train(
            quadrants,
            tmp_path / "run",
            observe=[observers.successive_halving(factor=2)],
            num_epochs=4,
        )
    train(quadrants, tmp_path / "run", observe=[halving], num_epochs=5)
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")
    train(quadrants, tmp_path / "short", observe=[halving], num_epochs=3)
    with pytest.raises(UserError, match="made for 3 epochs, and one of 4 has a rung"):
        train(quadrants, tmp_path / "short", observe=[halving], num_epochs=4)


# --- what has no effect ---


@pytest.mark.parametrize(
    ("observe", "changes", "said"),
    [
        (
            [observers.successive_halving()],
            {"hparams": {"learning_rate": 0.1}, "seeds": 4},
            "successive halving drops settings, but hparams has",
        ),
        (
            [observers.successive_halving(min_epochs=6)],
            {},
            "first rung after 6 of 6 epochs",
        ),
        (
            [observers.hyperband(), observers.successive_halving()],
            {},
            "observe has hyperband and successive halving: give one scheduler",
        ),
        ([observers.hyperband()], {"num_epochs": 2}, "hyperband has one bracket in 2"),
        (
            [observers.hyperband()],
            {"hparams": {"learning_rate": [0.1, 0.2, 0.3]}, "num_epochs": 30},
            "hyperband has 4 brackets, but 3 settings fill",
        ),
    ],
)
def test_what_has_no_effect_is_refused(quadrants, tmp_path, observe, changes, said):
    with pytest.raises(UserError) as raised:
        train(quadrants, tmp_path / "run", observe=observe, **changes)
    assert said in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: observers.successive_halving(0), "min_epochs is 0"),
        (lambda: observers.successive_halving(factor=1), "factor is 1"),
        (lambda: observers.successive_halving(factor=1.5), "factor is 1.5"),
        (lambda: observers.hyperband(seed=-1), "seed is -1"),
    ],
)
def test_numbers_that_cannot_be(make, said):
    with pytest.raises(UserError, match=said):
        make()
