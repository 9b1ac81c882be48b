"""The command: what it prints, where it leaves with 1 or 2, and that it says why."""

import csv
import io
import json
import os
import re
import runpy
import subprocess
import sys
from typing import NamedTuple

import jax
import pytest
from PIL import Image

from dlworkshop import cli, data
from dlworkshop.errors import UserError
from dlworkshop.report import terminal
from dlworkshop.serve import predict
from dlworkshop.serve.evaluate import evaluate
from dlworkshop.serve.load import load
from dlworkshop.sweeps.sweep import Sweep
from dlworkshop.train.result import Run
from dlworkshop.workshop import doctor, gallery, sweeping
from tests.conftest import ROOT


def call(capsys, *args):
    """Exit code, stdout and stderr."""
    code = cli.main([str(each) for each in args])
    return code, *capsys.readouterr()


def mistake(capsys, *args) -> str:
    """The sentence of a mistake, after which nothing else is said."""
    code, out, err = call(capsys, *args)
    assert code == 2 and not out
    assert err.startswith("error: ") and err.count("\n") == 1, err
    return err


# --- sweep ---


@pytest.mark.slow
def test_a_sweep_of_a_network_in_a_file(capsys, penguins, tmp_path):
    net = tmp_path / "net.py"
    net.write_text(
        "from dlworkshop import models\n"
        "def make(width):\n"
        "    return models.mlp((width,), num_classes=3)\n"
    )
    folder = tmp_path / "found"
    flags = ["--space", "width=4", "learning_rate=1e-5,0.05", "--seeds", 2]
    flags += ["--model", f"{net}:make", "--target", "kind", "--workdir", folder]
    code, out, err = call(capsys, "sweep", penguins, *flags, "--batch-size", 8)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].split() == [
        *("trial", "learning_rate", "validation", "loss", "seeds")
    ]
    assert [line.split()[1] for line in lines[1:3]] == ["0.05", "1e-05"]
    assert "with fresh seeds 2, 3:" in out
    assert lines[-1] == f"report: {folder / 'report.html'}"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("digits", "required"),
        ("digits --space width", "give NAME=VALUE"),
        ("digits --space a=1 a=2", "contains 'a' twice"),
        ("digits --space width=8 --space depth=1", "--space is given twice: give it"),
        ("digits --space width=8 --num-epochs 1 --num_epochs=2", "--num-epochs is giv"),
        ("digits --space width=8 --model nowhere.py:make", "nowhere.py is not there"),
        ("digits --space a=1..x", "give two numbers"),
        ("digits --space a=2..1", "--space has 'a=2..1': ValueError"),
        ("minst --space width=8", "did you mean 'mnist'"),
        ("digits --space widht=8", "did you mean 'width'"),
        ("digits --space activation=rleu", "did you mean 'relu'"),
        ("digits --space depth=1.5,2", "'depth' is 1.5: give whole numbers"),
        ("digits --space width=8,0", "width is 0: give a whole number"),
        ("digits --space learning_rate=,,", "with an empty value"),
        ("digits --space a=1 --model n:x", "FILE.py:NAME"),
        ("digits --space width=8 --num-gpus 1", "engine='ray' (--engine ray): add it"),
        ("digits --space width=8 --num-trials 3", "(--sampler tpe)"),
        ("digits --space width=8..16", "(--sampler tpe)"),
    ],
)
def test_a_sweep_that_cannot_be_is_one_sentence(capsys, flags, said):
    data.load("digits")  # which says so where it is prepared first
    capsys.readouterr()
    assert said in mistake(capsys, "sweep", *flags.split())


def test_a_sampler_whose_package_is_missing_is_refused_before_a_trial(
    capsys, monkeypatch, tmp_path
):
    pytest.importorskip("optuna")
    monkeypatch.setitem(sweeping.NEEDED, "gp", "no_such_package")
    flags = "--sampler", "gp", "--num-trials", 20, "--workdir", tmp_path / "run"
    said = mistake(capsys, "sweep", "digits", "--space", "width=8..16", *flags)
    assert "--sampler gp needs no_such_package, which is not installed: pip" in said
    assert not (tmp_path / "run").exists()


# --- predict ---


