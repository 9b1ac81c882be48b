"""The pytest plugin: `assert_gradients`, for anybody's own tests."""

import pytest


@pytest.fixture
def assert_gradients():
    """`check_gradients` as an assertion: fails with the table of all parameters.

    Takes the arguments of `dlworkshop.verify.check_gradients`, returns its report,
    raises AssertionError where a gradient is wrong or could not be checked:

        def test_loss(assert_gradients):
            assert_gradients(loss_fn, params)
    """

    def assert_gradients(f, params, **options):
        __tracebackhide__ = True  # the table says it all
        # Imported here: a suite that does not ask for the fixture never loads JAX.
        from dlworkshop.verify.gradients import check_gradients  # noqa: PLC0415

        report = check_gradients(f, params, **options)
        if not report.ok:
            raise AssertionError(f"\n{report}")
        return report

    return assert_gradients
