"""What the README shows is what runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
LIFTS, GRADIENTS = re.findall(r"```python\n(.*?)```", README, re.S)


def test_the_five_lifts(capsys):
    scope: dict = {}
    exec(compile(LIFTS, "README.md", "exec"), scope)
    assert scope["logits"].shape == (360, 10)
    assert scope["seen"]["loss"].shape == (9, 3)
    assert scope["run"].summary["members"] == 8
    assert "'n': 8" in capsys.readouterr().out


def test_the_gradient_check(assert_gradients):
    scope = {"my_loss": lambda w: (w**2).sum(), "params": [1.0, 2.0]}
    import jax.numpy as jnp  # noqa: PLC0415

    scope["params"] = jnp.array(scope["params"])
    exec(compile(GRADIENTS, "README.md", "exec"), scope)
    scope["test_my_loss"](assert_gradients)


def test_what_it_links_to_is_there():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("name", ["digits", "mnist_mlp", "mnist_cnn", "mnist_speedrun"])
def test_every_result_has_the_command_that_makes_it(name):
    row = next(line for line in README.splitlines() if f"experiments/{name}.py" in line)
    assert "±" in row and " % " in row


def test_it_names_every_lesson():
    lessons = {path.stem for path in (ROOT / "tests" / "lessons").glob("*.py")}
    for name in lessons - {"test_lessons"}:
        assert f"| `{name}.py` | " in README, name
