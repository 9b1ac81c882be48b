"""What a network sees is computed once, in batches, and kept by content."""

import jax
import numpy as np
import pytest

from dlworkshop import models
from dlworkshop.serve import features as features_module
from dlworkshop.serve.features import Extractor, features, sequential_features
from tests.conftest import make_dataset

MODEL = models.cnn((4,), (5,), num_classes=6)


@pytest.fixture
def params(quadrants):
    return MODEL.init(jax.random.key(0), quadrants.train.inputs[0])


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "dlworkshop/features"


@pytest.mark.parametrize("batch_size", [1, 7, 40, 512])
def test_they_are_the_outputs_whatever_the_batch(
    batch_size, quadrants, params, monkeypatch
):
    monkeypatch.setattr(features_module, "BATCH_SIZE", batch_size)
    images = quadrants.validation.inputs
    batches = list(Extractor(MODEL, params, images)(images))
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}
    expected = models.predict(MODEL, params, images)
    # sums of some 80 terms of size 1 in float32, in another order
    np.testing.assert_allclose(np.concatenate(batches), expected, atol=1e-5)


def test_they_are_the_outputs_of_images_one_by_one(quadrants, params):
    images, seen = quadrants.test.inputs, features(MODEL, params, quadrants)
    alone = sequential_features(MODEL, params, images)
    np.testing.assert_allclose(seen.test.inputs, alone, atol=1e-5)  # as above


def test_a_second_run_reads_them(quadrants, params, home, monkeypatch):
    first = features(MODEL, params, quadrants)
    monkeypatch.setattr(features_module, "Extractor", None)  # calling it fails
    second = features(MODEL, params, quadrants)
    for split in ("train", "validation", "test"):
        there, again = getattr(first, split), getattr(second, split)
        np.testing.assert_array_equal(there.inputs, again.inputs)
        np.testing.assert_array_equal(again.targets, getattr(quadrants, split).targets)
        assert again.inputs.shape == (len(again.targets), 6)
    assert first.fingerprint == second.fingerprint
    assert len(list(home.iterdir())) == 1


def test_damaged_ones_are_computed_anew(quadrants, params, home):
    first = np.array(features(MODEL, params, quadrants).train.inputs)
    (file,) = home.glob("*/train.npy")
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    again = features(MODEL, params, quadrants).train.inputs
    np.testing.assert_array_equal(again, first)
    assert file.read_bytes() == content


def test_other_content_has_another_name(quadrants, params, home):
    bare = quadrants._replace(fingerprint="")
    image = quadrants.test.inputs.copy()
    image[3, 2, 1] ^= 1
    changed = bare._replace(test=bare.test._replace(inputs=image))
    others = jax.tree.map(lambda leaf: leaf + 1, params)
    cases = [
        (MODEL, params, quadrants),
        (MODEL, params, bare),
        (MODEL, params, changed),
        (MODEL, others, quadrants),
        (models.cnn((4,), (5,), jax.numpy.tanh, num_classes=6), params, quadrants),
        (MODEL, params, make_dataset(seed=1)),
    ]
    names = {features(*case).fingerprint for case in cases}
    assert len(names) == len(cases) == len(list(home.iterdir()))


def of_function(function):
    """A model without parameters or a config of its own."""
    return models.model.Model(
        lambda key, image: {},
        lambda params, image, *, key=None: function(image).mean((0, 1)),
    )


def test_models_of_one_config_and_other_functions_are_two(quadrants, home):
    def of_factor(factor):
        return of_function(lambda image: image * factor)

    cases = [
        of_function(lambda image: image + 1),
        of_function(lambda image: image + 2),
        of_factor(2.0),
        of_factor(3.0),
    ]
    means = [features(model, {}, quadrants).test.inputs.mean() for model in cases]
    assert len(set(map(float, means))) == len(list(home.iterdir())) == len(cases)


def test_what_is_not_known_is_computed_every_time(quadrants, home):
    with open("/dev/null") as file:

        def function(image):
            return image * (2 if file.closed else 1)

        model = of_function(function)
        first = features(model, {}, quadrants)
    second = features(model, {}, quadrants)
    assert 2 * first.test.inputs.sum() == pytest.approx(second.test.inputs.sum())
    assert first.fingerprint == "" and not home.exists()


def test_nothing_is_left_half_made(quadrants, params, home, monkeypatch):
    def broken(self, images):
        yield from whole(self, images[:5])
        raise KeyboardInterrupt

    whole = Extractor.__call__
    monkeypatch.setattr(Extractor, "__call__", broken)
    with pytest.raises(KeyboardInterrupt):
        features(MODEL, params, quadrants)
    assert not list(home.iterdir())
