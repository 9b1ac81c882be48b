"""Changed files of data and weights: one sentence, or they are read; see `fuzz`."""

import random

import pytest

from tests.faults import fuzz


@pytest.mark.slow
def test_a_few_changes_of_each_file(tmp_path):
    tally = fuzz.Strict()
    fuzz.readers(tally, tmp_path, random.Random(1), iter(range(10 * len(fuzz.READERS))))
    names = [each.__name__ for each in fuzz.READERS]
    assert {f"{name}: one sentence" for name in names} <= tally.seen
