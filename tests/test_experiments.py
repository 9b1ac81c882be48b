"""Every experiment runs at a small setting and leaves a whole run folder."""

import dataclasses
import gzip
import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlworkshop import workshop
from dlworkshop.errors import UserError
from dlworkshop.workshop import script as script_module
from dlworkshop.workshop.script import perform
from tests.conftest import reports

ROOT = Path(__file__).parent.parent
EXPERIMENTS = sorted(path.stem for path in (ROOT / "experiments").glob("*.py"))
LESSONS = {path.stem for path in (ROOT / "tests" / "lessons").glob("*.py")}
TRAINING = [name for name in EXPERIMENTS if name not in LESSONS]
SETTINGS = {"seeds": 2, "num_epochs": 1, "batch_size": 32}
# of own_data: nothing is searched for
GIVEN = {"weight_decay": (0.01,), "flip": True, "shift": 0.1}


def module(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"experiments/{name}.py")
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found  # dataclasses look themselves up there
    spec.loader.exec_module(found)
    return found


LATER = [
    "grain",
    "h5py",
    "matplotlib",
    "orbax",
    "pyarrow",
    "safetensors",
    "scipy.stats",
]
LATER += ["scipy.special", "sklearn", "tensorflow_datasets"]  # what flags do not need
BEGIN = f"""
import contextlib, importlib, io, runpy, sys
sys.path.insert(0, "experiments")
for name in ("digits", "own_data", "softmax"):
    sys.argv = [f"experiments/{{name}}.py", "--help"]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        runpy.run_path(sys.argv[0], run_name="__main__")
    print(name, [later for later in {LATER} if later in sys.modules])
import jax
for name in {EXPERIMENTS}:
    importlib.import_module(name)
jax.config.update("jax_num_cpu_devices", 3)
print(jax.device_count())
"""


@pytest.mark.slow
def test_help_loads_little_and_importing_starts_no_devices():
    """The number of devices is set after it, by how many members there are."""
    done = command("-c", BEGIN)
    assert done.stdout.splitlines() == [
        "digits []",
        "own_data []",
        "softmax []",
        "3",
    ], done


@pytest.fixture(scope="session")
def raw_mnist(tmp_path_factory):
    """Four small IDX files whose images are their labels' stripes."""
    folder = tmp_path_factory.mktemp("mnist")
    rng = np.random.default_rng(0)
    for prefix, size in (("train", 200), ("t10k", 50)):
        label = (np.arange(size) % 10).astype(np.uint8)
        image = rng.integers(0, 60, (size, 28, 28), np.uint8)
        for i, k in enumerate(label):
            image[i, 2 * k : 2 * k + 3] += 150
        for kind, array in (("images-idx3", image), ("labels-idx1", label)):
            header = bytes([0, 0, 8, array.ndim])
            header += np.array(array.shape, ">u4").tobytes()
            path = folder / f"{prefix}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(header + array.tobytes()))
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of two classes of images, dark and bright."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("bright", 120)):
        (folder / name).mkdir()
        for i in range(60):
            image = Image.fromarray(rng.integers(low, low + 130, (9, 9, 3), np.uint8))
            image.save(folder / name / f"{i}.png")
    return folder


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name != "digits"))
        for name in TRAINING
    ],
)
def test_it_runs_and_leaves_a_run_folder(name, tmp_path, raw_mnist, photos):
    script = module(name)
    data_dir = raw_mnist if name.startswith("mnist") else None
    own = {"data": photos, "folds": 0, "learning_rate": (0.003,), **GIVEN}
    more = {"own_data": own, "mnist_speedrun": {"alone": 2}}.get(name, {})
    config = script.Config(workdir=tmp_path, data_dir=data_dir, **SETTINGS, **more)
    run = perform(script.main, config)
    assert 0 <= run.summary["test"]["accuracy"]["mean"] <= 1
    for file in ("config.json", "metrics.jsonl", "summary.json", "report.html"):
        assert (tmp_path / file).stat().st_size > 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["experiment"] == name and summary["members"] == 2
    for part in ("compile", "train", "total"):
        assert summary["seconds"][part] >= 0
    assert {"mean", "sem", "n"} == set(summary["test"]["loss"])
    assert summary["device"] and summary["versions"]["jax"]
    assert summary["claims"] == []


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_its_header_says_how_to_run_it(name):
    script = module(name)
    assert f"python experiments/{name}.py" in script.__doc__
    assert "Expect" in script.__doc__
    assert issubclass(script.Config, workshop.Config)
    assert script.__doc__.splitlines()[0].endswith("?")


