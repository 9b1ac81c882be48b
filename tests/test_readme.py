"""What the README shows is what runs."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen as nn

from dlworkshop import data, fit, metrics, models
from dlworkshop.cli import COMMANDS
from tests.verify.planted import RIGHT, WRONG

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FIRST, BROUGHT, GRADIENTS = re.findall(r"```python\n(.*?)```", README, re.S)


def test_it_is_short():
    assert len(README.splitlines()) <= 200


def test_its_first_example_is_that_of_the_site(capsys):
    assert f"```python\n{FIRST}```" in (ROOT / "docs" / "index.md").read_text()
    scope: dict = {}
    exec(compile(FIRST, "README.md", "exec"), scope)
    assert scope["run"].summary["members"] == 8
    assert "the best of 2 settings" in capsys.readouterr().out


def test_what_you_bring():
    class MyNet(nn.Module):
        """Written for batches."""

        @nn.compact
        def __call__(self, x, *, train, dropout=0.1):  # [B, D]
            x = nn.relu(nn.Dense(8)(x))
            if train:  # Flax's own layer takes no rate that is traced
                keep = jax.random.bernoulli(self.make_rng("dropout"), 1 - dropout)
                x = jnp.where(keep, x / (1 - dropout), 0)
            return nn.Dense(10)(x)

    digits = data.load("digits").train
    scope = {"data": data, "fit": fit, "metrics": metrics, "models": models}
    x = digits.inputs[:200].reshape(200, 64)
    scope |= {"optax": optax, "MyNet": MyNet, "x": x, "y": digits.targets[:200]}
    exec(compile(BROUGHT, "README.md", "exec"), scope)
    run = scope["run"]
    assert run.summary["members"] == 16 and run.summary["monitor"] == "auc"
    assert set(run.hparams) == {"learning_rate", "weight_decay", "dropout"}
    assert set(run.summary["test"]) == {"top5", "auc", "loss"}
    assert run.summary["test"]["auc"]["n"] == 4


def test_the_gradient_check(assert_gradients):
    scope = {"my_loss": lambda w: (w**2).sum(), "params": [1.0, 2.0]}
    scope["params"] = jnp.array(scope["params"])
    exec(compile(GRADIENTS, "README.md", "exec"), scope)
    scope["test_my_loss"](assert_gradients)


WRITTEN = ROOT / "docs" / "lessons"  # by Sphinx; tests/test_site.py checks its links
DOCS = [page for page in sorted(ROOT.glob("docs/**/*.md")) if page.parent != WRITTEN]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *DOCS])
def test_what_a_page_links_to_is_there(page):
    path = ROOT / page
    for target in re.findall(r"\]\((?!http|figure:|claim:)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target


SCRIPTS = [path for path in sorted(ROOT.glob("scripts/**/*")) if path.is_file()]
TEXTS = [path for path in SCRIPTS if path.suffix in (".py", ".sh", ".sbatch", ".yaml")]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *DOCS, *TEXTS])
def test_the_scripts_that_a_page_names_are_there(page):
    named = r"\b(?:experiments|scripts)/[a-z0-9_/]+\.(?:py|sh|sbatch|yaml)\b"
    for target in re.findall(named, (ROOT / page).read_text()):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("name", ["digits", "mnist_mlp", "mnist_cnn", "mnist_speedrun"])
def test_every_result_has_the_command_that_makes_it(name):
    row = next(line for line in README.splitlines() if f"experiments/{name}.py" in line)
    assert "±" in row and " % " in row


def test_every_lesson_is_listed():
    listed = (ROOT / "docs" / "lessons.md").read_text()
    for page in (ROOT / "experiments" / "pages").glob("*.md"):
        assert f"| `{page.stem}.py` | " in listed, page


def test_every_command_is_described():
    text = (ROOT / "docs" / "command_line.md").read_text()
    headings = " ".join(re.findall("^## (.*)", text, re.M))
    assert set(re.findall("`([a-z]+)`", headings)) == set(COMMANDS)


def test_the_pages_count_the_planted_functions_alike():
    table = (ROOT / "docs" / "gradients.md").read_text()
    wrong, right = map(int, re.findall(r"^\| \*\*(\d+)\*\* \|", table, re.M))
    assert (wrong, right) == (len(WRONG), len(RIGHT))
    readme = " ".join(README.split())
    assert f"all of {wrong} planted errors" in readme
    assert f"on {right} difficult but correct functions" in readme
    tutorial = (ROOT / "docs" / "tutorials" / "derivatives.md").read_text()
    assert f"on {wrong + right} functions" in tutorial