def test_the_formats_hold_the_same_rows(capsys, monkeypatch, image_run, photos):
    monkeypatch.setenv("COLUMNS", "200")
    expected = list(predict.predict_files(load(image_run), [photos]))
    code, out, err = call(capsys, "predict", image_run, photos, "--format", "json")
    assert code == 0 and err == ""
    assert [json.loads(line) for line in out.splitlines()] == [
        row._asdict() for row in expected
    ]
    _, out, _ = call(capsys, "predict", image_run, photos, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["name"] for row in rows] == [row.name for row in expected]
    assert [float(row["entropy"]) for row in rows] == [row.entropy for row in expected]
    _, out, _ = call(capsys, "predict", image_run, photos)
    shown = [re.split(r"\s{2,}", line.strip()) for line in out.splitlines()]
    assert shown[0] == list(predict.Prediction._fields)
    assert shown[1:] == [
        [*row[:2], *(f"{value:.4f}" for value in row[2:5])] for row in expected
    ]


def test_a_table_in_a_file_has_a_line_for_each_row(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)

    class Row(NamedTuple):
        name: str
        prediction: str
        probability: float

    rows = [Row(f"{i}" * 40, "猫" * (5 + i), i / 7) for i in range(100)]
    terminal.as_table(rows)
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == list(Row._fields)
    assert [line.split() for line in lines] == [
        [row.name, row.prediction, f"{row.probability:.4f}"] for row in rows
    ]


def test_names_are_shown_as_they_are(capsys, image_run, photos, tmp_path):
    odd = tmp_path / "[bold]a:cat:.png"
    odd.write_bytes(next(photos.rglob("*.png")).read_bytes())
    _, out, _ = call(capsys, "predict", image_run, odd)
    names = [line[: line.index("  ")] for line in out.splitlines()[1:]]
    assert "".join(names) == str(odd)


@pytest.mark.parametrize("form", ["csv", "table", "json"])
def test_a_terminal_does_not_obey_a_name(form, capsys, image_run, photos, tmp_path):
    odd = tmp_path / "a\x1b]0;mine\x07\n.png"
    odd.write_bytes(next(photos.rglob("*.png")).read_bytes())
    _, out, _ = call(capsys, "predict", image_run, odd, "--format", form)
    assert "\x1b" not in out and "\x07" not in out
    assert len(out.splitlines()) == 1 + (form != "json") or form == "table"


def test_a_file_that_cannot_be_read_is_named_and_the_others_answered(
    capsys, image_run, photos, tmp_path
):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    good = sorted(photos.rglob("*.png"))[:2]
    files = good[0], bad, tmp_path / "none.png", good[1]
    code, out, err = call(capsys, "predict", image_run, *files, "--format", "json")
    assert code == 1
    assert [json.loads(line)["name"] for line in out.splitlines()] == list(
        map(str, good)
    )
    said = err.splitlines()
    assert (
        said[0]
        == f"skipped {bad}: cannot be read as an image: not a supported image format"
    )
    assert said[1].startswith(f"skipped {tmp_path / 'none.png'}: cannot be read")
    assert said[2:] == ["2 predicted, 2 skipped"]


def test_what_a_folder_holds_besides_is_named_and_no_failure(
    capsys, image_run, table_run, photos, penguins, tmp_path
):
    mixed, tables = tmp_path / "mixed", tmp_path / "tables"
    for folder, good in ((mixed, next(photos.rglob("*.png"))), (tables, penguins)):
        folder.mkdir()
        (folder / good.name).write_bytes(good.read_bytes())
        for name in ("README", "README.md", "README.txt"):
            (folder / name).write_text("This is mine, and nobody else's.\nOr, is it?\n")
    code, out, err = call(capsys, "predict", image_run, mixed, "--format", "json")
    assert code == 0 and len(out.splitlines()) == 1
    assert f"skipped {mixed / 'README'}: cannot be read as an image" in err
    assert f"skipped {mixed / 'README.md'}, which is of another kind" in err
    code, out, err = call(capsys, "predict", table_run, tables, "--format", "json")
    assert code == 0 and len(out.splitlines()) == 60
    assert err.count("README.txt") == 1  # not once for each of its rows
    assert f"skipped {tables / 'README.txt'}: there is no column 'length'" in err
    (tables / penguins.name).unlink()
    assert call(capsys, "predict", table_run, tables)[0] == 2