def command(*flags, **environment):
    return subprocess.run(
        [sys.executable, *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_help_explains_the_flags(name, start):
    code, said, _ = start(ROOT / f"experiments/{name}.py", "--help")
    assert code == 0
    flags = ["--workdir", "--seeds"]
    if name in TRAINING:
        flags += ["--num-epochs", "--batch-size", "--data-dir"]
    for flag in flags:
        assert flag in said


@pytest.mark.slow
def test_a_script_ends_with_its_finding_and_its_report(tmp_path, start):
    flags = ["--workdir", tmp_path, "--seeds", "2", "--num-epochs", "2"]
    code, out, err = start(ROOT / "experiments/digits.py", *flags)
    assert code == 0, err
    finding, report = out.splitlines()[-2:]
    assert finding.startswith("test accuracy ") and "n = 2" in finding
    assert report == f"report: {tmp_path / 'report.html'}"
    assert "examples/s" in err and "s left" in err
    took = json.loads((tmp_path / "summary.json").read_text())["seconds"]
    code, *_ = start(ROOT / "experiments/digits.py", *flags)  # nothing is left to do
    assert json.loads((tmp_path / "summary.json").read_text())["seconds"] == took


def test_an_ensemble_of_one_is_the_mean_of_all_members():
    module("digits")  # brings slides
    from slides.digits import ensembles  # noqa: PLC0415

    logits = np.random.default_rng(0).normal(size=(4, 50, 3))
    label = np.arange(50) % 3
    sure, right = ensembles(label, logits)
    assert right[0].mean() == (logits.argmax(-1) == label).mean()
    together = (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)).mean(0)
    np.testing.assert_allclose(sure[-1], np.tile(together.max(-1), (4, 1)), atol=1e-12)
    assert not (sure[1] == sure[1, 0]).all()  # pairs differ
    shuffled = ensembles(label, logits[[2, 3, 0, 1]])[1]
    assert (shuffled.mean((1, 2)) == right.mean((1, 2))).all()


def test_directions_without_curvature_are_not_counted():
    module("learning_rate_limit")  # brings slides
    from slides.learning_rate_limit import parts  # noqa: PLC0415

    lambdas = np.array([0.0, 1.0, 2.0])
    shares = np.tile([1.0, 0.9, 0.1], (2, 5, 1))  # [R, P, D]
    figure = parts(lambdas, np.array([0.9, 1.1]), shares)
    assert "1 of 2 directions" in figure.title and "1 of 3" in figure.caption


def test_networks_that_find_the_curve_are_counted():
    module("learning_depth")  # brings slides
    from slides.learning_depth import errors  # noqa: PLC0415

    found = errors({1: np.array([0.2, 0.3]), 2: np.array([0.2, 0.01])}, 0.05)
    assert "an error below 0.05: 1 of 4." in found.caption


def test_the_caption_says_how_many_shuffled_labels_are_memorised():
    module("data_size")  # brings slides
    from slides.data_size import gaps  # noqa: PLC0415

    gap, by_heart = np.zeros((2, 3)), np.array([[100, 100, 60], [100, 98, 70]])
    caption = gaps((16, 512, 1024), gap, by_heart - 10, by_heart).caption
    assert "100, 99 and 65 %" in caption


LESSON = '''"""What is 1 + 1?

Expect 2.
"""

from dlworkshop import workshop
from dlworkshop.workshop.lesson import Figure, Lesson
from dlworkshop.verify import claims


def main(config):
    claim = claims.bounded("1 + 1 is 2", 1 + 1, equal_to=BOUND, why="counting")

    def line(axes):
        axes.plot([1, 2])

    figure = Figure("line", line, "A line", "Two points.")
    return Lesson("1 + 1 is 2", [claim], [figure])


if __name__ == "__main__":
    workshop.start(main, workshop.Config)
'''


def test_the_command_has_the_path_of_the_script(tmp_path, start, monkeypatch):
    script = tmp_path / "mine" / "sum.py"
    script.parent.mkdir()
    script.write_text(
        LESSON.replace("Expect 2.", "    python experiments/sum.py").replace(
            "BOUND", "2"
        )
    )
    monkeypatch.chdir(tmp_path)
    assert "python mine/sum.py" in start(script, "--help")[1]
    start("mine/sum.py", "--workdir", "run")
    page = (tmp_path / "run/report.html").read_text()
    assert (
        "python mine/sum.py" in page
        and "experiments/sum.py" not in page.split("The experiment")[0]
    )


@pytest.mark.parametrize(("bound", "code"), [(2, 0), (3, 1)])
def test_a_failed_claim_is_seen_in_the_terminal_the_page_and_the_code(
    tmp_path, start, bound, code
):
    script, run = tmp_path / "sum.py", tmp_path / "run"
    script.write_text(LESSON.replace("BOUND", str(bound)))
    left, out, err = start(script, "--workdir", run)
    assert left == code, err
    finding, claim, report = out.splitlines()
    stated = "1 + 1 is 2", "Doubtful, since not all claims hold: 1 + 1 is 2"
    assert finding == stated[code]
    assert claim.startswith(("holds: 1 + 1 is 2", "FAILS: 1 + 1 is 2")[code])
    assert report == f"report: {run / 'report.html'}"
    page = (run / "report.html").read_text()
    assert ("✗ fails" in page) == ('class="claim bad-claim"' in page) == bool(code)
    assert ("✓ holds" in page) == (not code)
    assert f'class="finding">{stated[code]}<' in page


def test_letters_that_a_terminal_lacks_are_escaped(tmp_path, start, monkeypatch):
    script, out = tmp_path / "sum.py", io.TextIOWrapper(io.BytesIO(), "ascii")
    script.write_text(
        LESSON.replace('"1 + 1 is 2", [', '"2 ± 0", [').replace("BOUND", "2")
    )
    monkeypatch.setattr(sys, "stdout", out)
    assert start(script, "--workdir", tmp_path / "run")[0] == 0
    out.flush()
    assert out.buffer.getvalue().startswith(b"2 \\xb1 0\nholds: ")


def test_a_lesson_leaves_the_folder_of_another_experiment_alone(tmp_path, start):
    (tmp_path / "config.json").write_text('{"experiment": "digits"}')
    script = tmp_path / "sum.py"
    script.write_text(LESSON.replace("BOUND", "2"))
    code, _, err = start(script, "--workdir", tmp_path)
    assert code == 2
    assert "contains a run of digits" in err and "--workdir" in err
    assert not (tmp_path / "summary.json").exists()


@pytest.mark.slow
def test_no_data_and_no_network_is_two_lines(tmp_path):
    done = command(
        "experiments/mnist_mlp.py",
        "--workdir",
        str(tmp_path / "run"),
        "--data-dir",
        str(tmp_path),
        # a proxy that is not there: no network, whatever this machine has
        https_proxy="http://127.0.0.1:9",
        http_proxy="http://127.0.0.1:9",
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 2
    assert "train-images-idx3-ubyte.gz" in lines[1] and "--data-dir" in lines[1]


def test_all_cores_are_used_only_where_members_divide(monkeypatch):
    seen = []
    monkeypatch.setattr(script_module.jax.config, "update", lambda *a: seen.append(a))
    monkeypatch.setattr(script_module.os, "sched_getaffinity", lambda _: {0, 1})
    for name in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    script_module.use_all_cores(8)
    script_module.use_all_cores(5)
    assert seen == [("jax_num_cpu_devices", 2)]
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    script_module.use_all_cores(8)
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "give a folder or a table with --data PATH"),
        ({"data": "nowhere/at/all"}, "nowhere/at/all is not there"),
        ({"data": ROOT / "README.md"}, "README.md has an unknown format"),
        ({"group_by": "["}, "no regular expression"),
        ({"image_size": 0}, "1 to 4096"),
        ({"num_epochs": 0}, "num_epochs is 0: give a whole number of at least 1"),
        ({"image_size": 4, "model": "cnn"}, "cannot be halved 3 times"),
        ({"shift": 1.0}, "shift is 1.0: give a number in [0, 1)"),
        ({"shift": 0.01, "image_size": 8}, "shift is 0.01, less than a pixel of 8"),
        ({"cut_out": 0.01, "image_size": 8}, "cut_out is 0.01, less than a pixel of 8"),
        ({"target": ("dark",)}, "does not need: leave it out"),
        ({"features": "vgg16"}, "need trained weights: give --weights PATH"),
        ({"weights": "vgg16.h5"}, "add --features vgg16"),
        ({"dense": (7,)}, "dense is for --model mlp or cnn, and the model is auto"),
        ({"channels": (3,), "model": "mlp"}, "is for --model cnn or resnet, and"),
    ],
)
def test_a_mistake_with_own_data_leaves_nothing(tmp_path, photos, settings, said):
    script = module("own_data")
    more = {"data": photos} if settings else {}
    config = script.Config(
        workdir=tmp_path / "run", data_dir=tmp_path / "cache", **more | settings
    )
    with pytest.raises(UserError) as raised:
        script.main(config)
    assert said in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()
    assert not list(tmp_path.glob("cache/own/.incomplete*"))


