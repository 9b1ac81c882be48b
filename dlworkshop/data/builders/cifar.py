"""CIFAR: official names, features and versions, read without TensorFlow."""

from collections.abc import Iterator
from typing import Any

from tensorflow_datasets.core.registered import skip_registration
from tensorflow_datasets.image_classification import cifar as official

from dlworkshop.data.builders import png


class FromArrays:
    """Yields the arrays in `raw` (a `sources.Raw`), set before preparing."""

    raw: Any = None
    info: Any  # of the tfds builder

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # the raw files have been read and checked already
        for column, names in self.raw.class_names.items():
            self.info.features[column].names = names
        return {
            "train": _with_id(self.raw.train, "train"),
            "test": _with_id(self.raw.test, "test"),
        }


def _with_id(columns: dict[str, Any], split: str) -> Iterator[tuple[int, Any]]:
    for index, example in png.examples(columns):
        yield index, example | {"id": f"{split}_{index:05d}"}  # the official form


# The official classes stay registered under these names.
with skip_registration():

    class Cifar10(FromArrays, official.Cifar10):
        """Photographs of 10 kinds of things, 32x32x3."""

    class Cifar100(FromArrays, official.Cifar100):
        """Photographs of 100 kinds of things in 20 groups, 32x32x3."""
