"""How the cost of a step grows with devices and processes.

    python scripts/scaling.py

prints the tables of docs/scaling.md. Operations, bytes and collectives are counted in
the programs that XLA compiles for 1, 2, 4 and 8 virtual CPU devices, and for 4 devices
in 1, 2 and 4 processes. Nothing is timed here: virtual devices share the cores. The
times of docs/accelerators.jsonl, of one GPU, are fitted by a model of the cost, which
then predicts what was not measured.
"""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from scipy.optimize import nnls

from dlworkshop import losses, models
from dlworkshop.learn.step import spec_of
from dlworkshop.models.model import BATCH
from dlworkshop.train.mesh import MEMBER, make_mesh, shape_structs
from dlworkshop.train.programs import ExecutionConfig, Programs
from dlworkshop.types import Batch
from dlworkshop.workshop import launch

ROWS = Path(__file__).parent.parent / "docs" / "accelerators.jsonl"
DEVICES, PROCESSES = (1, 2, 4, 8), (1, 2, 4)
MEMBERS, EXAMPLES = 8, 128  # of the strong scaling
COLLECTIVE = re.compile(
    r" = (\(.*?\)|\S+) "
    r"(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\("
)


class Counted(NamedTuple):
    """What XLA counts in the program of a step, on each device."""

    mesh: str  # member x batch
    flops: float
    moved: float  # bytes that operations read and write
    held: int  # bytes of the population
    collectives: int
    exchanged: int  # bytes that these reduce


def bytes_of(shape: str) -> int:
    """Bytes of a type in a program's text.

    >>> bytes_of("(f32[2,3]{1,0}, pred[])")
    25
    """
    sizes = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f64": 8, "s64": 8}
    return sum(
        sizes.get(dtype, 4) * int(np.prod([int(n) for n in axes.split(",") if n]))
        for dtype, axes in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shape)
    )


def count(members: int, batch_size: int, devices: int) -> Counted:
    """Count in the chunk of an MLP 784-128-10 with Adam, for some devices."""
    hparams = {"learning_rate": np.full(members, 1e-3, np.float32)}
    spec = spec_of(models.mlp(), optax.adam, losses.cross_entropy, hparams)
    mesh = make_mesh(members, batch_size, jax.devices()[:devices])
    programs = Programs(spec, mesh, execution=ExecutionConfig(None, sequential=False))
    example = jax.ShapeDtypeStruct((28, 28, 1), np.uint8)
    seeds = np.arange(members, dtype=np.uint32)
    seeds, hparams = shape_structs(mesh, (seeds, hparams), MEMBER)
    population = shape_structs(
        mesh, programs._begun(seeds, hparams, example, None), MEMBER
    )
    images = jax.ShapeDtypeStruct((1280, 28, 28, 1), np.uint8)
    labels = jax.ShapeDtypeStruct((1280,), np.int32)
    data = shape_structs(mesh, Batch(images, labels))
    steps = jax.ShapeDtypeStruct((2, members, batch_size), np.int32)
    fed = shape_structs(mesh, steps, None, MEMBER, BATCH)
    compiled = programs._chunk.lower(population, hparams, data, fed).compile()
    cost: Any = compiled.cost_analysis()  # of a loop's body once
    found = COLLECTIVE.findall(compiled.as_text())
    member, batch = mesh.shape.values()
    leaves = jax.tree.leaves(population)
    return Counted(
        f"{member} x {batch}",
        cost["flops"],
        cost["bytes accessed"],
        sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) // member,
        len(found),
        sum(bytes_of(shape) for shape, *_ in found),
    )


def show_counts() -> None:
    """Weak and strong scaling along both axes, as a table."""
    cases = {
        "member, strong": lambda n: (MEMBERS, EXAMPLES),
        "member, weak": lambda n: (n, EXAMPLES),
        "batch, strong": lambda n: (1, EXAMPLES),
        "batch, weak": lambda n: (1, EXAMPLES * n),
    }
    head("axis", "devices", "members", "batch", "mesh", *HEAD)
    for name, work in cases.items():
        for devices in DEVICES:
            members, batch = work(devices)
            found = count(members, batch, devices)
            row(name, devices, members, batch, found.mesh, *cells(found))


