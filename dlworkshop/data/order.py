"""The order of examples: a pure function of (seed, epoch); a position is a number."""

import threading
from collections.abc import Sequence

import numpy as np


def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """A random order of range(size): [size] int32, the same on every machine.

    It sorts the raw 64-bit stream of Philox, because NumPy promises the streams of its
    bit generators for ever, but not what its shuffles make of them: a run can be
    resumed after an upgrade. Source: Salmon et al. (2011), Parallel random numbers.
    Any sort gives the same order unless two of the numbers are equal, which has a
    chance of size**2 / 2**65: 1e-10 for 55,000.

    >>> permutation(seed=0, epoch=0, size=5).tolist()
    [0, 2, 1, 4, 3]
    """
    stream = np.random.Philox(key=np.array([seed, epoch], np.uint64))
    return np.argsort(stream.random_raw(size)).astype(np.int32)


class Order:
    """Which examples each member sees at each step; the last partial batch is left out.

    Members of the same seed see the same batches, others see others. It may be asked
    from several threads.
    """

    def __init__(self, seeds: Sequence[int], size: int, batch_size: int):
        self.seeds, self.member = np.unique(np.asarray(seeds), return_inverse=True)
        self.size, self.batch_size = size, batch_size
        self.steps_per_epoch = size // batch_size
        self._lock = threading.Lock()
        self._epochs: dict[int, np.ndarray] = {}

    def steps(self, first: int, count: int, members=slice(None)) -> np.ndarray:
        """Indices [S, P, B] int32 of `count` steps from step `first`, in one epoch.

        `members` chooses some of the P.
        """
        epoch, start = divmod(first, self.steps_per_epoch)
        orders = self._of(epoch)[:, start : start + count]  # [seeds, S, B]
        return orders.swapaxes(0, 1)[:, self.member[members]]

    def _of(self, epoch: int) -> np.ndarray:
        """The orders [seeds, S, B] of an epoch, drawn once and by one thread.

        The last two are kept: threads are on both sides of the end of an epoch.
        """
        with self._lock:
            if epoch not in self._epochs:
                newest = list(self._epochs.items())[-1:]
                self._epochs = dict(newest) | {epoch: self._draw(epoch)}
            return self._epochs[epoch]

    def _draw(self, epoch: int) -> np.ndarray:
        used = self.steps_per_epoch * self.batch_size
        return np.stack(
            [permutation(seed, epoch, self.size)[:used] for seed in self.seeds]
        ).reshape(len(self.seeds), self.steps_per_epoch, self.batch_size)
