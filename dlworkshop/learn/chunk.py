"""Lift 3: a step -> a chunk of steps, one program on the device."""

from collections.abc import Callable

import jax

from dlworkshop.types import Batch


def gather(data: Batch, index) -> Batch:
    """The examples `index` [..., B] of resident data [N, ...]."""
    return data.rows(index)


def make_chunk(step: Callable, fetch: Callable = gather) -> Callable:
    """Make (state, hparams, data, feed [S, ...]) -> (state, metrics [S, ...]).

    Args:
        step: (state, batch, hparams) -> (state, metrics).
        fetch: (data, feed of one step) -> batch; gathers indices by default.
    """

    def chunk(state, hparams, data, feed):
        def body(state, feed):
            return step(state, fetch(data, feed), hparams)

        return jax.lax.scan(body, state, feed)

    return chunk
