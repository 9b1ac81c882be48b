"""Data for the lessons: points, functions on a line, shifted images, and a photo.

Points are `Batch(inputs [N, 2] float32, targets [N] int32)`, drawn from a seed. The
functions map x [...] in [0, 1] to values [...].
"""

import importlib.resources

import numpy as np

from dlworkshop.data.readers.images import decode
from dlworkshop.types import Batch, Dataset


def xor(size: int = 200, noise: float = 0.15, seed: int = 0) -> Batch:
    """Four clouds at (+-1, +-1); class 1 where the signs differ.

    A straight line classifies at most three of the four clouds correctly (Minsky &
    Papert 1969, Perceptrons). The clouds are equally large if 4 divides `size`.

    >>> xor(4, noise=0.0).inputs.tolist(), xor(4).targets.tolist()
    ([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]], [0, 1, 1, 0])
    """
    corner = np.arange(size) % 4
    signs = np.stack([corner % 2, corner // 2], -1) * 2.0 - 1  # [N, 2]
    return _points(signs, corner % 2 != corner // 2, noise, seed)


def rings(size: int = 200, noise: float = 0.1, seed: int = 0) -> Batch:
    """A circle of radius 0.4 (class 1) inside one of radius 1 (class 0).

    >>> points = rings(100, noise=0.0)
    >>> [f"{radius:.2f}" for radius in np.hypot(*points.inputs[:2].T)]
    ['1.00', '0.40']
    """
    inner = np.arange(size) % 2
    angle = np.random.default_rng([seed, 1]).uniform(0, 2 * np.pi, size)
    radius = np.where(inner, 0.4, 1.0)
    place = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    return _points(place, inner, noise, seed)


def moons(size: int = 200, noise: float = 0.1, seed: int = 0) -> Batch:
    """Two interleaved half circles.

    >>> moons(10).inputs.shape, moons(10).targets.tolist()
    ((10, 2), [0, 1, 0, 1, 0, 1, 0, 1, 0, 1])
    """
    lower = np.arange(size) % 2
    angle = np.random.default_rng([seed, 1]).uniform(0, np.pi, size)
    x = np.where(lower, 0.5 - np.cos(angle), np.cos(angle) - 0.5)
    y = np.where(lower, 0.25 - np.sin(angle), np.sin(angle) - 0.25)
    return _points(np.stack([x, y], -1), lower, noise, seed)


def spirals(
    size: int = 200, arms: int = 3, noise: float = 0.03, seed: int = 0
) -> Batch:
    """`arms` interleaved spirals, one class each.

    >>> spirals(9).targets.tolist(), bool(abs(spirals(99).inputs).max() < 1.2)
    ([0, 1, 2, 0, 1, 2, 0, 1, 2], True)
    """
    arm = np.arange(size) % arms
    radius = np.random.default_rng([seed, 1]).uniform(0.1, 1, size)
    angle = 2 * np.pi * arm / arms + 3.5 * radius
    place = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    return _points(place, arm, noise, seed)


def split(points: Batch, name: str = "points", seed: int = 0) -> Dataset:
    """Shuffle and split points: 60 % train, 20 % validation, 20 % test.

    >>> dataset = split(xor(100))
    >>> [len(part.targets) for part in dataset[:3]], dataset.classes
    ([60, 20, 20], ('0', '1'))
    """
    size = len(points.targets)
    order = np.random.default_rng(seed).permutation(size)
    parts = np.split(order, [size * 6 // 10, size * 8 // 10])
    classes = tuple(str(k) for k in range(int(points.targets.max()) + 1))
    train, validation, test = (
        Batch(points.inputs[i], points.targets[i]) for i in parts
    )
    return Dataset(train, validation, test, classes, name, f"{name}-{size}-{seed}")


def wave(x):
    """Two periods of a sine, between -1 and 1.

    >>> wave(np.array([0.0, 0.125])).round(6).tolist()
    [0.0, 1.0]
    """
    return np.sin(4 * np.pi * x)


def step(x):
    """0 below 1/2, else 1: discontinuous, so no bound on the error holds at 1/2.

    >>> step(np.array([0.4, 0.6])).tolist()
    [0.0, 1.0]
    """
    return np.where(x < 0.5, 0.0, 1.0)


def tent(x, folds: int = 1):
    """The tent map, applied `folds` times: 2^folds straight pieces between 0 and 1.

    Source: Telgarsky (2016), Benefits of depth in neural networks.

    >>> tent(np.array([0.0, 0.25, 0.5, 0.75])).tolist()
    [0.0, 0.5, 1.0, 0.5]
    >>> tent(np.array([0.25, 0.5]), folds=2).tolist()
    [1.0, 0.0]
    """
    for _ in range(folds):
        x = 1 - np.abs(2 * x - 1)
    return x


def num_pieces(slope) -> int:
    """The number of straight pieces of a curve, from its slopes [T].

    A change of less than 1e-4 of the steepest slope is float32 rounding.

    >>> num_pieces(np.array([2.0, 2.0, -2.0, -2.00001]))
    2
    """
    slope = np.asarray(slope)
    return 1 + int(np.count_nonzero(abs(np.diff(slope)) > 1e-4 * abs(slope).max()))


def bump(x):
    """A narrow Gaussian at 1/2 with height 1.

    >>> bump(np.array([0.5, 0.0])).round(6).tolist()
    [1.0, 0.0]
    """
    return np.exp(-((np.asarray(x) - 0.5) ** 2) / (2 * 0.05**2))


def placed(images, rows, columns, side: int):
    """Images [N, H, H, C] pasted into black ones [N, side, side, C].

    `rows` and `columns` of the upper left corners, in [0, side - H], are [N], or one
    number for all.

    >>> placed(np.ones((1, 1, 1, 1)), 1, 2, side=3)[0, ..., 0].tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    """
    size, height, width, channels = images.shape
    canvas = np.zeros((size, side, side, channels), images.dtype)
    down = np.reshape(rows, (-1, 1, 1)) + np.arange(height)[:, None]  # [N, H, 1]
    right = np.reshape(columns, (-1, 1, 1)) + np.arange(width)  # [N, 1, W]
    canvas[np.arange(size)[:, None, None], down, right] = images
    return canvas


def scattered(split: Batch, side: int, seed: int = 0) -> Batch:
    """Shuffled images, each pasted at a random place of a black one.

    >>> split = Batch(np.full((3, 8, 8, 1), 255, np.uint8), np.arange(3))
    >>> scattered(split, 12).inputs.shape, sorted(scattered(split, 12).targets.tolist())
    ((3, 12, 12, 1), [0, 1, 2])
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(split.targets))
    room = side - split.inputs.shape[1]
    rows, columns = rng.integers(0, room + 1, (2, len(order)))
    image = placed(split.inputs[order], rows, columns, side)
    return Batch(image, split.targets[order])


def centred(dataset: Dataset, side: int) -> Dataset:
    """Each image pasted into the middle of a black one.

    >>> part = Batch(np.full((3, 8, 8, 1), 255, np.uint8), np.arange(3))
    >>> dataset = centred(Dataset(part, part, part, ("0", "1", "2")), 12)
    >>> dataset.test.inputs[0, :, 6, 0].tolist()
    [0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0]
    """

    def framed(split):
        middle = (side - split.inputs.shape[1]) // 2
        return split._replace(inputs=placed(split.inputs, middle, middle, side))

    return dataset.each_split(framed)


def moved(images, distance: int, side: int):
    """Images [N, H, H, C] pasted at a distance from the middle, in four directions.

    Returns:
        [4 N, side, side, C]: all images moved up, then down, left and right.

    >>> moved(np.ones((1, 1, 1, 1)), 1, side=3)[:2, :, 1, 0].tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    middle = (side - images.shape[1]) // 2
    steps = (-distance, 0), (distance, 0), (0, -distance), (0, distance)
    places = [(middle + down, middle + right) for down, right in steps]
    return np.concatenate([placed(images, *place, side) for place in places])


def photo(side: int) -> np.ndarray:
    """The middle of a photo of a Chinese temple, [side, side, 3] uint8.

    Source: "china.jpg" by danielbuechele (CC BY 2.0), included in scikit-learn.

    >>> photo(32).shape, photo(32).dtype
    ((32, 32, 3), dtype('uint8'))
    """
    file = importlib.resources.files("sklearn.datasets.images") / "china.jpg"
    frame = {"height": side, "width": side, "channels": 3, "resize": "crop"}
    return decode(file.read_bytes(), frame)


def _points(place: np.ndarray, label: np.ndarray, noise: float, seed: int) -> Batch:
    blur = noise * np.random.default_rng(seed).standard_normal(place.shape)
    return Batch((place + blur).astype(np.float32), np.asarray(label).astype(np.int32))
