"""Of a damaged or hostile run folder nothing comes but one sentence, or what is right.

One file is changed in one place. Where the digests are as they were, whatever still
works must give the same; a forger may leave them out, and then nothing but a sentence
may be raised.
"""

import contextlib
import io
import json
import os
import random
import shutil
import tracemalloc
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

from dlworkshop import cli, data, fit, models, report, run_files
from dlworkshop.data.archive import Arrays
from dlworkshop.errors import UserError
from dlworkshop.serve.load import load
from dlworkshop.serve.predict import predict_files
from tests.faults.mutate import mutated

FILES = ["config.json", "summary.json", "metrics.jsonl", "data_card.json"]
FILES += ["preprocessing.json", "params.safetensors", "predictions.npz"]


def again(photos, workdir):
    """The run of `image_run`, once more."""
    return fit(
        models.mlp((8,), num_classes=4),
        data.load(photos),
        hparams={"learning_rate": 0.03},
        seeds=2,
        num_epochs=2,
        batch_size=8,
        devices=jax.devices()[:1],
        workdir=workdir,
    )


def reported(folder, photos):
    del photos
    text = report.write(folder).read_text()
    return text.partition('id="configuration"')[0]  # what was derived may differ


def predicted(folder, photos):
    return list(predict_files(load(folder), sorted(photos.rglob("*.png"))[:3]))


def history(folder, photos):
    run, image = load(folder), data.load(photos).test.inputs
    return {n: run.history[n].tolist() for n in run.history.names}, run.predict(image)


def resumed(folder, photos):
    run = again(photos, folder)
    table = {k: run.summary[k] for k in ("test", "validation", "population", "steps")}
    return table, [np.asarray(leaf) for leaf in jax.tree.leaves(run.params)]


WAYS = {"report": reported, "predict": predicted, "load": history, "resume": resumed}


def equal(one, two):
    leaves = [jax.tree.leaves(each) for each in (one, two)]
    return len(leaves[0]) == len(leaves[1]) and all(
        np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind == "f")
        for a, b in zip(*leaves, strict=True)
    )


@pytest.fixture(scope="module")
def whole(image_run, photos, tmp_path_factory):
    """The folder, with what each way makes of it."""
    folder = tmp_path_factory.mktemp("faults") / "run"
    shutil.copytree(image_run, folder)
    return folder, {name: way(folder, photos) for name, way in WAYS.items()}


def attack(folder: Path, want, photos, seed: int, forged: bool, scratch: Path) -> str:
    """Change one file by a seed and use the folder: what came of it."""
    rng = random.Random(seed)
    workdir = scratch / "run"
    shutil.rmtree(workdir, ignore_errors=True)
    shutil.copytree(folder, workdir)
    way = rng.choice(sorted(WAYS))
    files = [workdir / name for name in FILES]
    if way == "resume":
        files += sorted(p for p in (workdir / "checkpoints").rglob("*") if p.is_file())
        if rng.random() < 0.5:
            (workdir / "summary.json").unlink()  # so that the checkpoint is needed
            files.remove(workdir / "summary.json")
    file = rng.choice(files)
    content = mutated(file, rng)
    same = content == file.read_bytes()
    file.write_bytes(content)
    if forged:
        with contextlib.suppress(ValueError, OSError, AttributeError):
            summary = json.loads((workdir / "summary.json").read_bytes())
            summary.pop("sha256", None)
            (workdir / "summary.json").write_text(json.dumps(summary))
    what = f"{way} with seed {seed} in {file.relative_to(workdir)}"
    try:
        found = WAYS[way](workdir, photos)
    except UserError as error:
        assert "\n" not in str(error), what
        assert not same or forged, what
        return "refused"
    except Exception as error:
        error.add_note(what)
        raise
    if not forged:
        assert equal(found, want[way]), what
    return "used"


@pytest.mark.parametrize(
    "forged",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["damaged", "forged"],
)
def test_one_sentence_or_what_is_right(forged, whole, photos, tmp_path):
    folder, want = whole
    found = [
        attack(folder, want, photos, seed, forged, tmp_path)
        for seed in range(24 * forged, 24 * forged + 16)
    ]
    assert {"refused", "used"} == set(found)


