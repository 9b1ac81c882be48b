"""VGG16: five blocks of 3x3 convolutions, and its pretrained weights."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dlworkshop.data import places
from dlworkshop.data.fetch import fetch_file
from dlworkshop.data.leaves import at_least_float32
from dlworkshop.errors import UserError, check_flag, check_known, check_path
from dlworkshop.models import weights as stored
from dlworkshop.models.layers import max_pool
from dlworkshop.models.linen import from_linen
from dlworkshop.models.model import Model, check_layers, check_rank

BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))  # convolutions, channels
TOP = ("fc1", "fc2", "predictions")
HIDDEN = 4096  # units of fc1 and fc2
CLASSES = 1000  # of ImageNet
POOLINGS: dict[str, Callable] = {"avg": jnp.mean, "max": jnp.max}
# Keras' names of the inputs that weights were trained on: "caffe" is BGR in 0..255
# minus the mean, "torch" is RGB with mean 0 and deviation 1.
PREPROCESSINGS = ("caffe", "torch")
# The official files, with the MD5 checksums of keras.applications 3.15.
URL = "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
OFFICIAL = {  # include_top -> file, MD5
    False: (
        "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "6d6bbae143d832006294945121d1f1fc",
    ),
    True: (
        "vgg16_weights_tf_dim_ordering_tf_kernels.h5",
        "64373286793e3c8b2b4e3219cbf3544b",
    ),
}


def preprocess(image: jax.Array, kind: str = "caffe") -> jax.Array:
    """Convert RGB [H, W, 3] in [0, 1] to the inputs that weights were trained on.

    >>> preprocess(jnp.ones((1, 1, 3))).ravel().tolist()  # 255 - mean of B, G, R
    [151.06100463867188, 138.22100830078125, 131.32000732421875]
    """
    if kind == "caffe":
        mean = jnp.asarray((103.939, 116.779, 123.68), image.dtype)  # B, G, R
        return 255 * image[..., ::-1] - mean
    mean = jnp.asarray((0.485, 0.456, 0.406), image.dtype)  # R, G, B
    return (image - mean) / jnp.asarray((0.229, 0.224, 0.225), image.dtype)


def block(x: jax.Array, number: int, **dtypes: Any) -> jax.Array:
    """Block `number` in 1..5 of VGG16: [H, W, C] -> [H // 2, W // 2, channels].

    It is called in the compact method of a Linen module, which gets the layers.
    """
    convolutions, channels = BLOCKS[number - 1]
    for i in range(1, convolutions + 1):
        layer = nn.Conv(channels, (3, 3), name=f"block{number}_conv{i}", **dtypes)
        x = nn.relu(layer(x))  # [H, W, channels]
    return max_pool(x)


class Vgg16(nn.Module):
    """Features or logits of ONE image; layers are named as in Keras.

    The outputs of the blocks are sown as "block1_pool" ... "block5_pool" into the
    collection "intermediates".
    """

    include_top: bool
    pooling: str | None
    num_classes: int
    preprocessing: str
    dtype: Any = None

    @nn.compact
    def __call__(self, image, *, key=None):  # [H, W, 3]
        del key  # the model is deterministic
        check_rank(image, (3,), "an image [H, W, 3]")
        height, width, channels = image.shape
        if channels != 3 or min(height, width) < 32:
            raise ValueError(
                f"an image of {height}x{width} with {channels} channel(s) does not fit "
                "VGG16: give RGB images of at least 32x32"
            )
        dtypes = {"dtype": self.dtype, "param_dtype": jnp.result_type(float)}
        x = preprocess(image, self.preprocessing)
        for number in range(1, len(BLOCKS) + 1):
            x = block(x, number, **dtypes)
            self.sow("intermediates", f"block{number}_pool", x)
        if self.include_top:
            x = x.reshape(-1)  # [H/32 * W/32 * 512]
            for name in TOP[:-1]:
                x = nn.relu(nn.Dense(HIDDEN, name=name, **dtypes)(x))  # [HIDDEN]
            x = nn.Dense(self.num_classes, name=TOP[-1], **dtypes)(x)  # logits [K]
        elif self.pooling is not None:
            x = POOLINGS[self.pooling](x, axis=(0, 1))  # [512]
        return at_least_float32(x)


class Trunk(nn.Module):
    """Blocks 1 to 4 of VGG16: an image [H, W, 3] -> maps [H // 16, W // 16, 512]."""

    preprocessing: str = "caffe"

    @nn.compact
    def __call__(self, image, *, key=None):
        del key  # the model is deterministic
        x = preprocess(image, self.preprocessing)
        for number in range(1, len(BLOCKS)):
            x = block(x, number)
        return x


class LastBlock(nn.Module):
    """Block 5 of VGG16 and the mean of its maps: [H, W, 512] -> features [512]."""

    @nn.compact
    def __call__(self, maps, *, key=None):
        del key  # the model is deterministic
        return block(maps, len(BLOCKS)).mean((0, 1))


def vgg16(
    include_top: bool = False,
    weights: str | Path | None = None,
    pooling: str | None = None,
    *,
    num_classes: int = CLASSES,
    preprocessing: str | None = None,
    dtype: Any = None,
) -> Model:
    """VGG16 on ONE image RGB [H, W, 3] in [0, 1] (or uint8), H and W at least 32.

    Args:
        include_top: add the three fully connected layers with logits [num_classes];
            weights then fix the size of the image, 224x224 for those of ImageNet.
        weights: None initialises them at random; "imagenet" downloads the official
            file of Keras once; a path is a .h5 of Keras 2 or 3, or torchvision's state
            dict as .safetensors. `init` then returns the weights of the file.
        pooling: without the top, None gives feature maps [H // 32, W // 32, 512],
            "avg" and "max" their mean and maximum [512].
        num_classes: length K of the logits.
        preprocessing: "caffe" (Keras) or "torch" (torchvision), part of the model; by
            default that of the weights.
        dtype: of the computation, e.g. jnp.bfloat16; parameters stay float32.

    Raises:
        UserError: if the weights cannot be read, or a layer does not fit.

    Source: Simonyan & Zisserman (2015), Very deep convolutional networks for
    large-scale image recognition, table 1, column D.

    >>> model = vgg16(pooling="avg")
    >>> image = jax.ShapeDtypeStruct((64, 48, 3), "float32")
    >>> params = jax.eval_shape(model.init, jax.random.key(0), image)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    14714688
    >>> jax.eval_shape(model.apply, params, image).shape
    (512,)
    """
    check_flag("include_top", include_top)
    check_layers(num_classes, dtype=dtype)
    if weights is not None:
        check_path("weights", weights)
    if pooling is not None:
        check_known("pooling", pooling, POOLINGS)
    if preprocessing is not None:
        check_known("preprocessing", preprocessing, PREPROCESSINGS)
    if include_top and pooling is not None:
        raise UserError("pooling has no effect with include_top=True: leave one out")
    if not include_top and num_classes != CLASSES:
        raise UserError("num_classes has no effect without include_top=True: add it")
    params, trained_on, source = None, "caffe", None
    if weights is not None:
        path = official(include_top) if weights == "imagenet" else Path(weights)
        params, trained_on = stored.read(path, layers(include_top), TORCHVISION)
        source = path.name
    preprocessing = preprocessing or trained_on
    config = {
        "name": "vgg16",
        "include_top": include_top,
        "weights": source,
        "pooling": pooling,
        "num_classes": num_classes,
        "preprocessing": preprocessing,
        "dtype": None if dtype is None else jnp.dtype(dtype).name,
    }
    module = Vgg16(include_top, pooling, num_classes, preprocessing, dtype)
    model = from_linen(module, config)
    if params is None:
        return model
    fit = functools.partial(stored.check_shapes, params, path)
    fit(jax.eval_shape(model.init, jax.random.key(0), _example(params)))

    def init(key: jax.Array, example: Any) -> Any:
        fit(jax.eval_shape(model.init, key, example))
        return jax.tree.map(jnp.asarray, params)

    return model._replace(init=init)


def parted(model: Model, params: Any) -> tuple[tuple[Model, Any], tuple[Model, Any]]:
    """`vgg16(pooling="avg")` in two parts: blocks 1 to 4, and the rest.

    Returns:
        The models of `Trunk` and `LastBlock`, each with its part of `params`: an image
        [H, W, 3] -> maps [H // 16, W // 16, 512], and maps -> features [512].

    >>> model = vgg16(pooling="avg")
    >>> image = jax.ShapeDtypeStruct((64, 48, 3), "float32")
    >>> params = jax.eval_shape(model.init, jax.random.key(0), image)
    >>> (trunk, first), (block, last) = parted(model, params)
    >>> maps = jax.eval_shape(trunk.apply, first, image)
    >>> maps.shape, jax.eval_shape(block.apply, last, maps).shape, sorted(last)[0]
    ((4, 3, 512), (512,), 'block5_conv1')
    """
    last = {name: p for name, p in params.items() if name.startswith("block5")}
    first = {name: p for name, p in params.items() if name not in last}
    about = {**model.config, "name": "vgg16 trunk"}
    trunk = from_linen(Trunk(model.config["preprocessing"]), about)
    return (trunk, first), (from_linen(LastBlock()), last)


def layers(include_top: bool) -> list[str]:
    """Names of the layers with weights, in the order of the forward pass.

    >>> len(layers(True)), layers(False)[0]
    (16, 'block1_conv1')
    """
    convolutions = [
        f"block{number}_conv{i}"
        for number, (count, _) in enumerate(BLOCKS, 1)
        for i in range(1, count + 1)
    ]
    return convolutions + list(TOP if include_top else ())


# Layer -> its name in torchvision, whose indices count ReLUs and pools too.
CONVOLUTIONS = 0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28
COUNTED = [f"features.{i}" for i in CONVOLUTIONS]
COUNTED += [f"classifier.{i}" for i in (0, 3, 6)]
TORCHVISION = dict(zip(layers(True), COUNTED, strict=True))


def official(include_top: bool) -> Path:
    """The official file of Keras, downloaded into the cache if missing."""
    name, md5 = OFFICIAL[include_top]
    path = places.cache_dir() / "vgg16" / name
    fetch_file(URL + name, path, f"md5:{md5}", "the ImageNet weights of VGG16")
    return path


def _example(params: Any) -> jax.ShapeDtypeStruct:
    """The shape of an image that fits these weights; 224x224 if any size fits."""
    side = 7.0  # of the last maps
    if "fc1" in params and params["fc1"]["kernel"].ndim == 2:
        side = (len(params["fc1"]["kernel"]) / BLOCKS[-1][1]) ** 0.5
    size = 32 * int(side) if side >= 1 and side == int(side) else 224
    return jax.ShapeDtypeStruct((size, size, 3), jnp.result_type(float))
