"""VGG16 is that of Keras and of torchvision, on the same weights."""

import hashlib
import importlib
import os
import shutil

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from jax import lax

from dlworkshop import models
from dlworkshop.data import fetch, places
from dlworkshop.errors import UserError
from dlworkshop.models.rgb import on_rgb, rgb
from dlworkshop.models.vgg16 import BLOCKS, layers, parted, preprocess, vgg16

room = importlib.import_module("dlworkshop.models.vgg16")  # not the function
IMAGE = np.random.default_rng(0).random((64, 64, 3), np.float32)
CLASSES = 7
BLOCK_NAMES = [f"block{number}_pool" for number in range(1, 6)]
# 13 layers of float32 sums, each exact to some 2**-24 * sqrt(4608), add up to 1e-5
CLOSE = 1e-5


def assert_close(ours, theirs):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= CLOSE * np.abs(theirs).max()


def outputs_of(model, image=IMAGE):
    """Every block's maps, and what the model answers."""
    params = model.init(jax.random.key(0), image)
    run = jax.jit(lambda p, x: model.module.apply({"params": p}, x, mutable=True))
    answer, seen = run(params, image)
    return [seen["intermediates"][name][0] for name in BLOCK_NAMES], answer


@pytest.fixture(scope="module")
def keras(tmp_path_factory):
    home = str(tmp_path_factory.mktemp("keras"))
    os.environ.update(KERAS_BACKEND="jax", KERAS_HOME=home)
    return pytest.importorskip("keras")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """For files of 100 MB, which are not kept after the tests."""
    path = tmp_path_factory.mktemp("weights")
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def weights():
    """layer -> random kernel and bias, with a top of 7 classes."""
    model = vgg16(include_top=True, num_classes=CLASSES)
    shapes = jax.eval_shape(model.init, jax.random.key(0), IMAGE)
    rng = np.random.default_rng(1)

    def draw(shape):
        scale = (2 / np.prod(shape[:-1])) ** 0.5 if len(shape) > 1 else 1
        return np.float32(scale) * rng.standard_normal(shape, np.float32)

    return {
        layer: [draw(shapes[layer][part].shape) for part in ("kernel", "bias")]
        for layer in layers(include_top=True)
    }


@pytest.fixture(scope="module")
def files(weights, folder):
    """The weights in the layout of the official files, with the top and without."""
    keras2(weights, folder / "keras2.h5", layers(include_top=True))
    keras2(weights, folder / "notop.h5", layers(include_top=False))
    return folder


def keras2(weights, path, names):
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"input_1", *(name.encode() for name in names)]
        file.create_group("input_1").attrs["weight_names"] = []
        for name in names:
            group = file.create_group(name)
            group.attrs["weight_names"] = [
                f"{name}_{kind}_1:0".encode() for kind in "Wb"
            ]
            for kind, value in zip("Wb", weights[name], strict=True):
                group[f"{name}_{kind}_1:0"] = value


@pytest.fixture(scope="module")
def original(keras, weights):
    """Keras' network with these weights."""
    network = keras.applications.VGG16(
        weights=None, input_shape=IMAGE.shape, classes=CLASSES
    )
    for layer, values in weights.items():
        network.get_layer(layer).set_weights(values)
    return network


SAVED = ["keras3.weights.h5", "whole.h5", "unnamed.weights.h5"]


@pytest.fixture(scope="module")
def saved(original, folder):
    """The weights in each of the layouts that Keras 3 writes or wrote."""
    original.save_weights(folder / "keras3.weights.h5")
    original.save(folder / "whole.h5")
    shutil.copy(folder / "keras3.weights.h5", folder / "unnamed.weights.h5")
    with h5py.File(folder / "unnamed.weights.h5", "r+") as file:
        for group in file["layers"].values():
            del group["vars"].attrs["name"]
    return folder