@pytest.mark.parametrize("how", ["cut", "missing"])
def test_predictions_do_not_need_the_log(how, whole, photos, tmp_path):
    folder = shutil.copytree(whole[0], tmp_path / "run")
    log = folder / "metrics.jsonl"
    content = log.read_bytes()
    log.unlink()
    if how == "cut":
        log.write_bytes(content[: len(content) // 2])
    run = load(folder)
    assert equal(predicted(folder, photos), whole[1]["predict"])
    for use in (lambda: run.history.names, lambda: report.write(folder)):
        with pytest.raises(UserError, match="remove the checkpoints and run the same"):
            use()
    with pytest.raises(UserError, match="remove the checkpoints to train anew"):
        again(photos, folder)
    shutil.rmtree(folder / "checkpoints")  # as it says
    again(photos, folder)
    assert log.read_bytes() == content


def test_values_are_not_told_in_other_units(price_run, tmp_path):
    """The units of a table's target are in preprocessing.json."""
    folder = shutil.copytree(price_run, tmp_path / "run")
    (folder / "preprocessing.json").unlink()
    with pytest.raises(UserError, match=r"preprocessing.json is missing: run the same"):
        load(folder)


def test_other_predictions_are_not_drawn(whole, tmp_path):
    folder = shutil.copytree(whole[0], tmp_path / "run")
    with np.load(folder / "predictions.npz") as file:
        arrays = dict(file)
    np.savez(folder / "predictions.npz", **arrays | {"loss": 0 * arrays["loss"]})
    with pytest.raises(UserError, match="it was changed since the run wrote it"):
        report.write(folder)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith("json")])
@pytest.mark.parametrize("kind", ["pipe", "folder", "large"])
def test_what_is_no_regular_file_is_not_waited_for(kind, name, whole, tmp_path):
    folder = shutil.copytree(whole[0], tmp_path / "run")
    (folder / name).unlink()
    if kind == "pipe":
        os.mkfifo(folder / name)
    elif kind == "folder":
        (folder / name).mkdir()
    else:  # of 36 TiB, without a byte on the disk
        with (folder / name).open("wb") as file:
            file.truncate(1 << 40)
    with pytest.raises(UserError, match=name):
        report.write(folder)
        list(predict_files(load(folder), []))


@pytest.mark.parametrize("command", ["report", "evaluate", "predict", "export"])
def test_commands_leave_with_2_and_one_line(command, whole, photos, tmp_path, capsys):
    folder = shutil.copytree(whole[0], tmp_path / "run")
    (folder / "summary.json").write_text("[" * 100_000)
    more = {"predict": [str(photos)], "export": ["--format", "onnx"]}
    assert cli.main([command, str(folder), *more.get(command, [])]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_report_for_which_there_is_no_room(whole, tmp_path, capsys, full_disk):
    folder = shutil.copytree(whole[0], tmp_path / "run")
    with full_disk(100):
        assert cli.main(["report", str(folder)]) == 2
    assert capsys.readouterr().err == f"error: {folder}/report.html: File too large\n"


def test_an_array_larger_than_its_file_takes_no_memory(tmp_path):
    path, file = tmp_path / "predictions.npz", io.BytesIO()
    np.save(file, np.zeros(3, np.int32))
    small = b"'shape': (3,), }" + 9 * b" "
    assert small in file.getvalue()
    large = file.getvalue().replace(small, b"'shape': (9999999993,), }")  # 40 GB
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("label.npy", large)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"bytes for .9999999993. of int32"):
            Arrays(path)["label"]
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_a_file_that_is_too_large_is_not_read(whole, tmp_path):
    folder = shutil.copytree(whole[0], tmp_path / "run")
    size = run_files.MOST_BYTES + 1
    os.truncate(folder / "data_card.json", size)
    with pytest.raises(UserError, match=f"it has {size:,} bytes, more than"):
        run_files.read(folder, "data_card.json")


def test_a_log_may_be_larger_than_the_other_files(tmp_path, monkeypatch):
    monkeypatch.setattr(run_files, "MOST_BYTES", 10)
    for name in ("metrics.jsonl", "answers.json"):
        (tmp_path / name).write_bytes(b"x" * 11)
    assert run_files.contents(tmp_path / "metrics.jsonl") == b"x" * 11
    with pytest.raises(UserError, match="it has 11 bytes, more than"):
        run_files.contents(tmp_path / "answers.json")


def test_a_figure_needs_a_file_and_nothing_else():
    figure = {"file": "a.svg"}
    content = json.dumps({"figures": [figure]}).encode()
    parsed = run_files.parsed(content, "summary.json", run_files.schema.Summary)
    assert parsed["figures"] == [figure]


@pytest.mark.parametrize(
    ("entry", "value"),
    [("figures", [{"caption": "x"}]), ("figures", ["a.svg"]), ("members", -1)],
)
def test_an_entry_of_another_kind_is_named(entry, value):
    content = json.dumps({entry: value}).encode()
    with pytest.raises(UserError, match=f"is not valid .*{entry}"):
        run_files.parsed(content, "summary.json", run_files.schema.Summary)
