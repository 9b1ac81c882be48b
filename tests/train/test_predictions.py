"""What is kept of the test split is what the members say, by what outputs mean."""

import dataclasses

import jax
import numpy as np
import pandas
import pytest
import scipy.special

from dlworkshop import data, fit, load_run, losses, models
from dlworkshop.errors import UserError
from dlworkshop.learn.step import Evaluated
from dlworkshop.report import figures
from dlworkshop.run_files import read
from dlworkshop.serve.export import ensemble
from dlworkshop.train import predictions
from dlworkshop.types import Batch, Dataset
from tests.conftest import make_dataset

pytestmark = pytest.mark.usefixtures("unreported")


def arrays(path):
    with np.load(path / "predictions.npz", allow_pickle=False) as found:
        return dict(found)


@pytest.fixture(scope="module")
def sums():
    x = np.random.default_rng(0).normal(size=(80, 3))
    return data.from_arrays(x, np.stack([x.sum(1), x[:, 0]], 1), name="sums")


def train(dataset, tmp_path, outputs=2, loss=losses.squared_error, **options):
    return fit(
        models.mlp((4,), num_classes=outputs),
        dataset,
        hparams={"learning_rate": [0.01, 0.03]},
        batch_size=16,
        loss=loss,
        devices=jax.devices()[:1],
        workdir=tmp_path,
        quiet=True,
        **options,
    )


@pytest.fixture(scope="module")
def swept(sums, tmp_path_factory):
    """A run of two settings."""
    return train(sums, tmp_path_factory.mktemp("swept"))


def test_values_are_kept_as_predict_says_them(sums, swept):
    run, found = swept, arrays(swept.workdir)
    said = run.predict(sums.test.inputs)
    np.testing.assert_allclose(found["prediction"], said, atol=1e-6)
    (best,) = run.summary["settings"][0]["members"]  # not mixed with others
    np.testing.assert_allclose(found["ensemble"], said[best], atol=1e-6)
    np.testing.assert_array_equal(found["target"], sums.test.targets)
    mae = np.abs(found["prediction"][best] - found["target"]).mean()
    assert mae == pytest.approx(run.summary["test"]["mae"]["mean"], rel=1e-5)


def test_an_evaluation_and_a_file_are_of_the_best_setting(sums, swept):
    (best,) = swept.summary["settings"][0]["members"]
    assert np.flatnonzero(swept.chosen).tolist() == [best]
    found, alone, both = (
        swept.evaluate(sums.test, members) for members in (None, [best], [0, 1])
    )
    assert swept.evaluate(sums.test, swept.chosen).scores == found.scores
    assert found.members == 1 and both.members == 2
    assert found.scores == alone.scores and found.ensemble == alone.ensemble
    assert "the best of 2 settings by validation loss" in found.setting
    assert not alone.setting and both.ensemble != found.ensemble
    said = ensemble(swept)(sums.test.inputs)
    np.testing.assert_allclose(said, swept.predict(sums.test.inputs)[best], atol=1e-5)
    for who in ([2], [True], [False, False]):
        with pytest.raises(
            UserError, match=r"members is \[.*: .* some of 0 to 1, or a"
        ):
            swept.evaluate(sums.test, who)
    lost = [row | {"finite": 0.0} for row in swept.summary["settings"]]
    nobody = dataclasses.replace(swept, summary=swept.summary | {"settings": lost})
    with pytest.raises(
        UserError, match=r"no setting .* finite validation loss, so none"
    ):
        nobody.evaluate(sums.test)
    assert nobody.evaluate(sums.test, [0]).members == 1


