"""A chunk is a second or two of work, also where the work cannot be counted."""

import itertools
import json

import jax
import jax.numpy as jnp
import optax
import pytest

from dlworkshop import fit, models
from dlworkshop.train import chunk_length, workload
from dlworkshop.train.programs import Programs

pytestmark = pytest.mark.usefixtures("unreported")

STEPS = 6  # of an epoch


def looping(times):
    """Logits, beside which a loop turns until a number is reached; None: no loop."""

    def init(key, x):
        return jnp.zeros((x.size, 4)), jnp.array(float(times or 0))

    def apply(params, x, *, key=None):
        weights, turns = params
        logits = x.reshape(-1) @ weights
        if times is None:
            return logits
        _, end = jax.lax.while_loop(
            lambda turn: turn[0] < turns,
            lambda turn: (turn[0] + 1, jnp.sin(turn[1])),
            jax.lax.stop_gradient((0.0, logits)),
        )
        return logits + 0 * end

    return models.Model(init, apply, {"times": times})


def steps_seen(model, dataset, **changes):
    """The steps after which the host looked at the program."""
    seen = []

    def observe(snapshot):
        seen.append(snapshot.step)

    settings = {"hparams": {"learning_rate": 0.0}, "batch_size": 16, "quiet": True}
    settings["devices"] = jax.devices()[:1]
    fit(model, dataset, optax.sgd, observe=observe, **settings | changes)
    return seen


# 10,000 turns take a millisecond at least, and a step of few much less than 15 s
@pytest.mark.parametrize(
    "times, seconds, expected",
    [(None, 1e-3, [STEPS]), (1e4, 1e-3, list(range(1, STEPS + 1))), (3, 90, [STEPS])],
    ids=["counted", "long", "short"],
)
def test_a_loop_of_unknown_length_is_timed(
    quadrants, monkeypatch, times, seconds, expected
):
    monkeypatch.setattr(chunk_length, "SECONDS", seconds)
    assert steps_seen(looping(times), quadrants) == expected


@pytest.mark.parametrize(
    "streamed", [False, pytest.param(True, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("at_once, expected", [(4, [STEPS]), (2, [3, STEPS])])
def test_groups_that_take_turns_share_a_chunk(
    quadrants, monkeypatch, streamed, at_once, expected
):
    ticks = itertools.count()  # a step of a group takes a second
    monkeypatch.setattr(Programs, "clock", lambda programs: next(ticks))
    monkeypatch.setattr(chunk_length, "SECONDS", STEPS)
    members = {"seeds": 4, "members_at_once": at_once, "streamed": streamed}
    assert steps_seen(looping(3), quadrants, **members) == expected


def test_steps_that_were_asked_for_are_not_timed(quadrants, monkeypatch):
    monkeypatch.setattr(chunk_length, "timed", None)
    assert steps_seen(looping(3), quadrants, steps_per_chunk=4) == [4, STEPS]


def test_a_run_goes_on_with_the_chunks_it_began_with(quadrants, monkeypatch, tmp_path):
    monkeypatch.setattr(chunk_length, "SECONDS", 1e-3)
    model = looping(1e4)
    steps_seen(model, quadrants, workdir=tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["derived"]["steps_per_chunk"] == 1
    monkeypatch.setattr(chunk_length, "timed", None)
    more = steps_seen(model, quadrants, workdir=tmp_path, num_epochs=2)
    assert more == list(range(STEPS + 1, 2 * STEPS + 1))


@pytest.mark.parametrize(
    "seconds, expected", [(1.0, [6, 12]), (4.0, [2, 4, 6, 8, 10, 12]), (0.5, [6, 12])]
)
def test_a_chunk_is_adjusted_by_the_clock(quadrants, monkeypatch, seconds, expected):
    monkeypatch.setattr(workload.Workload, "draws_on_devices", True)
    monkeypatch.setattr(chunk_length, "MANY", 2)
    monkeypatch.setattr(chunk_length, "SECONDS", 6 / seconds)
    ticks = itertools.count(0, 6)  # a step takes a second
    monkeypatch.setattr(Programs, "clock", lambda programs: next(ticks))
    assert steps_seen(looping(None), quadrants, num_epochs=2) == expected


def test_a_chunk_that_was_measured_stays(quadrants, monkeypatch, tmp_path):
    monkeypatch.setattr(workload.Workload, "draws_on_devices", True)
    monkeypatch.setattr(chunk_length, "MANY", 1)
    monkeypatch.setattr(chunk_length, "SECONDS", 1e-9)
    steps_seen(looping(None), quadrants, workdir=tmp_path)
    derived = json.loads((tmp_path / "config.json").read_text())["derived"]
    assert derived["steps_per_chunk"] == 1 and derived["timed"]
    monkeypatch.setattr(chunk_length, "adjusted", None)
    more = steps_seen(looping(None), quadrants, workdir=tmp_path, num_epochs=2)
    assert more == list(range(7, 13))


def test_epochs_are_given_ahead_by_the_clock():
    ahead = chunk_length.EpochsPerCall(flops=1e9, steps=100)
    assert ahead.epochs == 5  # 500 steps
    assert chunk_length.EpochsPerCall(flops=1e12, steps=100).epochs == 1
    ahead.record(5, seconds=5 * chunk_length.SECONDS / 40)
    assert ahead.epochs == 40
    ahead.record(40, seconds=1e-3)
    assert ahead.epochs == 256
    ahead.record(256, seconds=1e3)
    assert ahead.epochs == 1
