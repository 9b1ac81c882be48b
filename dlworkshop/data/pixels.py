"""Images -> inputs [N, D] of a linear model, and standardised inputs."""

import numpy as np

from dlworkshop.types import Array, Batch, Dataset


def coarse(images: Array, most: int = 16) -> np.ndarray:
    """Downscaled pixels [N, h * w * C] of images [N, H, W, C]; of uint8 in [0, 1].

    If a side has more than `most` pixels, square blocks are averaged so that no side
    has more; they are as wide as the image if that is narrower. An incomplete block at
    the right or bottom is cut off.

    >>> image = np.array([[0, 51, 9], [102, 51, 9]], np.uint8)[None, ..., None]
    >>> coarse(image, most=2).tolist()  # one block of 2x2, their mean 51
    [[0.2]]
    >>> coarse(image, most=3).shape
    (1, 6)
    >>> coarse(np.zeros((1, 100, 6, 1)), most=16).shape  # blocks of 7x6
    (1, 14)
    """
    height, width = images.shape[1:3]
    size = -(-max(height, width) // most)  # of a block
    rows, columns = min(size, height), min(size, width)
    h, w = height // rows, width // columns
    blocks = images[:, : h * rows, : w * columns]
    blocks = blocks / 255 if blocks.dtype == np.uint8 else blocks
    blocks = blocks.reshape(len(images), h, rows, w, columns, -1)
    return blocks.mean((2, 4), np.float64).reshape(len(images), -1)


def standardised(dataset: Dataset) -> tuple[Dataset, np.ndarray, np.ndarray]:
    """Inputs [N, D] with mean 0 and deviation 1 over the training split.

    A constant input becomes 0.

    Returns:
        The data set, and the mean and deviation [D] of the original inputs.

    >>> split = Batch(np.array([[1.0, 7.0], [5.0, 7.0]]), np.array([0, 1]))
    >>> dataset = Dataset(split, split, split, ("a", "b"))
    >>> scaled, mean, deviation = standardised(dataset)
    >>> scaled.test.inputs.tolist(), mean.tolist(), deviation.tolist()
    ([[-1.0, 0.0], [1.0, 0.0]], [3.0, 7.0], [2.0, 1.0])
    """
    mean, deviation = dataset.train.inputs.mean(0), dataset.train.inputs.std(0)  # [D]
    deviation = np.where(deviation > 0, deviation, 1)

    def scale(split: Batch) -> Batch:
        return split._replace(inputs=(split.inputs - mean) / deviation)

    return dataset.each_split(scale), mean, deviation
