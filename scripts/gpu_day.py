"""Measure dlworkshop on an accelerator in a few minutes.

    python scripts/gpu_day.py                    all parts, the most valuable first
    python scripts/gpu_day.py mlp cnn            some parts
    python scripts/gpu_day.py --seconds 200      at most 200 s
    TINY=1 python scripts/gpu_day.py             a short trial of all parts on a CPU

Each row is a line of JSON in day.jsonl, in the folder $OUT or the current one. A part
is a list of cases, which run in a worker process. If a case takes longer than its
limit, its worker is ended, and the next case begins in a new worker. The compiled
programs are written as text to programs.zip beside the rows, one program of each kind.
"""

import argparse
import contextlib
import dataclasses
import functools
import gzip
import hashlib
import io
import json
import os
import queue
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from dlworkshop import losses, metrics, models, schedules
from dlworkshop.data import order as orders
from dlworkshop.learn import population as pop
from dlworkshop.learn.step import spec_of
from dlworkshop.models.model import BATCH, Model
from dlworkshop.report import terminal
from dlworkshop.train import autotune, memory, workload
from dlworkshop.train import fit as fitting
from dlworkshop.train.feeds import evaluation_pieces
from dlworkshop.train.flops import chunk_flops, chunk_steps, update_flops
from dlworkshop.train.loop import Loop
from dlworkshop.train.members import product
from dlworkshop.train.mesh import MEMBER, make_mesh, shape_structs, shard
from dlworkshop.train.plan import Plan
from dlworkshop.train.programs import ExecutionConfig, Programs
from dlworkshop.types import Batch, Dataset

TINY = bool(os.environ.get("TINY"))
OUT = Path(os.environ.get("OUT", "."))
MNIST = Path(os.environ.get("MNIST", ".data/mnist"))  # the four files
REPEATS = 2 if TINY else 5  # at most; fewer where one takes seconds
PATIENCE = 3.0  # seconds for the repeats of one measurement
GRAPHS = "--xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL"  # loops as CUDA graphs
DETERMINISTIC = "--xla_gpu_exclude_nondeterministic_ops=true"

# --- rows ---------------------------------------------------------------------------


def tell(part: str, **row: Any) -> None:
    """Write a row."""
    flags = os.environ.get("XLA_FLAGS", "")
    line = json.dumps({"part": part, **row, **({"flags": flags} if flags else {})})
    with (OUT / "day.jsonl").open("a") as file:
        file.write(line + "\n")
    print(line, flush=True)


def short(number: Any) -> float:
    """The number rounded to four digits."""
    return float(f"{number:.4g}")


def repeat(call: Callable[[], Any]) -> list[float]:
    """Seconds of each call, after one that is not counted."""
    jax.block_until_ready(call())
    taken: list[float] = []
    while len(taken) < REPEATS and (len(taken) < 2 or sum(taken) < PATIENCE):
        started = time.perf_counter()
        jax.block_until_ready(call())
        taken.append(time.perf_counter() - started)
    return taken


def spread(values: list[float], scale: float = 1.0) -> dict[str, float]:
    """Mean, standard deviation, least and number of measurements."""
    values = [scale * value for value in values]
    return {
        "mean": short(statistics.fmean(values)),
        "sd": short(statistics.stdev(values)) if len(values) > 1 else 0.0,
        "least": short(min(values)),
        "n": len(values),
    }


