"""One population in several processes is the population of a single one."""

import inspect
import json
import os
import socket
import subprocess
import sys
import types
from pathlib import Path
from signal import SIGKILL, SIGTERM

import jax
import numpy as np
import pytest

from dlworkshop import fit
from dlworkshop.errors import UserError
from dlworkshop.models.model import BATCH
from dlworkshop.train import autotune, processes
from dlworkshop.train.mesh import MEMBER
from dlworkshop.train.programs import ExecutionConfig
from dlworkshop.workshop import launch
from tests.conftest import SOON_THERE
from tests.train.one_of_several import train

SCRIPT = Path(__file__).parent / "one_of_several.py"
ROOT = SCRIPT.parent.parent.parent
# Sums over examples are taken in another order: some units in the last place of
# float32, over some hundred steps.
CLOSE = {"rtol": 1e-4, "atol": 1e-6}


def start(tmp_path, count, devices, changes, own=None):
    """So many processes with so many devices; `own` changes what the last is given.

    `devices` may be a list, of the number of each process.
    """
    if isinstance(devices, int):
        devices = [devices] * count
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    found = []
    for index in range(count):
        given = changes | ((own or {}) if index == count - 1 else {})
        place = f"localhost:{port},{count},{index}"
        command = [sys.executable, str(SCRIPT), place, json.dumps(given)]
        environment = {**os.environ, **SOON_THERE} | {
            "JAX_NUM_CPU_DEVICES": str(devices[index]),
            "PYTHONPATH": str(ROOT),
        }
        found.append(
            subprocess.Popen(
                [*command, str(tmp_path / "found.npz")],
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return found


def ends(started):
    """Exit status and stderr of each."""
    said = [process.communicate(timeout=120)[1] for process in started]
    return [process.returncode for process in started], said


def kernel(run):
    return np.asarray(run.params["Dense_0"]["kernel"])


@pytest.mark.slow
@pytest.mark.parametrize(("number", "devices"), [(2, 2), (4, 1)])
def test_a_member_over_several_processes_is_the_member_of_one(
    tmp_path, number, devices
):
    changes = {"seeds": 1, "num_epochs": 2}
    statuses, said = ends(start(tmp_path, number, devices, changes))
    assert statuses == [0] * number, said
    found = np.load(tmp_path / "found.npz", allow_pickle=True)
    assert found["mesh"].item() == {"member": 1, "batch": 4}
    alone = train(**changes, devices=jax.devices()[:1])
    np.testing.assert_allclose(found["kernel"], kernel(alone), **CLOSE)
    assert "step 16/16" in said[0]
    assert not any("step" in other for other in said[1:])  # one speaks for all


@pytest.mark.slow
def test_a_run_resumes_with_another_number_of_processes(tmp_path):
    """Streamed, and of members that leave a place empty; stopped, killed, finished."""
    changes = {"seeds": 5, "num_epochs": 6, "streamed": True, "save_every_steps": 6}
    folder = tmp_path / "run"
    log = folder / "metrics.jsonl"
    # all have an observer, which sends nothing in the first process
    shared = changes | {"workdir": str(folder), "sends": (0, 0)}
    # to one of them, in the middle of an epoch
    statuses, said = ends(start(tmp_path, 2, 2, shared, {"sends": (2, SIGTERM)}))
    assert statuses == [143, 143], said
    assert "stopped by SIGTERM" in said[0] and "mesh 3 x 1" in said[0]
    assert log.read_bytes()

    statuses, said = ends(start(tmp_path, 2, 2, shared, {"sends": (5, SIGKILL)}))
    assert statuses[1] == -SIGKILL
    assert statuses[0] != 0 and "process" in said[0].lower(), said

    run = train(**changes, workdir=folder, devices=jax.devices()[:1])
    whole = train(**changes, devices=jax.devices()[:1])
    np.testing.assert_allclose(kernel(run), kernel(whole), **CLOSE)
    assert run.summary["population"][4]["steps"] == 6 * 8
    steps = [entry["step"] for entry in map(json.loads, log.read_text().splitlines())]
    assert steps == sorted(set(steps)) and steps[-1] == 6 * 8


def examined(tmp_path, *devices):
    """Exit status and output of `doctor` in a process with so many devices each."""
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dlworkshop", "doctor", "--num-processes", "2"]
    command += ["--coordinator", f"localhost:{port}", "--process-id"]
    environment = os.environ | SOON_THERE | {"COLUMNS": "200"}
    environment |= {"XDG_CACHE_HOME": str(tmp_path)}
    found = [
        subprocess.Popen(
            [*command, str(index)],
            env=environment | {"JAX_NUM_CPU_DEVICES": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for index, number in enumerate(devices)
    ]
    out = [process.communicate(timeout=120)[0] for process in found]
    return [process.returncode for process in found], out


@pytest.mark.slow
def test_doctor_checks_what_processes_exchange(tmp_path):
    statuses, out = examined(tmp_path, 2, 2)
    assert statuses == [0, 0]
    assert "2 processes, 4 devices: sums and exchanges are right" in out[0]
    assert "process 1: cpu" in out[0]
    # one speaks for all; threads of Gloo write without waiting for each other's lines
    said = [line for line in out[0].splitlines() if "peer ranks" not in line]
    said = [line for line in said if len(line) > 20]
    assert said and not any(line.strip() in out[1] for line in said)


@pytest.mark.slow
def test_doctor_sees_that_processes_have_other_numbers_of_devices(tmp_path):
    statuses, out = examined(tmp_path, 1, 3)
    assert statuses == [1, 1]
    row = next(line for line in out[0].splitlines() if "BROKEN" in line)
    assert "process 0 has 1 device, process 1 has 3" in row
    assert "2 processes, 4 devices: sums and exchanges are right" in out[0]


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"hparams": {"learning_rate": 0.02}}, "hparams"),
        pytest.param(
            {"steps_per_chunk": 2, "members_at_once": 2, "streamed": False},
            "steps_per_chunk was 3 and is 2, streamed was None and is False, "
            "members_at_once was None and is 2",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"workdir": "other", "read_test": False},
            "workdir was None and is a folder, read_test was True and is False",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"sends": (0, 0)},
            "observe was 0 functions and is 1 function",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_processes_that_differ_are_refused(tmp_path, other, told):
    if "workdir" in other:
        other = other | {"workdir": str(tmp_path / "other")}
    statuses, said = ends(start(tmp_path, 2, 1, {}, other))
    assert statuses == [2, 2], said
    assert all("process 1 differs from process 0" in each for each in said)
    assert all(f"({told})" in each and "Traceback" not in each for each in said)


@pytest.mark.slow
def test_sweeps_that_differ_are_refused(tmp_path):
    grid = {"sweep": True, "hparams": {"learning_rate": [0.01, 0.1]}, "seeds": 1}
    other = {"workdir": str(tmp_path / "run"), "hparams": {"learning_rate": [0.01]}}
    statuses, said = ends(start(tmp_path, 2, 1, grid, other))
    assert statuses == [2, 2], said
    sentence = "(workdir was None and is a folder, hparams)"
    assert all(sentence in each and "Traceback" not in each for each in said)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_processes_with_other_numbers_of_devices_are_refused(tmp_path):
    statuses, said = ends(start(tmp_path, 2, [1, 3], {}))
    assert statuses == [2, 2], said
    sentence = "process 0 has 1 device, process 1 has 3: give all processes as many"
    assert all(sentence in each and "Traceback" not in each for each in said)


def test_plain_arguments_of_fit_are_compared(monkeypatch):
    """All but those that may differ; contents are compared with the task's settings."""
    seen = []

    def exchange(value):
        seen.append(value)
        return [value, value]

    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "allgather_json", exchange)
    monkeypatch.setattr(processes, "check_shared_folder", stop)
    with pytest.raises(InterruptedError):
        train(workdir="runs/a", streamed=True, folds=5)
    counts, words = seen
    assert counts == jax.local_device_count()
    assert {*inspect.signature(fit).parameters} - {*words} == {"quiet"}
    found = [words[name] for name in ("streamed", "folds", "steps_per_chunk")]
    assert found == ["True", "5", "3"]


