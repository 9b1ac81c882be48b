"""What a run folder keeps of its data and of its probabilities."""

import json

import jax
import numpy as np
import pytest
import scipy.special
from PIL import Image

from dlworkshop import fit, losses, models
from dlworkshop.data import readers
from dlworkshop.serve.load import load
from dlworkshop.types import Batch, Dataset
from tests.conftest import make_dataset


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of three members on images, augmented."""
    workdir = tmp_path_factory.mktemp("run")
    dataset = make_dataset()
    augment = models.Augment(flip=True, shift=1)
    run = fit(
        models.augmented(models.mlp((8,), num_classes=4), augment),
        dataset,
        hparams={"learning_rate": [0.01, 1e30]},  # the second is quarantined
        seeds=2,
        batch_size=16,
        devices=jax.devices()[:1],
        workdir=workdir,
    )
    return run, dataset, workdir


@pytest.mark.slow
def test_the_card_has_pictures_of_the_augmentation(finished):
    _, _, workdir = finished
    about = json.loads((workdir / "data_card.json").read_text())
    assert len(about["augmented"]) == 4 and len(about["augmented"][0]) == 9
    assert len(set(about["augmented"][0])) > 2
    assert "Augmentation" in (workdir / "report.html").read_text()


def test_the_preprocessing_makes_an_example_of_a_file(finished, tmp_path):
    _, dataset, workdir = finished
    about = json.loads((workdir / "preprocessing.json").read_text())
    assert about["classes"] == list("abcd") and about["shape"] == [8, 8, 1]
    Image.fromarray(dataset.test.inputs[0][..., 0]).save(tmp_path / "0.png")
    example = readers.to_example(tmp_path / "0.png", about["preprocessing"])
    np.testing.assert_array_equal(example, dataset.test.inputs[0])


def test_the_ensemble_is_the_mean_probability_of_those_alive(finished):
    run, dataset, workdir = finished
    chance = scipy.special.softmax(run.predict(dataset.test.inputs), -1)
    status = [row["status"] for row in run.summary["population"]]
    assert status[2:] == ["quarantined"] * 2
    together = chance[:2].mean(0)
    with np.load(workdir / "predictions.npz") as found:
        np.testing.assert_allclose(found["confidence"], chance.max(-1), rtol=1e-6)
        np.testing.assert_array_equal(found["ensemble_prediction"], together.argmax(-1))
        np.testing.assert_allclose(
            found["ensemble_likelihood"],
            together[np.arange(33), dataset.test.targets],
            rtol=1e-5,
        )


def test_an_augmented_run_comes_back_from_its_folder(finished):
    run, dataset, workdir = finished
    back = load(workdir)
    assert back.model.augment == models.Augment(flip=True, shift=1)
    images = dataset.test.inputs
    np.testing.assert_array_equal(back.predict(images), run.predict(images))


def test_balanced_accuracy_counts_every_class_the_same(finished):
    run, dataset, _ = finished
    said = run.predict(dataset.test.inputs)[:2].argmax(-1)
    recalls = [
        (said[:, dataset.test.targets == k] == k).mean(-1) for k in range(4)
    ]  # [K, P]
    found = run.summary["test"]["balanced_accuracy"]
    assert found["mean"] == pytest.approx(np.mean(recalls)) and found["n"] == 2


def test_class_weights_raise_the_recall_of_the_rare_class():
    rng = np.random.default_rng(0)

    def part(size):
        label = (rng.random(size) < 0.05).astype(np.int32)
        x = rng.normal(size=(size, 2)) + 1.5 * label[:, None]
        return Batch(x.astype(np.float32), label)

    dataset = Dataset(*(part(n) for n in (600, 200, 600)), ("common", "rare"))
    weights = losses.class_weights(dataset.train.targets, 2)
    recall = {}
    for loss in (losses.cross_entropy, losses.weighted(losses.cross_entropy, weights)):
        run = fit(
            models.logistic(2),
            dataset,
            loss=loss,
            hparams={"learning_rate": 0.05},
            seeds=3,
            num_epochs=20,
            batch_size=50,
            devices=jax.devices()[:1],
        )
        said = run.predict(dataset.test.inputs).argmax(-1)
        recall[loss.__name__] = said[:, dataset.test.targets == 1].mean()
    # logistic regression's threshold moves by log(19): from a few per cent to most
    assert recall["weighted_cross_entropy"] > recall["cross_entropy"] + 0.2
