"""How convolutions and members are computed: measured once, remembered on disk."""

import contextlib
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from dlworkshop.data.order import Order
from dlworkshop.files import atomic_write
from dlworkshop.models.convolution import CONV_IMPLS
from dlworkshop.models.model import Model
from dlworkshop.train.cache import cache_folder
from dlworkshop.train.mesh import BATCH, MEMBER, place
from dlworkshop.train.programs import ExecutionConfig, Programs, update_flops
from dlworkshop.types import Batch, Dataset, HParams, PyTree

WORTH = 3e12  # operations of a run, below which measuring costs more than it saves
ROUNDS = 5  # at least, of the candidates that are not hopeless; their least time counts
LASTING = 3.0  # seconds of a question at least: a machine may be slow for a second
SMALL = 1.5e6  # operations of an update that is mostly the start of its operations
CACHED = 5e8  # operations of an update whose patches fit a cache of some megabytes
NEARLY = 0.95  # of the time: what is won by less may be noise
HOPELESS = 2.0  # times slower than the best after one try: not tried again


def rule_of_thumb(
    params: PyTree, batch: int = 1, flops: float = 0.0
) -> ExecutionConfig:
    """What is right nearly always, without measuring.

    A CPU trains one member at a time, whose parameters stay in its cache, unless an
    update is so small that starting its operations takes most of its time. With
    convolutions it takes as many examples at a time as keep their patches there.

    Args:
        params: of the model, with or without a member axis.
        batch: examples on one device.
        flops: operations of one example's update.
    """
    if jax.default_backend() != "cpu":
        return ExecutionConfig(None, sequential=False)
    if not has_convolutions(params):
        return ExecutionConfig(None, sequential=batch * flops > SMALL)
    return ExecutionConfig(None, True, part(batch, cached(flops)))


def cached(flops: float) -> int:
    """Examples at a time whose patches stay in the cache of a CPU, about."""
    return max(1, round(CACHED / max(flops, 1.0)))


def has_convolutions(params: PyTree) -> bool:
    """Whether there is a kernel [h, w, C, F] (with or without a member axis)."""
    return any(leaf.ndim > 3 for leaf in jax.tree.leaves(params))


def part(batch: int, wanted: int) -> int | None:
    """The divisor of `batch` that is at most `wanted`; None where it is too small.

    >>> part(128, 16), part(100, 16), part(127, 16), part(16, 16)
    (16, 10, None, None)
    """
    sizes = range(1, min(wanted, batch) + 1)
    size = max(size for size in sizes if batch % size == 0)
    return size if wanted / 4 < size < batch else None


