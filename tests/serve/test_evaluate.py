"""Every example of a split is counted once, whatever the batches."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlworkshop import data, fit, load_run, losses, metrics, models
from dlworkshop.errors import UserError
from dlworkshop.serve.evaluate import show
from dlworkshop.serve.predict import Skipped
from dlworkshop.train.feeds import evaluation_pieces
from dlworkshop.train.scores import Evaluation
from dlworkshop.types import Batch
from tests import references
from tests.conftest import make_dataset

pytestmark = pytest.mark.usefixtures("unreported")


@pytest.mark.parametrize("most, shape", [(9, (3, 4)), (2, (2, 4)), (1, (1, 4))])
def test_pieces_hold_every_example_once(most, shape):
    weights = np.arange(10) / 10
    pieces = list(evaluation_pieces(Batch(np.zeros((10, 1)), None, weights), 4, most))
    assert {index.shape for index, _ in pieces} == {shape}
    index, share = (np.concatenate([p[i].ravel() for p in pieces]) for i in (0, 1))
    assert index[:10].tolist() == list(range(10))
    np.testing.assert_allclose(share[:10], weights, rtol=1e-6)
    assert not share[10:].any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "sizes"),
    [(1, (64, 1, 7)), (1, (64, 128, 129)), (4, (64, 1, 7)), (4, (64, 31, 300))],
)
def test_means_are_those_of_a_plain_loop(sizes, devices, tmp_path):
    dataset = make_dataset(sizes)
    run = fit(
        models.mlp((8,), num_classes=4),
        dataset,
        hparams={"learning_rate": 0.01},
        seeds=2,
        batch_size=16,
        devices=jax.devices()[:devices],
        workdir=tmp_path,
    )
    for split in ("validation", "test"):
        images, labels = getattr(dataset, split)[:2]
        logits = run.predict(images)  # [P, N, K]
        losses = [
            references.cross_entropy(np.float64(member), labels)[0] for member in logits
        ]
        hits = (logits.argmax(-1) == labels).mean(-1)
        assert run.summary[split]["loss"]["mean"] == pytest.approx(
            np.mean(losses), rel=1e-5
        )
        assert run.summary[split]["accuracy"]["mean"] == pytest.approx(hits.mean())
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as saved:
        assert saved["prediction"].shape == (2, sizes[2])
        np.testing.assert_array_equal(saved["label"], dataset.test.targets)
        wrong = (saved["prediction"] != saved["label"]).any(0)
        for kind in ("worst", "mistake"):
            assert wrong[saved[f"{kind}_index"]].all()
            seen = dataset.test.inputs[saved[f"{kind}_index"]]
            np.testing.assert_array_equal(saved[f"{kind}_image"], seen)
        each = saved["label"] * 4 + saved["prediction"]  # of 4 classes: a cell
        kept = np.isin(np.arange(sizes[2]), saved["mistake_index"])
        mistaken = saved["prediction"] != saved["label"]
        assert set(each[mistaken]) == set(each[mistaken & kept])
        badness = saved["loss"].mean(0)[saved["worst_index"]]
        assert (np.diff(badness) <= 1e-6).all()
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert np.mean(last["validation"]["loss"]) == pytest.approx(
        run.summary["validation"]["loss"]["mean"], rel=1e-5
    )


def test_predict_takes_any_number_of_images():
    dataset = make_dataset((64, 8, 700))
    run = fit(models.logistic(4), dataset, batch_size=16, devices=jax.devices()[:1])
    many = run.predict(dataset.test.inputs)
    few = np.concatenate(
        [run.predict(dataset.test.inputs[i : i + 70]) for i in range(0, 700, 70)],
        axis=1,
    )
    np.testing.assert_allclose(many, few, atol=1e-5)


def test_examples_that_cannot_be_scored_are_refused():
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    dataset = data.from_arrays(x, (x[:, 0] > 0).astype(np.int32))
    run = fit(models.logistic(2), dataset, batch_size=8, quiet=True)
    test = dataset.test
    for examples, sentence in (
        (test._replace(targets=test.targets - 1), "labels -1 ... 0 for 2 classes"),
        (test._replace(targets=test.targets + 5), "for 2 classes"),
        (test._replace(targets=test.targets[:4]), "9 inputs, 4 targets"),
        (test._replace(targets=None), "examples given are None, and scores need"),
        ((test.inputs, test.targets), "are a tuple: give a Batch"),
    ):
        with pytest.raises(UserError, match=sentence):
            run.evaluate(examples)


def top_2(outputs, label):
    return label == jnp.argsort(-outputs)[:2]


def in_top_2(outputs, label):
    return top_2(outputs, label).any()


def _misses(outputs, label, weights):
    return float(np.average(outputs.argmax(-1) != label, weights=weights))


misses = metrics.Metric(_misses, "lower", split=True, unit="errors")


@pytest.fixture(scope="module")
def five_classes():
    x = np.random.default_rng(0).normal(size=(90, 5)).astype(np.float32)
    return data.from_arrays(x, x.argmax(1).astype(np.int32))


@pytest.fixture(scope="module")
def brought(five_classes, tmp_path_factory, unreported):
    """A run with metrics of its own and of the library."""
    return fit(
        models.logistic(5),
        five_classes,
        hparams={"learning_rate": 0.05},
        seeds=2,
        batch_size=8,
        metrics={
            "in_top_2": in_top_2,
            "misses": misses,
            "auc": metrics.roc_auc,
            "right": metrics.accuracy,
            "first_2": metrics.top_k(2),
        },
        workdir=tmp_path_factory.mktemp("brought"),
        quiet=True,
    )


def test_a_run_is_evaluated_with_the_metrics_it_was_trained_with(
    five_classes, brought, caplog
):
    test = five_classes.test
    found = brought.evaluate(test)
    for name, score in brought.summary["test"].items():
        assert found.scores[name]["mean"] == pytest.approx(score["mean"], rel=1e-5)
    assert list(found.scores)[3:] == ["in_top_2", "misses", "auc", "right", "first_2"]
    assert found.units["misses"] == "errors"
    chance = jax.nn.softmax(brought.predict(test.inputs)).mean(0)
    best = np.argsort(-chance)[:, :2]
    expected = (best == test.targets[:, None]).any(1).mean()
    assert found.ensemble["in_top_2"] == pytest.approx(expected)
    assert found.ensemble["misses"] == pytest.approx(1 - found.ensemble["accuracy"])
    assert found.scores["right"] == found.scores["accuracy"]
    assert not caplog.records
    weights = np.linspace(0, 1, test.num_examples, dtype=np.float32)
    weighted = brought.evaluate(test._replace(weights=weights))
    for scores in (weighted.scores["misses"]["mean"], weighted.ensemble["misses"]):
        assert 0 < scores < 1
    for one, other in ("right", "accuracy"), ("first_2", "in_top_2"):
        assert weighted.ensemble[one] == pytest.approx(weighted.ensemble[other])


def test_a_loaded_run_has_the_library_s_metrics_and_names_the_others(
    five_classes, brought, caplog, capsys
):
    test, found = five_classes.test, brought.evaluate(five_classes.test)
    loaded = load_run(brought.workdir)
    rest = loaded.evaluate(test)
    (said,) = caplog.messages
    assert "trained with the metrics in_top_2, misses, whose code is not in" in said
    assert set(found.scores) - set(rest.scores) == {"in_top_2", "misses"}
    for name in ("auc", "right", "first_2"):
        assert rest.scores[name] == found.scores[name]
    caplog.clear()
    again = loaded.evaluate(test, metrics={"in_top_2": in_top_2, "misses": misses})
    assert again.scores == found.scores and again.ensemble == found.ensemble
    assert not caplog.records
    show(again)
    shown = capsys.readouterr().out
    assert "misses (errors)" in shown and "in top 2" in shown


def test_default_metrics_are_among_the_usual_scores(five_classes, tmp_path, caplog):
    run = fit(models.logistic(5), five_classes, batch_size=8, workdir=tmp_path)
    caplog.clear()
    assert run.metrics == load_run(tmp_path).metrics == {}
    names = set(load_run(tmp_path).evaluate(five_classes.test).scores)
    assert names == {"accuracy", "balanced_accuracy", "loss"}
    assert not caplog.records


def test_metrics_that_are_none_are_refused_when_a_run_is_evaluated(
    five_classes, brought
):
    for given, sentence in (
        ([in_top_2], "give a dict of names and functions"),
        ({"top 2": in_top_2}, "a metric is named 'top 2': use letters"),
        ({"loss": in_top_2}, "like the minimised loss: rename it"),
        ({"m": 3}, "metric 'm' is 3: give a function"),
        ({"m": metrics.Metric(in_top_2, "up")}, "metric 'm' is better 'up'"),
        ({"m": metrics.mae}, "metric 'm' is for outputs that are values"),
        ({"m": metrics.Metric(in_top_2, split=True)}, "of a whole split does not take"),
        ({"m": top_2}, r"the metric 'm' has shape \(2,\) for one example"),
        ({"m": lambda outputs: 0.0}, "the metric 'm' does not take the outputs and"),
        ({"m": misses._replace(function=lambda *_: "x")}, "return one number"),
    ):
        with pytest.raises(UserError, match=sentence) as raised:
            brought.evaluate(five_classes.test, metrics=given)
        assert "\n" not in str(raised.value)


def test_a_run_without_targets_is_evaluated_with_metrics_that_need_none(five_classes):
    dataset = five_classes.each_split(lambda split: split._replace(targets=None))
    size = {  # of one example, and of a split
        "size": metrics.Metric(lambda outputs, _: abs(outputs).sum(), "lower"),
        "most": metrics.Metric(lambda outputs, *_: abs(outputs).max(), split=True),
    }
    run = fit(
        models.logistic(5),
        dataset,
        loss=lambda outputs, _: (outputs**2).sum(),
        metrics=size,
        batch_size=8,
        quiet=True,
    )
    found = run.evaluate(dataset.test)
    for name in size:
        value = run.summary["test"][name]
        np.testing.assert_allclose(found.scores[name]["mean"], value["mean"], rtol=1e-5)
    assert found.examples == dataset.test.num_examples


def test_outputs_of_unknown_meaning_have_the_metrics_of_the_run_only(five_classes):
    def loss(outputs, label):
        return losses.cross_entropy(outputs, label)

    common = {"loss": loss, "batch_size": 8, "quiet": True}
    run = fit(models.logistic(5), five_classes, metrics={"top": in_top_2}, **common)
    found = run.evaluate(five_classes.test)
    assert list(found.scores) == ["top"] and not found.ensemble
    assert found.scores["top"]["mean"] == run.summary["test"]["top"]["mean"]
    assert show(found) == 0
    none = fit(models.logistic(5), five_classes, **common)
    with pytest.raises(UserError, match="not known what the outputs of this run mean"):
        none.evaluate(five_classes.test)
    assert none.evaluate(five_classes.test, metrics={"top": in_top_2}).scores


def test_many_skipped_rows_are_counted_and_few_are_listed(caplog):
    lost = [Skipped(f"t.csv row {i}", "has no 'y'") for i in range(2, 1002)]
    assert show(Evaluation("t.csv", 9, 1, {}, {}, {}, lost)) == 1
    assert len(caplog.messages) == 21
    assert caplog.messages[0] == "skipped t.csv row 2: has no 'y'"
    assert caplog.messages[-1] == "skipped 980 more"
