"""Free memory, and how many members fit into it at once."""

import logging
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from dlworkshop.errors import UserError
from dlworkshop.report import words
from dlworkshop.train import cgroups, processes
from dlworkshop.train.groups import balanced_size, halve
from dlworkshop.train.mesh import MEMBER
from dlworkshop.train.programs import tree_bytes
from dlworkshop.train.progress import log_level

log = logging.getLogger(__name__)

# Bytes that must be free per predicted byte. On a CPU a process grew by 1.1 to 1.5
# times the prediction, because the C library keeps freed blocks for a while. Elsewhere
# memory is fragmented.
MARGIN = {"cpu": 1.5}
MARGIN_ELSEWHERE = 1.1


def fitting(
    size: int,
    axis: int,
    predicted: Callable[[int], float],
    free: float,
    margin: float = 1.0,
    quiet: bool = False,
) -> int:
    """The largest group size that fits: `size`, its half, its quarter ...

    Args:
        size: the largest size to try, a multiple of `axis`.
        axis: devices over which members are spread.
        predicted: members in a group -> bytes on each device.
        free: bytes on each device.
        margin: bytes that must be free per predicted byte.
        quiet: do not log if the result is less than `size`.

    >>> fitting(12, axis=2, predicted=lambda size: 2**20 * size, free=5 * 2**20)
    4
    """

    def in_need(size: int) -> str:
        needed, there = in_words(margin * predicted(size)), in_words(free)
        members = words.count(size, "member")
        return f"{members} may take {needed} of memory, and {there} are free"

    asked = size
    while margin * predicted(size) > free:
        if (smaller := halve(size, axis)) == size:
            raise UserError(
                f"{in_need(size)}: choose a smaller batch_size or model, or try it "
                "with members_at_once=1"
            )
        size = smaller
    if size < asked:
        level = log_level(quiet, logging.INFO)
        log.log(level, "%s: %d train at once", in_need(asked), size)
    return size


class Needs(NamedTuple):
    """Predicted bytes on each device, by purpose."""

    parameters: float  # and running statistics, with the best so far
    optimizer: float
    data: float
    activations: float  # gradients, and everything else that programs hold temporarily
    copies: float  # of the population, if the memory of a CPU holds them


def predict(plan, saved: bool, size: int) -> float:
    """Predicted bytes on each device for training `size` members at once."""
    return sum(needs(plan, saved, size))


def needs(plan, saved: bool, size: int) -> Needs:
    """Predicted bytes on each device for training `size` members at once.

    The memory of a CPU also holds the copy of the population that is being saved, and
    the whole population if groups take turns.
    """
    members = len(plan.seeds)
    seeds = np.asarray(plan.seeds, np.uint32)
    seeds, hparams, start = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            (size, *leaf.shape[1:]), jax.dtypes.canonicalize_dtype(leaf.dtype)
        ),
        (seeds, dict(plan.hparams), plan.start),
    )
    training, evaluation = plan.feed.shapes(
        plan.chunk, size, plan.evaluation_batch, plan.evaluation_batches(size)
    )
    whole = plan.has_split_metrics
    # the test split is read with the outputs, for predictions, and it may be larger
    found = plan.found_bytes("validation", size, whole)
    more = plan.found_bytes("test", size, whole or saved) - found
    group = plan.programs.memory(
        seeds,
        hparams,
        plan.example,
        start,
        training,
        evaluation,
        plan.validation_split if plan.by_epochs else None,
        with_outputs=whole,
        more=max(0, more if plan.asked.read_test else 0) // plan.mesh.size,
    )
    splits, fed = training
    data = tree_bytes(splits) + tree_bytes(fed) / plan.mesh.size + plan.feed.more()
    axis = plan.mesh.shape[MEMBER]
    copies = 0.0
    if plan.mesh.devices.flat[0].platform == "cpu":
        count = saved + (size != members)
        copies = count * group.state * members / size / plan.mesh.size
    parameters, optimizer = group.parameters / axis, group.optimizer / axis
    rest = group.running + plan.feed.more() - data - parameters - optimizer
    # on a platform that does not report it, running is 0
    return Needs(parameters, optimizer, data, max(0.0, rest), copies)


def margin(devices: Sequence[jax.Device]) -> float:
    """Bytes that must be free per predicted byte on such devices."""
    return MARGIN.get(devices[0].platform, MARGIN_ELSEWHERE)


def equal(members: int, axis: int, most: int) -> int:
    """The size of the fewest equal groups of at most `most` of the `members`.

    The size is a multiple of `axis`, and groups may have empty places.

    >>> equal(12, axis=1, most=5), equal(12, axis=2, most=5), equal(12, axis=4, most=1)
    (4, 4, 4)
    >>> equal(5, axis=3, most=5)
    6
    """
    rows = -(-members // axis)  # of one member on each device
    return axis * (
        rows if most >= members else balanced_size(rows, max(1, most // axis))
    )


def free(devices: Sequence[jax.Device]) -> float:
    """Free bytes on each device; CPU devices share theirs.

    A device that does not report its memory is assumed to have enough.
    """
    own = [each for each in devices if each.process_index == jax.process_index()]
    if own[0].platform == "cpu":
        return min(processes.allgather_json(available() / len(own)))
    stats = [device.memory_stats() or {} for device in own]
    left = [s.get("bytes_limit", math.inf) - s.get("bytes_in_use", 0) for s in stats]
    return min(processes.allgather_json(min(left)))


def available(root: Path = Path("/")) -> int:
    """Bytes that this process can still allocate, as the system reports.

    On Linux that is MemAvailable, or the rest of the limit of an enclosing cgroup if
    that is less: containers and jobs of a cluster are such groups. Elsewhere it is the
    whole memory.

    Args:
        root: where the system's folders /proc and /sys are.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        known = dict(line.split(":", 1) for line in lines)
        memory = int(known["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    return max(0, min([memory, *cgroups.memory_left(root)]))


def in_words(count: float) -> str:
    """Bytes in the largest suitable unit.

    >>> in_words(3 * 2**29), in_words(700)
    ('1.5 GiB', '700 bytes')
    """
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"