def questions(members: int, batch: int, flops: float) -> dict[str, list]:
    """What is asked, in turn, and the answers that may be fastest here.

    XLA's own convolution takes 15 to 70 times as long as the best in a loop on a CPU;
    trying it cost a minute, so there it, and what falls back on it, is used only where
    it is asked for. Elsewhere XLA's libraries know Winograd's products themselves.

    Args:
        members, batch: members, and examples of each, on one device.
        flops: operations of one example's update.
    """
    on_cpu = jax.default_backend() == "cpu"
    some = cached(flops)
    sizes = [part(batch, wanted) for wanted in (max(1, some // 2), some, 2 * some)]
    return {
        "convolution": [
            how
            for how in CONV_IMPLS
            if how != "winograd" and not (on_cpu and how == "lax")
        ],
        "micro_batch": list(dict.fromkeys([*sizes, None])) if on_cpu else [None],
        "sequential": [True, False] if members > 1 else [False],
    }


def measure(
    make_programs: Callable[..., Programs],
    mesh: Mesh,
    model: Model,
    hparams: HParams,
    seeds: Sequence[int],
    dataset: Dataset,
    order: Order,
) -> ExecutionConfig:
    """The fastest way to compute, by two steps of a few members in every way."""
    per_device = min(4, len(seeds) // mesh.shape[MEMBER])
    few = mesh.shape[MEMBER] * per_device
    example = dataset.train.inputs[0]
    params = jax.eval_shape(model.init, jax.random.key(0), example)
    held = slice(0, max(order.batch_size, min(512, len(dataset.train.targets))))
    data = place(mesh, Batch(dataset.train.inputs[held], dataset.train.targets[held]))
    index = np.arange(2 * few * order.batch_size, dtype=np.int32) % held.stop
    index = index.reshape(2, few, order.batch_size)

    def try_out(choice: ExecutionConfig) -> Callable[[], Any]:
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
    batch, flops = order.batch_size // mesh.shape[BATCH], update_flops(model, example)
    asked = questions(per_device, batch, flops)
    start = rule_of_thumb(params, batch, flops)._replace(
        convolution=asked["convolution"][0],  # the rule's, by its name
    )
    return fastest(
        try_out,
        start,
        asked,
        about,
        lambda line: print(line, file=sys.stderr),
    )


def fastest(
    try_out: Callable[[ExecutionConfig], Callable[[], Any]],
    start: ExecutionConfig,
    asked: Mapping[str, Sequence],
    about: dict[str, Any],
    say: Callable[[str], None],
) -> ExecutionConfig:
    """The fastest choice for what `about` tells apart; remembered on disk.

    One question is answered after the other, with the best answers so far: all
    combinations would take a minute to compile.

    Args:
        try_out: choice -> a compiled call, which runs a few steps and waits for them.
        start: the choice to begin with.
        asked: field of the choice -> the answers to try.
        about: all that the answer depends on, as JSON.
        say: where the answer is told.
    """
    text = json.dumps([about, dict(asked)], sort_keys=True)
    path = _remembered() / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
    if path.is_file():
        choice = ExecutionConfig(**json.loads(path.read_text())["choice"])
        say(f"{choice} (measured before)")
        return choice
    say("measuring once how this network is computed fastest here")
    seconds: dict[ExecutionConfig, float] = {}
    best = start
    for field, answers in asked.items():
        choices = [best._replace(**{field: answer}) for answer in answers]
        if len(choices) > 1 or not seconds:
            best = _race(try_out, choices, best, seconds)
    _write(
        path,
        {
            "choice": best._asdict(),
            "about": about,
            "seconds": {str(choice): value for choice, value in seconds.items()},
        },
    )
    slowest = max(seconds.values()) / seconds[best]
    say(f"{best} (the fastest of {len(seconds)}, the slowest takes {slowest:.1f} x)")
    return best


def _race(
    try_out: Callable[[ExecutionConfig], Callable[[], Any]],
    choices: Sequence[ExecutionConfig],
    so_far: ExecutionConfig,
    seconds: dict[ExecutionConfig, float],
) -> ExecutionConfig:
    """The fastest of the choices, or the one so far if it is nearly as fast.

    The least of the `seconds` of each choice is kept.
    """
    calls: dict[ExecutionConfig, Callable[[], Any]] = {}

    def time_once(choice: ExecutionConfig) -> float:
        taken = _seconds(calls[choice])
        seconds[choice] = min(seconds.get(choice, taken), taken)
        return taken

    for choice in choices:
        calls[choice] = try_out(choice)
        time_once(choice)
        bar = HOPELESS * min(seconds[each] for each in calls)
        calls = {each: call for each, call in calls.items() if seconds[each] < bar}
    rounds, spent = 0, 0.0
    while rounds < ROUNDS or spent < LASTING:
        # in turns, so that what else runs here hits them all
        spent += sum(time_once(choice) for choice in calls)
        rounds += 1
    worth = {so_far: NEARLY}
    return min(choices, key=lambda choice: seconds[choice] * worth.get(choice, 1))


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _remembered() -> Path:
    folder = cache_folder("choices")
    return folder if folder is not None else Path(os.devnull)


def _write(path: Path, value: dict[str, Any]) -> None:
    """Whole or not at all; a cache that cannot be written is done without."""
    with contextlib.suppress(OSError):
        atomic_write(path, json.dumps(value, indent=2))
