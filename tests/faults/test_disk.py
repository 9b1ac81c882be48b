"""A disk that fails, at any call: one sentence, soon, and with room the same bits."""

import itertools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlworkshop import fit, models
from dlworkshop.errors import UserError
from dlworkshop.train.checkpoints import Checkpoints
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("unreported")


def train(dataset, workdir, observe=()):
    return fit(
        models.logistic(4),
        dataset,
        hparams={"learning_rate": 0.1},
        num_epochs=3,
        batch_size=16,
        steps_per_chunk=2,
        save_every_steps=2,
        devices=jax.devices()[:1],
        observe=observe,
        workdir=workdir,
    )


@pytest.fixture(scope="module")
def whole(quadrants, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("disk") / "run"
    train(quadrants, workdir)
    return (workdir / "params.safetensors").read_bytes()


def moved(workdir: Path) -> None:
    workdir.rename(workdir.with_name("elsewhere"))


def removed(workdir: Path) -> None:
    workdir.rename(workdir.with_name("gone"))  # at once; a thread may be writing
    shutil.rmtree(workdir.with_name("gone"), ignore_errors=True)


def closed(workdir: Path) -> None:
    """A file lies where the next checkpoint is to be made."""
    replaced(workdir / "checkpoints")


def replaced(folder: Path) -> None:
    """Put a file in the place of a folder in which a thread may be writing."""
    for number in itertools.count():
        folder.rename(folder.with_name(f"{folder.name}-aside{number}"))
        try:
            folder.write_text("")
        except IsADirectoryError:  # the thread has made it again
            continue
        return


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [moved, removed, closed],
)
def test_a_folder_that_goes_away_is_one_sentence(how, quadrants, whole, tmp_path):
    workdir, seen = tmp_path / "run", []

    def go_away(snapshot):
        seen.append(snapshot.step)
        if len(seen) == 3:
            how(workdir)

    began = time.monotonic()
    with pytest.raises(UserError, match="moved or removed") as refused:
        train(quadrants, workdir, [go_away])
    assert "\n" not in str(refused.value) and time.monotonic() - began < 100
    if how is closed:
        (workdir / "checkpoints").unlink()
        (workdir / "metrics.jsonl").unlink()
    else:  # a thread that was writing may have left something
        shutil.rmtree(workdir, ignore_errors=True)
    if how is moved:
        workdir.with_name("elsewhere").rename(workdir)
    train(quadrants, workdir)
    assert (workdir / "params.safetensors").read_bytes() == whole


def test_a_checkpoint_that_cannot_be_made_is_not_waited_for(tmp_path):
    folder, state = tmp_path / "checkpoints", {"kernel": jnp.ones(3)}
    checkpoints = Checkpoints(folder)
    checkpoints.save(1, state, {"step": 1})
    checkpoints.wait()
    replaced(folder)
    began = time.monotonic()
    with pytest.raises(OSError):
        checkpoints.save(2, state, {"step": 2})
        checkpoints.wait()
    checkpoints.close()
    assert time.monotonic() - began < 60  # it was 308


def test_a_folder_replaced_during_a_save_is_an_os_error_at_any_moment(tmp_path):
    state, failed = {"kernel": jnp.ones((64, 64))}, 0
    for delay in np.linspace(0, 0.02, 12):
        folder = tmp_path / f"{delay:.4f}"
        checkpoints = Checkpoints(folder)
        checkpoints.save(1, state, {"step": 1})
        time.sleep(delay)
        replaced(folder)
        try:
            checkpoints.close()
        except FileNotFoundError as error:
            assert error.filename == str(folder)
            failed += 1
    assert failed


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="the shim is compiled here")
def test_a_call_that_fails_ends_with_the_same_bits():
    parts = "disk", "reading"
    command = [sys.executable, "scripts/torture.py", "--parts", *parts]
    command += ["--seconds", "120", "--tries", "1", "--seed", "1"]
    paths = os.pathsep.join([str(ROOT), *sys.path])
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for part in parts:
        assert f"{part}: tried 1, 0 wrong" in done.stdout