def test_epochs_of_few_rows_are_whole_passes(tmp_path, monkeypatch):
    rows = [f"{i / 7:.3f},{'ab'[i % 2]}" for i in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["x,y", *rows]))
    script, asked = module("own_data"), {}
    monkeypatch.setattr(script, "autofit", lambda _, **options: asked.update(options))
    path, cache = tmp_path / "t.csv", tmp_path / "cache"
    script.main(script.Config(data=path, data_dir=cache, target=("y",), num_epochs=5))
    assert asked["num_updates"] == 5 and asked["batch_size"] == 28


def test_a_mistake_with_own_data_is_one_line_and_exit_code_2(tmp_path, photos, start):
    (tmp_path / "photos").symlink_to(photos)
    flags = ["--data", tmp_path / "photos", "--data-dir", tmp_path / "cache"]
    code, _, err = start(ROOT / "experiments/own_data.py", *flags, "--group-by", "[")
    assert code == 2
    (line,) = err.strip().splitlines()
    assert line.startswith("error: group_by is '['")
    code, _, err = start(ROOT / "experiments/own_data.py", *flags, "--resize", "foo")
    assert code == 2
    (line,) = err.strip().splitlines()
    assert line.startswith("error: invalid choice 'foo' for argument '--resize'")


@pytest.mark.slow
def test_own_tables_have_targets_that_are_numbers_or_labels(tmp_path):
    lines = [f"{i + 0.5},{i % 7},{i % 2},{i % 3 // 2}" for i in range(90)]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["length,week,odd,third", *lines]))
    script = module("own_data")
    for target, loss in (
        (("length",), "squared_error"),
        (("odd", "third"), "binary_cross_entropy"),
    ):
        config = script.Config(
            workdir=tmp_path / loss,
            data=path,
            data_dir=tmp_path / "cache",
            target=target,
            model="logistic",
            learning_rate=(0.01,),
            weight_decay=(0.0,),
            folds=0,
            **SETTINGS,
        )
        with reports():
            run = script.main(config)
        assert run.summary["test"]["loss"]["mean"] > 0
        written = json.loads((tmp_path / loss / "config.json").read_text())
        assert written["loss"] == loss
    with pytest.raises(UserError, match="class_weights needs a target with classes"):
        script.main(dataclasses.replace(config, class_weights=True))


