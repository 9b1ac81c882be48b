"""Choice of how convolutions and members are computed: measured once, cached."""

import contextlib
import functools
import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from dlworkshop.files import atomic_write
from dlworkshop.models.convolution import (
    CONV_IMPLS,
    OF_XLA,
    all_strided,
    has_convolutions,
)
from dlworkshop.models.model import (
    BATCH,
    StatefulModel,
    input_struct,
    shapes,
    stand_ins,
)
from dlworkshop.train import machine, processes
from dlworkshop.train.cache import cache_folder
from dlworkshop.train.flops import update_flops
from dlworkshop.train.mesh import MEMBER, shard
from dlworkshop.train.programs import ExecutionConfig, Programs
from dlworkshop.train.progress import log_level
from dlworkshop.types import Dataset, HParams, PyTree

log = logging.getLogger(__name__)

# Shorter runs, in operations, never measure: about half a minute of a few cores, or of
# an accelerator.
WORTH = {"cpu": 3e12}
WORTH_ELSEWHERE = 5e13
SAVED = 0.5  # share of the training time that measuring may cost
ROUNDS = 5  # at least, of candidates that are not hopeless; the shortest time counts
LASTING = 3.0  # seconds per question, at least: a machine may be slow for a second
LASTING_ELSEWHERE = 0.3  # on an accelerator, which no other program uses
TRIAL_FLOPS = 1e11  # of a step that is timed there: about ten milliseconds
SMALL = 1.5e6  # operations of an update that mostly launches its operations
AT_LEAST = 32  # examples that keep all cores busy with XLA's convolution
CACHED = 5e8  # operations of an update that fits a cache of some megabytes
# The implementations of convolution that are tried; elsewhere all.
SENSIBLE = {
    "cpu": ("lax", "patches", "shifts", "winograd"),
    "gpu": ("lax", "blocks"),
    "tpu": ("lax", "patches", "blocks", "shifts"),
}
NEARLY = 0.95  # of the time: smaller gains may be noise
HOPELESS = 2.0  # times slower than the best at the first try: not tried again


def rule_of_thumb(
    batch: int = 1,
    flops: float = 0.0,
    members: int = 1,
    *,
    convolutions: bool,
    platform: str,
    strided: bool = False,
) -> ExecutionConfig:
    """A good choice without measuring.

    A CPU trains one member at a time, so that its parameters stay in the cache, unless
    an update is so small that launching its operations takes most of the time. With
    convolutions, it computes some examples at a time, so that their activations stay
    there, too. If all convolutions have strides, updates by patches take 0.4 times as
    long as by XLA for kernels of 5x5, and as long for 3x3 (docs/performance.md).

    A GPU trains all members side by side. For cuDNN the convolutions of several members
    are grouped convolutions, which take twice as long as products of patches (of blocks
    if there are strides); those of a single member are fastest in cuDNN
    (docs/accelerators.md). TPUs were not measured.

    Args:
        batch: examples on one device.
        flops: operations of one example's update.
        members: trained together on one device.
        convolutions: whether the model has any, see `convolves`.
        platform: "cpu", "gpu" or "tpu".
        strided: whether all of them have strides and are trained, see `strided`.

    >>> str(rule_of_thumb(128, members=16, convolutions=True, platform="gpu"))
    'convolutions by blocks, members side by side, the whole batch at a time'
    """
    if platform != "cpu":
        grouped = platform == "gpu" and convolutions and members > 1
        return ExecutionConfig("blocks" if grouped else None, sequential=False)
    if not convolutions:
        return ExecutionConfig(None, sequential=batch * flops > SMALL)
    wanted = max(AT_LEAST, cached(flops))
    how = "patches" if strided else "lax"
    return ExecutionConfig(how, True, micro_batch_size(batch, wanted))


def cached(flops: float) -> int:
    """The number of examples that fit into a CPU's cache, approximately."""
    return max(1, round(CACHED / max(flops, 1.0)))


