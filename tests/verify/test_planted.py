"""Every planted error is found, and nothing that is right is called wrong."""

import pytest

from dlworkshop.verify import check_gradients
from tests.verify.planted import RIGHT, WRONG

LARGE = "one entry of a million"
NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] * (name == LARGE)) for name in WRONG
]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_found(name):
    case = WRONG[name]
    # transformations double what is compiled, and find what differences do not
    for roads in (("repeat",), None):
        options = {"transformations": roads, "culprits": False, **case.options}
        report = check_gradients(case.f, *case.args, **options)
        if report.verdict == "WRONG":
            return
    pytest.fail(str(report))


@pytest.mark.parametrize("name", RIGHT)
def test_it_is_not_accused(name):
    case = RIGHT[name]
    report = check_gradients(case.f, *case.args, culprits=False, **case.options)
    assert report.verdict == "right", report
