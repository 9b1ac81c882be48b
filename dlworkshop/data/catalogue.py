"""Named data sets: their raw files, classes and validation split."""

import string
from typing import NamedTuple


class Entry(NamedTuple):
    """Static facts about one data set."""

    num_train: int  # N of the official train split
    num_validation: int  # the last part of it, in the order of the tfds records
    num_classes: int  # K
    train: tuple[str, ...] = ()  # raw files, without .gz; () if a dependency has them
    test: tuple[str, ...] = ()
    archive: str = ""  # the official archive they come in
    folder: str = ""  # their folder inside it
    class_files: tuple[str, ...] = ()  # files of class names; those of `label` last
    first_label: int = 0  # the label of class 0 in raw files and records
    classes: tuple[str, ...] = ()  # [K] names; () uses the names in the records
    transposed: bool = False  # raw files and records hold [W, H]


def _idx_files(prefix: str) -> tuple[str, str]:
    return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"


def _emnist(part: str, num_train: int, num_validation: int, classes: str) -> Entry:
    return Entry(
        num_train,
        num_validation,
        len(classes),
        _idx_files(f"emnist-{part}-train"),
        _idx_files(f"emnist-{part}-test"),
        archive="gzip.zip",
        folder="gzip",
        # Letters are numbered from 1. The official builder keeps these numbers and
        # declares 37 classes; `load` subtracts 1 so that labels are in [0, 26).
        first_label=int(part == "letters"),
        classes=tuple(classes),
        transposed=True,
    )


_MNIST = Entry(60_000, 5_000, 10, _idx_files("train"), _idx_files("t10k"))
_BALANCED = string.digits + string.ascii_uppercase + "abdefghnqrt"
_BATCHES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))

ENTRIES = {
    "digits": Entry(1_437, 180, 10),
    "mnist": _MNIST,
    "fashion_mnist": _MNIST,
    "kmnist": _MNIST,
    # Validation is as large as test, as the authors of EMNIST propose.
    "emnist/letters": _emnist("letters", 88_800, 14_800, string.ascii_uppercase),
    "emnist/digits": _emnist("digits", 240_000, 40_000, string.digits),
    "emnist/balanced": _emnist("balanced", 112_800, 18_800, _BALANCED),
    "cifar10": Entry(
        50_000,
        5_000,
        10,
        _BATCHES,
        ("test_batch.bin",),
        archive="cifar-10-binary.tar.gz",
        folder="cifar-10-batches-bin",
        class_files=("batches.meta.txt",),
    ),
    "cifar100": Entry(
        50_000,
        5_000,
        100,
        ("train.bin",),
        ("test.bin",),
        archive="cifar-100-binary.tar.gz",
        folder="cifar-100-binary",
        class_files=("coarse_label_names.txt", "fine_label_names.txt"),
    ),
}
NAMES = tuple(ENTRIES)
