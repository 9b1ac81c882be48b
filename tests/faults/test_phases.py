"""The phases of a run in which `make torture` sends signals."""

import pytest

from tests.faults import phases


@pytest.mark.parametrize("phase", phases.PHASES)
def test_the_place_of_a_phase_is_there(phase):
    owner, name = phases.places(phase)
    assert callable(getattr(owner, name))
