"""The pytest plugin with the fixture `assert_gradients`."""

import os
import shlex
from typing import Any

import pytest

# Defaults of all checks under `--gradients=thorough`.
THOROUGH: dict[str, Any] = {
    "order": 2,
    "transformations": ("repeat", "value_and_grad", "jit", "vmap", "checkpoint"),
    "max_entries": 2048,
}


def pytest_addoption(parser):
    """Add the option `--gradients=thorough`."""
    parser.getgroup("dlworkshop").addoption(
        "--gradients",
        choices=("quick", "thorough"),
        default="quick",
        help="how assert_gradients checks: thorough adds second derivatives and "
        "comparisons under jit, vmap and checkpoint, at up to 2048 entries of an array",
    )


@pytest.fixture
def assert_gradients(request):
    """`check_gradients` as an assertion that fails with the culprit and the table.

    It takes the arguments of `dlworkshop.verify.check_gradients` and returns the
    report. It raises AssertionError if a derivative is wrong or could not be checked:

        def test_loss(assert_gradients):
            assert_gradients(loss_fn, params)

    Under `pytest --gradients=thorough` the defaults are `THOROUGH`.
    """
    how = request.config.getoption("--gradients")

    def assert_gradients(f, *args, **options):
        __tracebackhide__ = True  # the message is sufficient
        # Imported here, so that suites that do not use the fixture never load JAX.
        from dlworkshop.errors import UserError  # noqa: PLC0415
        from dlworkshop.learn.hparams import name_of  # noqa: PLC0415
        from dlworkshop.verify.gradients import check_gradients  # noqa: PLC0415

        options = (THOROUGH if how == "thorough" else {}) | options
        try:
            report = check_gradients(f, *args, **options)
        except UserError as error:
            raise UserError(str(error)) from None
        if not report.ok:
            again = f"pytest {shlex.quote(_node(request))} --gradients={how}"
            given = "".join(f", {name}={_shown(x)}" for name, x in options.items())
            call = f"check_gradients({name_of(f)}, ...{given})"
            raise AssertionError(f"{report}\nagain: {again}\n   or: {call}")
        return report

    return assert_gradients


def _node(request: Any) -> str:
    """The test, relative to the working directory."""
    config = request.config
    file, *names = request.node.nodeid.split("::")
    file = os.path.relpath(config.rootpath / file, config.invocation_params.dir)
    return "::".join([file, *names])


def _shown(x: Any) -> str:
    """An option as it is written; a dtype by its name."""
    return repr(x.__name__ if isinstance(x, type) else x)
