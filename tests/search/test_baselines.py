"""What any network is told beside: the same numbers as scikit-learn's own scores."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dlworkshop import data
from dlworkshop.search import baselines, task_of

RNG = np.random.default_rng(0)
X = RNG.normal(2, 3, (300, 4)).astype(np.float32)


def both(dataset):
    return [
        np.concatenate([getattr(split, name) for split in dataset[:2]])
        for name in ("inputs", "targets")
    ]


def test_classes(monkeypatch):
    dataset = data.from_arrays(X, (X[:, 0] + RNG.normal(0, 3, 300) > 2).astype(int))
    monkeypatch.setattr(baselines, "PIECE", 7)
    found = baselines.baselines(dataset, task_of(dataset), 1.0)
    x, y = both(dataset)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
    wanted = model.score(dataset.test.inputs, dataset.test.targets)
    assert found["logistic regression"]["accuracy"] == pytest.approx(wanted)
    most = np.bincount(y).argmax()
    share = (dataset.test.targets == most).mean()
    assert found["commonest class"]["accuracy"] == pytest.approx(share)
    monkeypatch.setattr(baselines, "MOST_NUMBERS", 400)
    found = baselines.baselines(dataset, task_of(dataset), 1.0)
    assert "logistic regression (of 145 examples)" in found


def test_numbers():
    dataset = data.from_arrays(X, X @ np.float32([1, 2, 0, 0]) + 100)
    found = baselines.baselines(dataset, task_of(dataset), 10.0)
    x, y = both(dataset)
    model = make_pipeline(StandardScaler(), Ridge()).fit(x, y)
    wanted = model.score(dataset.test.inputs, dataset.test.targets)
    assert found["linear regression"]["r2"] == pytest.approx(wanted, abs=1e-5)
    off = dataset.test.targets - y.mean()
    rmse = 10 * np.sqrt((off**2).mean())  # in units that are a tenth
    assert found["mean of train"]["rmse"] == pytest.approx(rmse, rel=1e-5)


def test_labels_of_which_one_is_always_so():
    labels = np.stack([X[:, 0] > 2, X[:, 1] > 2, np.ones(300, bool)], 1)
    dataset = data.from_arrays(X, labels)
    found = baselines.baselines(dataset, task_of(dataset), 1.0)
    assert found["logistic regression"]["accuracy"] > 0.9
    assert 1 / 3 < found["commonest labels"]["accuracy"] < 0.9


def test_labels_of_which_all_are_always_so_until_the_test():
    labels = np.stack([X[:, 0] > 9, X[:, 0] > 9], 1)
    test = X, np.stack([X[:, 0] > 2, X[:, 1] > 2], 1)
    dataset = data.from_arrays(X, labels, test=test)
    found = baselines.baselines(dataset, task_of(dataset), 1.0)
    assert found["logistic regression"] == found["commonest labels"]
