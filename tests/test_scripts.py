"""Every script still runs: the smallest form of each, judged by what it prints."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from tests.conftest import SOON_THERE
from tests.verify import planted

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "scripts"
NAMES = sorted(path.stem for path in SCRIPTS.glob("*.py"))
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def run(name, *flags, status=0, said="", cwd=ROOT, **environment):
    """What a script prints, in a process of its own that is given `said`."""
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / f"{name}.py"), *map(str, flags)],
        cwd=cwd,
        env={**os.environ, **SOON_THERE, "PYTHONPATH": str(ROOT), **environment},
        input=said,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if status == 0 else done.stderr


def module(name, monkeypatch):
    """A script as a module; only its own name is forgotten after the test."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, found)
    spec.loader.exec_module(found)
    return found


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of 2 x 120 images, enough for a batch of 128."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in ("dark", "light"):
        (folder / name).mkdir()
        for i in range(120):
            level = rng.integers(0, 100, (12, 12), np.uint8) + 100 * (name == "light")
            Image.fromarray(level.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in NAMES if n != "planted"])  # needs PyTorch
def test_each_explains_itself(name):
    assert run(name, "--help").startswith(f"usage: {name}.py")


@pytest.mark.slow
@pytest.mark.parametrize("work", ["mlp", "cnn of a user"])
def test_a_system_of_the_benchmark_takes_a_turn(work, tmp_path):
    flags = "--worker", "dlworkshop", "--works", work
    ready, turn = run(
        "bench", *flags, said="go\n", XDG_CACHE_HOME=str(tmp_path)
    ).splitlines()
    assert json.loads(ready)["ready"] >= 128
    assert json.loads(turn)["rate"] > 0


@pytest.mark.slow
@needs_linux
def test_a_population_of_one_is_measured_and_drawn(tmp_path):
    points, drawn = tmp_path / "points.json", tmp_path / "drawn.svg"
    flags = "--works", "logistic", "--members", 1
    table = run("bench_population", *flags, "--json", points, "--svg", drawn)
    work, members, *numbers = cells(table.splitlines()[-1])
    assert (work, members) == ("logistic", "1")
    assert all(float(number.replace(",", "")) > 0 for number in numbers)
    (row,) = json.loads(points.read_text())
    assert row["chunks"] >= 1 and row["predicted"] > 0 and row["measured"] > 0
    assert "<svg" in drawn.read_text()
    order = run("bench_population", *flags, "--order", "--rounds", 2)
    assert "logistic, 1 members: " in order and " with shared ones" in order


@pytest.mark.slow
def test_autofit_is_compared_on_a_table(tmp_path):
    flags = "--repeats", 1, "--minutes", 0.05, "--only", "iris"
    scores = tmp_path / "scores.jsonl"
    lines = run("bench_own_data", *flags, "--json", scores).splitlines()
    row = next(cells(line) for line in lines if line.startswith("| iris"))
    assert row[1] == "1" and all(float(score) > 80 for score in row[2:])
    # a second call skips what is known
    again = run("bench_own_data", *flags, "--json", scores).splitlines()
    assert "| iris | 1 | " + " | ".join(row[2:]) + " |" in again


@pytest.mark.slow
def test_autofit_is_compared_on_images(images, tmp_path):
    flags = "--minutes", 0.05, "--images", images, "--workdir", tmp_path / "run"
    lines = run("bench_own_data", *flags, XDG_CACHE_HOME=str(tmp_path)).splitlines()
    assert any(line.startswith("dlworkshop: ") for line in lines)
    assert all(line.endswith("test images") for line in lines)


