"""A run that was stopped and started again ends with the same bits."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlworkshop import answers, data, fit, losses, models, report, schedules
from dlworkshop.errors import UserError
from dlworkshop.serve.load import load
from dlworkshop.train import conclusion

pytestmark = pytest.mark.usefixtures("unreported")

EPOCHS = 3  # of three chunks, of two steps each
NONE = {"rtol": 0, "atol": 0}


def train(dataset, workdir, devices=None, **changes):
    settings = {
        "hparams": {"learning_rate": [0.05, 1e30, 0.2], "momentum": 0.9},
        "seeds": 2,
        "num_epochs": EPOCHS,
        "batch_size": 16,
        "steps_per_chunk": 2,
        "patience": 2,
        "devices": devices or jax.devices()[:1],
    }
    model = models.mlp((16,), dropout=0.2, num_classes=4)
    return fit(model, dataset, optax.sgd, workdir=workdir, **settings | changes)


def record(workdir):
    """Every leaf of the newest record, and its position."""
    from orbax.checkpoint import v1 as ocp  # noqa: PLC0415

    with ocp.training.Checkpointer(workdir / "checkpoints") as checkpointer:
        return jax.tree.map(np.asarray, checkpointer.load_checkpointables()["state"])


def lines(workdir):
    return (workdir / "metrics.jsonl").read_text()


def assert_close(one, two, **tolerance):
    """Trees of the same arrays, leaf by leaf; without a tolerance bit for bit."""

    def leaf(path, a, b):
        where = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, **NONE | tolerance, err_msg=where)

    jax.tree.map_with_path(leaf, one, two)


def assert_same_run(one, two, *entries):
    """Folders with the same log, newest checkpoint, and entries of the summary."""
    assert lines(one) == lines(two)
    assert_close(record(one), record(two))
    told = [json.loads((w / "summary.json").read_text()) for w in (one, two)]
    for name in entries:
        assert told[0][name] == told[1][name]


@pytest.fixture(scope="module")
def whole(quadrants, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole") / "run"
    train(quadrants, workdir)
    return workdir


def stop_after(chunks, signum=signal.SIGTERM):
    """An observer that sends this process a signal at the end of so many chunks."""
    seen = []

    def observer(snapshot):
        seen.append(snapshot.step)
        if len(seen) == chunks:
            os.kill(os.getpid(), signum)

    return [observer]


def test_stopped_and_started_again_and_again(whole, quadrants, tmp_path, caplog):
    workdir = tmp_path / "run"
    chunks = 1, 3, 4, 8  # within an epoch of three and at its end, alone and in a row
    for before, chunk in zip([0, *chunks], chunks, strict=False):
        with pytest.raises(SystemExit) as stopped:
            train(quadrants, workdir, observe=stop_after(chunk - before))
        assert stopped.value.code == 128 + signal.SIGTERM
        assert f"stopped by SIGTERM at step {2 * chunk} of 18" in caplog.text
        caplog.clear()
        assert len(lines(workdir).splitlines()) == chunk
        assert not (workdir / "summary.json").exists()

    train(quadrants, workdir)
    assert len(jax.tree.leaves(record(workdir))) > 10
    assert_same_run(whole, workdir, "test", "validation", "population")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGHUP])
def test_other_signals_are_answered_in_the_same_way(
    signum, quadrants, tmp_path, caplog
):
    usual = signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(signum, usual)  # ignored by a program in the background
    try:
        with pytest.raises(SystemExit) as stopped:
            train(quadrants, tmp_path, observe=stop_after(1, signum))
        assert signal.getsignal(signum) is usual
    finally:
        signal.signal(signum, before)
    assert stopped.value.code == 128 + signum
    assert (tmp_path / "checkpoints" / "2").is_dir()
    assert "run the same command again" in caplog.text


def test_more_lines_than_the_record_knows_are_cut(quadrants, whole, tmp_path):
    workdir = tmp_path / "run"
    with pytest.raises(SystemExit):
        train(quadrants, workdir, observe=stop_after(3))
    with (workdir / "metrics.jsonl").open("a") as log:  # killed while it went on
        log.write('{"step": 8, "train"')
    train(quadrants, workdir)
    assert lines(workdir) == lines(whole)


def test_a_whole_run_started_again_does_nothing(quadrants, whole):
    before = (whole / "summary.json").read_text()
    run = train(quadrants, whole)
    assert json.loads(before) == run.summary
    assert (whole / "summary.json").read_text() == before
    assert run.predict(quadrants.test.inputs).shape == (6, 33, 4)


def test_a_whole_run_does_not_call_other_observers_and_says_so(
    quadrants, whole, capsys
):
    called = []
    train(quadrants, whole, observe=[called.append])
    assert not called
    said = " ".join(capsys.readouterr().err.split())
    assert "so its observers are not called: remove that folder" in said


def test_a_whole_run_reads_the_test_split_when_asked_to(quadrants, tmp_path, caplog):
    def run(read_test):
        return train(quadrants, tmp_path, num_epochs=1, read_test=read_test).summary

    assert "test" not in run(False)
    assert "test" not in run(False)
    found = run(True)
    assert found["test"]["accuracy"]["n"] and found == load(tmp_path).summary
    assert (tmp_path / "predictions.npz").is_file()
    assert "read_test" not in caplog.text  # it says what was quarantined
    assert run(False) == found
    assert "has test scores, in spite of read_test=False" in caplog.text


@pytest.mark.parametrize(
    "damage", [["report.html"], ["predictions.npz", "report.html"], ["flip"], ["cut"]]
)
def test_what_a_whole_run_lost_is_made_again(damage, quadrants, whole, tmp_path):
    """A kill between the summary and the report, a lost file, a flipped bit."""
    workdir = shutil.copytree(whole, tmp_path / "run")
    for name in damage:
        if name == "cut":
            (workdir / "report.html").write_text("<html>")
            continue
        if name != "flip":
            (workdir / name).unlink()
            continue
        params = workdir / "params.safetensors"
        content = bytearray(params.read_bytes())
        content[-3] ^= 1
        params.write_bytes(content)
        with pytest.raises(UserError, match=r"params.safetensors is not as it was"):
            load(workdir)
    train(quadrants, workdir)
    for name in ("report.html", "predictions.npz", "params.safetensors"):
        assert (workdir / name).is_file()
        assert name != "report.html" or report.is_whole(workdir)
        if name == "params.safetensors":
            assert (workdir / name).read_bytes() == (whole / name).read_bytes()
    assert load(workdir).summary["test"] == load(whole).summary["test"]


def test_answers_are_those_of_the_parameters(quadrants, tmp_path, caplog):
    def run(num_epochs):
        return fit(
            models.logistic(4),
            quadrants,
            num_epochs=num_epochs,
            batch_size=16,
            workdir=tmp_path,
        )

    answers.study(run(1), quadrants)
    assert run(1).read_artifact(answers.FILE)["level"] == 0.9
    (tmp_path / "report.html").unlink()
    assert run(1).read_artifact(answers.FILE)  # the parameters are the same
    run(2)
    assert not (tmp_path / answers.FILE).exists()
    assert "is not of these parameters" in caplog.text


@pytest.mark.slow
def test_other_devices_take_it_up(quadrants, whole, tmp_path):
    devices = jax.devices()
    for first, second in ((devices, devices[:1]), (devices[:1], devices)):
        workdir = tmp_path / f"{len(first)}"
        with pytest.raises(SystemExit):
            train(quadrants, workdir, first, observe=stop_after(4))
        train(quadrants, workdir, second)
        # 18 steps in float32, sums in another order; the quarantined are huge
        assert_close(record(whole), record(workdir), rtol=1e-5, atol=2e-5)


def test_another_config_is_refused_field_by_field(quadrants, whole):
    with pytest.raises(UserError) as refused:
        train(quadrants, whole, batch_size=8, num_epochs=2)
    message = str(refused.value)
    assert "batch_size was 16 and is now 8" in message
    assert "num_epochs was 3 and is now 2" in message
    assert "patience" not in message


def test_what_was_derived_may_differ(quadrants, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    train(quadrants, tmp_path / "run", steps_per_chunk=3)
    assert lines(tmp_path / "run") == lines(whole)


def test_a_folder_of_a_newer_version_is_refused(quadrants, whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    config = json.loads((folder / "config.json").read_text())
    config["derived"]["format"] += 1
    (folder / "config.json").write_text(json.dumps(config))
    for use in (lambda: train(quadrants, folder), lambda: load(folder)):
        with pytest.raises(UserError, match="newer version of dlworkshop"):
            use()
    del config["derived"]["format"]  # those before there was a number
    (folder / "config.json").write_text(json.dumps(config))
    train(quadrants, folder)
    assert lines(folder) == lines(whole) and load(folder).summary["members"]


def test_another_function_of_the_same_name_is_refused(quadrants, tmp_path):
    def network(scale):
        def apply(params, image, *, key=None):
            return scale * (image.reshape(-1) @ params)

        return models.Model(lambda key, image: jnp.zeros((64, 4)), apply)

    def run(model):
        options = {"hparams": {"learning_rate": 0.1}, "batch_size": 16}
        return fit(model, quadrants, optax.sgd, workdir=tmp_path, **options)

    before = run(network(1.0)).summary
    assert run(network(1.0)).summary == before  # the same one comes back
    with pytest.raises(UserError, match=r"model.apply.scale was 1.0 and is now 2.0"):
        run(network(2.0))


def test_what_cannot_be_compared_is_not_resumed(
    quadrants, tmp_path, caplog, monkeypatch
):
    monkeypatch.setenv("SCALE", "1")

    def loss(outputs, target):
        return float(os.environ["SCALE"]) * losses.cross_entropy(outputs, target)

    train(quadrants, tmp_path, loss=loss, num_epochs=1)
    assert "loss.os.environ cannot be compared" in caplog.text
    with pytest.raises(UserError, match=r"loss\.os\.environ .* cannot be compared"):
        train(quadrants, tmp_path, loss=loss, num_epochs=1)


def test_other_arrays_of_the_same_name_are_refused(quadrants, tmp_path):
    def run(dataset):
        options = {"hparams": {"learning_rate": 0.1}, "batch_size": 16}
        model = models.logistic(num_classes=4)
        return fit(model, dataset, optax.sgd, workdir=tmp_path, **options)

    split = (quadrants.train.inputs.copy(), quadrants.train.targets)
    held = {"validation": quadrants.validation[:2], "test": quadrants.test[:2]}
    own = data.from_arrays(*split, **held, classes=quadrants.classes)
    run(own)
    inputs = own.train.inputs.copy()
    inputs[3, 2, 2] += 1
    other = own._replace(train=own.train._replace(inputs=inputs))
    with pytest.raises(UserError, match=r"dataset.fingerprint was"):
        run(other)
    own.train.inputs[3, 2, 2] += 1  # in place
    with pytest.raises(UserError, match=r"dataset.fingerprint was"):
        run(own)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [schedules.constant, schedules.cosine])
def test_more_epochs_of_a_finished_run(schedule, quadrants, tmp_path):
    options = {"schedule": schedule, "patience": None}
    train(quadrants, tmp_path / "run", num_epochs=1, **options)
    if schedule is schedules.cosine:
        with pytest.raises(UserError, match="cosine depends on their number"):
            train(quadrants, tmp_path / "run", num_epochs=2, **options)
        return
    longer = train(quadrants, tmp_path / "run", num_epochs=2, **options)
    at_once = train(quadrants, tmp_path / "at once", num_epochs=2, **options)
    assert lines(tmp_path / "run") == lines(tmp_path / "at once")
    assert_close(longer.params, at_once.params)
    assert longer.summary["test"] == at_once.summary["test"]
    assert len(longer.history) == len(at_once.history) == 6


def test_more_epochs_that_were_killed_before_their_scores(
    quadrants, tmp_path, monkeypatch
):
    """The summary that is there is of the shorter run."""

    def killed(*_, **__):
        raise SystemExit(128 + signal.SIGKILL)

    options = {"patience": None, "seeds": 1, "hparams": {"learning_rate": 0.1}}
    train(quadrants, tmp_path / "run", num_epochs=1, **options)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(conclusion, "evaluate_split", killed)
        train(quadrants, tmp_path / "run", num_epochs=2, **options)
    assert load(tmp_path / "run").summary["steps"] == 6  # still as it was
    longer = train(quadrants, tmp_path / "run", num_epochs=2, **options).summary
    at_once = train(quadrants, tmp_path / "at once", num_epochs=2, **options).summary
    assert longer["steps"] == at_once["steps"] == 12
    assert longer["test"] == at_once["test"]
    assert load(tmp_path / "run").summary == longer


def test_the_last_two_checkpoints_are_kept(quadrants, tmp_path):
    train(quadrants, tmp_path, save_every_steps=2, patience=None)
    kept = sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir())
    assert kept == [16, 18]


@pytest.mark.slow
def test_the_garbage_collector_does_not_interrupt(quadrants):
    frozen, before = [], gc.get_freeze_count()
    watch = [lambda _: frozen.append(gc.get_freeze_count())]
    train(quadrants, None, observe=watch)
    assert min(frozen) > before + 100_000  # all of JAX
    assert gc.get_freeze_count() == before


SCRIPT = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 4)
from pathlib import Path
from tests.conftest import compiled_soon, make_dataset
from tests.train.test_resume import train
with compiled_soon():
    train(make_dataset(), Path(sys.argv[1]), save_every_steps=2)
"""


def test_kill_9_loses_nothing_that_was_saved(whole, quadrants, tmp_path):
    root = Path(__file__).parents[2]
    workdir = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(workdir)], cwd=root, env=environment
    )
    log, deadline = workdir / "metrics.jsonl", time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if log.exists() and log.read_text().count("\n") >= 5:
            break
        time.sleep(0.002)
    process.kill()
    process.wait()
    train(quadrants, workdir, save_every_steps=2)
    assert_same_run(whole, workdir)
