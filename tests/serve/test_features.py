"""What a network sees is computed once, in batches, and kept by content."""

import jax
import numpy as np
import pytest

from dlworkshop import models
from dlworkshop.serve import features as features_module
from dlworkshop.serve.features import Extractor, features, one_by_one
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
    alone = one_by_one(MODEL, params, images)
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


def test_nothing_is_left_half_made(quadrants, params, home, monkeypatch):
    def broken(self, images):
        yield from whole(self, images[:5])
        raise KeyboardInterrupt

    whole = Extractor.__call__
    monkeypatch.setattr(Extractor, "__call__", broken)
    with pytest.raises(KeyboardInterrupt):
        features(MODEL, params, quadrants)
    assert not list(home.iterdir())
