"""What the tests of training share."""

import pytest

from dlworkshop.train.programs import Programs


@pytest.fixture
def sizes(monkeypatch):
    """The sizes of the groups that are trained, one for each call."""
    seen, chunk = [], Programs.chunk

    def watched(self, population, *args):
        seen.append(len(population.status))
        return chunk(self, population, *args)

    monkeypatch.setattr(Programs, "chunk", watched)
    return seen
