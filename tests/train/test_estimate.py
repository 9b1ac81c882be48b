"""What a run needs is known before it trains, and nothing is left behind."""

import re

import jax
import optax
import pytest

from dlworkshop import autofit, cli, estimate, fit, models
from dlworkshop.errors import UserError
from dlworkshop.train import estimation, instead
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("unreported")

MODEL = models.mlp((16,), num_classes=4)
PARAMS = 64 * 16 + 16 + 16 * 4 + 4
SETTINGS = {"seeds": 4, "num_epochs": 3, "batch_size": 16, "quiet": True}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(estimation, "SECONDS", 0.05)


@pytest.mark.slow
def test_memory_is_told_by_what_it_is_for(quadrants, tmp_path):
    alone, spread, saved, halved = (
        estimate(MODEL, quadrants, optax.adam, **SETTINGS, **more)
        for more in (
            {"devices": jax.devices()[:1]},
            {"devices": jax.devices()[:2]},
            {"devices": jax.devices()[:1], "workdir": tmp_path / "run"},
            {"devices": jax.devices()[:1], "members_at_once": 2},
        )
    )
    member = 4 * PARAMS
    splits = sum(leaf.nbytes for leaf in jax.tree.leaves(quadrants[:3]))
    # the best so far beside the parameters; two moments and a count of steps
    assert alone.memory.parameters == 4 * 2 * member
    assert alone.memory.optimizer == 4 * (2 * member + 4)
    assert splits < alone.memory.data < splits + 1e5
    assert alone.memory.activations > member
    assert spread.memory.parameters == alone.memory.parameters / 2
    assert spread.mesh == {"member": 2, "batch": 1}
    assert halved.members_at_once == 2
    assert halved.memory.parameters == alone.memory.parameters / 2
    # of everyone: what is saved, and those who wait for their turn
    assert alone.memory.copies == 0
    assert min(saved.memory.copies, halved.memory.copies) > 4 * 4 * member
    assert list(tmp_path.iterdir()) == []


def test_time_is_that_of_all_steps(quadrants):
    seen = []
    found = estimate(MODEL, quadrants, observe=seen.append, **SETTINGS)
    assert found.steps == 18 and found.at_most  # an observer may stop members
    assert not seen
    each = found.seconds
    assert each["train"] == pytest.approx(18 / found.steps_per_second)
    assert found.examples_per_second == 4 * 16 * found.steps_per_second
    assert all(each[name] > 0 for name in ("setup", "compile", "evaluate"))
    assert each["total"] == pytest.approx(sum(each.values()) / 2)
    assert fit(MODEL, quadrants, **SETTINGS).summary["steps"] == 18  # it trains again


def test_an_evaluation_that_is_long_is_counted(quadrants, monkeypatch):
    def never(*_, **__):
        pytest.fail("evaluated")

    monkeypatch.setattr(estimation, "EVALUATION", 0.0)
    monkeypatch.setattr(estimation, "evaluate_split", never)
    found = estimate(MODEL, quadrants, **SETTINGS)
    examples = 4 * quadrants.validation.num_examples + quadrants.test.num_examples
    forward = 4 * examples / found.examples_per_second / 3
    assert found.seconds["evaluate"] == pytest.approx(forward)


def test_mistakes_are_those_of_fit(quadrants):
    with pytest.raises(UserError, match="seeds"):
        estimate(MODEL, quadrants, seeds=0)
    assert not instead.is_wanted()
    with (
        instead.of_training(estimation.of_fit, ""),
        pytest.raises(UserError, match="autofit always uses the 2 minutes"),
    ):
        autofit(quadrants, minutes=2)


# --- the command ---

SCRIPT = """
import sys
from dlworkshop import data, fit, models
from neighbour import EPOCHS

if __name__ == "__main__":
    assert sys.argv[1:] == ["--seeds", "2"], sys.argv
    try:
        fit(models.logistic(), data.load("digits"), seeds=2, num_epochs=EPOCHS,
            workdir="run")
    except Exception:
        print("swallowed")
    print("trained")
"""


def call(capsys, *args):
    code = cli.main(["estimate", *map(str, args)])
    return code, *capsys.readouterr()


def test_a_script_runs_up_to_its_fit(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "neighbour.py").write_text("EPOCHS = 3\n")
    (tmp_path / "own.py").write_text(SCRIPT)
    code, out, _ = call(capsys, "own.py", "--seeds", "2")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("fit: 2 members, 27 steps of 128 examples, 4 x cpu")
    names = [re.split(r"\s{2,}", line.strip())[0] for line in lines[1:-1]]
    assert names[:3] == ["memory of a device", "parameters", "optimizer"]
    assert names[-4:] == ["setting up", "compilation", "training", "evaluation"]
    assert "first call of fit in own.py" in out and "trained" not in out
    assert "swallowed" not in out and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_experiment_takes_its_flags(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "4")
    flags = ["--workdir", tmp_path / "run", "--seeds", "2", "--num-epochs", "2"]
    flags += ["--features", "2", "--dense", "4"]
    code, out, _ = call(capsys, ROOT / "experiments/digits.py", *flags)
    assert code == 0
    assert out.startswith("digits: 2 members, 38 steps of 64 examples")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("none.py", None, "none.py cannot be read (no such file or directory)"),
        ("text.md", "what is this?", "text.md is not a Python script (invalid syntax"),
        ("idle.py", "print(1)", "idle.py ended without calling fit"),
        ("exit.py", "raise SystemExit(0)", "exit.py ended without calling fit"),
        (
            "lesson.py",
            "from dlworkshop import workshop\n"
            "def main(config): pass\n"
            "workshop.start(main, workshop.Config)",
            "lesson.py ended without calling fit",
        ),
        (
            "wrong.py",
            "from dlworkshop import fit, models\nfit(models.mlp(), None)",
            "dataset is None",
        ),
    ],
)
def test_a_script_that_cannot_be_estimated_is_one_sentence(
    tmp_path, capsys, monkeypatch, name, text, said
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "4")
    if text is not None:
        (tmp_path / name).write_text(text)
    try:
        code = cli.main(["estimate", name])
    except SystemExit as left:  # the script says it, and leaves
        code = left.code
    err = capsys.readouterr().err
    assert code == 2 and said in err
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert not (tmp_path / "runs").exists()


def test_the_flags_of_a_script_are_its_own(tmp_path, capsys):
    script = ROOT / "experiments/digits.py"
    with pytest.raises(SystemExit) as left:
        cli.main(["estimate", str(script), "--help"])
    assert not left.value.code
    assert "usage: digits.py" in capsys.readouterr().out