def test_what_is_done_to_a_file_of_another_size_is_said_once(
    capsys, image_run, tmp_path
):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (20, 10)).save(tmp_path / name)
    code, _, err = call(capsys, "predict", image_run, tmp_path)
    assert code == 0 and err == (
        f"{tmp_path / 'a.png'} is 20 x 10 pixels in colour, and the run learnt from 8 "
        "x 8 pixels in grey: such files are scaled until they fill the frame "
        "and cut evenly on both sides, made grey\n"
    )


def test_where_no_file_can_be_read_it_leaves_with_2(capsys, image_run, tmp_path):
    code, out, err = call(capsys, "predict", image_run, tmp_path / "none.png")
    assert code == 2 and out == ""
    (said,) = err.splitlines()
    assert said.startswith(f"skipped {tmp_path / 'none.png'}: cannot be read")


def test_an_empty_folder_is_one_sentence(capsys, image_run, tmp_path):
    code, out, err = call(capsys, "predict", image_run, tmp_path)
    assert code == 2 and out == ""
    assert (
        err == f"error: {tmp_path} has no examples: give files or folders with some\n"
    )


@pytest.mark.slow
def test_a_reader_who_has_enough_is_no_error(image_run, photos):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "dlworkshop", "predict", image_run, photos]
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(
            [*map(str, command), "--format", "json"],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=ROOT,
        )
    assert done.stderr == "" and done.returncode == 1


# --- evaluate ---


def test_evaluate_prints_what_the_run_found(capsys, image_run):
    code, out, err = call(capsys, "evaluate", image_run)
    found = evaluate(load(image_run))
    assert code == 0 and err == ""
    assert out.startswith(f"the test split of photos: {found.examples} examples\n")
    assert "2 members, mean ± standard error" in out
    assert f"{100 * found.ensemble['accuracy']:.2f} %" in out


# --- the other commands ---


def test_report_writes_the_page_anew(capsys, image_run):
    page = image_run / "report.html"
    before = page.read_text()
    page.unlink()
    assert call(capsys, "report", image_run) == (0, f"{page}\n", "")
    assert page.read_text() == before


def test_export_prints_the_path(capsys, image_run, tmp_path):
    path = image_run / "model.safetensors"
    export = "export", image_run, "--format", "safetensors"
    assert call(capsys, *export) == (0, f"{path}\n", "")
    assert path.read_bytes() == (image_run / "params.safetensors").read_bytes()
    assert call(capsys, *export, "--output", tmp_path / "x")[1] == f"{tmp_path / 'x'}\n"
    assert (tmp_path / "x").is_file()


def test_gallery_leaves_with_1_if_a_claim_fails(capsys, monkeypatch, tmp_path):
    for holds in (True, False):
        entries = [gallery.Entry("softmax", holds=holds)]
        monkeypatch.setattr(gallery, "build", lambda folder, only, e=entries: e)
        code, out, _ = call(capsys, "gallery", tmp_path)
        assert (code, out) == (not holds, f"gallery: {tmp_path / 'index.html'}\n")


def test_data_prints_the_card(capsys, photos):
    found = data.load(photos)
    capsys.readouterr()
    code, out, err = call(capsys, "data", photos)
    sizes = "{} train, {} validation, {} test".format(
        *(len(p.targets) for p in found[:3])
    )
    assert (code, err) == (0, "")
    assert out.startswith(
        f"photos: {sizes} examples of 8 x 8 x 1 numbers in 4 classes."
    )
    lines = [line.split() for line in out.splitlines()]
    for k, label in enumerate(found.classes):
        counts = [str((part.targets == k).sum()) for part in found[:3]]
        assert [*label.split(), *counts] in lines
    assert out.endswith(f"/{found.fingerprint}\n")


def test_data_says_what_was_skipped(capsys, tmp_path):
    for k in range(200):
        path = tmp_path / "many" / "ab"[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2), k).save(path)
    path.write_bytes(b"no image")
    code, out, err = call(capsys, "data", tmp_path / "many", "--data-dir", tmp_path)
    assert code == 0
    assert "\n! b/199.png: not a supported image format\n" in out
    assert (
        "Files that are no readable image: b/199.png (not a supported image format)."
        in err
    )