@pytest.fixture(scope="module")
def expected(keras, original):
    """Keras' maps and, before its softmax, logits for its preprocessing of IMAGE."""
    top = original.get_layer("predictions")
    top.activation = keras.activations.linear
    tensors = [original.get_layer(name).output for name in BLOCK_NAMES]
    logits = top(original.get_layer("fc2").output)
    network = keras.Model(original.inputs, [*tensors, logits])
    pixels = keras.applications.vgg16.preprocess_input(255 * IMAGE[None])
    *maps, logits = (np.asarray(x)[0] for x in network(pixels))
    return maps, logits


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["keras2.h5", *SAVED],
)
def test_every_layout_of_keras_is_read(name, weights, request):
    folder = request.getfixturevalue("saved" if name in SAVED else "files")
    model = vgg16(True, folder / name, num_classes=CLASSES)
    params = model.init(jax.random.key(0), IMAGE)
    for layer, (kernel, bias) in weights.items():
        np.testing.assert_array_equal(params[layer]["kernel"], kernel)
        np.testing.assert_array_equal(params[layer]["bias"], bias)


@pytest.mark.slow  # as all that asks Keras, which takes long to load
def test_keras_weights_give_the_outputs_of_keras(files, expected):
    model = vgg16(include_top=True, weights=files / "keras2.h5", num_classes=CLASSES)
    maps, logits = outputs_of(model)
    for ours, theirs in zip(maps, expected[0], strict=True):
        assert_close(ours, theirs)
    assert_close(logits, expected[1])


@pytest.mark.slow
def test_without_the_top_it_is_that_of_keras(keras, files):
    network = keras.applications.VGG16(
        include_top=False, weights=None, input_shape=(70, 99, 3)
    )
    network.load_weights(files / "notop.h5")  # Keras takes this layout as well
    image = np.random.default_rng(2).random((70, 99, 3), np.float32)
    theirs = network(keras.applications.vgg16.preprocess_input(255 * image[None]))
    pools = keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D
    for pooling, pool in (
        (None, lambda: np.asarray),
        ("avg", pools[0]),
        ("max", pools[1]),
    ):
        model = vgg16(weights=files / "notop.h5", pooling=pooling)
        params = model.init(jax.random.key(0), image)
        ours = jax.jit(model.apply)(params, image)
        assert_close(ours, np.asarray(pool()(theirs))[0])


@pytest.mark.slow
def test_layers_and_sizes_are_those_of_keras(original):
    ours = vgg16(include_top=True, num_classes=CLASSES)
    params = jax.eval_shape(ours.init, jax.random.key(0), IMAGE)
    theirs = {
        layer.name: [w.shape for w in layer.get_weights()]
        for layer in original.layers
        if layer.get_weights()
    }
    assert {
        n: [p["kernel"].shape, p["bias"].shape] for n, p in params.items()
    } == theirs


def state_dict(rng):
    """Random weights by torchvision's names, in its layout, for images of 64x64."""

    def draw(shape):
        scale = (2 / np.prod(shape[1:])) ** 0.5
        return rng.standard_normal(shape, np.float32) * np.float32(scale)

    state, channels, index = {}, 3, 0
    for count, features in BLOCKS:
        for _ in range(count):
            shape = (features, channels, 3, 3)
            state[f"features.{index}.weight"] = draw(shape)
            state[f"features.{index}.bias"] = draw(shape[:1])
            channels, index = features, index + 2
        index += 1
    for index, shape in ((0, (4096, 2048)), (3, (4096, 4096)), (6, (CLASSES, 4096))):
        state[f"classifier.{index}.weight"] = draw(shape)
        state[f"classifier.{index}.bias"] = draw(shape[:1])
    return state