def test_columns_and_classes_are_known_by_their_names(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    names = np.where(x[:, 0] > 0, "yes", "no")
    frame = pandas.DataFrame(x, columns=["a", "b", "c"])
    dataset, options = data.from_arrays(frame, names), {"batch_size": 16, "quiet": True}
    trained = fit(models.logistic(2), dataset, workdir=tmp_path, **options)
    number = (names == "yes").astype(int)
    expected = trained.evaluate(Batch(x, number))
    for run in (trained, load_run(tmp_path)):
        other = frame[["c", "a", "b"]]
        np.testing.assert_array_equal(run.predict(other), run.predict(x))
        np.testing.assert_array_equal(run.predict(x.astype(">f4")), run.predict(x))
        for targets in (names, names.tolist(), pandas.Series(names), number.tolist()):
            assert run.evaluate(Batch(other, targets)).scores == expected.scores
        with pytest.raises(UserError, match="the class 'perhaps', which is none"):
            run.evaluate(Batch(x, np.where(x[:, 0] > 0, "yes", "perhaps")))
        with pytest.raises(
            UserError, match=r"bool .*, but classes have integer labels"
        ):
            run.evaluate(Batch(x, names == "yes"))
        for odd in (frame[["a", "b"]], frame.rename(columns={"a": "z"})):
            with pytest.raises(UserError, match=r"learnt from \['a', 'b', 'c'\]: give"):
                run.predict(odd)
    true = fit(models.logistic(2), data.from_arrays(x, names == "yes"), **options)
    found = (true.evaluate(Batch(x, each)) for each in (names == "yes", number))
    assert len({str(each.scores) for each in found}) == 1
    with pytest.raises(UserError, match="the run did not learn from one"):
        true.predict(frame)


def test_a_list_is_one_array_and_a_history_lists_its_curves(sums, swept):
    rows = sums.test.inputs[:3]
    said = swept.predict(rows.tolist())
    np.testing.assert_allclose(said, swept.predict(rows), atol=1e-6)
    assert list(swept.history) == swept.history.names
    with pytest.raises(UserError, match="unknown curve '0'"):
        swept.history[0]
    with pytest.raises(UserError, match="the batch of inputs is no array"):
        swept.predict([[1.0], [1.0, 2.0]])


def test_what_is_said_of_a_run_is_of_its_best_setting(swept, monkeypatch):
    run = swept
    best = run.summary["settings"][0]
    rate = f"learning rate {best['hparams']['learning_rate']:g}"
    assert f"with {rate}, the best of 2 settings by validation loss" in repr(run)
    assert f"MAE {best['test']['mae']['mean']:#.3g}" in repr(run)
    drawn = []
    monkeypatch.setattr(
        figures, "learning_curves", lambda *args: drawn.append(args[3]) or ""
    )
    run._repr_html_()
    (member,) = best["members"]
    value = drawn[0]["train"].value  # [T, P] of the loss
    np.testing.assert_allclose(value[:, 0], run.history["train/loss"][:, member])
    assert value.shape[1] == 1


def test_values_of_a_table_are_kept_in_its_units(price_run, houses):
    found = arrays(price_run)
    assert found["names"].tolist() == ["price"]
    prices = [float(line.split(",")[2]) for line in houses.read_text().splitlines()[1:]]
    assert np.isclose(found["target"][:, None], prices, rtol=1e-5).any(1).all()
    error = np.abs(found["prediction"].reshape(2, -1) - found["target"]).mean()
    said = read(price_run, "summary.json")["test"]["mae"]["mean"]
    assert error == pytest.approx(said, rel=1e-4)
    assert read(price_run, "config.json")["units"]["mae"] == "units of price"


def test_labels_are_kept_as_probabilities(tmp_path):
    x = np.random.default_rng(0).normal(size=(80, 3))
    dataset = data.from_arrays(x, x[:, :2] > 0)
    run = train(dataset, tmp_path, loss=losses.binary_cross_entropy)
    found = arrays(tmp_path)
    chance = scipy.special.expit(run.predict(dataset.test.inputs))
    np.testing.assert_allclose(found["probability"], chance, atol=1e-6)
    (best,) = run.summary["settings"][0]["members"]
    np.testing.assert_allclose(found["ensemble"], chance[best], atol=1e-6)
    assert "prediction" not in found


def test_of_very_many_numbers_the_first_examples_are_kept(
    sums, tmp_path, monkeypatch, reported
):
    monkeypatch.setattr(predictions, "MOST_NUMBERS", 20)  # 5 of 2 members, 2 columns
    run = train(sums, tmp_path)
    found = arrays(tmp_path)
    assert found["target"].shape == (5, 2) and found["prediction"].shape == (2, 5, 2)
    said = run.predict(sums.test.inputs[:5])
    np.testing.assert_allclose(found["prediction"], said, atol=1e-6)
    assert "The first 5 of 12 examples" in (tmp_path / "report.html").read_text()


def test_probabilities_are_kept_as_they_are(tmp_path):
    dataset = make_dataset()

    def likelihood(outputs, targets):
        return -jax.numpy.log(outputs[targets])

    plain = models.logistic(4)

    def apply(params, inputs, *, key=None):
        return jax.nn.softmax(plain.apply(params, inputs, key=key))

    model = models.Model(plain.init, apply, {"name": "own"})
    run = fit(
        model,
        dataset,
        hparams={"learning_rate": 0.01},
        batch_size=32,
        loss=likelihood,
        outputs="probabilities",
        workdir=tmp_path,
        quiet=True,
    )
    found = arrays(tmp_path)
    chance = run.predict(dataset.test.inputs)
    np.testing.assert_allclose(found["confidence"], chance.max(-1), atol=1e-6)


def test_of_unknown_outputs_nothing_is_kept(tmp_path, reported):
    def own(outputs, targets):
        return losses.cross_entropy(outputs, targets)

    fit(
        models.logistic(4),
        make_dataset(),
        batch_size=32,
        loss=own,
        workdir=tmp_path,
        quiet=True,
    )
    assert not (tmp_path / "predictions.npz").exists()
    page = (tmp_path / "report.html").read_text()
    assert "The kind of the model outputs is unknown" in page


def test_examples_of_several_arrays_have_no_picture():
    dataset = make_dataset()
    two = dataset.each_split(
        lambda s: s._replace(inputs={"a": s.inputs, "b": s.inputs})
    )
    label = predictions.labels(two.test.targets)
    kept = predictions.ClassPredictions(two, label, "logits", np.array([True]))
    assert kept._examples(np.array([3, 1])).shape == (2, 0)


def test_members_that_do_not_count_are_in_no_ensemble(tmp_path):
    test = Batch(np.zeros((3, 1)), np.zeros(3, np.float32))
    dataset = Dataset(test, test, test)
    kept = predictions.predictions_of(dataset, "values", np.array([True, False, True]))
    said = np.array([[1.0, 2, 3], [np.inf, np.nan, 0], [3, 4, 5]])
    for first in (0, 2):
        part = slice(first, first + 2)
        found = Evaluated({"loss": said[:, part]}, said[:, part, None])
        kept((0, 1, 2), first, found)
    kept.write(tmp_path / "predictions.npz")
    assert arrays(tmp_path)["ensemble"].tolist() == [2, 3, 4]


def test_outputs_of_another_size_than_the_targets_are_not_kept(tmp_path):
    test = Batch(np.zeros((3, 1)), np.zeros(3, np.float32))
    kept = predictions.predictions_of(Dataset(test, test, test), "values", np.ones(1))
    kept((0,), 0, Evaluated({"loss": np.zeros((1, 3))}, np.zeros((1, 3, 2))))
    kept.write(tmp_path / "predictions.npz")
    assert not list(tmp_path.iterdir())
