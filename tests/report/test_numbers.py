"""A regression's page has pictures of its errors, several labels a row each."""

import numpy as np
import pytest

from dlworkshop.learn import split_metrics
from dlworkshop.report import values
from tests.report.test_report import render


@pytest.fixture
def regression(population, edit):
    """regression(target, said, names) -> the folder of such a run."""

    def make(target, said, names=()):
        counted = np.arange(len(said)) != 5  # quarantined
        np.savez(
            population / "predictions.npz",
            target=target,
            prediction=said,
            ensemble=said[counted].mean(0),
            names=np.array(names, np.str_),
        )
        stat = {"mean": 0.5, "sem": 0.1, "n": 7}
        edit(
            population / "config.json",
            metric="mae",
            metrics={"mae": "lower", "r2": "higher"},
            units={"mae": "units of price"},
            loss="squared_error",
        )
        scores = {"mae": stat, "r2": stat, "loss": stat}
        edit(population / "summary.json", test=scores, outputs="values")
        return population

    return make


def noisy(shape, members=8, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.normal(100, 10, shape)
    return target, target + rng.normal(0, 2, (members, *shape))


def test_a_regression_has_no_confusion_and_no_calibration(regression):
    target, said = noisy((60,))
    _, page = render(regression(target, said, ["price"]))
    for title in ("Confusion", "Calibration", "Each class", "Worst mistakes"):
        assert title not in page.text
    assert page.unbalanced == []
    assert "7 of 8 models have a test MAE of 0.50 ± 0.10 units of price" in page.text
    assert "loss (nats)" not in page.text and "squared error" in page.text


def test_its_errors_are_those_of_the_arrays(regression):
    target, said = noisy((60,))
    _, page = render(regression(target, said, ["price"]))
    counted = said[np.arange(8) != 5]
    exact = np.array([float(a["value"]) for a in page.find("data")])
    for measure in (split_metrics.mae, split_metrics.rmse, split_metrics.r2):
        alone = np.mean([measure(own, target) for own in counted])
        together = measure(counted.mean(0), target)
        for value in (alone, together):
            assert np.isclose(exact, value, rtol=1e-9).any(), measure
    rmse = split_metrics.rmse(counted.mean(0), target)
    left = 100 * (1 - split_metrics.r2(counted.mean(0), target))
    title = f"Price: predictions are off by {rmse:.3f} (RMSE), {left:.3g} % of the"
    assert title.replace(f"{rmse:.3f}", f"{rmse:#.3g}") in page.text


def test_the_dots_are_the_healthy_members_mean_and_their_spread(
    regression, monkeypatch
):
    drawn = []
    monkeypatch.setattr(values, "_drawn", lambda *args: drawn.append(args) or "<svg/>")
    target, said = noisy((60,))
    render(regression(target, said, ["price"]))
    (_, _, _, true, together, spread) = drawn[0]
    counted = said[np.arange(8) != 5]
    np.testing.assert_array_equal(true, target)
    np.testing.assert_allclose(together, counted.mean(0))
    np.testing.assert_allclose(spread, counted.std(0, ddof=1))


def test_each_column_of_a_target_has_its_picture_and_errors(regression):
    target, said = noisy((60, 2))
    text, page = render(regression(target, said, ["price", "rent"]))
    for name in ("price", "rent"):
        assert f"{name.capitalize()}: predictions are off by" in page.text
        assert f"MAE of {name}" in page.text
    assert 'id="values-0-title"' in text and 'id="values-1-title"' in text


def test_a_target_that_is_an_image_has_one_picture(regression):
    target, said = noisy((20, 4, 4))
    text, page = render(regression(target, said))
    assert "All 16 numbers of a target" in page.text
    assert text.count('id="values-title"') == 1 and "values-0" not in text
    assert "MAE of target 15" in page.text  # they still fit into a table


def test_a_test_split_that_was_kept_in_part_says_so(regression, edit):
    target, said = noisy((60,))
    folder = regression(target, said)
    edit(folder / "config.json", dataset={"name": "x", "test": 1000})
    assert "The first 60 of 1,000 examples were saved." in render(folder)[1].text


def test_one_member_has_no_spread(single, edit):
    target, said = noisy((30,), members=1)
    np.savez(
        single / "predictions.npz",
        target=target,
        prediction=said,
        ensemble=said[0],
        names=np.array([], np.str_),
    )
    _, page = render(single)
    assert "spread over the members" not in page.text.lower()
    assert "The model" in page.text and "Mean of all members" not in page.text


def test_a_regression_of_which_nobody_stayed_finite(make):
    folder = make([0.1], [0, 1], quarantined=(0, 1))
    target, said = noisy((30,), members=2)
    np.savez(
        folder / "predictions.npz",
        target=target,
        prediction=said * np.nan,
        ensemble=target * np.nan,
        names=np.array([], np.str_),
    )
    assert "so there are no predictions" in render(folder)[1].text


# --- several labels ---


def label_folder(folder, target, chance, names):
    counted = np.arange(len(chance)) != 5
    np.savez(
        folder / "predictions.npz",
        target=target,
        probability=chance,
        ensemble=chance[counted].mean(0),
        names=np.array(names, np.str_),
    )
    return folder


def test_each_label_has_a_row(population):
    target = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]], np.float32)
    said = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1]], np.float32)
    chance = np.broadcast_to(0.1 + 0.8 * said, (8, 4, 3))
    _, page = render(label_folder(population, target, chance, ["cat", "dog", "owl"]))
    assert "Confusion" not in page.text and "Calibration" not in page.text
    # recall, precision, F1, area: by hand
    assert "cat 2 100.0 % 66.7 % 80.0 % 75.0 %" in page.text
    assert "dog 2 50.0 % 50.0 % 50.0 % 50.0 %" in page.text
    assert "owl 0 — 0.0 % 0.0 % —" in page.text
    assert "mean of labels 4 43.3 %" in page.text
    right = (said == target).mean()
    exact = [float(a["value"]) for a in page.find("data")]
    assert any(np.isclose(value, right) for value in exact)


def test_labels_without_names_are_numbered(population):
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, (30, 2))
    chance = rng.random((8, 30, 2))
    _, page = render(label_folder(population, target, chance, []))
    assert "label 0" in page.text and "label 1" in page.text
