"""Slides of batch_forwarding.py: examples per second, and the time of a batch."""

import numpy as np

from dlworkshop.report.marks import BAND, COLOURS, band
from dlworkshop.workshop.lesson import Exercise, Figure


def throughput(sizes, rate, alone, hidden):
    """Examples per second [turns, sizes], and those of a loop [turns]."""
    gain = np.median(rate[:, -1] / rate[:, 0])

    def draw(axes):
        band(axes, sizes, rate, "jitted vmap")
        band(axes, sizes, np.tile(alone[:, None], len(sizes)), "a loop", COLOURS[1])
        axes.set(xscale="log", yscale="log", xlabel="batch size (examples)")
        axes.set_ylabel("examples per second")
        axes.legend()

    return Figure(
        "throughput",
        draw,
        f"Batches of {sizes[-1]} have {gain:,.0f} times the throughput of batches of "
        f"{sizes[0]}",
        f"Network: 784-{hidden}-10. The loop starts a call without waiting for the end "
        f"of the previous one. Members: rounds of timing. {BAND}",
    )


def latency(sizes, rate):
    """The same, as the time of a batch."""
    few = max(1, len(sizes) // 3)
    longer = sizes[few] / sizes[0] * np.median(rate[:, 0] / rate[:, few])
    fewest = "one alone" if sizes[0] == 1 else f"{sizes[0]}"
    each = 1e6 / np.median(rate[:, -1])

    def draw(axes):
        band(axes, sizes, 1e6 * sizes / rate, "measured")
        axes.plot(sizes, each * sizes, "k:", label="arithmetic alone")
        axes.set(xscale="log", yscale="log", xlabel="batch size (examples)")
        axes.set_ylabel("time for a batch (µs)")
        axes.legend()

    return Figure(
        "latency",
        draw,
        f"{sizes[few]} examples together take {longer:.1f} times as long as {fewest}",
        "Dotted: the time per example in the largest batch, times the batch size. What "
        "lies above it is the cost of a call and of reading the weights.",
    )


def exercises():
    """A change that makes rows depend on each other, and the choice of the axis."""
    return [
        Exercise(
            "Begin `by_matrices` with `xs = xs - xs.mean(0)`. Which claims fail?",
            "All but the last: a row would then depend on the other rows, and a single "
            "row would become 0. Batch normalisation does this, and therefore it is "
            "not a function of one example.",
        ),
        Exercise(
            "Swap `in_axes` to (None, 0, None). What does `by_vmap` compute?",
            "It would compute one output for each row of W1, and the shapes no longer "
            "fit: `in_axes` says which argument is split into its rows.",
        ),
    ]