HEAD = (
    "MFLOP a device",
    "MB moved a device",
    "MB of members a device",
    "collectives a step",
    "kB exchanged a step",
)


def cells(found: Counted) -> tuple[str, ...]:
    """The numbers of a row."""
    return (
        f"{found.flops / 1e6:.1f}",
        f"{found.moved / 1e6:.1f}",
        f"{found.held / 1e6:.2f}",
        str(found.collectives),
        f"{found.exchanged / 1e3:.1f}",
    )


def show_processes() -> None:
    """The same four devices in one, two and four processes, as a table."""
    head("axis", "processes x devices", "mesh", *HEAD)
    for name, work in {"member": (4, EXAMPLES), "batch": (1, EXAMPLES)}.items():
        for number in PROCESSES:
            found = Counted(*in_processes(number, work))
            row(name, f"{number} x {4 // number}", found.mesh, *cells(found))


def in_processes(number: int, work: tuple[int, int]) -> list[Any]:
    """What the first of some processes counts, four devices in all."""
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(4 // number)}
    flags = ["--coordinator", f"localhost:{port}", "--num-processes", str(number)]
    flags += ["--count", *map(str, work), "--process-id"]
    started = [
        subprocess.Popen(
            [sys.executable, __file__, *flags, str(index)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(number)
    ]
    said = [each.communicate(timeout=300)[0] for each in started]
    if any(each.returncode for each in started):
        raise SystemExit("a process failed: see what it said")
    return json.loads(said[0])


class Work(NamedTuple):
    """A step of one device, measured there."""

    name: str
    members: int
    seconds: float
    launches: int
    flops: float
    moved: float


def measured() -> list[Work]:
    """The steps of docs/accelerators.jsonl in float32, members side by side."""
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()]
    return [
        Work(
            each["work"],
            each["members"],
            1e-6 * each["us_per_step"]["mean"],
            sum(each["launches"].values()),
            each["flops_per_step"],
            each["xla"]["bytes accessed"],
        )
        for each in rows
        if each["part"] == "chunk" and each["dtype"] == "float32"
        if (each["work"], each["convolution"]) != ("strided", "patches")
    ]


class Model(NamedTuple):
    """Seconds of a step: launches * launch + flops / rate + bytes / bandwidth."""

    launch: float  # seconds
    rate: float  # operations a second
    bandwidth: float  # bytes a second

    def seconds(self, launches: float, flops: float, moved: float) -> float:
        """Of a step of one device."""
        each = self.launch, 1 / self.rate, 1 / self.bandwidth
        return float(np.dot(each, (launches, flops, moved)))


def fit(works: list[Work]) -> Model:
    """The model whose relative errors have the least sum of squares."""
    terms = np.array([work[3:] for work in works]) / np.array(
        [[work.seconds] for work in works]
    )
    scale = terms.max(0)
    found = nnls(terms / scale, np.ones(len(works)))[0] / scale
    return Model(found[0], *(1 / max(each, 1e-30) for each in found[1:]))


def show_fit() -> Model:
    """The model, and its error for every row."""
    works = measured()
    model = fit(works)
    bound = "none" if model.rate > 1e25 else f"{model.rate / 1e12:.0f} TFLOP/s"
    print(
        f"a launch {1e6 * model.launch:.2f} µs, operations {bound}, "
        f"bytes {model.bandwidth / 1e12:.2f} TB/s\n"
    )
    head("work", "members", "measured, µs", "fitted, µs", "error")
    for work in works:
        fitted = model.seconds(*work[3:])
        error = fitted / work.seconds - 1
        times = (f"{1e6 * each:,.0f}" for each in (work.seconds, fitted))
        row(work.name, work.members, *times, f"{100 * error:+.0f} %")
    return model


class System(NamedTuple):
    """Devices that were not measured; numbers of their makers."""

    name: str
    devices: int
    rate: float  # operations, as a share of the GPU that was measured
    bandwidth: float  # of its memory, as a share of that
    link: float  # bytes a second and device, in one direction
    latency: float  # seconds of an exchange of nothing over all devices: assumed


SYSTEMS = [
    System("8 x H100, NVLink", 8, 1.0, 3.35 / 4.8, 450e9, 20e-6),
    System("64 hosts of 8 x H100, InfiniBand", 512, 1.0, 3.35 / 4.8, 50e9, 60e-6),
    System("TPU v5e-256", 256, 197 / 495, 0.819 / 4.8, 100e9, 30e-6),
]
# parameters of a member, copies of them that a step reads and writes
STATE = {"mlp": (101_770, 9), "strided": (73_682, 9), "cnn": (824_458, 7)}
POPULATION = {"mlp": 1024, "strided": 512, "cnn": 256}


def step(model: Model, system: System, work: Work, member: int, batch: int) -> float:
    """Seconds of a step of `work` on a mesh of a system.

    Members divide evenly. Splitting the batch divides all but what a step moves of the
    parameters, and adds one exchange of the gradients, in a ring.
    """
    params, copies = STATE[work.name]
    state = 4 * params * copies * work.members / member
    moved = state + max(0.0, work.moved / member - state) / batch
    flops = work.flops / member / batch
    own = Model(
        model.launch, model.rate * system.rate, model.bandwidth * system.bandwidth
    )
    seconds = own.seconds(work.launches, flops, moved)
    if batch == 1:
        return seconds
    gradient = 4 * params * work.members / member
    ring = 2 * (batch - 1) / batch * gradient / system.link
    return seconds + system.latency + ring


def show_predictions(model: Model) -> None:
    """Strong scaling of populations and of one model, as a table."""
    works = {(work.name, work.members): work for work in measured()}
    head(
        *("system", "work", "axis", "devices"),
        *("ms a step", "times one device", "efficiency", "pays up to"),
    )
    for system in SYSTEMS:
        for name, members in POPULATION.items():
            work = works[name, members]
            predict(model, system, work, "member", min(members, system.devices))
            predict(model, system, works[name, 1], "batch", system.devices)


def predict(model: Model, system: System, work: Work, axis: str, devices: int) -> None:
    """A row: the cost on so many devices, and how many halve the efficiency."""

    def efficiency(count: int) -> float:
        shape = (count, 1) if axis == "member" else (1, count)
        return (
            step(model, system, work, 1, 1) / step(model, system, work, *shape) / count
        )

    counts = [2**k for k in range(10) if 2**k <= devices]
    pays = max(count for count in counts if efficiency(count) >= 0.5)
    shape = (devices, 1) if axis == "member" else (1, devices)
    seconds = step(model, system, work, *shape)
    share = efficiency(devices)
    row(
        system.name,
        f"{work.members} x {work.name}",
        axis,
        devices,
        f"{1e3 * seconds:.3f}",
        f"{share * devices:,.1f}",
        f"{100 * share:.0f} %",
        pays,
    )


def head(*titles: str) -> None:
    """The head of a table."""
    row(*titles)
    row(*["---"] * len(titles))


def row(*values: object) -> None:
    """A row of a table."""
    print("|", " | ".join(map(str, values)), "|", flush=True)


def main() -> None:
    """All tables; with a place among processes, one count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--coordinator", help=argparse.SUPPRESS)
    parser.add_argument("--num-processes", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--process-id", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.count:
        with launch.joined(asked.coordinator, asked.num_processes, asked.process_id):
            print(json.dumps(count(*asked.count, devices=4)))
        return
    jax.config.update("jax_num_cpu_devices", max(DEVICES))
    for title, show in {
        "Counted in the compiled program of a step": show_counts,
        "The same devices in several processes": show_processes,
    }.items():
        print(f"\n## {title}\n")
        show()
    print("\n## The model of the cost, fitted to one H200\n")
    model = show_fit()
    print("\n## Predicted\n")
    show_predictions(model)


if __name__ == "__main__":
    main()
