"""Partition of the running members into groups that fit into memory.

A group runs programs compiled for its size, and there are few sizes: the largest that
fits, its half, its quarter ... So a population that does not fit is cut into groups,
and one with many stopped members is reduced to a smaller group.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

# Chunks of work, of one or two seconds each, that programs of a smaller size must save
# to be worth compiling.
WORTH = 5.0

# The member in each place; P, the number of all members, marks an empty place.
Group = tuple[int, ...]


class Groups(NamedTuple):
    """How the P members of a population are cut into groups."""

    members: int  # P
    sizes: tuple[int, ...]  # of groups, in descending order

    @property
    def all_at_once(self) -> bool:
        """Whether one group holds all members."""
        return self.sizes[0] == self.members

    def partition(self, chosen: Iterable[int]) -> list[Group]:
        """Partition sorted members into the fewest and smallest groups.

        All members stay together if there is a group of all and no smaller one fits.

        >>> Groups(8, (8, 4, 2)).partition([1, 3, 6])
        [(1, 3, 6, 8)]
        >>> Groups(8, (8, 4, 2)).partition([0, 1, 3, 4, 6])
        [(0, 1, 2, 3, 4, 5, 6, 7)]
        >>> Groups(8, (4, 2)).partition([0, 1, 3, 4, 6])
        [(0, 1, 3, 4), (6, 8)]
        """
        chosen, groups = tuple(chosen), []
        while chosen:
            some, chosen = chosen[: self.sizes[0]], chosen[self.sizes[0] :]
            size = min(size for size in self.sizes if size >= len(some))
            if size == self.members:
                return [tuple(range(self.members))]
            groups.append(some + (self.members,) * (size - len(some)))
        return groups


def halve(size: int, axis: int) -> int:
    """Half of `size`, rounded up to a multiple of `axis`.

    >>> halve(8, axis=2), halve(10, axis=4), halve(4, axis=4)
    (4, 8, 4)
    """
    return -(-size // (2 * axis)) * axis


def group_sizes(
    largest: int, axis: int, chunks: float, planned: Iterable[int] = ()
) -> tuple[int, ...]:
    """`largest`, its half, its quarter ... if smaller programs are worth compiling.

    Args:
        largest: members of the largest group, a multiple of `axis`.
        axis: devices over which members are spread.
        chunks: the whole run of one member, in chunks of work.
        planned: numbers of members that a scheduler leaves, used instead of halves.

    >>> group_sizes(20, axis=2, chunks=100), group_sizes(20, axis=2, chunks=0.5)
    ((20, 10, 6, 4, 2), (20, 10))
    >>> group_sizes(28, axis=2, chunks=100, planned=[27, 9, 3, 1])
    (28, 10, 4, 2)
    """
    left = {-(-count // axis) * axis for count in planned} or _halves(largest, axis)
    sizes = [largest]
    for smaller in sorted(left, reverse=True):
        saved = sizes[-1] - smaller
        if saved > 0 and saved * chunks >= WORTH:
            sizes.append(smaller)
    return tuple(sizes)


def _halves(size: int, axis: int) -> set[int]:
    found = {size}
    while (size := halve(size, axis)) not in found:
        found.add(size)
    return found


def balanced_size(count: int, most: int) -> int:
    """The size of the parts if `count` is cut into the fewest parts of at most `most`.

    >>> balanced_size(10, most=4), balanced_size(9, most=4), balanced_size(3, most=4)
    (4, 3, 3)
    """
    return -(-count // -(-count // most))


def scatter_rows(whole: np.ndarray, group: Group, rows: np.ndarray) -> None:
    """Write `rows` [G, ...] of a group's members into `whole` [P, ...]."""
    members = [member for member in group if member < len(whole)]
    whole[members] = rows[: len(members)]
