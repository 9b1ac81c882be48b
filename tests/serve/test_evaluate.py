"""Every example of a split is counted once, whatever the batches."""

import json

import jax
import numpy as np
import pytest

from dlworkshop import data, fit, models
from dlworkshop.errors import UserError
from dlworkshop.train.feeds import evaluation_pieces
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
        ((test.inputs, test.targets), "are a tuple: give a Batch"),
    ):
        with pytest.raises(UserError, match=sentence):
            run.evaluate(examples)
