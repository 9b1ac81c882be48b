"""Transfer: mistakes are said before the work, in one line."""

from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "experiments/vgg16_transfer.py"


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--seeds", 3, "seeds is 3, too few for a claim about seeds: give at least 5"),
        ("--num-examples", 0, "num_examples is 0: give a whole number of at least 1"),
        ("--data", "nowhere/at/all", "nowhere/at/all is not there"),
    ],
)
def test_a_mistake_is_said_before_the_work(flag, value, said, tmp_path, start):
    code, _, err = start(SCRIPT, "--workdir", tmp_path / "run", flag, value)
    assert code == 2
    (line,) = err.strip().splitlines()
    assert line.startswith("error: ") and said in line
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_there_are_said_in_one_line(tmp_path, start):
    code, _, err = start(SCRIPT, "--workdir", tmp_path, "--weights", "nowhere.h5")
    assert code == 2
    assert err.startswith("error: the weights nowhere.h5 cannot be read")
