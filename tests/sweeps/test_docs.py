"""The examples of docs/sweeps.md run, with fewer values than are printed."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent.parent / "docs/sweeps.md").read_text()
GRID, SAMPLED = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unreported")]


def execute(text, tmp_path, monkeypatch, **fewer):
    """The names of a block that was run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    fewer['    workdir="runs/'] = "    # "
    for shown, run in fewer.items():
        assert shown in text
        text = text.replace(shown, run)
    names: dict = {}
    exec(compile(text, "docs/sweeps.md", "exec"), names)
    return names["found"]


def test_a_grid(tmp_path, monkeypatch, capsys):
    fewer = {"[16, 64]": "[16]", "[1, 2]": "1", "jax.nn.relu, ": ""}
    found = execute(GRID, tmp_path, monkeypatch, **fewer)
    assert len(found.trials) == 3
    assert found.trials[0]["hparams"]["learning_rate"] == 0.01
    said = capsys.readouterr().out
    assert "the best of 3 trials by validation loss" in said


def test_a_sampler(tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    fewer = {"num_trials=24": "num_trials=2", "trials_at_once=8": "trials_at_once=2"}
    fewer |= {"[32, 128]": "[128]"}
    found = execute(SAMPLED, tmp_path, monkeypatch, **fewer)
    assert len(found.trials) == 2