def peak() -> int:
    """Peak memory use of the device in bytes."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)


# --- the networks -------------------------------------------------------------------


class Strided(nn.Module):
    """The network of experiments/mnist_speedrun.py, in any dtype."""

    dtype: Any = None

    @nn.compact
    def __call__(self, image, *, key=None):  # [H, W, C]
        del key
        x = (image - 0.13) / 0.31
        for size, features in ((6, 8), (5, 32)):
            halve = nn.Conv(
                features, (size, size), strides=2, padding="VALID", dtype=self.dtype
            )
            x = nn.hard_silu(halve(x))
        x = nn.hard_silu(nn.Dense(128, dtype=self.dtype)(x.reshape(-1)))
        return nn.Dense(10, dtype=self.dtype)(x).astype(jnp.float32)


SPEED = {"learning_rate": 0.008, "b1": 0.7, "b2": 0.9, "label_smoothing": 0.1}
ADAM = {"learning_rate": 1e-3}
SGD = {"learning_rate": 0.01, "momentum": 0.9}


def work_of(name: str, dtype: str | None) -> tuple[Model, Callable, dict, int, tuple]:
    """A network, its optimizer, hyper-parameters, batch size, shape of an example."""
    kind = None if dtype is None else jnp.dtype(dtype)
    shape = (28, 28, 1)
    if name == "strided":
        config = {"name": "strided", "dtype": dtype}
        model = models.from_linen(Strided(kind), config)
        return model, optax.adam, SPEED, 256, shape
    if name == "cnn":
        wide = ((4,), (8,)) if TINY else ((32, 64), (256,))
        return models.cnn(*wide, dtype=kind), optax.sgd, SGD, 128, shape
    if name == "digits":
        return models.mlp(dtype=kind), optax.adam, ADAM, 64, (8, 8, 1)
    return models.mlp(dtype=kind), optax.adam, ADAM, 128, shape


# --- the step, in variants ----------------------------------------------------------

# name -> whether the update is in a branch, and whether a product asks if all is
# finite; a population's `guard` does both on a CPU, and neither elsewhere
STEPS = {
    "cond, product": (True, True),
    "cond, isfinite": (True, False),
    "select, product": (False, True),
    "select, isfinite": (False, False),
}
AS_IT_IS = "select, isfinite"
UNGUARDED = "unguarded"  # what the guard costs
UNROLLED = "unrolled"  # as it is, eight steps a turn


def unguarded(train_step: Callable, _on_cpu: bool) -> Callable:
    """A stand-in for `pop.guard`."""

    def step(train, batch, hparams, _running):
        train, seen = train_step(train, batch, hparams)
        return train, jnp.array(True), seen

    return step


def unrolled(step: Callable, fetch: Callable) -> Callable:
    """A stand-in for `make_chunk`."""

    def chunk(state, hparams, data, feed):
        def body(state, feed):
            return step(state, fetch(data, feed), hparams)

        return jax.lax.scan(body, state, feed, unroll=8)

    return chunk


@contextlib.contextmanager
def stepping(variant: str) -> Iterator[None]:
    """Within this context, programs are compiled with this variant of the step."""
    guard, all_finite = pop.guard, pop.all_finite
    branch, by_product = STEPS.get(variant, STEPS[AS_IT_IS])
    changes: dict[str, Any] = {
        "guard": lambda train_step, _: guard(train_step, on_cpu=branch),
        "all_finite": lambda tree, _: all_finite(tree, on_cpu=by_product),
    }
    if variant == UNGUARDED:
        changes = {"guard": unguarded}
    if variant == UNROLLED:
        changes["make_chunk"] = unrolled
    with contextlib.ExitStack() as stack:
        for name, change in changes.items():
            stack.enter_context(mock.patch.object(pop, name, change))
        yield


# --- one chunk program --------------------------------------------------------------

QUIET = {"tuple", "get-tuple-element", "parameter", "constant", "bitcast", "after-all"}


def launches(text: str) -> dict[str, int]:
    """Operations that a step of the innermost loop starts: name -> count."""
    bodies = re.split(r"\n(?=(?:ENTRY )?%[\w.-]+ \()", text)
    found: dict[str, str] = {}
    for body in bodies:
        if match := re.match(r"(?:ENTRY )?%([\w.-]+) \(", body):
            found[match[1]] = body
    loops = set(re.findall(r"body=%([\w.-]+)", text))
    innermost = [name for name in loops if " while(" not in found.get(name, " while(")]
    if not innermost:
        return {}

    def count(name: str) -> Counter:
        seen: Counter = Counter()
        for line in found[name].splitlines()[1:]:
            if not (match := re.search(r"= (?:\([^=]*?\)|\S+) ([\w-]+)\(", line)):
                continue
            called = re.search(r"to_apply=%([\w.-]+)", line)
            if match[1] == "call" and called:
                seen += count(called[1])
            elif match[1] == "custom-call":
                target = re.search(r'custom_call_target="([^"]+)"', line)
                seen[target[1] if target else "custom-call"] += 1
            elif match[1] not in QUIET:
                seen[match[1]] += 1
        return seen

    counts = [count(name) for name in innermost]
    return dict(max(counts, key=lambda each: sum(each.values())).most_common())


def keep_text(name: str, text: str) -> None:
    with zipfile.ZipFile(OUT / "programs.zip", "a", zipfile.ZIP_DEFLATED) as file:
        if name not in file.namelist():
            file.writestr(name, text)


def chunk(
    part: str,
    work: str,
    members: int,
    how: str | None = None,
    one_by_one: bool = False,
    *,
    dtype: str | None = None,
    step: str = AS_IT_IS,
    precision: str | None = None,
    steps: int | None = None,
    with_memory: bool = False,
) -> None:
    """The chunk program alone, its data and indices on the device."""
    model, optimizer, rates, batch, shape = work_of(work, dtype)
    execution = ExecutionConfig(how, one_by_one)
    about = {"work": work, "dtype": dtype or "float32", "members": members}
    about |= {"convolution": how, "one_by_one": one_by_one, "step": step}
    about |= {"precision": precision} if precision else {}
    mesh = make_mesh(members, batch, jax.devices()[:1])
    spec = spec_of(
        model,
        optimizer,
        losses.cross_entropy,
        rates,
        {"accuracy": metrics.accuracy},
    )
    hparams, seeds = product(rates, members)
    numbers = jax.tree.map(lambda value: np.asarray(value, np.float32), hparams)
    numbers, keys = shard(mesh, (numbers, np.asarray(seeds, np.uint32)), MEMBER)
    example = np.zeros(shape, np.uint8)
    flops = update_flops(model, example) * batch * members
    epoch = 55000 // batch
    if steps is None:
        steps = 2 if TINY else int(np.clip(2e13 / flops, 8, epoch))
    rng = np.random.default_rng(0)
    examples = rng.integers(0, 256, (4096, *shape), np.uint8)
    data = shard(mesh, Batch(examples, rng.integers(0, 10, 4096).astype(np.int32)))
    index = rng.integers(0, 4096, (steps, members, batch)).astype(np.int32)
    index = shard(mesh, index, None, MEMBER, BATCH)

    with stepping(step), jax.default_matmul_precision(precision or "default"):
        programs = Programs(spec, mesh, execution=execution)
        state = programs.begin(keys, numbers, example)
        compiled = programs._compile(programs._chunk, state, numbers, data, index)
    peak_compiled = peak()

    def call():
        nonlocal state
        state, seen = programs.chunk(state, numbers, data, index)
        return seen

    first = np.asarray(call()["loss"])
    second = np.asarray(call()["loss"])
    taken = repeat(call)
    mean = statistics.fmean(taken)
    sizes, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    text = compiled.as_text()
    keep_text(f"{part} {work} {dtype} {members} {execution} {step}.txt", text)
    wanted = chunk_steps(chunk_flops(jax.default_backend()) / flops, epoch)
    row = {
        "steps": steps,
        "us_per_step": spread(taken, 1e6 / steps),
        "examples_per_s": short(steps * members * batch / mean),
        "flops_per_step": short(flops),
        "tflops": short(flops * steps / mean / 1e12),
        "compile_s": short(programs.compile_seconds),
        "launches": launches(text),
        "xla": {key: short(cost.get(key, 0)) for key in ("flops", "bytes accessed")},
        "params": sum(leaf[0].size for leaf in jax.tree.leaves(state.train.params)),
        "default_chunk": {"steps": wanted, "seconds": short(wanted * mean / steps)},
        "finite": bool(np.isfinite(np.asarray(call()["loss"])).all()),
        "bits": [digest(first), digest(second)],
        "peak_bytes": [peak_compiled, peak()],  # compiled, trained
    }
    if sizes is not None:
        names = ("argument", "output", "alias", "temp")
        row["bytes"] = {n: getattr(sizes, f"{n}_size_in_bytes") for n in names}
    if with_memory:
        row["predicted"] = predicted(programs, mesh, seeds, numbers, data, index)
    tell(part, **about, **row)


def predicted(programs, mesh, seeds, numbers, data, index) -> dict[str, int]:
    """The prediction of `Programs.memory` if 512 examples are evaluated."""
    piece = next(evaluation_pieces(data.rows(slice(512)), index.shape[-1], 512))
    training = (
        shape_structs(mesh, data),
        shape_structs(mesh, index, None, MEMBER, BATCH),
    )
    evaluation = shape_structs(mesh, data), shape_structs(mesh, piece, None, BATCH)
    example = np.zeros(data.inputs.shape[1:], np.uint8)
    return programs.memory(
        np.asarray(seeds, np.uint32), numbers, example, None, training, evaluation
    )._asdict()


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:12]


# --- the machine and the host -------------------------------------------------------


def machine() -> None:
    """The limits of the hardware, and the cost of a step of a loop."""
    device = jax.devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit", 0)
    tell(
        "machine",
        device=device.device_kind,
        jax=jax.__version__,
        python=sys.version.split()[0],
        cores=len(os.sched_getaffinity(0)),
        bytes_limit=limit,
        free=short(memory.free([device])),
        margin=memory.margin([device]),
    )
    size = 256 if TINY else 8192
    for name, dtype, precision in (
        ("bfloat16", jnp.bfloat16, None),
        ("float32", jnp.float32, None),
        ("float32, highest", jnp.float32, "highest"),
    ):
        x = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
        multiply = jax.jit(functools.partial(jnp.matmul, precision=precision))
        exact = np.asarray(x[:64], np.float64) @ np.asarray(x, np.float64)
        found = np.asarray(multiply(x, x)[:64], np.float64)
        error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
        taken = repeat(functools.partial(ten_times, multiply, x, x))
        rates = [20 * size**3 / seconds / 1e12 for seconds in taken]
        tell("machine", product=name, tflops=spread(rates), rel_error=short(error))
    copy((2**20 if TINY else 2**30,))
    here = np.zeros((2**20 if TINY else 2**26,), np.float32)
    rates = [here.nbytes / t / 1e9 for t in repeat(lambda: jax.device_put(here))]
    tell("machine", what="host to device", gb_per_s=spread(rates))
    loops()


def ten_times(function: Callable, *args: Any) -> list[Any]:
    return [function(*args) for _ in range(10)]


def copy(shape: tuple[int, ...]) -> None:
    """Bytes read and written per second."""
    many, add = jnp.zeros(shape, jnp.float32), jax.jit(lambda x: x + 1)
    rates = [2 * many.nbytes / seconds / 1e12 for seconds in repeat(lambda: add(many))]
    tell("machine", what="copy", tb_per_s=spread(rates))


def loops() -> None:
    """Microseconds of a step without work: plain, and with a branch."""
    steps = 100 if TINY else 2000

    def plain(x, _):
        return jnp.sin(x), None

    def select(x, _):
        return jnp.where(x[0] < 2, jnp.sin(x), x), None

    def branch(x, _):
        return jax.lax.cond(x[0] < 2, jnp.sin, lambda x: x, x), None

    for body in (plain, select, branch):
        scan = functools.partial(jax.lax.scan, body, xs=None, length=steps)
        taken = repeat(functools.partial(jax.jit(scan), jnp.ones(1024)))
        tell("machine", loop=body.__name__, us_per_step=spread(taken, 1e6 / steps))


def all_of(over: Callable, function: Callable, values: Any) -> list[Any]:
    return list(over(function, values))


def host() -> None:
    """Time to draw the order of an epoch of 55,000 examples, in several ways."""
    size, seeds = 55000, range(8 if TINY else 64)

    def raw(seed):
        key = np.array([seed, 0], np.uint64)
        return np.random.Philox(key=key).random_raw(size)

    def draw(seed, kind):
        return np.argsort(raw(seed), kind=kind).astype(np.int32)

    pool = ThreadPoolExecutor()
    ways: dict[str, Callable[[], Any]]
    ways = {"raw numbers only": lambda: [raw(seed) for seed in seeds]}
    for name, kind in (("stable", "stable"), ("unstable", "quicksort")):
        one = functools.partial(draw, kind=kind)
        ways[name] = functools.partial(all_of, map, one, seeds)
        ways[f"{name}, threads"] = functools.partial(all_of, pool.map, one, seeds)
    for name, way in ways.items():
        taken = repeat(way)
        rate = size * len(seeds) / statistics.fmean(taken)
        tell(
            "host",
            order=name,
            ms_per_seed=spread(taken, 1e3 / len(seeds)),
            examples_per_s=short(rate),
        )
    same = all(
        np.array_equal(draw(seed, "quicksort"), draw(seed, "stable")) for seed in seeds
    )
    tell("host", order="unstable", same_as_stable=same, seeds=len(seeds))

    @jax.jit
    def on_device(words):  # [seeds, N, 2] uint32, the low word first
        def one(words):
            place = jnp.arange(size, dtype=jnp.int32)
            return jax.lax.sort((words[:, 1], words[:, 0], place), num_keys=2)[2]

        return jax.vmap(one)(words)

    words = np.stack([raw(seed) for seed in seeds]).view(np.uint32)
    words = words.reshape(len(seeds), size, 2)
    there = jax.device_put(words)
    taken = repeat(lambda: on_device(there))
    right = np.array_equal(on_device(there)[3], orders.permutation(3, 0, size))
    tell(
        "host",
        order="sorted on the device, raw numbers there",
        ms_per_seed=spread(taken, 1e3 / len(seeds)),
        examples_per_s=short(size * len(seeds) / statistics.fmean(taken)),
        right=bool(right),
    )


def order(members: int, size: int, batch: int) -> None:
    """Time of the devices to draw the order of an epoch."""
    mesh = make_mesh(members, batch, jax.devices()[:1])
    seeds = shard(mesh, np.arange(members, dtype=np.uint32), MEMBER)
    draw = jax.jit(orders.device_order, static_argnums=(2, 3))
    taken = repeat(lambda: draw(seeds, np.uint32(1), size, batch))
    there = np.asarray(draw(seeds, np.uint32(1), size, batch))[:, -1]
    right = orders.permutation(members - 1, 1, size)[: there.size]
    tell(
        "order",
        members=members,
        size=size,
        ms_per_seed=spread(taken, 1e3 / members),
        right=bool(np.array_equal(there.ravel(), right)),
    )


# --- the same bits ------------------------------------------------------------------


def bits() -> None:
    """Run the same programs in four processes at once, two of them with a flag.

    Each process compiles its own programs: nothing is cached.
    """
    command, workers = [sys.executable, __file__, "--bits"], []
    for flag in ("", "", DETERMINISTIC, DETERMINISTIC):
        settings = dict(os.environ, XLA_PYTHON_CLIENT_PREALLOCATE="false")
        settings["XLA_FLAGS"] = f"{settings.get('XLA_FLAGS', '')} {flag}".strip()
        settings.pop("JAX_COMPILATION_CACHE_DIR", None)
        workers.append(subprocess.Popen(command, env=settings))
    codes = [worker.wait() for worker in workers]
    if any(codes):
        tell("bits", failed=f"processes ended with {codes}")


def bits_once() -> None:
    few = 2 if TINY else 4
    for members, how in ((1, "lax"), (few, "patches"), (few, "shifts")):
        chunk("bits", "cnn", members, how, steps=8)
    chunk("bits", "mlp", few, steps=8)


# --- what the device is busy with ---------------------------------------------------


def profile(work: str, members: int, how: str | None, step: str = AS_IT_IS) -> None:
    """The share of time in which the device computes, and the longest operations."""
    with mock.patch(f"{__name__}.repeat", recorded):
        chunk("profile", work, members, how, step=step, steps=4 if TINY else 40)


@contextlib.contextmanager
def in_profile() -> Iterator[None]:
    """Within this context, runs are trained under the profiler."""
    train = Loop.train

    def traced(loop: Loop) -> None:
        recorded(lambda: train(loop), once=True)

    with mock.patch.object(Loop, "train", traced):
        yield


def recorded(call: Callable[[], Any], once: bool = False) -> list[float]:
    """`repeat` for a single call under the profiler; the result is written as a row."""
    if not once:
        jax.block_until_ready(call())
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            started = time.perf_counter()
            jax.block_until_ready(call())
            taken = time.perf_counter() - started
        (file,) = Path(folder).rglob("*.trace.json.gz")
        kept = OUT / f"trace_{len(list(OUT.glob('trace_*')))}.json.gz"
        kept.write_bytes(file.read_bytes())
        events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    named, lanes = {}, {}
    for event in events:
        if event.get("name") == "process_name":
            named[event["pid"]] = event["args"]["name"]
        if event.get("name") == "thread_name":
            lanes[event["pid"], event["tid"]] = event["args"]["name"]
    seconds: Counter = Counter()
    calls: Counter = Counter()
    spans = []
    for event in events:
        device = "/device:GPU" in named.get(event.get("pid"), "")
        if event.get("ph") != "X" or not device:
            continue
        if not lanes.get((event["pid"], event["tid"]), "").startswith("Stream"):
            continue
        seconds[event["name"]] += event["dur"] / 1e6
        calls[event["name"]] += 1
        spans.append((event["ts"], event["ts"] + event["dur"]))
    busy, end = 0.0, 0.0
    for first, last in sorted(spans):
        busy += max(0.0, last - max(first, end)) / 1e6
        end = max(end, last)
    top = [[name[:60], calls[name], short(t)] for name, t in seconds.most_common(8)]
    tell(
        "profile",
        what="device",
        taken_s=short(taken),
        busy_s=short(busy),
        started=sum(calls.values()),
        most=top,
        lanes=sorted({v for (pid, _), v in lanes.items() if "GPU" in named[pid]}),
    )
    return [taken]


# --- whole runs ---------------------------------------------------------------------


@contextlib.contextmanager
def timed(*methods: tuple[Any, str]) -> Iterator[dict[str, list[float]]]:
    """Within this context, seconds and calls of some methods are counted."""
    seen: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        for owner, name in methods:
            inner, label = getattr(owner, name), f"{owner.__name__}.{name}"

            def outer(*args, inner=inner, label=label, **more):
                started = time.perf_counter()
                try:
                    return inner(*args, **more)
                finally:
                    seconds, calls = seen.get(label, (0.0, 0))
                    seconds += time.perf_counter() - started
                    seen[label] = [short(seconds), calls + 1]

            stack.enter_context(mock.patch.object(owner, name, outer))
        yield seen


def noise(train: int, held: int, shape: tuple[int, ...]) -> Dataset:
    """Random examples: speed does not depend on their values."""
    rng = np.random.default_rng(0)

    def split(size: int) -> Batch:
        images = rng.integers(0, 256, (size, *shape), np.uint8)
        return Batch(images, rng.integers(0, 10, size).astype(np.int32))

    names = tuple("0123456789")
    return Dataset(split(train), split(held), split(held), names, "noise", "noise")


def run_fit(part: str, model, dataset, optimizer, *, about: dict, **settings) -> str:
    """`fit` from end to end: the time of its parts, and its output."""
    spoken = io.StringIO()
    parts: list[tuple[Any, str]]
    names = ("begin", "train", "run_epochs", "run_chunk", "evaluate", "record")
    parts = [(Loop, name) for name in names]
    parts += [(autotune, "measure"), (orders.Order, "_draw"), (Programs, "chunk")]
    parts += [(Programs, "epochs"), (Programs, "order"), (fitting, "make_plan")]
    parts += [(fitting, "conclude")]
    heard = contextlib.redirect_stderr(spoken)
    with heard, terminal.messages(), timed(*parts) as seen:
        started = time.perf_counter()
        summary = fitting.fit(model, dataset, optimizer, **settings).summary
        wall = time.perf_counter() - started
    tell(
        part,
        **about,
        members=summary["members"],
        steps=summary["steps"],
        examples_per_s=short(summary["examples_per_second"]),
        models_per_s=short(summary["members"] / summary["seconds"]["train"]),
        wall_s=short(wall),
        seconds={key: short(value) for key, value in summary["seconds"].items()},
        parts=seen,
        test=short(summary["test"]["accuracy"]["mean"]),
        peak_bytes=peak(),
    )
    return spoken.getvalue()


# Who draws the order and ends an epoch: the devices, as off a CPU, or the host, as was.
DEVICES, HOST = "devices", "host"


@contextlib.contextmanager
def ruled_by(who: str) -> Iterator[None]:
    """Within this context, runs are led by the devices, or by the host."""
    there = who == DEVICES
    draw = property(lambda plan: plan.programs.order if there else None)
    with (
        mock.patch.object(Plan, "draw", draw),
        mock.patch.object(workload.Workload, "draws_on_devices", there),
    ):
        yield


def whole(
    work: str, members: int, epochs: int, who: str = DEVICES, traced: bool = False
) -> None:
    """`fit` on random examples."""
    model, optimizer, rates, batch, shape = work_of(work, None)
    sizes = (1280, 256) if TINY else (55000, 5000)
    if work == "digits":
        sizes = (1280, 256)
    with ruled_by(who), in_profile() if traced else contextlib.nullcontext():
        run_fit(
            "fit",
            model,
            noise(*sizes, shape),
            optimizer,
            about={"work": work, "epochs": epochs, "led_by": who},
            hparams=rates,
            seeds=members,
            num_epochs=epochs,
            batch_size=batch,
        )


def chooser(members: int, epochs: int, forced: bool = False) -> None:
    """What is chosen for a convolutional network, and how long that takes.

    `forced`: also where the run is too short to be worth it.
    """
    model, optimizer, rates, batch, shape = work_of("cnn", None)
    with contextlib.ExitStack() as stack:
        cache = stack.enter_context(tempfile.TemporaryDirectory())
        if forced:
            for name, value in {
                "WORTH": {},
                "WORTH_ELSEWHERE": 0,
                "SAVED": 1e9,
            }.items():
                stack.enter_context(mock.patch.object(autotune, name, value))
        os.environ["XDG_CACHE_HOME"] = cache
        spoken = run_fit(
            "chooser",
            model,
            noise(*((1280, 256) if TINY else (55000, 5000)), shape),
            optimizer,
            about={"work": "cnn", "forced": forced},
            hparams=rates,
            seeds=members,
            num_epochs=epochs,
            batch_size=batch,
        )
        said = [line for line in spoken.splitlines() if "convolutions by" in line]
        found = [json.loads(p.read_text()) for p in Path(cache).rglob("choices/*.json")]
        seconds = [each["seconds"] for each in found]
        tell("chooser", members=members, said=said, seconds=seconds)


@functools.cache
def mnist_files() -> Dataset:
    def read(name: str, head: int, *shape: int) -> np.ndarray:
        file = next(MNIST.glob(f"{name}*"), None)
        if file is None:
            raise FileNotFoundError(f"no {name}* in {MNIST}: set MNIST to its folder")
        raw = gzip.decompress(file.read_bytes())
        return np.frombuffer(raw, np.uint8, offset=head).reshape(-1, *shape)

    def labels(name: str) -> np.ndarray:
        return read(name, 8).ravel().astype(np.int32)

    images, label = read("train-images", 16, 28, 28, 1), labels("train-labels")
    tested = Batch(read("t10k-images", 16, 28, 28, 1), labels("t10k-labels"))
    train = Batch(images[:55000], label[:55000])
    held = Batch(images[55000:], label[55000:])
    names = tuple("0123456789")
    dataset = Dataset(train, held, tested, names, "mnist", "mnist")
    return dataset.first(1280) if TINY else dataset


def mnist(
    seeds: int | list[int],
    dtype: str | None = None,
    *,
    who: str = DEVICES,
    how: str = "patches",
) -> None:
    """The speed run: three epochs of a strided network."""
    model, optimizer, rates, batch, _ = work_of("strided", dtype)

    about = {"dtype": dtype or "float32", "convolution": how}
    with ruled_by(who):
        run_fit(
            "mnist",
            model,
            mnist_files(),
            optimizer,
            about=about | {"led_by": who},
            hparams=rates,
            seeds=seeds,
            num_epochs=3,
            batch_size=batch,
            schedule=schedules.one_cycle,
            convolution=how,
        )


# --- cases --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """A measurement and its time limit in seconds."""

    part: str
    call: Callable[..., None]
    args: tuple = ()
    more: dict[str, Any] = dataclasses.field(default_factory=dict)
    limit: float = 40.0
    alone: bool = False  # in a worker of its own
    flags: str = ""  # XLA_FLAGS of that worker

    def __str__(self) -> str:
        words = [self.part, *map(str, self.args)]
        return " ".join([*words, *(f"{k}={v}" for k, v in self.more.items())])


def cases() -> list[Case]:
    """All cases, the most valuable first."""
    some, crowd, few = (2, 3, 2) if TINY else (256, 1024, 16)
    most, many, speedy = (3, 2, 2) if TINY else (4096, 64, 512)
    epochs, long = (3, 6) if TINY else (20, 1000)

    def of(part: str, work: str, *args, limit: float = 30.0, **more) -> Case:
        return Case(part, chunk, (part, work, *args), more, limit)

    def run(*args, **more) -> Case:
        return Case("fit", whole, args, more, 45)

    def speed(*args, **more) -> Case:
        return Case("mnist", mnist, args, more, 45)

    return [
        # whole runs, as they are and as they were, and their steps alone
        run("digits", some, epochs),
        run("digits", some, epochs, HOST),
        of("chunk", "digits", some),
        run("digits", some, epochs, traced=True),
        run("mlp", some, 2),
        run("mlp", some, 2, HOST),
        of("chunk", "mlp", some),
        run("mlp", crowd, 2),
        run("mlp", crowd, 2, HOST),
        of("chunk", "mlp", crowd),
        run("mlp", 1, 2),
        run("mlp", 1, 2, HOST),
        of("chunk", "mlp", 1),
        Case("order", order, (some, 1280, 64)),
        Case("order", order, (some, 55000, 128)),
        speed(speedy),
        speed(speedy, how="blocks"),
        speed(speedy, who=HOST),
        speed([0], how="lax"),
        speed([0], how="lax", who=HOST),
        # chunks alone
        of("chunk", "strided", speedy, "patches"),
        of("chunk", "strided", speedy, "blocks"),
        of("chunk", "mlp", most),
        of("chunk", "cnn", many, "patches"),
        of("chunk", "cnn", many, "patches", dtype="bfloat16"),
        of("chunk", "cnn", 4 * many, "patches"),
        of("chunk", "cnn", 4 * many, "patches", dtype="bfloat16"),
        # the chooser: a run that is too short, and what it costs
        Case("chooser", chooser, (few, 1), limit=45),
        Case("chooser", chooser, (few, 1, True), limit=90),
        run("digits", some, long),
        # in a process of its own, with programs that are compiled already: the peak is
        # of this program alone, and not of the trials of its compilation
        *(
            Case("memory", chunk, ("memory", *of_what), {"with_memory": True}, 40, True)
            for of_what in (("mlp", most), ("cnn", many, "patches"))
        ),
        # what was left
        of("chunk", "strided", speedy, "blocks", dtype="bfloat16"),
        of("chunk", "strided", speedy, "patches", dtype="bfloat16"),
        speed(speedy, "bfloat16", how="blocks"),
        of("chunk", "strided", 1, "lax"),
        of("chunk", "strided", 1, "blocks"),
        of("chunk", "cnn", 1, "lax"),
        Case("profile", profile, ("strided", speedy, "blocks")),
        run("mlp", some, 2, traced=True),
        Case("machine", machine, limit=60),
        Case("host", host, limit=40),
        of("step", "mlp", 1, step="cond, product"),
        of("step", "mlp", 1, step=UNGUARDED),
        of("step", "mlp", 1, step=UNROLLED),
        of("step", "mlp", some, dtype="bfloat16"),
        of("step", "mlp", some, precision="highest"),
        *(
            dataclasses.replace(of("flags", *work), flags=flags)
            for flags in (GRAPHS, DETERMINISTIC)
            for work in (("mlp", 1), ("cnn", 1, "patches"), ("cnn", 1, "lax"))
        ),
        Case("bits", bits, limit=75),
    ]


# --- the workers --------------------------------------------------------------------


def tell_failure(case: Case, why: str) -> None:
    tell(case.part, case=str(case), failed=why)


def work(numbers: list[int]) -> None:
    """Run these cases one after the other; print a line when each begins."""
    everything = cases()
    for number in numbers:
        case = everything[number]
        print(f"begin {number}", flush=True)
        started = time.perf_counter()
        try:
            case.call(*case.args, **case.more)
        except Exception as error:
            tell(
                case.part,
                case=str(case),
                failed=f"{type(error).__name__}: {error}"[:400],
            )
        took = time.perf_counter() - started
        print(f"took {took:.1f} s: {case}", flush=True)


def start(flags: str, numbers: list[int], programs: str) -> subprocess.Popen:
    settings = dict(os.environ, PYTHONUNBUFFERED="1")
    settings["XLA_FLAGS"] = f"{settings.get('XLA_FLAGS', '')} {flags}".strip()
    settings["JAX_COMPILATION_CACHE_DIR"] = programs
    settings["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    settings["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    command = [sys.executable, __file__, "--cases", *map(str, numbers)]
    return subprocess.Popen(
        command,
        env=settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )


def lead(numbers: list[int], seconds: float) -> None:
    """Give the cases to workers; end a worker whose case is over its limit."""
    everything, end = cases(), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as programs:
        while numbers and time.monotonic() < end:
            first = everything[numbers[0]]
            together = [numbers[0]]
            if not first.alone:
                for number in numbers[1:]:
                    case = everything[number]
                    if case.alone or case.flags != first.flags:
                        break
                    together.append(number)
            worker = start(first.flags, together, programs)
            last = watch(worker, everything, end)
            # where it ended before it began one, that one is given up all the same
            done = together if last is None else together[: together.index(last) + 1]
            numbers = numbers[len(done) :]
    left = [str(everything[number]) for number in numbers]
    tell("end", seconds=short(seconds - (end - time.monotonic())), left=left)


def watch(worker: subprocess.Popen, everything: list[Case], end: float) -> int | None:
    """The case at which a worker was ended; None if the worker finished."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in worker.stdout or ():
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    number, until = -1, min(end, time.monotonic() + 60)  # to begin
    while True:
        try:
            line = lines.get(timeout=max(0.1, until - time.monotonic()))
        except queue.Empty:
            os.killpg(worker.pid, signal.SIGKILL)  # with what it started
            worker.wait()
            if number < 0:
                tell("worker", failed="did not start within a minute")
                return None
            tell_failure(everything[number], "took too long")
            return number
        if line is None:
            if worker.wait() == 0 or number < 0:
                return None
            tell_failure(everything[number], f"ended with {worker.returncode}")
            return number
        print(line, end="", flush=True)
        if line.startswith("begin "):
            number = int(line.split()[1])
            until = min(end, time.monotonic() + everything[number].limit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help="parts to run, by default all")
    parser.add_argument("--seconds", type=float, default=420, help="time for all parts")
    parser.add_argument("--skip", type=int, default=0, help="number of cases to skip")
    parser.add_argument("--list", action="store_true", help="list the cases and exit")
    parser.add_argument("--cases", nargs="*", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--bits", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.bits:
        bits_once()
        return
    if asked.cases is not None:
        work(asked.cases)
        return
    OUT.mkdir(parents=True, exist_ok=True)
    numbers = [
        number
        for number, case in enumerate(cases())
        if not asked.parts or case.part in asked.parts
    ][asked.skip :]
    if asked.list:
        print("\n".join(f"{number} {cases()[number]}" for number in numbers))
        return
    lead(numbers, asked.seconds)


if __name__ == "__main__":
    main()
