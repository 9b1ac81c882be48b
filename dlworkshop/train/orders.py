"""The order of examples in endless passes, with no dropped batch, and for folds."""

from collections.abc import Sequence

import numpy as np

from dlworkshop.data.order import Order, permutation


class EndlessOrder(Order):
    """Shuffled passes one after the other, in epochs of `steps_per_epoch` steps.

    No example is dropped: a batch at the end of a pass is filled from the next pass.
    Members may have their own examples, such as all but those of a fold.

    Args:
        seeds: [P] of the members.
        size: N examples.
        batch_size: examples per step; it may be larger than a pass.
        steps_per_epoch: steps between two evaluations of validation.
        held_out: [P, N] bool, the examples that a member does not learn from, or None.
            Members with the same seed and examples see the same batches.

    >>> order = EndlessOrder([0], size=5, batch_size=2, steps_per_epoch=5)
    >>> seen = order.steps(0, 5).ravel()
    >>> np.bincount(seen).tolist()
    [2, 2, 2, 2, 2]
    >>> order = EndlessOrder([0], 5, 2, 2, held_out=np.array([[True] + 4 * [False]]))
    >>> sorted(order.steps(0, 2).ravel().tolist())
    [1, 2, 3, 4]
    """

    def __init__(
        self,
        seeds: Sequence[int],
        size: int,
        batch_size: int,
        steps_per_epoch: int,
        held_out: np.ndarray | None = None,
    ):
        super().__init__(seeds, size, batch_size)
        self.steps_per_epoch = steps_per_epoch
        self._rows = [np.arange(size)] * len(self.seeds)
        if held_out is not None:
            which = np.column_stack([np.asarray(seeds, np.int64), held_out])
            kinds, self.member = np.unique(which, axis=0, return_inverse=True)
            self.seeds = kinds[:, 0]
            self._rows = [np.flatnonzero(1 - kind[1:]) for kind in kinds]

    def _draw(self, epoch: int) -> np.ndarray:
        shape = len(self.seeds), self.steps_per_epoch, self.batch_size
        pairs = zip(self.seeds, self._rows, strict=True)
        return np.stack([self._of_one(epoch, *pair) for pair in pairs]).reshape(shape)

    def _of_one(self, epoch: int, seed: int, rows: np.ndarray) -> np.ndarray:
        """The indices of an epoch: a slice of the endless sequence of passes."""
        used, size = self.steps_per_epoch * self.batch_size, len(rows)
        first, skipped = divmod(epoch * used, size)
        passes = [
            permutation(int(seed), first + i, size)
            for i in range(-(-(skipped + used) // size))
        ]
        return rows[np.concatenate(passes)[skipped : skipped + used]].astype(np.int32)
