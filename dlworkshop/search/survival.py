"""Choice of flips and shifts by invariance of a network trained without them."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dlworkshop.data.rows import evenly
from dlworkshop.models.augment import shift
from dlworkshop.search.task import Task
from dlworkshop.train.result import Run
from dlworkshop.types import Array, Dataset

MOST = 2000  # images that are asked about
UPDATES = 100  # after which a network knows enough to be asked
KEPT = 0.9  # of the accuracy beyond chance, which must be left


def moves(
    run: Run, dataset: Dataset, task: Task, tried: Sequence[tuple[float, float]]
) -> tuple[dict[str, float], str]:
    """Choose flip and shift where there is no time to train with each.

    A few hundred updates do not show what augmentation is worth in thousands, but they
    show whether it is right: a network that learnt from images as they are must
    recognise those of validation that are moved. Of the pairs that are `tried` (chance
    of a flip, pixels of a shift), the least first, the most that survives is taken; of
    anything but classes the least. The network learnt with the first pair, which moves
    images only if the user asked for it.

    Returns:
        {"flip", "shift"}, and a sentence.
    """
    (flip, pixels), *others = tried
    found = {"flip": flip, "shift": pixels}
    if task.kind != "classes":
        more = " but those asked for" if flip or pixels else ""
        return found, f"There was no time to try flips and shifts: none{more} was taken"
    places = evenly(dataset.validation.num_examples, MOST)
    images = np.asarray(dataset.validation.inputs[places])
    true = np.asarray(dataset.validation.targets)[places]
    chance = np.bincount(true).max() / len(true)

    def accuracy(moved: Array) -> float:
        said = np.asarray(run.predict(moved))[run.chosen]  # [P, N, K]
        return float((said.argmax(-1) == true).mean(1).max())  # of the best member

    mirrored = functools.cache(lambda: accuracy(images[:, :, ::-1]))
    moved = functools.cache(lambda pixels: accuracy(shifted(images, pixels)))
    whole, told, taken = accuracy(images), [], "neither"
    for more_flip, more_pixels in others:
        left = {}
        if more_flip > flip:
            left["a flip"] = mirrored()
        if more_pixels > pixels:
            left["a shift"] = moved(int(more_pixels))
        lowest, what = min(left.values()), " and ".join(left)
        if lowest - chance >= KEPT * (whole - chance) > 0:
            found, taken = {"flip": more_flip, "shift": more_pixels}, what
        told.append(f"{100 * lowest:.1f} % after {what}")
    return found, (
        "There was no time to try augmentation. A network that learnt without "
        f"recognises {100 * whole:.1f} % of validation images as they are, "
        f"{', '.join(told)}: {taken} taken"
    )


def shifted(images: Array, pixels: int) -> np.ndarray:
    """Images shifted as in training, each by its own number of pixels.

    >>> images = np.arange(9).reshape(1, 3, 3, 1).repeat(50, 0)
    >>> shifts = {int(image[1, 1, 0]) for image in shifted(images, 1)}
    >>> shifts == set(range(9))
    True
    """
    keys = jax.random.split(jax.random.key(0), len(images))
    lifted = jax.vmap(lambda key, image: shift(key, image, pixels))
    return np.asarray(lifted(keys, jnp.asarray(images)))
