"""Occlusion saliency: the loss in probability if a part of the image is covered."""

import numpy as np
from PIL import Image

GRID = 8  # positions of the cover along each side; the cover is two of them wide


def covered(image: np.ndarray) -> np.ndarray:
    """The image [H, W, C] with each part covered in turn: [GRID * GRID, H, W, C].

    The cover has the mean colour of the image. The loss in the predicted probability is
    the saliency of the part.

    Source: Zeiler & Fergus (2014), Visualizing and understanding convolutional
    networks, section 4.2.

    >>> image = np.zeros((16, 16, 1), np.float32)
    >>> image[1, 1] = 1.0
    >>> [bool(each.max() == 1) for each in covered(image)[[0, 1, 2, 9]]]
    [False, False, True, False]
    """
    height, width = image.shape[:2]
    found = np.repeat(image[None], GRID * GRID, 0)
    colour = image.mean((0, 1)).astype(image.dtype)
    for place in range(GRID * GRID):
        row, column = divmod(place, GRID)
        rows, columns = (
            slice(max(0, round((i - 0.5) * n / GRID)), round((i + 1.5) * n / GRID))
            for i, n in ((row, height), (column, width))
        )
        found[place, rows, columns] = colour
    return found


def overlaid(image: np.ndarray, fell: np.ndarray) -> np.ndarray:
    """The image [H, W, C] in grey, orange where the probability fell: [H, W, 3] uint8.

    >>> overlaid(np.zeros((8, 8, 1), np.uint8), np.eye(8))[0, 0].tolist()
    [168, 67, 0]
    """
    pixels = image if image.dtype == np.uint8 else (255 * image).clip(0, 255)
    grey = pixels.astype(np.float32).mean(-1, keepdims=True)  # [H, W, 1]
    share = np.clip(fell, 0, None) / max(float(fell.max()), 1e-9)
    size = image.shape[1], image.shape[0]
    wide = Image.fromarray(share.astype(np.float32)).resize(
        size, Image.Resampling.BILINEAR
    )
    weight = np.asarray(wide)[..., None] * 0.75
    return ((1 - weight) * grey + weight * np.array([224, 90, 0])).astype(np.uint8)
