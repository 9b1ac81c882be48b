"""The pytest plugin with the fixture `assert_gradients`."""

from typing import Any

import pytest

# What `--gradients=thorough` asks of every check that does not say otherwise itself.
THOROUGH: dict[str, Any] = {
    "order": 2,
    "transformations": ("repeat", "jit", "vmap", "checkpoint"),
    "max_entries": 2048,
}


def pytest_addoption(parser):
    """Add the option `--gradients=thorough`."""
    parser.getgroup("dlworkshop").addoption(
        "--gradients",
        choices=("quick", "thorough"),
        default="quick",
        help="how assert_gradients checks: thorough is second derivatives as well, "
        "under jit, vmap and checkpoint, at up to 2048 entries of an array",
    )


@pytest.fixture
def assert_gradients(request):
    """`check_gradients` as an assertion: fails with the culprit and the table.

    Takes the arguments of `dlworkshop.verify.check_gradients`, returns its report,
    raises AssertionError where a derivative is wrong or could not be checked:

        def test_loss(assert_gradients):
            assert_gradients(loss_fn, params)

    Under `pytest --gradients=thorough` the defaults are `THOROUGH`.
    """
    how = request.config.getoption("--gradients")

    def assert_gradients(f, *args, **options):
        __tracebackhide__ = True  # the table says it all
        # Imported here: a suite that does not ask for the fixture never loads JAX.
        from dlworkshop.verify.gradients import check_gradients  # noqa: PLC0415

        options = (THOROUGH if how == "thorough" else {}) | options
        report = check_gradients(f, *args, **options)
        if not report.ok:
            again = f'pytest "{request.node.nodeid}" --gradients={how}'
            given = "".join(f", {name}={value!r}" for name, value in options.items())
            name = getattr(f, "__name__", "f")
            call = f"check_gradients({name}, ...{given})"
            raise AssertionError(f"\n{report}\nagain: {again}\n   or: {call}")
        return report

    return assert_gradients
