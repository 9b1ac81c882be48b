"""Small raw files that look like the official ones, and a cache of one's own."""

import gzip

import numpy as np
import pytest

NUM_TRAIN, NUM_TEST = 60, 20


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("DLWORKSHOP_DATA", str(folder))
    return folder


@pytest.fixture(scope="session")
def write_idx():
    def write(path, array):  # array of uint8
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        data = header + array.tobytes()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)

    return write


@pytest.fixture(scope="session")
def make_idx(write_idx):
    """make(folder, prefixes, first_label, count, suffix, seed) -> the arrays."""

    def make(folder, prefixes=("train", "t10k"), first=0, count=10, suffix=".gz"):
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        made = {}
        for prefix, n in zip(prefixes, (NUM_TRAIN, NUM_TEST), strict=True):
            image = rng.integers(0, 256, (n, 28, 28), np.uint8)
            label = (np.arange(n) % count + first).astype(np.uint8)
            write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", image)
            write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", label)
            made[prefix] = image, label
        return made

    return make


@pytest.fixture
def mnist_raw(tmp_path, make_idx):
    folder = tmp_path / "raw"
    return folder, make_idx(folder)


@pytest.fixture
def cifar_raw(tmp_path):
    """make("cifar10" | "cifar100") -> the extracted folder and its train records."""

    def make(name):
        coarse = 1 if name == "cifar100" else 0
        folder = tmp_path / "raw" / name
        folder.mkdir(parents=True)
        rng = np.random.default_rng(1)
        trains = ["train"] if coarse else [f"data_batch_{i}" for i in range(1, 6)]
        test = "test" if coarse else "test_batch"
        records = {}
        for file in (*trains, test):
            records[file] = rng.integers(0, 256, (4, 1 + coarse + 3072), np.uint8)
            records[file][:, : 1 + coarse] %= 10
            (folder / f"{file}.bin").write_bytes(records[file].tobytes())
        if coarse:
            names = "\n".join(f"fine{i}" for i in range(100))
            (folder / "fine_label_names.txt").write_text(names + "\n")
            names = "\n".join(f"coarse{i}" for i in range(20))
            (folder / "coarse_label_names.txt").write_text(names + "\n")
        else:
            names = "\n".join(f"thing{i}" for i in range(10))
            (folder / "batches.meta.txt").write_text(names + "\n\n")
        return folder, np.concatenate([records[file] for file in trains])

    return make