@pytest.mark.slow
def test_own_tables_take_class_weights_and_a_choice_of_models(tmp_path):
    lines = [f"{i % 3},{i % 3 + i / 100},{'xy'[i % 2]}" for i in range(90)]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["kind,length,letter", *lines]))
    script = module("own_data")
    config = script.Config(
        workdir=tmp_path / "mlp",
        data=path,
        data_dir=tmp_path / "cache",
        target=("kind",),
        class_weights=True,
        model="mlp",
        learning_rate=(0.01,),
        weight_decay=(0.0,),
        dropout=(0.25,),
        **SETTINGS,
    )
    with reports():
        summary = script.main(config).summary
    assert summary["model"] == "mlp" and summary["members"] == 16  # 8 folds
    assert {row["hparams"]["dropout"] for row in summary["population"]} == {0.25}
    written = json.loads((tmp_path / "mlp/config.json").read_text())
    assert written["loss"] == "weighted_cross_entropy"
    with pytest.raises(UserError, match="model is cnn, which needs images"):
        script.main(dataclasses.replace(config, model="cnn"))


def test_main_that_returns_nothing_is_told_what_to_return(tmp_path, start):
    script = tmp_path / "sum.py"
    script.write_text(LESSON.replace("return Lesson", "Lesson").replace("BOUND", "2"))
    code, out, err = start(script, "--workdir", tmp_path / "run")
    assert (code, out) == (2, "")
    assert err == (
        "error: main of sum.py returned None: return the Run of fit, or a Lesson\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "flags", "said"),
    [
        ("own_data", "--data x --batch-size 0", "batch_size is 0: give a whole num"),
        ("mnist_speedrun", "--alone 0", "alone is 0: give a whole number of at l"),
        ("halving", "--num-epochs 1", "fewer than two rungs before epoch 1"),
    ],
)
def test_a_flag_that_cannot_be_is_one_sentence_before_anything_runs(
    name, flags, said, start, tmp_path
):
    script = ROOT / f"experiments/{name}.py"
    code, out, err = start(script, *flags.split(), "--workdir", tmp_path / "run")
    assert (code, out) == (2, "") and err.startswith("error: ")
    assert said in err and err.count("\n") == 1
