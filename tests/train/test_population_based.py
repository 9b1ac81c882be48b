"""Population-based training, and observers that copy members."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlworkshop import fit, load_run, models, observers
from dlworkshop.errors import UserError
from dlworkshop.learn import population as pop
from dlworkshop.train.observers.snapshot import checked_copies
from tests.train.test_resume import assert_close, assert_same_run, stop_after

pytestmark = pytest.mark.usefixtures("unreported")

RATES = np.geomspace(1e-4, 3.0, 6).tolist()
LIMITS = {"learning_rate": (1e-4, 3.0)}


def scheduler(**changes):
    settings = {"explore": LIMITS, "share": 0.34}
    return observers.population_based_training(**settings | changes)


def train(dataset, workdir=None, model=None, **changes):
    settings = {
        "hparams": {"learning_rate": RATES},
        "seeds": 2,
        "num_epochs": 4,
        "batch_size": 16,
        "devices": jax.devices()[:1],
        "quiet": True,
    }
    model = model or models.mlp((8,), dropout=0.1, num_classes=4)
    return fit(model, dataset, optax.sgd, workdir=workdir, **settings | changes)


def member(tree, i):
    return [np.asarray(leaf)[i] for leaf in jax.tree.leaves(tree)]


# --- copies ---


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "at_once"),
    [(1, None), (4, 4)],
    ids=["together", "in groups"],
)
def test_a_copy_continues_as_its_source(quadrants, devices, at_once):
    """Of one seed, with equal numbers: to the same bits. The others are not touched."""
    where = {"devices": jax.devices()[:devices], "members_at_once": at_once}
    source = np.arange(12)
    source[[0, 1, 9]] = 4, 5, 3  # members are [6 settings, 2 seeds]

    def copy(snapshot):
        if snapshot.epoch != 2:
            return None
        hparams = {"learning_rate": snapshot.hparams["learning_rate"][source]}
        return observers.Copies(source, hparams)

    whole, run = train(quadrants, **where), train(quadrants, observe=[copy], **where)
    for i, of in enumerate(source):
        own, theirs = (run.params, run.opt_state), (whole.params, whole.opt_state)
        assert_close(member(own, i), member(theirs, of))
    assert (
        run.hparams["learning_rate"].tolist()
        == np.repeat(whole.hparams["learning_rate"][::2], 2)[source].tolist()
    )
    changed = run.history["hparams/learning_rate"]
    assert np.isnan(changed[:2]).all() and changed[2, 0] == changed[2, 4]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (([0] * 3, {"learning_rate": [0.1] * 12}), "have the source int64[3]"),
        (([12] * 12, {"learning_rate": [0.1] * 12}), "0 to 11"),
        (([0.5] * 12, {"learning_rate": [0.1] * 12}), "have the source float64[12]"),
        ((range(12), {}), "give those of the run, ['learning_rate']"),
        ((range(12), {"learning_rate": 0.1}), "give a finite number for each of 12"),
        (
            (range(12), {"learning_rate": [np.nan] * 12}),
            "give a finite number for each of 12",
        ),
    ],
)
def test_copies_that_cannot_be(answer, said):
    with pytest.raises(UserError) as raised:
        checked_copies(observers.Copies(*answer), {"learning_rate": []}, 12 * [0])
    assert said in str(raised.value) and "\n" not in str(raised.value)


# --- exploit and explore ---


def snapshot(score, settings, lost=(), step=10):
    status = np.zeros(len(score), int)
    status[list(lost)] = pop.GRADIENT
    return SimpleNamespace(
        step=step,
        num_steps=100,
        epoch=step / 10,
        score=np.where(status == 0, score, np.nan),
        running=status == 0,
        seeds=[0] * len(score),
        num_settings=settings,
        hparams={"learning_rate": np.full(len(score), 0.1), "other": np.arange(12.0)},
        population=SimpleNamespace(status=status),
    )


def test_the_worst_go_on_as_copies_of_the_best_of_their_seed():
    score = np.arange(12.0)[::-1]  # [6 settings, 2 seeds]: the last are the best
    score[7] = np.nan
    found = scheduler()(snapshot(score, 6, lost=[8]))
    copies = np.flatnonzero(found.source != np.arange(12))
    # of seed 0 the one that is lost and the worst, of seed 1 nan and the worst
    assert copies.tolist() == [0, 1, 7, 8]
    assert set(found.source[[0, 8]]) <= {10, 6} and set(found.source[[1, 7]]) <= {11, 9}
    assert found.hparams["other"].tolist() == found.source.tolist()
    rates = found.hparams["learning_rate"]
    assert (rates[copies] != 0.1).all() and len(set(rates[copies])) == 4
    assert ((rates >= 0.08) & (rates <= 0.125)).all()
    assert (np.delete(rates, copies) == 0.1).all()
    again = scheduler()(snapshot(score, 6, lost=[8]))
    assert again.hparams["learning_rate"].tolist() == rates.tolist()
    other = scheduler(seed=1)(snapshot(score, 6, lost=[8]))
    assert other.hparams["learning_rate"].tolist() != rates.tolist()
    later = scheduler()(snapshot(score, 6, lost=[8], step=20))
    assert later.hparams["learning_rate"].tolist() != rates.tolist()
    assert scheduler(every=2)(snapshot(score, 6)) is None
    assert scheduler()(snapshot(score, 6, step=100)) is None  # the end


def test_numbers_stay_within_their_limits():
    near = {"learning_rate": (0.099, 0.101)}
    for step in range(10, 100, 10):
        found = scheduler(explore=near)(snapshot(np.arange(12.0), 6, step=step))
        rates = found.hparams["learning_rate"]
        assert ((rates >= 0.099) & (rates <= 0.101)).all()


def test_what_is_lost_comes_back(quadrants):
    """A member that diverges goes on as a copy, and is finite at the end."""
    wild = {"learning_rate": [0.05, 0.1, 0.2, 1e30]}
    explore = {"learning_rate": (0.01, 1e30)}
    alone = train(quadrants, hparams=wild)
    assert [r["status"] for r in alone.summary["population"]][6:] == 2 * ["quarantined"]
    run = train(quadrants, hparams=wild, observe=[scheduler(explore=explore)])
    rows = run.summary["population"]
    assert {row["status"] for row in rows} == {"finished"}
    assert max(row["hparams"]["learning_rate"] for row in rows) < 1
    assert {row["steps"] for row in rows} == {24}


def test_the_best_member_of_each_seed_is_told(quadrants, tmp_path, reported):
    run = train(quadrants, tmp_path, observe=[scheduler()])
    rows = run.summary["population"]
    for seed in (0, 1):
        mine = [row for row in rows if row["seed"] == seed]
        by_loss = sorted(mine, key=lambda row: row["validation"]["loss"])
        assert [row["place"] for row in by_loss] == list(range(6))
    best = [row for row in rows if row["place"] == 0]
    assert run.summary["settings"][0]["members"] == [row["member"] for row in best]
    assert run.summary["test"]["loss"]["n"] == 2
    assert run.summary["test"]["loss"]["mean"] == pytest.approx(
        np.mean([row["test"]["loss"] for row in best])
    )
    assert "(6 settings x 2 seeds)" in repr(run)
    said = "population-based training, the best of 6 members of each seed by validation"
    assert said in repr(run)
    page = (tmp_path / "report.html").read_text()
    assert said in page and "Learning rate over time, of the best members" in page


@pytest.mark.slow
def test_a_resumed_run_has_the_same_bits(quadrants, tmp_path):
    settings = {"steps_per_chunk": 4, "patience": 3}  # two chunks in an epoch of six
    observer = scheduler()
    whole = train(quadrants, tmp_path / "whole", observe=[observer], **settings)
    workdir = tmp_path / "run"
    for chunks in (2, 3):  # at a rung, and within an epoch
        with pytest.raises(SystemExit):
            observe = [observer, *stop_after(chunks)]
            train(quadrants, workdir, observe=observe, **settings)
    resumed = train(quadrants, workdir, observe=[observer], **settings)
    told = "population", "settings", "model_steps", "test"
    assert_same_run(workdir, tmp_path / "whole", *told)
    now = whole.hparams["learning_rate"].tolist()
    assert now != np.repeat(RATES, 2).tolist()
    assert resumed.hparams["learning_rate"].tolist() == now
    assert load_run(workdir).hparams["learning_rate"].tolist() == now


def test_a_loaded_model_has_the_numbers_that_it_ended_with(quadrants, tmp_path):
    """A hyper-parameter of the model is explored: answers depend on it."""

    def apply(params, inputs, *, key=None, slope=1.0):
        return slope * (inputs.reshape(-1) @ params)

    def init(key, inputs):
        return jnp.zeros((inputs.size, 4))

    model = models.Model(init, apply)
    slopes = {"slope": [0.5, 1.0, 2.0, 4.0], "learning_rate": 0.1}
    explore = {"slope": (0.1, 10.0)}
    run = train(
        quadrants,
        tmp_path,
        model,
        hparams=slopes,
        observe=[scheduler(explore=explore)],
    )
    assert run.hparams["slope"].tolist() != np.repeat(slopes["slope"], 2).tolist()
    loaded = load_run(tmp_path, model)
    np.testing.assert_array_equal(
        loaded.predict(quadrants.test.inputs), run.predict(quadrants.test.inputs)
    )


# --- what has no effect ---


@pytest.mark.parametrize(
    ("observe", "changes", "said"),
    [
        (scheduler(), {"hparams": {"learning_rate": 0.1}}, "of 1 setting, which is"),
        (
            scheduler(share=0.1),
            {},
            "replaces 0.1 of 6 settings, which is less than one",
        ),
        (scheduler(every=4), {}, "first rung after 4 of 4 epochs"),
        (
            scheduler(explore={"learning_rat": (0.1, 1)}),
            {},
            "did you mean 'learning_ra",
        ),
        (scheduler(explore={"learning_rate": (0.1, 1)}), {}, "begins with 0.0001"),
        (
            scheduler(explore={"momentum": (0.1, 1.5)}),
            {"hparams": {"learning_rate": RATES, "momentum": 0.9}},
            "'momentum' is 1.5: sgd takes numbers in [0, 1)",
        ),
    ],
)
def test_what_has_no_effect_is_refused(quadrants, tmp_path, observe, changes, said):
    with pytest.raises(UserError) as raised:
        train(quadrants, tmp_path / "run", observe=[observe], **changes)
    assert said in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"explore": {}}, "give a dict of names and limits"),
        ({"explore": {"learning_rate": 0.1}}, "its lowest and its highest value"),
        ({"explore": {"learning_rate": (0.0, 1.0)}}, "both above 0"),
        ({"explore": {"learning_rate": (1.0, 0.1)}}, "both above 0"),
        ({"share": 0.6}, "share is 0.6: give at most 0.5"),
        ({"share": 0.0}, "share is 0.0"),
        ({"factor": 1.0}, "factor is 1.0"),
        ({"every": 0}, "every is 0"),
    ],
)
def test_numbers_that_cannot_be(changes, said):
    with pytest.raises(UserError, match=said):
        scheduler(**changes)