@pytest.mark.slow
def test_a_day_on_an_accelerator_is_tried_on_a_cpu(tmp_path):
    environment = {"TINY": "1", "OUT": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    listed = run("gpu_day", "--list", **environment).splitlines()
    first: dict[str, str] = {}  # case of each part but those that take a minute
    for number, part, *_ in map(str.split, listed):
        if part not in {"mnist", "chooser", "profile", "bits"}:
            first.setdefault(part, number)
    run("gpu_day", "--cases", *first.values(), **environment)
    rows = [json.loads(line) for line in (tmp_path / "day.jsonl").open()]
    assert [row for row in rows if "failed" in row] == []
    assert {row["part"] for row in rows} >= set(first)


@pytest.mark.slow
def test_a_day_names_the_files_that_it_lacks(tmp_path):
    environment = {"TINY": "1", "OUT": str(tmp_path), "MNIST": str(tmp_path)}
    listed = run("gpu_day", "--list", "mnist", **environment).splitlines()
    run("gpu_day", "--cases", listed[0].split()[0], **environment)
    (row,) = [json.loads(line) for line in (tmp_path / "day.jsonl").open()]
    assert row["failed"] == (
        f"FileNotFoundError: no train-images* in {tmp_path}: set MNIST to its folder"
    )


def test_lock_refuses_flags():
    assert "unrecognized arguments: --fast" in run("lock", "--fast", status=2)


def test_what_is_mutated_is_there(monkeypatch):
    script = module("mutants", monkeypatch)
    for path in script.CHANGED:
        files = [*ROOT.glob(f"{path}**/*.py")] if path.endswith("/") else [ROOT / path]
        assert files
        made = (script.mutants(path, file.read_text()) for file in files)
        assert any(next(each, None) for each in made)
    for library in script.LIBRARIES:
        assert importlib.util.find_spec(library.split(".")[0])


def test_the_checks_of_planted_errors_agree_where_they_should(monkeypatch):
    for part in "torch", "torch.autograd", "torch.autograd.gradcheck":
        monkeypatch.setitem(sys.modules, part, mock.MagicMock())
    script = module("planted", monkeypatch)
    name = "a cotangent forgotten, summed"
    found = script.by_us(planted.WRONG[name]), script.by_jax(planted.WRONG[name])
    assert found == (script.FOUND, script.FOUND)
    right = planted.RIGHT["slow"]
    assert (script.by_us(right), script.by_jax(right)) == (script.PASSED, script.PASSED)


@pytest.mark.slow
def test_preparing_images_is_compared_with_decoding(images):
    lines = run("prepare_speed", "--data", images).splitlines()
    rates = [line for line in lines if "files/s" in line]
    assert [line.split("  ")[0] for line in rates] == ["decoder alone", "prepared"]
    assert lines[-1].startswith("second load ")
    error = run("prepare_speed", "--data", images / "none", status=2)
    assert error.startswith("error: ")


@pytest.mark.slow
def test_the_programs_of_a_mesh_are_counted():
    counted = run("scaling", "--count", 4, 128, JAX_NUM_CPU_DEVICES="4")
    mesh, flops, moved, held, *_ = json.loads(counted)
    assert mesh == "4 x 1" and flops > 0 and moved > 0 and held > 0


def test_the_cost_model_fits_the_measured_times(capsys, monkeypatch):
    script = module("scaling", monkeypatch)
    script.show_predictions(script.show_fit())
    lines = capsys.readouterr().out.splitlines()
    assert {cells(line)[0] for line in lines} >= {*script.POPULATION, "TPU v5e-256"}


@pytest.mark.slow
@needs_linux
def test_the_memory_of_a_streamed_run_is_printed(images, tmp_path):
    flags = "--data", images, "--data-dir", tmp_path, "--num-epochs", 2
    said, allocated, files = run("stream_memory", *flags).splitlines()[-3:]
    assert said.startswith("2 epochs of ") and ", streamed" in said
    assert len(allocated.split()) == len(files.split()) == 11
    assert float(allocated.split()[-1]) > 10
    few = tmp_path / "few"
    for name in ("dark", "light"):
        (few / name).mkdir(parents=True)
        for i in range(20):
            shutil.copy(images / name / f"{i}.png", few / name)
    error = run("stream_memory", "--data", few, "--data-dir", tmp_path, status=2)
    assert error.splitlines()[-1].startswith("error: batch_size is 128")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="the shim is compiled here")
def test_damaged_checkpoints_are_tried():
    flags = "--parts", "checkpoints", "--seconds", 60, "--tries", 1
    assert "checkpoints: tried 1, 0 wrong" in run("torture", *flags)
