"""Outputs of a network on a data set, computed once and cached, as a new data set.

A network whose parameters stay as they are need not be run in every epoch.
"""

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
from dlworkshop.files import atomic_rename
from dlworkshop.models.convolution import computed_by
from dlworkshop.models.model import Model, check_model, predict
from dlworkshop.train.cache import cache_folder
from dlworkshop.train.flops import update_flops
from dlworkshop.types import Array, Batch, Dataset, PyTree

# Floating-point operations of a batch, at most so many images. On a CPU the maps of
# such a batch fit into memory that the process keeps; larger ones are asked of the
# system every time: VGG16 made 13 images/s of 224x224 in twos and 9 in sixteens.
BATCH_FLOPS = {"cpu": 6e10, "gpu": 2e12}
BATCH_SIZE = 512
# XLA for CPUs has two ways to compute a convolution; without its newer one (YNNPACK)
# VGG16 made 13.0 images/s of 224x224 in twos, with it 10.2 (medians of 4, in turns).
CPU_OPTIONS: dict[str, str | bool] = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
}
DIGESTS = "sha256.json"  # the name of a file of features -> its digest


def features(model: Model, params: PyTree, dataset: Dataset) -> Dataset:
    """The data set with the model's outputs in place of its images.

    They are kept in the user's cache under a name made of the parameters, the model
    with its code, and the content of the data, so that a second run reads them, if they
    are as they were written: to find out takes a second for each GB or so. Where the
    model holds something whose content is not known, such as an open file, they are
    computed every time.

    Args:
        model: outputs of one example of any shape are its features.
        params: of the model, not of a population.
        dataset: with its content's fingerprint; without one, the content is read.

    Returns:
        Splits of `Batch(image [N, ...] float, label)`, mapped into memory.

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
    if home is None:  # nowhere to keep them, or no name by which to find them again
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
    train, validation, test = (
        Batch(
            np.load(folder / f"{split}.npy", mmap_mode="r"),
            getattr(dataset, split).targets,
        )
        for split in SPLITS
    )
    return dataset._replace(
        train=train, validation=validation, test=test, fingerprint=name
    )


def sequential_features(model: Model, params: PyTree, images: Array) -> np.ndarray:
    """Outputs [N, ...] of one image after the other, by XLA's own convolutions.

    Slow and plain, it is what `features` can be checked by.

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
        on_cpu = jax.default_backend() == "cpu"
        # Forwards and outside a loop, XLA's own convolution is the fastest for all
        # but wide layers.
        model = computed_by(model, "winograd" if on_cpu else "lax")
        lifted = jax.jit(lambda p, x: predict(model, p, x))
        lowered = lifted.lower(params, self._padded(images[:1]))
        options = CPU_OPTIONS if on_cpu else {}
        try:
            self._program = lowered.compile(compiler_options=options)
        except jax.errors.JaxRuntimeError:  # an XLA that does not know the option
            self._program = lowered.compile()

    def __call__(self, images: Array) -> Iterator[np.ndarray]:
        """Outputs [B, ...] of one batch after the other; the last may be shorter."""
        waiting = None
        for first in range(0, len(images), self._size):
            batch = images[first : first + self._size]
            result = self._program(self._params, self._padded(batch))
            if waiting is not None:  # the batch before, while this one is computed
                yield np.asarray(waiting)
            waiting = result[: len(batch)] if len(batch) < self._size else result
        if waiting is not None:
            yield np.asarray(waiting)

    def _padded(self, batch: Array) -> np.ndarray:
        """Padded with zeros to the batch size of the program."""
        short = self._size - len(batch)
        return np.pad(np.asarray(batch), [(0, short)] + [(0, 0)] * (batch.ndim - 1))


def _compute(model: Model, params: PyTree, dataset: Dataset, folder: Path) -> None:
    """Write the features of all splits into `folder`, atomically."""
    total = sum(len(getattr(dataset, split).targets) for split in SPLITS)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    try:
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
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _name(model: Model, params: PyTree, dataset: Dataset) -> str:
    """24 hex digits that differ where the features may; "" where that is unknown."""
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