def micro_batch_size(batch: int, wanted: int) -> int | None:
    """The largest divisor of `batch` up to `wanted`; None if it is too small.

    >>> [micro_batch_size(batch, 16) for batch in (128, 100, 127, 16)]
    [16, 10, None, None]
    """
    sizes = range(1, min(wanted, batch) + 1)
    size = max(size for size in sizes if batch % size == 0)
    return size if wanted / 4 < size < batch else None


def search_space(
    members: int, batch: int, flops: float, platform: str
) -> dict[str, list]:
    """The choices to compare, one field after the other.

    On a GPU all but two ways are slower (docs/accelerators.md).

    Args:
        members, batch: members, and examples of each, on one device.
        flops: operations of one example's update.
        platform: "cpu", "gpu" or "tpu".
    """
    on_cpu = platform == "cpu"
    some = max(AT_LEAST, cached(flops))
    sizes = [micro_batch_size(batch, wanted) for wanted in (some // 2, some, 2 * some)]
    return {
        "convolution": [
            how for how in CONV_IMPLS if how in SENSIBLE.get(platform, CONV_IMPLS)
        ],
        "micro_batch": list(dict.fromkeys([*sizes, None])) if on_cpu else [None],
        "sequential": [True, False] if members > 1 else [False],
    }


def convolves(model: StatefulModel, example: PyTree) -> bool:
    """Whether a model has convolutions that can be computed in several ways."""
    numbers = stand_ins(model)
    arguments = *shapes(model, example), input_struct(example)
    return has_convolutions(model.apply, *arguments, **numbers)


def strided(model: StatefulModel, example: PyTree) -> bool:
    """Whether all convolutions of a model have strides."""
    numbers = stand_ins(model)
    arguments = *shapes(model, example), input_struct(example)
    return all_strided(model.apply, *arguments, **numbers)


def measure(
    make_programs: Callable[..., Programs],
    mesh: Mesh,
    model: StatefulModel,
    hparams: HParams,
    seeds: Sequence[int],
    dataset: Dataset,
    batch_size: int,
    num_steps: int | None = None,
    quiet: bool = False,
) -> ExecutionConfig:
    """The fastest choice, measured on two steps of a few members.

    The rule of thumb is timed first, and is the choice if a run of `num_steps` takes no
    longer than measuring the others. Of several processes, the first measures its own
    part of the work, and all take its choice.
    """
    part = own_part(mesh)
    members = part.shape[MEMBER] * len(seeds) // mesh.shape[MEMBER]
    examples = part.shape[BATCH] * batch_size // mesh.shape[BATCH]
    make = functools.partial(make_programs, part)
    work = model, hparams, seeds[:members], dataset, examples, num_steps, quiet

    def measured() -> dict[str, Any]:
        return _measure(make, part, *work)._asdict()

    return ExecutionConfig(**processes.on_first_process(measured))


def own_part(mesh: Mesh) -> Mesh:
    """The largest part of a mesh, from its beginning, that the first process has.

    >>> mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), (MEMBER, BATCH))
    >>> own_part(mesh) == mesh
    True
    """
    own = np.vectorize(lambda device: device.process_index == 0)(mesh.devices)
    columns = np.flatnonzero(own[own.any(1).argmax()])
    rows = np.flatnonzero(own[:, columns].all(1))
    devices = mesh.devices[np.ix_(rows, columns)]
    return Mesh(devices, mesh.axis_names, axis_types=mesh.axis_types)


def _measure(
    make_programs: Callable[..., Programs],
    mesh: Mesh,
    model: StatefulModel,
    hparams: HParams,
    seeds: Sequence[int],
    dataset: Dataset,
    batch_size: int,
    num_steps: int | None,
    quiet: bool,
) -> ExecutionConfig:
    """`measure` on the devices of one process."""
    device = mesh.devices.flat[0]
    on_cpu = device.platform == "cpu"
    example = dataset.train.rows(0).inputs
    batch, flops = batch_size // mesh.shape[BATCH], update_flops(model, example)
    some = 4 if on_cpu else max(4, math.ceil(TRIAL_FLOPS / (batch * flops)))
    per_device = min(some, len(seeds) // mesh.shape[MEMBER])
    few = mesh.shape[MEMBER] * per_device
    asked = search_space(per_device, batch, flops, device.platform)
    start = rule_of_thumb(
        batch,
        flops,
        per_device,
        convolutions=convolves(model, example),
        platform=device.platform,
        strided=strided(model, example),
    )
    # under its name: None stands for the first choice
    start = start._replace(convolution=start.convolution or asked["convolution"][0])
    cache_key = {
        "device": [mesh.devices.size, device.device_kind],
        "mesh": dict(mesh.shape),
        **machine.properties(),
        "model": dict(model.config),
        "params": [
            list(leaf.shape) for leaf in jax.tree.leaves(shapes(model, example)[0])
        ],
        "example": [
            [list(np.shape(leaf)), str(leaf.dtype)] for leaf in jax.tree.leaves(example)
        ],
        "batch_size": batch_size,
        "members": few,
    }

    def sensible(choice: ExecutionConfig) -> bool:
        # members side by side are groups of XLA's convolution, which is slow on a CPU
        return not on_cpu or choice.sequential or choice.convolution not in OF_XLA

    def worth(seconds: float, cost: float) -> bool:
        whole = seconds * (num_steps or 0) / 2 * len(seeds) / few
        return num_steps is None or cost < SAVED * whole

    return autotune(
        _make_try_out(make_programs, mesh, hparams, seeds[:few], dataset, batch_size),
        start,
        asked,
        cache_key,
        functools.partial(log.log, log_level(quiet, logging.INFO)),
        sensible=sensible,
        worth=worth,
        lasting=LASTING if on_cpu else min(LASTING, LASTING_ELSEWHERE),
    )


def _make_try_out(
    make_programs: Callable[..., Programs],
    mesh: Mesh,
    hparams: HParams,
    seeds: Sequence[int],
    dataset: Dataset,
    batch_size: int,
) -> Callable[[ExecutionConfig], Callable[[], Any]]:
    """choice -> a compiled call, which runs two steps of the members of `seeds`."""
    few, example = len(seeds), dataset.train.rows(0).inputs
    held = slice(0, max(batch_size, min(512, dataset.train.num_examples)))
    data = shard(mesh, jax.tree.map(np.asarray, dataset.train.rows(held)))
    index = np.arange(2 * few * batch_size, dtype=np.int32) % held.stop
    feed = index.reshape(2, few, batch_size)

    def try_out(choice: ExecutionConfig) -> Callable[[], Any]:
        programs = make_programs(execution=choice)
        numbers = jax.tree.map(lambda h: np.asarray(h[:few], float), hparams)
        numbers = shard(mesh, numbers, MEMBER)
        start = shard(mesh, np.asarray(seeds, np.uint32), MEMBER)
        alive = [programs.begin(start, numbers, example)]

        def call():
            where = shard(mesh, feed, None, MEMBER, BATCH)
            alive[0], found = programs.chunk(alive[0], numbers, data, where)
            jax.block_until_ready((alive[0], found))

        call()  # compiles
        return call

    return try_out


def autotune(
    try_out: Callable[[ExecutionConfig], Callable[[], Any]],
    start: ExecutionConfig,
    asked: Mapping[str, Sequence],
    cache_key: dict[str, Any],
    say: Callable[[str], None],
    *,
    sensible: Callable[[ExecutionConfig], bool] = lambda choice: True,
    worth: Callable[[float, float], bool] = lambda seconds, cost: True,
    lasting: float | None = None,
) -> ExecutionConfig:
    """The fastest choice for this `cache_key`, cached on disk.

    The fields are chosen one after the other, with the best values so far: to compile
    all combinations would take a minute.

    Args:
        try_out: choice -> a compiled call, which runs a few steps and waits for them.
        start: the choice to begin with.
        asked: field of the choice -> the values to try.
        cache_key: everything that the result depends on, as JSON.
        say: called with the result in words.
        sensible: whether a choice may be fast, and is tried.
        worth: (seconds of a call of `start`, seconds that measuring would take) ->
            whether the run is long enough; if not, `start` is returned.
        lasting: seconds per field, at least; LASTING by default.
    """
    lasting = LASTING if lasting is None else lasting
    text = json.dumps([cache_key, dict(asked)], sort_keys=True)
    folder = cache_folder("choices") or Path(os.devnull)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
    remembered = _read(path, start, asked)
    if remembered is not None:
        say(f"{remembered} (measured before)")
        return remembered
    begun = time.perf_counter()
    calls = {start: try_out(start)}
    ready = time.perf_counter() - begun
    questions = [answers for answers in asked.values() if len(answers) > 1]
    cost = ready * sum(map(len, questions)) + lasting * len(questions)
    seconds = {start: _seconds(calls[start])}
    if not worth(seconds[start], cost):
        say(f"{start} (not measured: that would take {cost:.0f} s)")
        return start
    say("measuring once how this network is computed fastest here")
    best = start
    for field, answers in asked.items():
        choices = [best._replace(**{field: answer}) for answer in answers]
        choices = [choice for choice in choices if sensible(choice)]
        if len(choices) > 1:
            best = _race(try_out, choices, best, seconds, lasting, calls)
            calls = {}
    known = {
        "choice": best._asdict(),
        "cache_key": cache_key,
        "seconds": {str(choice): value for choice, value in seconds.items()},
    }
    with contextlib.suppress(OSError):  # then it is measured again
        atomic_write(path, json.dumps(known, indent=2))
    slowest = max(seconds.values()) / seconds[best]
    say(f"{best} (the fastest of {len(seconds)}, the slowest takes {slowest:.1f} x)")
    return best


def _race(
    try_out: Callable[[ExecutionConfig], Callable[[], Any]],
    choices: Sequence[ExecutionConfig],
    so_far: ExecutionConfig,
    seconds: dict[ExecutionConfig, float],
    lasting: float,
    ready: Mapping[ExecutionConfig, Callable[[], Any]],
) -> ExecutionConfig:
    """The fastest choice, or `so_far` if it is nearly as fast.

    `seconds` keeps the shortest time of each choice. `ready` has the calls of choices
    that were tried once.
    """
    calls: dict[ExecutionConfig, Callable[[], Any]] = {}

    def time_once(choice: ExecutionConfig) -> float:
        taken = _seconds(calls[choice])
        seconds[choice] = min(seconds.get(choice, taken), taken)
        return taken

    for choice in choices:
        if choice in ready:
            calls[choice] = ready[choice]
        else:
            calls[choice] = try_out(choice)
            time_once(choice)
        bar = HOPELESS * min(seconds[each] for each in calls)
        calls = {each: call for each, call in calls.items() if seconds[each] < bar}
    rounds, spent = 0, 0.0
    while rounds < ROUNDS or spent < lasting:
        # in turns, so that other programs slow down all of them
        spent += sum(time_once(choice) for choice in calls)
        rounds += 1
    worth = {so_far: NEARLY}
    return min(choices, key=lambda choice: seconds[choice] * worth.get(choice, 1))


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _read(
    path: Path, start: ExecutionConfig, asked: Mapping[str, Sequence]
) -> ExecutionConfig | None:
    """The cached choice; None if it is not one of the choices.

    The file may be damaged, or written by a version with other fields.
    """
    try:
        fields = json.loads(path.read_text())["choice"]
        choice = ExecutionConfig(**fields)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    answers = {name: [value] for name, value in start._asdict().items()} | dict(asked)
    known = all(
        any(value == answer and type(value) is type(answer) for answer in answers[name])
        for name, value in choice._asdict().items()
    )
    return choice if known and set(fields) == set(ExecutionConfig._fields) else None
