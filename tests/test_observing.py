"""The recipes of docs/observing.md do what they say."""

import ast
import logging
import re
from pathlib import Path

import numpy as np
import pytest

PAGE = (Path(__file__).parent.parent / "docs/observing.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
ELSEWHERE = "wandb", "mlflow"  # services that are not here


def block(word: str) -> str:
    (found,) = [text for text in BLOCKS if word in text]
    return found


def execute(word: str, folder, monkeypatch) -> dict:
    monkeypatch.chdir(folder)
    names: dict = {}
    exec(compile(block(word), "docs/observing.md", "exec"), names)
    return names


@pytest.mark.parametrize("text", BLOCKS, ids=lambda text: text.split()[1])
def test_it_is_python_and_complete(text):
    """Each block can be copied by itself: every name is made in it, or built in."""
    tree = ast.parse(text)
    made = {"__name__", *dir(__builtins__), *__builtins__}
    for node in ast.walk(tree):
        if isinstance(node, ast.alias):
            made.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, ast.arg | ast.FunctionDef):
            made.add(node.arg if isinstance(node, ast.arg) else node.name)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            made.add(node.id)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert used <= made


def test_every_block_is_run_or_known_not_to_be():
    run = "observers.tensorboard", "successive_halving(", "def good_enough", "imsave"
    run += "population_based", "import optuna", "basicConfig"
    assert all(any(word in text for word in (*run, *ELSEWHERE)) for text in BLOCKS)


@pytest.mark.slow  # as in tests/test_bring_your_own.py, and so is Optuna
def test_tensorboard(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    execute("observers.tensorboard", tmp_path, monkeypatch)
    (file,) = (tmp_path / "runs/board").iterdir()
    content = file.read_bytes()
    for tag in (
        b"loss/train/member_0",
        b"loss/train/mean",
        b"accuracy/validation/mean",
    ):
        assert tag in content


def test_members_are_halved(tmp_path, monkeypatch, capsys):
    run = execute("successive_halving(", tmp_path, monkeypatch)["run"]
    steps = sorted(row["steps"] for row in run.summary["population"])
    epoch = run.summary["steps"] // 9
    assert steps == [epoch] * 24 + [3 * epoch] * 8 + [9 * epoch] * 4
    said = capsys.readouterr().out
    assert "32 stopped early" in said and "4 finished" in said


def test_members_are_copied(tmp_path, monkeypatch):
    names = execute("population_based", tmp_path, monkeypatch)
    run, schedules = names["run"], names["schedules"]
    assert schedules.shape == (10, 4) and run.chosen.sum() == 4
    assert schedules[-1].tolist() == run.hparams["learning_rate"][run.chosen].tolist()
    changes = schedules[1:] / schedules[:-1]  # by the factor at most, and some did
    assert (changes != 1).any() and (abs(np.log(changes)) < np.log(1.25) + 1e-6).all()


def test_members_are_stopped(tmp_path, monkeypatch, capsys):
    run = execute("def good_enough", tmp_path, monkeypatch)["run"]
    assert run.summary["steps"] < 50 * 9
    assert "3 stopped early" in capsys.readouterr().out


def test_pictures(tmp_path, monkeypatch):
    execute("imsave", tmp_path, monkeypatch)
    names = sorted(path.suffix for path in (tmp_path / "runs/weights").iterdir())
    assert names == [".png", ".png"]


@pytest.mark.slow
def test_optuna_prunes(tmp_path, monkeypatch):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = execute("import optuna", tmp_path, monkeypatch)
    trials = names["study"].trials
    states = [trial.state.name for trial in trials]
    assert len(trials) == 6 and set(states) == {"COMPLETE", "PRUNED"}
    for trial in trials:
        epochs = sorted(trial.intermediate_values)
        assert (epochs == [1, 2, 3]) or trial.state.name == "PRUNED"
    assert set(names["best"]) == {"width", "learning_rate"}


def test_messages(tmp_path, monkeypatch):
    library = logging.getLogger("dlworkshop")
    before = library.level
    try:
        execute("basicConfig", tmp_path, monkeypatch)
        assert library.getEffectiveLevel() == logging.INFO
    finally:
        library.setLevel(before)
