"""The MNIST family: official names, features and versions, read without TensorFlow."""

from typing import Any

from tensorflow_datasets.core.registered import skip_registration
from tensorflow_datasets.image_classification import mnist as official

from dlworkshop.data.builders import png


class FromArrays:
    """Yields the arrays in `raw` (a `sources.Raw`), set before preparing."""

    raw: Any = None

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # the raw files have been read and checked already
        return {
            "train": png.examples(self.raw.train),
            "test": png.examples(self.raw.test),
        }


# The official classes stay registered under these names.
with skip_registration():

    class MNIST(FromArrays, official.MNIST):
        """Handwritten digits, 28x28."""

    class FashionMNIST(FromArrays, official.FashionMNIST):
        """Clothes, 28x28."""

    class KMNIST(FromArrays, official.KMNIST):
        """Handwritten Japanese characters, 28x28."""

    class EMNIST(FromArrays, official.EMNIST):
        """Handwritten letters and digits, 28x28, transposed as officially."""
