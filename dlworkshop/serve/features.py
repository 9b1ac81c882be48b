"""Outputs of a frozen network on a data set, computed once and cached."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from dlworkshop import identity
from dlworkshop.data.checksums import digests
from dlworkshop.data.content import SPLITS, check_kind
from dlworkshop.data.progress import Count
from dlworkshop.files import atomic_rename, partial_folder
from dlworkshop.models.convolution import computed_by
from dlworkshop.models.model import Model, check_model, predict
from dlworkshop.train.cache import cache_folder
from dlworkshop.train.compiling import compiler_options
from dlworkshop.train.flops import update_flops
from dlworkshop.types import Array, Batch, Dataset, PyTree

# Floating-point operations of a batch. On a CPU the activations of such a batch fit
# into memory that the process keeps; larger ones are allocated by the system each time:
# VGG16 processed 13 images/s of 224x224 in batches of 2, and 9 in batches of 16.
BATCH_FLOPS = {"cpu": 6e10, "gpu": 2e12}
BATCH_SIZE = 512  # at most
DIGESTS = "sha256.json"  # the name of a file of features -> its digest


def features(model: Model, params: PyTree, dataset: Dataset) -> Dataset:
    """The data set with the model's outputs in place of its images.

    The features are cached under a hash of the parameters, the model with its code, and
    the content of the data. Cached files are verified, which takes about a second per
    GB. If the model has a part whose content is unknown, such as an open file, the
    features are computed every time.

    Args:
        model: its outputs for one example, of any shape, are the features.
        params: of the model, not of a population.
        dataset: if it has no fingerprint, its content is read to compute one.

    Returns:
        Splits of `Batch(image [N, ...] float, label)`, memory-mapped.

    >>> from dlworkshop import data, models
    >>> digits = data.load("digits")
    >>> model = models.mlp((), num_classes=3)
    >>> params = model.init(jax.random.key(0), digits.train.inputs[0])
    >>> features(model, params, digits).validation.inputs.shape
    (180, 3)
    """
    check_model(model)
    check_kind(dataset)
    name = _name(model, params, dataset)
    home = cache_folder("features") if name else None
    if home is None:  # no cache folder, or no name
        with tempfile.TemporaryDirectory() as once:
            folder = Path(once) / "features"
            _compute(model, params, dataset, folder)
            return _mapped(dataset, folder, name)
    if not _is_whole(home / name):
        _compute(model, params, dataset, home / name)
    return _mapped(dataset, home / name, name)


def _is_whole(folder: Path) -> bool:
    """Whether the cached features are intact; damaged ones are removed."""
    if not folder.is_dir():
        return False
    with contextlib.suppress(OSError, ValueError):
        if json.loads((folder / DIGESTS).read_bytes()) == _digests(folder):
            return True
    shutil.rmtree(folder, ignore_errors=True)
    return False


def _digests(folder: Path) -> dict[str, str]:
    found = digests(folder / f"{split}.npy" for split in SPLITS)
    return {path.name: digest for path, digest in found.items()}


def _mapped(dataset: Dataset, folder: Path, name: str) -> Dataset:
    """The data set with the features in `folder`, which may be removed afterwards."""
    files = (folder / f"{split}.npy" for split in SPLITS)

    def with_features(split: Batch) -> Batch:
        return Batch(np.load(next(files), mmap_mode="r"), split.targets)

    return dataset.each_split(with_features, fingerprint=name)


def sequential_features(model: Model, params: PyTree, images: Array) -> np.ndarray:
    """Outputs [N, ...] of one image after the other, by XLA's own convolutions.

    It is a slow reference for `features`.

    >>> from dlworkshop import models
    >>> images = np.zeros((5, 8, 8, 1), np.uint8)
    >>> model = models.logistic(num_classes=3)
    >>> params = model.init(jax.random.key(0), images[0])
    >>> sequential_features(model, params, images).shape
    (5, 3)
    """
    answer = jax.jit(model.apply)
    return np.stack([answer(params, image) for image in images])


class Extractor:
    """The model's outputs batch by batch, with one program per image shape.

    >>> from dlworkshop import models
    >>> images = np.zeros((5, 8, 8, 1), np.uint8)
    >>> model = models.logistic(num_classes=3)
    >>> params = model.init(jax.random.key(0), images[0])
    >>> [rows.shape for rows in Extractor(model, params, images)(images)]
    [(5, 3)]
    """

    def __init__(self, model: Model, params: PyTree, images: Array):
        flops = update_flops(model, images[0]) / 3  # of a forward pass
        budget = BATCH_FLOPS.get(jax.default_backend(), BATCH_FLOPS["gpu"])
        self._size = min(BATCH_SIZE, len(images), max(1, round(budget / max(flops, 1))))
        self._params = params
        platform = jax.default_backend()
        # for inference outside a loop, XLA's own convolution is the fastest for all but
        # wide layers
        model = computed_by(model, "winograd" if platform == "cpu" else "lax")
        lifted = jax.jit(lambda p, x: predict(model, p, x))
        lowered = lifted.lower(params, self._padded(images[:1]))
        self._program = lowered.compile(compiler_options=compiler_options(platform))

    def __call__(self, images: Array) -> Iterator[np.ndarray]:
        """Yield the outputs [B, ...] of each batch; the last may be shorter."""
        waiting = None
        for first in range(0, len(images), self._size):
            batch = images[first : first + self._size]
            result = self._program(self._params, self._padded(batch))
            if waiting is not None:  # transferred while this batch is computed
                yield np.asarray(waiting)
            waiting = result[: len(batch)] if len(batch) < self._size else result
        if waiting is not None:
            yield np.asarray(waiting)

    def _padded(self, batch: Array) -> np.ndarray:
        """The batch, padded with zeros to the batch size of the program."""
        short = self._size - len(batch)
        return np.pad(np.asarray(batch), [(0, short)] + [(0, 0)] * (batch.ndim - 1))


def _compute(model: Model, params: PyTree, dataset: Dataset, folder: Path) -> None:
    """Write the features of all splits into `folder`, atomically."""
    total = sum(len(getattr(dataset, split).targets) for split in SPLITS)
    with partial_folder(folder.parent) as partial:
        extract = Extractor(model, params, dataset.train.inputs)
        with Count(total, "images") as count:
            for split in SPLITS:
                images, done, array = getattr(dataset, split).inputs, 0, None
                for rows in extract(images):
                    if array is None:
                        array = np.lib.format.open_memmap(
                            partial / f"{split}.npy",
                            "w+",
                            rows.dtype,
                            (len(images), *rows.shape[1:]),
                        )
                    array[done : done + len(rows)] = rows
                    done += len(rows)
                    count.advance(len(rows))
        (partial / DIGESTS).write_text(json.dumps(_digests(partial)))
        atomic_rename(partial, folder)


def _name(model: Model, params: PyTree, dataset: Dataset) -> str:
    """24 hex digits that differ if the features may; "" if that is unknown."""
    splits = [getattr(dataset, split).inputs for split in SPLITS]
    known = identity.describe(
        {
            "model": model,
            "params": params,
            "data": [dataset.fingerprint, [list(split.shape) for split in splits]]
            if dataset.fingerprint
            else [np.asarray(split) for split in splits],
            "computed": [
                jax.__version__,
                jax.default_backend(),
                jax.config.jax_default_matmul_precision,  # type: ignore[attr-defined]
            ],
        }
    )
    return "" if identity.opaque(known) else identity.checksum(known)
