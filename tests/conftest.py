"""What all tests share: four virtual devices, a cache of their own, tiny data."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest

from dlworkshop.types import Batch, Dataset

ROOT = Path(__file__).parent.parent

# The tests' own cache folder, warm in the second run; never the user's.
os.environ["XDG_CACHE_HOME"] = str(ROOT / ".pytest_cache" / "home")
os.environ.pop("DLWORKSHOP_DATA", None)
jax.config.update("jax_num_cpu_devices", 4)


def make_dataset(sizes=(96, 40, 33), classes=4, side=8, seed=0) -> Dataset:
    """Images whose bright quadrant names their class: learnt in a few steps."""
    rng = np.random.default_rng(seed)
    splits = []
    for size in sizes:
        label = rng.integers(0, classes, size).astype(np.int32)
        image = rng.integers(0, 120, (size, side, side, 1), dtype=np.uint8)
        half = side // 2
        for i, k in enumerate(label):
            row, column = divmod(int(k), 2)
            image[
                i, row * half : (row + 1) * half, column * half : (column + 1) * half
            ] += 60
        splits.append(Batch(image, label))
    names = tuple("abcdefgh"[:classes])
    return Dataset(*splits, names, "quadrants", f"{sizes}{seed}")


@pytest.fixture(scope="session")
def quadrants() -> Dataset:
    """96 / 40 / 33 images [8, 8, 1] of 4 classes."""
    return make_dataset()


@pytest.fixture
def one_device():
    return jax.devices()[:1]