def test_doctor_says_what_does_not_work(capsys, monkeypatch):
    code, out, _ = call(capsys, "doctor")
    assert code == 0 and "BROKEN" not in out and "computes correctly" in out
    monkeypatch.setattr(doctor, "computes", lambda device: False)
    code, out, _ = call(capsys, "doctor")
    assert code == 1 and "BROKEN  cpu 0" in out
    assert "collectives" not in out  # one process has none


def test_doctor_leaves_with_1_where_other_processes_are_out_of_reach(
    capsys, monkeypatch
):
    def refused(*_, **__):
        raise RuntimeError("connection refused")

    monkeypatch.setattr(jax.distributed, "initialize", refused)
    place = "--coordinator", "localhost:1", "--num-processes", "2"
    code, out, err = call(capsys, "doctor", *place, "--process-id", "1")
    assert code == 1 and not out
    assert err.startswith("error: the coordinator localhost:1 cannot be reached")
    assert err.count("\n") == 1
    assert "belong together" in mistake(capsys, "doctor", *place)


def test_doctor_checks_what_processes_exchange(capsys, monkeypatch):
    everyone = [[each, each] for each in doctor.examine()]
    other = [each for _, each in everyone]
    other[0] = other[0]._replace(found="jax 0.0.1")
    other[1] = other[1]._replace(found="lacks jax", works=False)
    rows = [[first for first, _ in everyone], other]
    monkeypatch.setattr(
        doctor.processes,
        "allgather_json",
        lambda value: rows if isinstance(value, list) else [value, value],
    )
    found = {each.name: each for each in doctor.everywhere()}
    assert found["collectives"].works
    assert "sums and exchanges are right" in found["collectives"].found
    assert [name for name in found if name.startswith("process 1: ")] == [
        "process 1: versions",
        "process 1: packages",
    ]
    assert found["process 1: versions"].works is False
    # a device that adds wrongly
    monkeypatch.setattr(doctor.jnp, "sum", lambda x: x.max() + 1)
    assert doctor.show() == 1
    out = capsys.readouterr().out
    assert "BROKEN  collectives" in out and "sums or exchanges are wrong" in out


# --- mistakes ---


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "error: Expected one of {doctor, report"),
        (["predcit"], "error: Unrecognized options: predcit; Available subcommands"),
        (["predict"], "error: Missing from dlworkshop predict: RUN"),
        (["predict", "RUN"], "there are no files"),
        (["predict", "nowhere", "x.png"], "nowhere has no summary.json"),
        (["evaluate", "nowhere"], "nowhere has no summary.json"),
        (["report", "nowhere"], "'nowhere' is not a folder"),
        (["export", "RUN", "--format", "onx"], "invalid choice 'onx'"),
        (["evaluate", "RUN", "--data", "nowhere"], "nowhere is not there"),
        (["evaluate", "RUN", "--target", "kind"], "target is 'kind', which has no eff"),
        (["evaluate", "RUN", "--data", "README.md"], "has an unknown format"),
        (["evaluate", "RUN", "--data-dir", "/nowhere"], "not in /nowhere/own"),
        (["data", "minst"], "did you mean 'mnist'"),
        (["data", "minst", "--from", "."], "did you mean 'mnist'"),
        (["data", "digits", "--from", "."], "digits is part of scikit-learn, so . has"),
        (["data", "n" * 300], "is too long"),
        (["data", ""], "an argument is empty, as a shell variable that is not set"),
        (["predict", "RUN", ""], "an argument is empty"),
        (["sweep", "digits", "--space", "depth=1", "--workdir="], "--workdir is empty"),
        (
            ["export", "RUN", "--format", "safetensors", "--output", "."],
            ". cannot be w",
        ),
        (
            ["export", "RUN", "--format", "safetensors", "--output", "/"],
            "/ cannot be w",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_sentence(capsys, monkeypatch, image_run, args, said):
    monkeypatch.chdir(ROOT)
    assert said in mistake(capsys, *(image_run if a == "RUN" else a for a in args))


def test_output_to_a_closed_stream_is_discarded(monkeypatch, tmp_path):
    for name in ("stdout", "stderr"):  # None, where the shell was told >&- 2>&-
        monkeypatch.setattr(sys, name, None)
    assert cli.main(["lessons", str(tmp_path)]) == 0
    assert cli.main(["report", str(tmp_path / "nowhere")]) == 2
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "argv", ["xor.py", "--workdir", ""])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(tmp_path / "xor.py", run_name="__main__")
    assert left.value.code == 2