def stop(folder):
    raise InterruptedError


@pytest.mark.slow
def test_the_first_process_measures_for_all(tmp_path, monkeypatch):
    # an earlier test run may have measured already
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "run"
    changes = {"images": True, "seeds": 2, "num_epochs": 1, "workdir": str(folder)}
    statuses, said = ends(start(tmp_path, 2, 1, changes))
    assert statuses == [0, 0], said
    assert "measuring once" in said[0] and "measuring" not in said[1]
    derived = json.loads((folder / "config.json").read_text())["derived"]
    chosen = f"convolutions by {derived['execution']['convolution']}"
    assert f"{chosen}, members one by one" in said[0]  # one on each device


@pytest.mark.parametrize(
    ("place", "of_first", "batch"),
    [
        ([[0, 0], [1, 1]], (1, 2), 64),  # a row of each
        ([[0, 1], [0, 1]], (2, 1), 32),  # a column of each
        ([[0, 0, 1], [1, 1, 1]], (1, 2), 40),
        ([[1, 1], [0, 0]], (1, 2), 64),
    ],
)
def test_the_first_process_measures_its_part_of_a_mesh(
    monkeypatch, place, of_first, batch
):
    shape = np.shape(place)
    devices = np.array(
        [types.SimpleNamespace(process_index=i) for row in place for i in row]
    ).reshape(shape)
    mesh = types.SimpleNamespace(
        devices=devices,
        shape=dict(zip((MEMBER, BATCH), shape, strict=True)),
        axis_names=(MEMBER, BATCH),
        axis_types=None,
    )
    seen = []

    def part(devices, names, axis_types):
        assert {device.process_index for device in devices.flat} == {0}
        sizes = dict(zip(names, devices.shape, strict=True))
        return types.SimpleNamespace(devices=devices, shape=sizes)

    def measure(make_programs, mesh, *args):
        seen.append((tuple(mesh.shape.values()), len(args[2]), args[4]))
        return ExecutionConfig(None, False)

    monkeypatch.setattr(autotune, "Mesh", part)
    monkeypatch.setattr(autotune, "_measure", measure)
    size = batch * shape[1] // of_first[1]
    autotune.measure(print, mesh, None, {}, list(range(6)), None, size)
    assert seen == [(of_first, 6 * of_first[0] // shape[0], batch)]


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        (("localhost", 2, 0), "give HOST:PORT"),
        (("localhost:99999", 2, 0), "give HOST:PORT"),
        (("localhost:1", 0, 0), "--num-processes is 0: give a whole number"),
        (("localhost:1", 2, -1), "--process-id is -1: give a whole number"),
        (("localhost:1", 2, 2), "--process-id is 2, but there are 2 processes"),
        (("localhost:1", None, None), "belong together"),
    ],
)
def test_a_place_that_cannot_be_is_refused(place, sentence):
    with pytest.raises(UserError, match=sentence), launch.joined(*place):
        pass


@pytest.mark.parametrize(
    ("process_id", "of_jax", "sentence"),
    [
        (
            1,
            "Number of processes must be defined.",
            "give --coordinator, --num-processes and --process-id",
        ),
        (-1, "", "--process-id is -1: give a whole number"),
        (9, "with process_id < num_processes.", "there are not so many processes"),
    ],
)
def test_what_a_scheduler_does_not_say_is_asked_for(
    monkeypatch, process_id, of_jax, sentence
):
    def initialize(*_, **__):
        raise ValueError(of_jax)

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")  # Open MPI 5 says no more
    place = launch.joined("localhost:1", None, process_id)
    with pytest.raises(UserError, match=sentence), place:
        pass


def test_the_environment_of_a_scheduler_is_known(monkeypatch):
    assert not launch.by_scheduler()
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
    assert not launch.by_scheduler()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    assert launch.by_scheduler()
