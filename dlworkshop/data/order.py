"""The order of examples, a pure function of (seed, epoch).

The host and a device draw the same order, bit for bit.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from dlworkshop.types import Array

# Number of examples from which threads draw the orders of several seeds: a smaller
# order takes less than the 0.1 ms that starting a task costs.
MANY = 10_000
# Philox4x64-10: multipliers, increments of the key between rounds, number of rounds.
MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
WEYL = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
ROUNDS = 10
# Examples (of all seeds) that a device sorts at a time, because sorting needs copies.
AT_ONCE = 2**22


def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """A random order of range(size): [size] int32, the same on every machine.

    It sorts the raw 64-bit stream of Philox: NumPy guarantees the streams of its bit
    generators, but not its shuffles, so a run can be resumed after an upgrade. Any sort
    gives the same order unless two numbers are equal, which has probability
    size**2 / 2**65: 1e-10 for 55,000.

    Source: Salmon et al. (2011), Parallel random numbers: as easy as 1, 2, 3.

    >>> permutation(seed=0, epoch=0, size=5).tolist()
    [0, 2, 1, 4, 3]
    """
    stream = np.random.Philox(key=np.array([seed, epoch], np.uint64))
    return np.argsort(stream.random_raw(size)).astype(np.int32)


def device_permutation(seed: Array, epoch: Array, size: int) -> jax.Array:
    """`permutation` on a device: seed and epoch [] uint32 -> [size].

    >>> draw = jax.jit(device_permutation, static_argnums=2)
    >>> draw(0, 0, 5).tolist()
    [0, 2, 1, 4, 3]
    """
    high, low = philox(seed, epoch, -(-size // 4))
    upper, lower = (jnp.stack(half, -1).reshape(-1)[:size] for half in (high, low))
    place = jnp.arange(size, dtype=jnp.int32)
    # the place breaks ties, so that an unstable sort gives the stable order
    return jax.lax.sort((upper, lower, place), num_keys=3, is_stable=False)[2]


def philox(seed: Array, epoch: Array, blocks: int) -> tuple[list, list]:
    """The stream of Philox4x64-10 with the key (seed, epoch), as uint32 halves.

    The counter of the first block is 1, as in NumPy.

    Returns:
        Upper and lower halves of the four numbers of each block: 4 x [blocks] each.

    Source: Salmon et al. (2011), Parallel random numbers: as easy as 1, 2, 3.
    """
    zero = jnp.zeros(blocks, jnp.uint32)
    counter = (zero, jnp.arange(1, blocks + 1, dtype=jnp.uint32)), *[(zero, zero)] * 3
    keys = tuple((jnp.uint32(0), jnp.asarray(k, jnp.uint32)) for k in (seed, epoch))

    def turn(_, state):
        counter, keys = state
        high0, low0 = _multiply(counter[0], _halves(MULTIPLIERS[0]))
        high1, low1 = _multiply(counter[2], _halves(MULTIPLIERS[1]))
        first = _xor(high1, counter[1], keys[0])
        third = _xor(high0, counter[3], keys[1])
        keys = tuple(_add(k, _halves(w)) for k, w in zip(keys, WEYL, strict=True))
        return (first, low1, third, low0), keys

    # fully unrolled, XLA on a CPU would recompute values that are used several times
    counter, _ = jax.lax.fori_loop(0, ROUNDS, turn, (counter, keys), unroll=2)
    return [high for high, _ in counter], [low for _, low in counter]


def _halves(number: int) -> tuple[jax.Array, jax.Array]:
    """A 64-bit number as 32-bit (high, low)."""
    return jnp.uint32(number >> 32), jnp.uint32(number & 0xFFFFFFFF)


def _xor(a, b, c):
    return a[0] ^ b[0] ^ c[0], a[1] ^ b[1] ^ c[1]


def _add(a, b):
    """a + b modulo 2**64."""
    low = a[1] + b[1]
    return a[0] + b[0] + (low < a[1]).astype(jnp.uint32), low


def _multiply(a, b):
    """The upper and the lower 64 bits of a * b."""
    zero = jnp.uint32(0)
    lowest, middle = _product(a[1], b[1]), _product(a[1], b[0])
    other, highest = _product(a[0], b[1]), _product(a[0], b[0])
    second = _add(_add((zero, lowest[0]), (zero, middle[1])), (zero, other[1]))
    upper = _add(_add(highest, (zero, middle[0])), (zero, other[0]))
    return _add(upper, (zero, second[0])), (second[1], lowest[1])


def _product(a, b):
    """The 64-bit product of two 32-bit numbers as (high, low)."""
    half, mask = jnp.uint32(16), jnp.uint32(0xFFFF)
    (a1, a0), (b1, b0) = ((x >> half, x & mask) for x in (a, b))
    low, cross, other = a0 * b0, a0 * b1, a1 * b0
    middle = (low >> half) + (cross & mask) + (other & mask)
    high = a1 * b1 + (cross >> half) + (other >> half) + (middle >> half)
    return high, a * b


def device_order(seeds: Array, epoch: Array, size: int, batch_size: int) -> jax.Array:
    """Indices [S, P, B] int32 of an epoch for members with seeds [P] uint32.

    The result equals `Order.steps`; a device computes it for some seeds at a time.
    """
    steps = size // batch_size

    def one(seed):
        return device_permutation(seed, epoch, size)[: steps * batch_size]

    some = max(1, min(AT_ONCE // size, len(seeds)))
    orders = jax.lax.map(one, seeds, batch_size=some)
    return orders.reshape(-1, steps, batch_size).swapaxes(0, 1)


class Order:
    """Indices of the examples of each member and step; a partial last batch is dropped.

    Members with the same seed see the same batches. `steps` is thread-safe.
    """

    def __init__(self, seeds: Sequence[int], size: int, batch_size: int):
        self.seeds, self.member = np.unique(np.asarray(seeds), return_inverse=True)
        self.size, self.batch_size = size, batch_size
        self.steps_per_epoch = size // batch_size
        self._lock = threading.Lock()
        self._epochs: dict[int, np.ndarray] = {}

    def steps(self, first: int, count: int, members=slice(None)) -> np.ndarray:
        """Indices [S, P, B] int32 of `count` steps from step `first`, in one epoch.

        `members` selects some of the P members.
        """
        epoch, start = divmod(first, self.steps_per_epoch)
        orders = self._of(epoch)[:, start : start + count]  # [seeds, S, B]
        return orders.swapaxes(0, 1)[:, self.member[members]]

    def _of(self, epoch: int) -> np.ndarray:
        """The orders [seeds, S, B] of an epoch, computed once.

        The orders of two epochs are kept for threads that read around an epoch's end.
        """
        with self._lock:
            if epoch not in self._epochs:
                newest = list(self._epochs.items())[-1:]
                self._epochs = dict(newest) | {epoch: self._draw(epoch)}
            return self._epochs[epoch]

    def _draw(self, epoch: int) -> np.ndarray:
        used = self.steps_per_epoch * self.batch_size
        shape = len(self.seeds), self.steps_per_epoch, self.batch_size

        def one(seed: int) -> np.ndarray:
            return permutation(seed, epoch, self.size)[:used]

        if self.size < MANY or len(self.seeds) == 1:
            return np.stack(list(map(one, self.seeds))).reshape(shape)
        with ThreadPoolExecutor() as pool:  # NumPy releases the GIL while it sorts
            return np.stack(list(pool.map(one, self.seeds))).reshape(shape)
