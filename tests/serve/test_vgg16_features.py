"""A run on features of VGG16 answers image files, with the weights it learnt by."""

import numpy as np
import pytest
import safetensors.numpy

from dlworkshop import data, fit, load_run, models
from dlworkshop.errors import UserError
from dlworkshop.models.vgg16 import BLOCKS, TORCHVISION, layers
from dlworkshop.serve.predict import predict_files
from dlworkshop.serve.vgg16_features import vgg16_features

pytestmark = pytest.mark.usefixtures("unreported")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A state dict of torchvision with random numbers, of 59 MB; removed afterwards."""
    rng, tensors, channels = np.random.default_rng(0), {}, 3
    widths = [width for count, width in BLOCKS for _ in range(count)]
    for layer, width in zip(layers(False), widths, strict=True):
        name, shape = TORCHVISION[layer], (width, channels, 3, 3)
        kernel = rng.standard_normal(shape, np.float32) * (2 / (9 * channels)) ** 0.5
        tensors[f"{name}.weight"] = kernel
        tensors[f"{name}.bias"] = np.zeros(width, np.float32)
        channels = width
    path = tmp_path_factory.mktemp("weights") / "vgg16.safetensors"
    safetensors.numpy.save_file(tensors, path)
    yield path
    path.unlink()


@pytest.mark.slow
def test_files_are_answered_as_their_features_are(weights, photos, tmp_path):
    dataset = data.load(photos, tmp_path / "cache")
    seen = vgg16_features(dataset, weights)
    assert seen.train.inputs.shape == (dataset.train.num_examples, 512)
    hparams = {"learning_rate": 0.01}
    fit(models.logistic(4), seen, hparams=hparams, batch_size=8, workdir=tmp_path / "r")
    run = load_run(tmp_path / "r")
    names = dataset.test.inputs.names(np.arange(3))
    said = list(predict_files(run, [photos / name for name in names]))
    logits = run.predict(np.asarray(seen.test.inputs[:3]))[0]
    for row, own in zip(said, logits, strict=True):
        chance = np.exp(own) / np.exp(own).sum()
        assert row.prediction == dataset.classes[chance.argmax()]
        assert row.probability == pytest.approx(chance.max(), rel=1e-3)
    bits = bytearray(weights.read_bytes())
    bits[-1] ^= 1
    weights.write_bytes(bits)
    with pytest.raises(UserError, match="not those whose features"):
        list(predict_files(run, [photos]))
    with pytest.raises(UserError, match="VGG16 sees images"):
        vgg16_features(seen, weights)
