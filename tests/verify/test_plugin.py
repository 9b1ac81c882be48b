"""The fixture in somebody else's test suite, run by a pytest of its own."""

import importlib.metadata
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SOON_THERE

ROOT = Path(__file__).parents[2]

SUITE = """
import jax, jax.numpy as jnp, numpy as np, pytest

def loss(params):
    return jnp.sum(jnp.tanh(params["hidden"]) @ params["last"])

@jax.custom_vjp
def wrong_loss(params):
    return loss(params)

def backward(params, cotangent):
    grads = jax.grad(loss)(params)
    grads["hidden"] *= 1 + 1e-5
    return ({name: cotangent * grad for name, grad in grads.items()},)

wrong_loss.defvjp(lambda params: (loss(params), params), backward)
PARAMS = {"hidden": np.ones((3, 2), np.float32), "last": np.ones(2, np.float32)}

def test_right(assert_gradients):
    assert assert_gradients(loss, PARAMS).ok

def test_wrong(assert_gradients):
    assert_gradients(wrong_loss, PARAMS)

def test_wrong_but_tolerated(assert_gradients):
    assert_gradients(wrong_loss, PARAMS, tolerance=1e-4)

def test_a_mistake(assert_gradients):
    assert_gradients(loss, PARAMS, tolerance=0)

@pytest.mark.parametrize("f", [jnp.sin, jnp.exp, jnp.tanh], ids=lambda f: f.__name__)
def test_my_functions(assert_gradients, f):
    assert_gradients(f, np.linspace(-1.0, 1.0, 3), modes=("rev",))

@jax.custom_vjp
def right_once(x):
    return jnp.sin(x)

right_once.defvjp(
    lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(jax.lax.stop_gradient(x)),)
)

def test_right_once(assert_gradients):
    assert_gradients(right_once, 0.5)
"""

NO_JAX = """
import sys

def test_nothing_of_jax_is_loaded():
    assert "dlworkshop.verify.plugin" in sys.modules
    assert not {"jax", "numpy"} & set(sys.modules)
"""


def run_pytest(folder, text, *flags, inside="."):
    (folder / "test_user.py").write_text(text)
    known = importlib.metadata.entry_points(group="pytest11", name="dlworkshop")
    load = [] if known else ["-p", "dlworkshop.verify.plugin"]
    off = ["-p", "no:cacheprovider", "-p", "no:jaxtyping"]  # the latter loads NumPy
    command = [sys.executable, "-m", "pytest", "-q", *off, *load, *flags]
    env = {**os.environ, **SOON_THERE, "COLUMNS": "100"}
    env |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    env.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(
        command,
        cwd=folder / inside,
        env=env,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_fixture_passes_and_fails_as_it_should(tmp_path):
    code, output = run_pytest(tmp_path, SUITE)
    assert code == pytest.ExitCode.TESTS_FAILED, output
    assert "2 failed, 6 passed" in output, output
    assert "UserError: tolerance is 0" in output, output
    assert "gradients.py" not in output and "errors.py" not in output, output
    assert "FAILED test_user.py::test_wrong" in output, output
    assert "params['hidden']" in output and "WRONG" in output, output
    assert "culprit: custom_vjp of wrong_loss at test_user.py:" in output, output
    assert "again: pytest test_user.py::test_wrong --gradients=quick" in output
    assert "test_wrong - AssertionError: autodiff and " in output, output
    assert "or: check_gradients(wrong_loss, ...)" in output and "seed 0" in output


AWKWARD = """
import functools
import jax, numpy as np, pytest

def half(scale, x):
    return scale * x - jax.lax.stop_gradient(scale * x / 2)

@pytest.mark.parametrize("name", ["$(a) 'b' \\"c\\""])
def test_it(assert_gradients, name):
    f = functools.partial(half, 2.0)
    assert_gradients(f, 0.5, dtype=np.float64, culprits=False)
"""


def test_the_line_to_reproduce_can_be_pasted(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "pytest.ini").touch()
    _, output = run_pytest(tmp_path, AWKWARD, "../test_user.py", inside="inside")
    line = output.partition("again: pytest ")[2].partition("\n")[0]
    node, flag = shlex.split(line)
    assert node.startswith("../test_user.py::test_it["), output
    assert node.endswith("[$(a) 'b' \"c\"]") and flag == "--gradients=quick", output
    assert "check_gradients(half, ..., dtype='float64', culprits=False)" in output


@pytest.mark.slow
def test_the_thorough_form_sees_second_derivatives(tmp_path):
    code, output = run_pytest(
        tmp_path, SUITE, "--gradients=thorough", "-k", "right", "-W", "error"
    )
    assert code == pytest.ExitCode.TESTS_FAILED, output
    assert "1 failed, 1 passed" in output and "test_right_once" in output, output
    assert "d/d(params)" in output and "--gradients=thorough" in output, output


def test_a_suite_without_it_never_loads_jax(tmp_path):
    code, output = run_pytest(tmp_path, NO_JAX)
    assert code == pytest.ExitCode.OK, output