def test_every_command_explains_its_flags(capsys):
    for name in cli.COMMANDS:
        with pytest.raises(SystemExit) as left:
            cli.main([name, "--help"])
        assert not left.value.code
        said = capsys.readouterr().out
        assert f"usage: dlworkshop {name}" in said
        # every other command needs its run
        assert ("[RUN]" in said) == (name == "lab")


def test_the_module_is_the_command():
    # the parser draws other boxes for a terminal than for pytest
    done = subprocess.run(
        [sys.executable, "-m", "dlworkshop", "predcit"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 2 and done.stdout == ""
    commands = "doctor, report, evaluate, predict, export, gallery, slides, "
    commands += "lessons, notebooks, data, sweep, estimate, replay, lab"
    assert done.stderr == (
        f"error: Unrecognized options: predcit; Available subcommands: {commands}; "
        "For full helptext, run dlworkshop --help\n"
    )


def test_importing_the_command_loads_no_compiler():
    code = "import sys, dlworkshop.cli; print('jax' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout == "False\n"


def test_names_do_not_steer_the_terminal(capsys):
    code, out, err = call(capsys, "report", "no\x1b[2J\u202efolder")
    assert (code, out) == (2, "")
    assert "no\\x1b[2J\\u202efolder" in err and "\x1b" not in err


def test_where_there_is_no_device_one_sentence_says_so(capsys, monkeypatch):
    def fail(*args):
        raise RuntimeError("Unable to initialize backend 'cuda': no such thing\nmore")

    monkeypatch.setenv("JAX_PLATFORMS", "gpu")
    monkeypatch.setattr(doctor, "show", fail)
    said = mistake(capsys, "doctor")
    assert "JAX finds no device with JAX_PLATFORMS='gpu': unset it" in said


def test_without_a_home_folder_one_sentence_says_where_to_write(
    capsys, monkeypatch, tmp_path
):
    (tmp_path / "t.csv").write_text("x,y\n" + "1,a\n2.5,b\n" * 20)
    for name in ("HOME", "XDG_CACHE_HOME", "DLWORKSHOP_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # an unknown user id
    said = mistake(capsys, "data", tmp_path / "t.csv", "--target", "y")
    assert "no home folder is known" in said and "--data-dir" in said
    assert os.listdir(tmp_path) == ["t.csv"]


def test_a_model_in_a_file_is_read_as_python_reads_a_script(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "neighbour.py").write_text("WIDTH = 3\n")
    net = tmp_path / "net.py"
    net.write_text(
        "from __future__ import annotations\n"
        "import dataclasses\n"
        "from neighbour import WIDTH\n"
        "@dataclasses.dataclass\n"
        "class Sizes:\n"
        "    width: int = WIDTH\n"
        "def make(width):\n"
        "    return Sizes(width)\n"
    )
    make = sweeping.from_file(f"{net}:make")
    assert make(4).width == 4 and "net" not in sys.modules
    net.write_text("1 / 0")
    with pytest.raises(UserError, match="does not run: ZeroDivisionError"):
        sweeping.from_file(f"{net}:make")


def test_a_long_table_of_trials_says_how_many_there_are(capsys):
    scores = {"loss": {"mean": 0.5, "sem": None, "n": 1}}
    trials = [
        {"trial": i, "hparams": {"width": i}, "validation": scores} for i in range(12)
    ]
    run = Run(None, None, {"monitor": "loss", "population": []})
    sweeping.show(Sweep(run, trials, {}))
    out = capsys.readouterr().out.splitlines()
    assert out[11] == "the best 10 of 12 trials; the report has all"
    sweeping.show(Sweep(run, trials[:10], {}))
    assert "trials" not in capsys.readouterr().out


def test_a_line_of_json_has_no_number_that_json_does_not_know(capsys):
    nan = float("nan")
    terminal.as_json([predict.Value("a", nan, {"x": float("inf"), "y": 1.5})])
    said = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert said["prediction"] is None and said["spread"] == {"x": None, "y": 1.5}
