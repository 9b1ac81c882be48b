"""How the cost of a step grows with devices and processes.

    python scripts/scaling.py

prints the tables of docs/scaling.md. Operations, bytes and collectives are counted in
the programs that XLA compiles for 1, 2, 4 and 8 virtual CPU devices, and for 4 devices
in 1, 2 and 4 processes. Nothing is timed, because virtual devices share the cores. A
cost model is fitted to the times of one GPU in docs/accelerators.jsonl, and then
predicts times on other systems.
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
# Of docs/accelerators.md: members of the largest population but one, and what a product
# of large float32 matrices reached, in operations a second.
POPULATION = {"mlp": 1024, "speed": 512, "cnn": 256}
RATE = 366e12
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
    found = COLLECTIVE.findall(compiled.as_text() or "")
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
    said = [each.communicate(timeout=3600)[0] for each in started]
    if any(each.returncode for each in started):
        raise SystemExit("error: a process failed: see its messages above")
    return json.loads(said[0])


STEPS = "cond, product", "select, isfinite"


class Work(NamedTuple):
    """A step of one device, measured there."""

    name: str
    members: int
    seconds: float
    flops: float
    moved: float


def measured() -> dict[str, list[Work]]:
    """The steps of docs/accelerators.jsonl in float32 whose bytes were counted.

    Members are side by side; where the step was measured with a select and with a
    branch, which is one there, it is the select.
    """
    found = {}
    for each in map(json.loads, ROWS.read_text().splitlines()):
        if each["run"] != 2 or each["part"] not in POPULATION:
            continue
        several = each["members"] > 1
        if each["dtype"] != "float32" or each["step"] not in STEPS[not several :]:
            continue
        if each["one_by_one"]:
            continue
        if several and each["convolution"] not in {None, "patches"}:
            continue
        key = each["part"], each["members"], STEPS.index(each["step"])
        found[key] = Work(
            each["part"],
            each["members"],
            1e-6 * each["us_per_step"]["mean"],
            each["flops_per_step"],
            each["xla_bytes"],
        )
    works: dict[str, dict[int, Work]] = {}
    for name, members, step in sorted(found):
        works.setdefault(name, {})[members] = found[name, members, step]
    return {name: list(each.values()) for name, each in works.items()}


class Model(NamedTuple):
    """Seconds of a step of one device: latency + max(bytes / bandwidth, flops / rate).

    The latency is that of the launches of a step, however small it is.
    """

    latency: float  # seconds
    bandwidth: float  # bytes a second
    rate: float = RATE

    def seconds(self, flops: float, moved: float) -> float:
        """Of a step."""
        return self.latency + max(moved / self.bandwidth, flops / self.rate)


def fit(works: list[Work]) -> Model:
    """Latency and bandwidth with the least sum of squares of relative errors."""
    seconds = np.array([work.seconds for work in works])
    moved = np.array([work.moved for work in works])
    terms = np.stack([1e-6 / seconds, 1e-12 * moved / seconds], 1)
    (latency, each), _ = nnls(terms, np.ones(len(works)))
    return Model(1e-6 * latency, 1e12 / each)


def show_fit() -> dict[str, Model]:
    """The models of the works, and their errors for every row."""
    head(
        *("work", "latency, µs", "TB/s", "members"),
        *("measured, µs", "fitted, µs", "error"),
    )
    models = {}
    for name, works in measured().items():
        models[name] = model = fit(works)
        for work in works:
            fitted = model.seconds(work.flops, work.moved)
            row(
                name,
                f"{1e6 * model.latency:.0f}",
                f"{1e-12 * model.bandwidth:.2f}",
                work.members,
                f"{1e6 * work.seconds:,.0f}",
                f"{1e6 * fitted:,.0f}",
                f"{100 * (fitted / work.seconds - 1):+.0f} %",
            )
    return models


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
STATE = {"mlp": (101_770, 9), "speed": (73_682, 9), "cnn": (824_458, 7)}


def step(model: Model, system: System, work: Work, member: int, batch: int) -> float:
    """Seconds of a step of `work` on a mesh of a system.

    Members divide evenly. Splitting the batch of one model divides all but what a step
    moves of its parameters, and adds one exchange of the gradients.
    """
    params, copies = STATE[work.name]
    state = 4 * params * copies * work.members / member
    moved = state + max(0.0, work.moved / member - state) / batch
    own = model._replace(
        bandwidth=model.bandwidth * system.bandwidth, rate=model.rate * system.rate
    )
    alone = own.seconds(work.flops / member / batch, moved)
    return alone + (exchange(system, work, batch) if batch > 1 else 0.0)


def exchange(system: System, work: Work, batch: int) -> float:
    """Seconds of the sum of the gradients of `work` over some devices, in a ring."""
    gradient = 4 * STATE[work.name][0] * work.members
    return system.latency + 2 * (batch - 1) / batch * gradient / system.link


def show_predictions(models: dict[str, Model]) -> None:
    """Scaling of populations and of one model, as a table."""
    works = measured()
    head(
        *("system", "members", "work", "axis", "devices"),
        *("ms a step", "times one device", "efficiency", "below 50 % at"),
        "efficiency, weak",
    )
    for system in SYSTEMS:
        for name, members in POPULATION.items():
            of = {work.members: work for work in works[name]}
            for count, axis in ((members, "member"), (1, "batch")):
                predict(models[name], system, of[count], axis)


def predict(model: Model, system: System, work: Work, axis: str) -> None:
    """A row: the cost on all devices, and how many halve the efficiency."""

    def seconds(count: int) -> float:
        return step(
            model, system, work, *((count, 1) if axis == "member" else (1, count))
        )

    most = work.members if axis == "member" else EXAMPLES
    counts = [2**k for k in range(10) if 2**k <= min(most, system.devices)]
    shares = {count: seconds(1) / seconds(count) / count for count in counts}
    last, weak = counts[-1], 1.0
    if axis == "batch":
        weak = seconds(1) / (seconds(1) + exchange(system, work, system.devices))
    half = next((count for count in counts if shares[count] < 0.5), None)
    row(
        system.name,
        f"{work.members:,}",
        work.name,
        axis,
        last,
        f"{1e3 * seconds(last):.3f}",
        f"{shares[last] * last:,.1f}",
        f"{100 * shares[last]:.0f} %",
        f"more than {last}" if half is None else half,
        f"{100 * weak:.0f} %",
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--coordinator", help=argparse.SUPPRESS)
    parser.add_argument("--num-processes", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--process-id", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.count:
        with launch.joined(asked.coordinator, asked.num_processes, asked.process_id):
            print(json.dumps(count(asked.count[0], asked.count[1], devices=4)))
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
