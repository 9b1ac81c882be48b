"""Whole epochs at a time on the devices are the epochs that the host would see."""

import itertools

import numpy as np
import pytest

from dlworkshop import models
from dlworkshop.learn.metrics import Metric
from dlworkshop.train import chunk_length, groups, loop, workload
from dlworkshop.train.plan import Plan
from dlworkshop.train.programs import Programs
from tests.train.test_groups import MODELS, assert_alike, statuses
from tests.train.test_groups import train as train_many
from tests.train.test_resume import assert_close, assert_same_run, lines, record

BITS = pytest.mark.optimized
pytestmark = pytest.mark.usefixtures("unreported")


@pytest.fixture
def on_devices(monkeypatch):
    """The CPU draws the order by XLA, as other devices do."""
    monkeypatch.setattr(workload.Workload, "draws_on_devices", True)
    monkeypatch.setattr(Plan, "draw", property(lambda plan: plan.programs.order))


@pytest.fixture
def calls(monkeypatch):
    """(first epoch, the next one) of each call of the devices."""
    seen, epochs = [], Programs.epochs

    def watched(self, *args):
        found = epochs(self, *args)
        seen.append((args[5], found[1]))
        return found

    monkeypatch.setattr(Programs, "epochs", watched)
    return seen


def train(dataset, **changes):
    return train_many(dataset, **{"steps_per_chunk": None, "devices": 1} | changes)


@pytest.fixture(scope="module")
def by_chunks(quadrants, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("chunks") / "run"
    return train(quadrants, workdir=workdir)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 4])
def test_the_same_as_epoch_by_epoch(
    devices, quadrants, by_chunks, on_devices, calls, tmp_path
):
    run = train(quadrants, devices=devices, workdir=tmp_path)
    assert calls == [(0, 4)]
    assert_alike(record(by_chunks.workdir), record(tmp_path))
    assert statuses(by_chunks) == statuses(run)
    assert run.history.names == by_chunks.history.names
    np.testing.assert_array_equal(run.history.step, by_chunks.history.step)
    for name in run.history.names:
        np.testing.assert_allclose(
            run.history[name], by_chunks.history[name], rtol=1e-5, err_msg=name
        )
    for split in ("validation", "test"):
        one, two = (r.summary[split]["loss"]["mean"] for r in (by_chunks, run))
        assert one == pytest.approx(two, rel=1e-5)


@pytest.mark.slow
@BITS
def test_parameters_come_to_the_same_bits(quadrants, on_devices, monkeypatch):
    # without dropout, which takes most of the time to compile and does not round
    monkeypatch.setitem(MODELS, "plain", models.mlp((16,), num_classes=4))
    run = train(quadrants, model="plain", patience=None)
    chunks = train(quadrants, model="plain", patience=None, steps_per_chunk=6)
    assert_close(run.params, chunks.params)


@pytest.mark.slow
def test_the_cuts_do_not_matter(quadrants, on_devices, calls, tmp_path, monkeypatch):
    train(quadrants, workdir=tmp_path / "whole")
    monkeypatch.setattr(chunk_length, "FIRST_STEPS", 1)
    monkeypatch.setattr(chunk_length, "SECONDS", 0.0)
    calls.clear()
    train(quadrants, workdir=tmp_path / "cut")
    assert calls == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
def test_a_signal_is_answered_and_the_run_goes_on(
    quadrants, on_devices, tmp_path, monkeypatch
):
    train(quadrants, workdir=tmp_path / "whole")
    monkeypatch.setattr(chunk_length, "FIRST_STEPS", 1)
    seen, answer = itertools.count(1), loop.Loop.report_and_checkpoint

    def interrupted(self, row):
        if next(seen) == 1:
            self.signal.signum = 15
        answer(self, row)

    monkeypatch.setattr(loop.Loop, "report_and_checkpoint", interrupted)
    with pytest.raises(SystemExit):
        train(quadrants, workdir=tmp_path / "run")
    assert len(lines(tmp_path / "run").splitlines()) == 1
    train(quadrants, workdir=tmp_path / "run")
    assert lines(tmp_path / "whole") == lines(tmp_path / "run")


@pytest.mark.slow
def test_who_stopped_calls_the_host(quadrants, on_devices, calls, monkeypatch):
    whole = train(quadrants, num_epochs=6)
    assert calls == [(0, 6)]
    calls.clear()
    monkeypatch.setattr(groups, "WORTH", 0.0)
    run = train(quadrants, num_epochs=6)
    assert len(calls) > 1 and calls[0][1] < 6
    assert [call[0] for call in calls[1:]] == [call[1] for call in calls[:-1]]
    assert_alike(whole.params, run.params)
    assert statuses(whole) == statuses(run)


@pytest.mark.slow
def test_nobody_is_left(quadrants, on_devices, calls):
    run = train(quadrants, hparams={"learning_rate": [1e30, 0.0]}, num_epochs=6)
    assert calls == [(0, 2)]  # all were stopped after the second epoch
    assert len(run.history) == 2


class PlannedError(Exception):
    """Ends a run that was planned, before anything is compiled."""


@pytest.mark.parametrize(
    "changes, by_epochs",
    [
        ({}, True),
        ({"observe": [lambda snapshot: None]}, False),
        ({"steps_per_chunk": 6}, False),
        ({"streamed": True}, False),
        ({"members_at_once": 4}, False),
        ({"metrics": {"whole": Metric(lambda *_: 0.0, split=True)}}, False),
    ],
    ids=["all", "observed", "asked", "streamed", "in turns", "whole split"],
)
def test_the_host_looks_at_each_epoch_where_it_must(
    changes, by_epochs, quadrants, on_devices, monkeypatch
):
    def planned(self, plan, workdir):
        raise PlannedError(plan.by_epochs)

    monkeypatch.setattr(loop.Loop, "__init__", planned)
    with pytest.raises(PlannedError, match=str(by_epochs)):
        train(quadrants, **{"members_at_once": 12} | changes)


@pytest.mark.parametrize("chunk", [None, pytest.param(4, marks=pytest.mark.slow)])
def test_devices_draw_what_the_host_would(chunk, quadrants, tmp_path, monkeypatch):
    options = {"steps_per_chunk": chunk, "num_epochs": 2}
    host = train(quadrants, workdir=tmp_path / "host", **options)
    monkeypatch.setattr(Plan, "draw", property(lambda plan: plan.programs.order))
    device = train(quadrants, workdir=tmp_path / "device", **options)
    assert lines(tmp_path / "host") == lines(tmp_path / "device")
    assert_close(host.params, device.params)
