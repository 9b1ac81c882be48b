"""The handwritten digits of scikit-learn, which need no download."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from dlworkshop.data.builders import official


# tfds finds the prepared data set by its folder, so the builder is not registered.
class Digits(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """1,797 handwritten digits, 8x8, of the UCI test set; 1,437 train, 360 test."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> Any:
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                "1,797 handwritten digits, 8x8 pixels of 17 grey levels, scaled to "
                "0..255; shuffled once, 1,437 for training and 360 for testing."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
            citation=(
                "@misc{alpaydin1998optical, title={Optical Recognition of "
                "Handwritten Digits}, author={Alpaydin, E. and Kaynak, C.}, "
                "year={1998}, howpublished={UCI Machine Learning Repository}}"
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # nothing to download
        from sklearn.datasets import load_digits  # noqa: PLC0415

        bunch = load_digits()
        image = np.round(bunch.images * (255 / 16)).astype(np.uint8)  # [N, H, W]
        # The digits are sorted by writer, so without a shuffle the test split would
        # have writers that train lacks. The stream of RandomState is frozen.
        order = np.random.RandomState(0).permutation(len(image))  # [N]
        columns = {"image": image[order, ..., None], "label": bunch.target[order]}
        return {
            "train": self._generate_examples({k: v[:1437] for k, v in columns.items()}),
            "test": self._generate_examples({k: v[1437:] for k, v in columns.items()}),
        }

    def _generate_examples(self, columns: dict[str, np.ndarray]) -> Any:
        return official.examples(columns)
