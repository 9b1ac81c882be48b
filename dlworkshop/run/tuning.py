"""How convolutions and members are computed: measured once, remembered on disk."""

import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from dlworkshop.data.order import Order
from dlworkshop.errors import unknown
from dlworkshop.models.convolution import HOWS
from dlworkshop.models.model import Model
from dlworkshop.run.cache import cache_folder
from dlworkshop.run.mesh import BATCH, MEMBER, place
from dlworkshop.run.programs import Choice, Programs
from dlworkshop.types import Batch, Dataset, HParams, PyTree

WORTH = 3e12  # operations of a run, below which measuring costs more than it saves
ROUNDS = 5  # of the candidates that are not hopeless; the least time of each counts
HOPELESS = 2.0  # times slower than the best after one try: not tried again


def rule_of_thumb(params: PyTree) -> Choice:
    """What is right nearly always, without measuring.

    Convolutional networks on a CPU are trained one member at a time: 16 members of a
    32-64-256 network on 2 cores made 4.9 k examples/s one by one and 3.2 k side by
    side; a 784-128-10 perceptron made 320 k and 470 k.
    """
    on_cpu = jax.default_backend() == "cpu"
    return Choice(None, on_cpu and has_convolutions(params))


def has_convolutions(params: PyTree) -> bool:
    """Whether there is a kernel [h, w, C, F] (with or without a member axis)."""
    return any(leaf.ndim > 3 for leaf in jax.tree.leaves(params))


def forced(how: str, params: PyTree) -> Choice:
    """The choice with a convolution that the user named."""
    if how not in HOWS:
        raise unknown("convolution", how, HOWS)
    return rule_of_thumb(params)._replace(convolution=how)


def candidates(members_per_device: int) -> Iterator[Choice]:
    """Everything that may be fastest here.

    XLA's own convolution takes 15 to 70 times as long as the best in a loop on a CPU;
    trying it cost a minute, so there it is used only where it is asked for.
    """
    on_cpu = jax.default_backend() == "cpu"
    for one_by_one in (True, False) if members_per_device > 1 else (False,):
        for how in HOWS:
            if on_cpu and how == "lax":
                continue
            yield Choice(how, one_by_one)


def measure(
    make_programs: Callable[..., Programs],
    mesh: Mesh,
    model: Model,
    hparams: HParams,
    seeds: Sequence[int],
    dataset: Dataset,
    order: Order,
) -> Choice:
    """The fastest way to compute, by two steps of a few members in every way."""
    per_device = min(4, len(seeds) // mesh.shape[MEMBER])
    few = mesh.shape[MEMBER] * per_device
    example = dataset.train.image[0]
    params = jax.eval_shape(model.init, jax.random.key(0), example)
    held = slice(0, max(order.batch_size, min(512, len(dataset.train.label))))
    data = place(mesh, Batch(dataset.train.image[held], dataset.train.label[held]))
    index = np.arange(2 * few * order.batch_size, dtype=np.int32) % held.stop
    index = index.reshape(2, few, order.batch_size)

    def try_out(choice: Choice) -> Callable[[], Any]:
        programs = make_programs(choice=choice)
        numbers = jax.tree.map(lambda h: np.asarray(h[:few], float), hparams)
        numbers = place(mesh, numbers, MEMBER)
        start = place(mesh, np.asarray(seeds[:few], np.uint32), MEMBER)
        state = [programs.begin(start, numbers, example)]

        def call():
            where = place(mesh, index, None, MEMBER, BATCH)
            state[0], seen = programs.chunk(state[0], numbers, data, where)
            jax.block_until_ready((state[0], seen))

        call()  # compiles
        return call

    about = {
        "device": [mesh.devices.size, mesh.devices.ravel()[0].device_kind],
        "processor": platform.processor() or platform.machine(),
        "mesh": dict(mesh.shape),
        "jax": jax.__version__,
        "model": dict(model.config),
        "params": [list(leaf.shape) for leaf in jax.tree.leaves(params)],
        "example": [list(example.shape), str(example.dtype)],
        "batch_size": order.batch_size,
        "members": few,
    }
    return fastest(
        try_out, per_device, about, lambda line: print(line, file=sys.stderr)
    )


def fastest(
    try_out: Callable[[Choice], Callable[[], Any]],
    members_per_device: int,
    about: dict[str, Any],
    say: Callable[[str], None],
) -> Choice:
    """The fastest candidate for what `about` tells apart; remembered on disk.

    Args:
        try_out: choice -> a compiled call, which runs a few steps and waits for them.
        members_per_device: 1 leaves nothing to choose between for members.
        about: all that the answer depends on, as JSON.
        say: where the answer is told.
    """
    text = json.dumps(about, sort_keys=True)
    path = _remembered() / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
    if path.is_file():
        found = json.loads(path.read_text())
        choice = Choice(found["convolution"], found["one_by_one"])
        if choice.convolution in HOWS:
            say(f"{choice} (measured before)")
            return choice
    say("measuring once how this network is computed fastest here")
    seconds: dict[Choice, float] = {}
    calls: dict[Choice, Callable[[], Any]] = {}
    for choice in candidates(members_per_device):
        calls[choice] = try_out(choice)
        seconds[choice] = _seconds(calls[choice])
        bar = HOPELESS * min(seconds.values())
        calls = {each: call for each, call in calls.items() if seconds[each] < bar}
    for _ in range(ROUNDS):  # in turns, so that what else runs here hits them all
        for choice, call in calls.items():
            seconds[choice] = min(seconds[choice], _seconds(call))
    best = min(seconds, key=lambda choice: seconds[choice])
    _write(
        path,
        {
            **best._asdict(),
            "about": about,
            "seconds": {str(choice): value for choice, value in seconds.items()},
        },
    )
    slowest = max(seconds.values()) / seconds[best]
    say(f"{best} (the fastest of {len(seconds)}, the slowest takes {slowest:.1f} x)")
    return best


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _remembered() -> Path:
    folder = cache_folder("choices")
    return folder if folder is not None else Path(os.devnull)


def _write(path: Path, value: dict[str, Any]) -> None:
    """Whole or not at all; a cache that cannot be written is done without."""
    beside = path.with_suffix(f".{os.getpid()}")
    try:
        beside.write_text(json.dumps(value, indent=2))
        beside.replace(path)
    except OSError:
        return