@jax.jit
def torchvision(state, image):
    """What torchvision computes, channels first; checked once against PyTorch."""
    mean, deviation = np.float32([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    x = ((image - mean) / deviation).transpose(2, 0, 1)[None]
    maps, index = [], 0
    for count, _ in BLOCKS:
        for _ in range(count):
            kernel, bias = (state[f"features.{index}.{k}"] for k in ("weight", "bias"))
            x = lax.conv(x, kernel, (1, 1), "SAME") + bias[:, None, None]
            x, index = jnp.maximum(x, 0), index + 2
        x = lax.reduce_window(x, -np.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        maps.append(x[0].transpose(1, 2, 0))
        index += 1
    x = x.reshape(-1)
    for index in (0, 3, 6):
        x = state[f"classifier.{index}.weight"] @ x + state[f"classifier.{index}.bias"]
        x = jnp.maximum(x, 0) if index < 6 else x
    return maps, x


def test_torchvision_weights_give_the_outputs_of_torchvision(folder):
    state = state_dict(np.random.default_rng(3))
    path = folder / "torchvision.safetensors"
    safetensors.numpy.save_file(state, path)
    model = vgg16(include_top=True, weights=path, num_classes=CLASSES)
    assert model.config["preprocessing"] == "torch"
    maps, logits = outputs_of(model)
    expected, expected_logits = torchvision(state, IMAGE)
    for ours, theirs in zip(maps, expected, strict=True):
        assert_close(ours, theirs)
    assert_close(logits, expected_logits)


@pytest.mark.slow
def test_preprocessing_is_that_of_keras(keras):
    for kind in room.PREPROCESSINGS:
        theirs = keras.applications.imagenet_utils.preprocess_input(
            255 * IMAGE.copy(), mode=kind
        )
        np.testing.assert_allclose(
            preprocess(jnp.asarray(IMAGE), kind), theirs, rtol=1e-5, atol=1e-4
        )


@pytest.mark.slow
def test_a_batch_is_its_images_one_by_one_in_13_convolutions():
    model = vgg16(pooling="avg")
    images = np.random.default_rng(4).integers(0, 256, (2, 48, 50, 3), np.uint8)
    params = jax.jit(model.init)(jax.random.key(0), images[0])
    program = jax.jit(lambda p, x: models.predict(model, p, x)).lower(params, images)
    alone = jax.jit(model.apply).lower(params, images[0]).compile()
    for one, image in zip(program.compile()(params, images), images, strict=True):
        assert_close(one, alone(params, image))
    lines = [x for x in program.as_text().splitlines() if "stablehlo.convolution" in x]
    assert len(lines) == 13
    assert all("feature_group_count = 1" in line for line in lines)
    assert "tensor<2x48x50x3xf32>" in lines[0]


@pytest.mark.slow
def test_its_two_parts_are_the_network_on_images_of_any_kind():
    whole = vgg16(pooling="avg")
    image = np.random.default_rng(0).integers(0, 256, (9, 8, 1), np.uint8)
    params = jax.jit(on_rgb(whole).init)(jax.random.key(0), image)
    (trunk, first), (block, last) = parted(whole, params)
    maps = jax.jit(on_rgb(trunk).apply)(first, image)
    expected = jax.jit(on_rgb(whole).apply)(params, image)
    assert_close(jax.jit(block.apply)(last, maps), expected)
    large = image.repeat(4, 0).repeat(4, 1).repeat(3, 2)  # [36, 32, 3]
    np.testing.assert_array_equal(rgb(image), large)
    assert_close(jax.jit(whole.apply)(params, large), expected)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((31, 40, 3), "at least 32x32"), ((32, 32, 1), "1 channel")],
)
def test_images_that_do_not_go_in_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(vgg16().init, jax.random.key(0), np.zeros(shape))


def refused(path, **settings) -> str:
    with pytest.raises(UserError) as error:
        vgg16(weights=path, **settings)
    return str(error.value)


def test_the_first_layer_that_does_not_fit_is_named(files, tmp_path):
    assert "for fc1" in refused(files / "notop.h5", include_top=True)
    assert "predictions/kernel of shape (4096, 7)" in refused(
        files / "keras2.h5", include_top=True
    )
    whole = vgg16(True, files / "keras2.h5", num_classes=CLASSES)
    with pytest.raises(UserError, match=r"fc1/kernel of shape \(2048, 4096\)"):
        whole.init(jax.random.key(0), np.zeros((224, 224, 3)))
    turned = shutil.copy(files / "notop.h5", tmp_path)
    with h5py.File(turned, "r+") as file:
        group = file["block3_conv2"]
        group.attrs["weight_names"] = group.attrs["weight_names"][::-1]
    assert "block3_conv2/kernel of shape (256,)" in refused(turned)


def test_torchvision_with_batch_normalisation_is_refused(tmp_path):
    state = {
        f"features.{i}.{k}": np.zeros(1) for i in (0, 1, 3) for k in ("weight", "bias")
    }
    safetensors.numpy.save_file(state, tmp_path / "bn.safetensors")
    said = refused(tmp_path / "bn.safetensors")
    assert "features.2.weight" in said and "block1_conv2" in said
    # a header whose length begins with the byte 0x80, as a pickle does
    content = (tmp_path / "bn.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    longer = content[8 : 8 + size].ljust(size + (128 - size) % 256)
    head = len(longer).to_bytes(8, "little") + longer
    (tmp_path / "other.safetensors").write_bytes(head + content[8 + size :])
    assert head[:1] == b"\x80"
    assert "features.2.weight" in refused(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 archive/data.pkl", "can run any code"),
        (b"\x80\x02\x8a\nl\xfc\x9c", "can run any code"),
        (b"\x89HDF\r\n\x1a\n and no more", "damaged"),
        (b"words", "neither HDF5"),
        (None, "cannot be read"),
    ],
)
def test_other_files_are_refused_in_a_sentence(tmp_path, content, message):
    path = tmp_path / "vgg16.pth"
    if content is not None:
        path.write_bytes(content)
    said = refused(path)
    assert message in said and str(path) in said and "\n" not in said


@pytest.mark.parametrize("name", ["w.h5", "w.safetensors"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    assert "not a regular file" in refused(tmp_path / name)


def test_a_small_file_of_many_large_layers_is_refused(tmp_path):
    layers = [f"layer{i}" for i in range(5)]
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = [layer.encode() for layer in layers]
        for layer in layers:
            group = file.create_group(layer)  # of a fill value, without a byte on disk
            group.create_dataset("k", (200_000,), "f4", chunks=(1000,), fillvalue=1)
            group.attrs["weight_names"] = [b"k"]
    assert "its arrays up to /layer" in refused(tmp_path / "w.h5")


def test_a_keras_file_of_something_else_is_refused(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.zeros(3)
    assert "not a weights file of Keras" in refused(tmp_path / "other.h5")


def test_words_that_are_unknown_are_refused():
    with pytest.raises(UserError, match="did you mean 'avg'"):
        vgg16(pooling="average")
    with pytest.raises(UserError, match="did you mean 'torch'"):
        vgg16(preprocessing="torchvision")


def test_no_network_says_where_to_put_the_official_file(tmp_path, monkeypatch):
    def fail(*_args, **_more):
        raise OSError("no route")

    monkeypatch.setattr(fetch.urllib.request, "urlopen", fail)
    monkeypatch.setenv("DLWORKSHOP_DATA", str(tmp_path))
    said = refused("imagenet")
    assert "no route" in said and str(tmp_path / "vgg16") in said
    assert "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5" in said
    assert not list(tmp_path.rglob("*.h5"))


def test_imagenet_is_fetched_once_and_verified(tmp_path, monkeypatch, files):
    monkeypatch.setenv("DLWORKSHOP_DATA", str(tmp_path / "cache"))
    served = shutil.copy(files / "notop.h5", tmp_path / "served.h5")
    digest = hashlib.md5(served.read_bytes()).hexdigest()
    monkeypatch.setattr(room, "URL", f"file://{tmp_path}/")
    monkeypatch.setattr(room, "OFFICIAL", {False: ("served.h5", "0" * 32)})
    assert digest in refused("imagenet")
    monkeypatch.setattr(room, "OFFICIAL", {False: ("served.h5", digest)})
    vgg16(weights="imagenet")
    served.unlink()
    vgg16(weights="imagenet")  # from the cache
    cached = places.cache_dir() / "vgg16/served.h5"
    assert [p.name for p in cached.parent.iterdir()] == ["served.h5"]
    cached.write_bytes(b"something else")
    assert "delete it" in refused("imagenet")
