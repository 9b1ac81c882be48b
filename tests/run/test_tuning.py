"""How to compute is measured once, remembered, may be forced, and is resumed."""

import json

import jax
import numpy as np
import pytest

from dlworkshop import fit, models, optimizers
from dlworkshop.errors import UserError
from dlworkshop.models import convolution
from dlworkshop.models.convolution import HOWS
from dlworkshop.run import tuning
from dlworkshop.run.programs import Choice, update_flops
from tests.run.test_resume import stop_after

CNN = models.cnn((4,), (8,), num_classes=4)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "LASTING", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def clock(cache, monkeypatch):
    """A pretended call says itself how many seconds it took."""
    monkeypatch.setattr(tuning, "_seconds", lambda call: call())
    return cache


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


def pretend(seconds, turns):
    """A `try_out` whose calls take the given seconds, 20 ms by default."""

    def try_out(choice):
        def call():
            turns.append(choice)
            return seconds.get(choice, 0.02)

        return call

    return try_out


START = Choice("patches", False)
ASKED = {
    "convolution": ["patches", "shifts", "lax+patches"],
    "micro_batch": [None, 8],
    "one_by_one": [True, False],
}


def test_the_fastest_is_taken_and_remembered(clock):
    best, turns, said = Choice("shifts", True, 8), [], []
    seconds = {Choice("shifts", False): 0.015, Choice("shifts", False, 8): 0.01}
    seconds[best] = 0.008
    for _ in range(2):
        found = tuning.fastest(
            pretend(seconds, turns), START, ASKED, {"a": 1}, said.append
        )
        assert found == best
    assert len(turns) == (3 + 2 + 2) * (1 + tuning.ROUNDS)  # in the first round only
    assert "shifts" in said[1] and "one by one" in said[1] and "8 at a time" in said[1]
    assert said[2].endswith("(measured before)")
    turns.clear()
    tuning.fastest(pretend({}, turns), START, {"micro_batch": [8]}, {}, said.append)
    assert turns  # something else: measured anew
    folder = clock / "dlworkshop" / "choices"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("time, taken", [(0.0198, "patches"), (0.018, "shifts")])
def test_what_is_hardly_faster_is_not_taken(clock, time, taken):
    seconds = {Choice("shifts", False): time}
    asked = {"convolution": ["shifts", "patches"]}
    found = tuning.fastest(pretend(seconds, []), START, asked, {}, print)
    assert found.convolution == taken


def test_what_is_hopeless_is_tried_once(clock):
    slow, turns = Choice("shifts", False), []
    asked = {"convolution": ["shifts", "patches"]}
    tuning.fastest(pretend({slow: 0.05}, turns), START, asked, {}, print)
    assert turns.count(slow) == 1
    assert turns.count(START) == 1 + tuning.ROUNDS


def test_a_question_lasts_longer_than_a_slow_second(clock, monkeypatch):
    monkeypatch.setattr(tuning, "LASTING", 3.0)
    asked, turns = {"convolution": ["shifts", "patches"]}, []

    def try_out(choice):
        def call():
            turns.append(choice)
            slow = 2.0 if len(turns) < 50 and choice.convolution == "shifts" else 1.0
            return slow * {"shifts": 0.018, "patches": 0.02}[choice.convolution]

        return call

    assert tuning.fastest(try_out, START, asked, {}, print).convolution == "shifts"
    assert len(turns) > 2 * (1 + tuning.ROUNDS)


def test_the_least_time_of_all_questions_is_kept(clock):
    times = iter([0.02, 0.03] + [0.02, 0.03] * tuning.ROUNDS)
    asked = {"convolution": ["patches", "shifts"], "micro_batch": [None, 8]}
    found = tuning.fastest(
        lambda choice: lambda: next(times, 0.5), START, asked, {"b": 1}, print
    )
    kept = [json.loads(path.read_text()) for path in clock.rglob("*.json")]
    assert found == START
    assert kept[0]["seconds"][str(START)] == 0.02


@pytest.mark.parametrize(
    "batch, flops, size", [(128, 28e6, 16), (120, 28e6, 15), (256, 1.2e6, None)]
)
def test_what_fits_the_cache_is_taken_at_a_time(batch, flops, size):
    params = {"kernel": jax.ShapeDtypeStruct((3, 3, 1, 4), "float32")}
    assert tuning.rule_of_thumb(params, batch, flops).micro_batch == size


@pytest.mark.parametrize("flops, one_by_one", [(4e3, False), (6e5, True)])
def test_small_updates_stand_side_by_side(flops, one_by_one):
    params = {"kernel": jax.ShapeDtypeStruct((64, 10), "float32")}
    assert tuning.rule_of_thumb(params, 16, flops).one_by_one == one_by_one


def test_it_begins_with_the_rule_of_thumb_by_its_name(quadrants, cache, monkeypatch):
    monkeypatch.setattr(tuning, "WORTH", 0.0)
    begun = []
    monkeypatch.setattr(
        tuning, "fastest", lambda _, start, asked, *more: begun.append(start) or start
    )
    train(quadrants)
    assert begun[0].convolution == "patches" and begun[0].one_by_one


def test_xlas_own_convolution_is_not_tried_on_a_cpu():
    asked = tuning.questions(members=4, batch=100, flops=4e7)
    assert set(HOWS) - set(asked["convolution"]) == {"lax", "winograd"}
    assert asked["micro_batch"] == [5, 10, 20, None]
    assert asked["one_by_one"] == [True, False]
    assert tuning.questions(members=1, batch=100, flops=4e7)["one_by_one"] == [False]


def test_every_way_trains_the_same(quadrants, monkeypatch):
    monkeypatch.setattr(convolution, "WIDE", 0)  # by Winograd's products too
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


@pytest.mark.parametrize("how", ["lax", "patches", "shifts", "lax+patches"])
def test_operations_are_counted_where_the_platform_does_not_tell(how, monkeypatch):
    # as on CUDA; 784 * 128 + 128 * 10, and 28 * 28 * 9 * 32 + 14 * 14 * 9 * 32 * 64 +
    # 3136 * 256 + 256 * 10 products, twice for their sums, in three passes
    monkeypatch.setattr(jax.stages.Lowered, "cost_analysis", lambda self: None)
    image = np.zeros((28, 28, 1), np.uint8)
    assert update_flops(models.mlp(), image) == 6 * 101_632
    with convolution.computed(how):
        assert update_flops(models.cnn(), image) == 6 * 4_643_840
