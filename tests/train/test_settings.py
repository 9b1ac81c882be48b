"""Which setting of a run is the best by validation."""

import pytest

from dlworkshop.errors import UserError
from dlworkshop.train.settings import check_survived, ranked


def rows(monitor, better, *scores):
    """The settings of members with a rate, what is monitored and a loss, ranked."""
    members = [
        {
            "hparams": {"learning_rate": rate},
            "status": "finished" if value is not None else "quarantined",
            "validation": {monitor: value, "loss": loss},
        }
        for rate, value, loss in scores
    ]
    return ranked(members, monitor, better)


def test_who_reads_nothing_right_is_not_taken_for_unknown():
    scores = (1.0, None, None), (0.1, 0.0, 3.0), (0.2, 0.0, 2.0)
    found = rows("accuracy", "higher", *scores)
    assert [row["hparams"]["learning_rate"] for row in found] == [0.2, 0.1, 1.0]
    assert found[0]["validation"]["accuracy"]["n"] == 1
    assert found[-1]["validation"]["accuracy"]["n"] == 0


def test_a_lower_error_is_better():
    scores = (0.1, 3.0, 1.0), (0.2, 2.0, 5.0), (0.3, 4.0, 0.0)
    found = rows("rmse", "lower", *scores)
    assert [row["validation"]["rmse"]["mean"] for row in found] == [2.0, 3.0, 4.0]


def test_a_lone_survivor_does_not_win():
    scores = (1e20, None, None), (1e20, 0.99, 0.1), (0.1, 0.9, 0.3), (0.1, 0.8, 0.4)
    found = rows("accuracy", "higher", *scores)
    assert [row["hparams"]["learning_rate"] for row in found] == [0.1, 1e20]
    assert [row["finite"] for row in found] == [1.0, 0.5]


def test_settings_that_nobody_survives_are_one_sentence():
    with pytest.raises(UserError, match="no member of any setting stayed finite"):
        check_survived(rows("loss", "lower", (1.0, None, None))[0])
