"""Speed and memory of a population as a function of its number of members.

    python scripts/bench_population.py --works mlp --members 1 2 4 --json points.json
    python scripts/bench_population.py --json points.json --svg docs/population.svg
    python scripts/bench_population.py --works mlp cnn --members 4 16 --order

Each point is a run of `fit` in its own process, on random images [28, 28, 1] in batches
of 128, with one device per core if the members divide evenly. The speed is the median
over the chunks after the first. The memory is given as predicted by `fit`, and as
measured: the largest growth of the process from that moment on. New points are added to
those in the JSON file; then all points are printed and drawn.

`--order` compares, in turns, members with their own batches and members that all see
the same batches.
"""

import argparse
import ctypes
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from dlworkshop.workshop.script import use_all_cores

BATCH, STEPS = 128, 78
WORK = 8e11  # floating-point operations of a point, about; some seconds
WORKS = ("logistic", "mlp", "cnn")
COLOURS = {"logistic": "#767676", "mlp": "#1f6feb", "cnn": "#c2410c"}


def model_of(work: str) -> tuple[Any, Any, dict[str, float]]:
    """The network, its optimizer and hyper-parameters."""
    import optax  # noqa: PLC0415

    from dlworkshop import models  # noqa: PLC0415

    if work == "logistic":
        return models.logistic(), optax.sgd, {"learning_rate": 0.01}
    if work == "mlp":  # 784-128-10
        return models.mlp(), optax.adam, {"learning_rate": 1e-3}
    rates = {"learning_rate": 0.01, "momentum": 0.9}
    return models.cnn(), optax.sgd, rates  # 3x3 convolutions 32-64, then 256


def examples(train: int) -> Any:
    """Random images: neither speed nor memory reads them."""
    import numpy as np  # noqa: PLC0415

    from dlworkshop.types import Batch, Dataset  # noqa: PLC0415

    rng = np.random.default_rng(0)

    def split(size: int) -> Batch:
        images = rng.integers(0, 256, (size, 28, 28, 1), dtype=np.uint8)
        return Batch(images, rng.integers(0, 10, size).astype(np.int32))

    return Dataset(split(train), split(BATCH), split(BATCH), tuple("0123456789"))


def resident(peak: bool) -> int:
    """Bytes of this process in memory, now or at most since the last reset (Linux)."""
    name = "VmHWM" if peak else "VmRSS"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def reset_peak() -> None:
    """Give back what is free, and count the most memory from here."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def point(work: str, members: int) -> dict[str, Any]:
    """One run of `fit`: its speed and its memory."""
    from dlworkshop import fit  # noqa: PLC0415
    from dlworkshop.train import memory  # noqa: PLC0415
    from dlworkshop.train.flops import update_flops  # noqa: PLC0415
    from dlworkshop.train.loop import Loop  # noqa: PLC0415

    use_all_cores(members)
    model, optimizer, hparams = model_of(work)
    flops = update_flops(model, examples(1).train.inputs[0]) * BATCH * members
    steps = max(4, min(STEPS, round(WORK / flops)))
    row: dict[str, Any] = {"work": work, "members": members}
    seconds: list[float] = []
    chunk, fitting = Loop.train_groups, memory.fitting

    def timed(loop, *args):
        clock, step = loop.plan.programs.clock, loop.step
        started = clock()
        means = chunk(loop, *args)
        seconds.append((clock() - started) / (loop.step - step))
        return means

    def watched(size, axis, predicted, *args):
        row["predicted"] = axis * predicted(size)  # the devices share the memory
        size = fitting(size, axis, predicted, *args)
        reset_peak()
        row["before"] = resident(peak=False)
        return size

    Loop.train_groups, memory.fitting = timed, watched  # type: ignore[method-assign]
    run = fit(
        model,
        examples(steps * BATCH),
        optimizer,
        hparams=hparams,
        seeds=members,
        num_epochs=max(1, min(40, round(WORK / flops / steps))),
        batch_size=BATCH,
        convolution="patches" if work == "cnn" else None,
    )
    row["measured"] = resident(peak=True) - row.pop("before")
    row["examples_per_second"] = members * BATCH / statistics.median(seconds[1:])
    row["chunks"], row["devices"] = len(seconds) - 1, run.summary["device"]
    return row | {"versions": run.summary["versions"]}


def order_ratio(work: str, members: int, rounds: int) -> dict[str, Any]:
    """Speed with separate batches for the members, divided by that with shared ones."""
    import jax  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    from dlworkshop import losses, metrics  # noqa: PLC0415
    from dlworkshop.data.order import Order  # noqa: PLC0415
    from dlworkshop.learn import population as pop  # noqa: PLC0415
    from dlworkshop.learn.step import init_state, make_train_step, spec_of  # noqa: PLC0415
    from dlworkshop.models.convolution import (  # noqa: PLC0415
        computed_by,
        has_convolutions,
    )
    from dlworkshop.train.autotune import rule_of_thumb  # noqa: PLC0415
    from dlworkshop.train.flops import (  # noqa: PLC0415
        chunk_flops,
        chunk_steps,
        update_flops,
    )
    from dlworkshop.train.members import product  # noqa: PLC0415

    model, optimizer, rates = model_of(work)
    split = examples(STEPS * BATCH).train
    hparams, seeds = product(rates, members)
    hparams = jax.tree.map(lambda values: values.astype(np.float32), hparams)
    params = jax.eval_shape(model.init, jax.random.key(0), split.inputs[0])
    flops = update_flops(model, split.inputs[0])
    convolutions = has_convolutions(model.apply, params, split.inputs[0])
    choice = rule_of_thumb(
        BATCH,
        flops,
        members,
        convolutions=convolutions,
        platform=jax.default_backend(),
    )
    model = computed_by(model, choice.convolution)
    spec = spec_of(
        model, optimizer, losses.cross_entropy, rates, {"accuracy": metrics.accuracy}
    )
    train_step = make_train_step(spec, None, choice.micro_batch)
    own = pop.make_population_chunk(train_step, sequential=choice.sequential)
    alone = pop.make_member_chunk(train_step)

    def shared(population, hparams, data, index):  # [S, B], the same for everyone
        def member(state, hparams):
            return alone(state, hparams, data, index)

        lifted = pop.map_members(member, choice.sequential)
        (train, status), seen = lifted((population.train, population.status), hparams)
        return population._replace(train=train, status=status), seen

    steps = chunk_steps(chunk_flops("cpu") / (flops * BATCH * members), STEPS)
    index = Order(seeds, STEPS * BATCH, BATCH).steps(0, steps)  # [S, P, B]
    data = jax.device_put(split)

    @jax.jit
    def begin():
        keys = jax.vmap(jax.random.key)(np.asarray(seeds, np.uint32))
        init = functools.partial(init_state, spec)
        states = jax.vmap(lambda key, h: init(h, key, split.inputs[0]))(keys, hparams)
        return pop.begin(states)

    def make(population_chunk, index):
        state = [begin()]
        jitted = jax.jit(population_chunk, donate_argnums=0)
        chunk = jitted.lower(state[0], hparams, data, index).compile()

        def call() -> float:
            started = time.perf_counter()
            state[0], seen = chunk(state[0], hparams, data, index)
            jax.block_until_ready((state[0], seen))
            return time.perf_counter() - started

        call()
        return call

    ways = {"own": make(own, index), "shared": make(shared, index[:, 0])}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, call in ways.items():
            seconds[name].append(call())
    examples_seen = steps * BATCH * members
    ratios = [a / b for a, b in zip(seconds["shared"], seconds["own"], strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "work": work,
        "members": members,
        **{name: examples_seen / statistics.median(s) for name, s in seconds.items()},
        "ratio": statistics.median(ratios),
        "quartiles": (low, high),
    }


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Speed and memory against members, both axes logarithmic."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasSVG(figure)
    speed, memory = figure.subplots(1, 2)
    for work in WORKS:
        mine = [row for row in rows if row["work"] == work]
        members = [row["members"] for row in mine]
        line = {"color": COLOURS[work], "marker": "o", "markersize": 4}
        speed.plot(members, [r["examples_per_second"] for r in mine], **line)
        gib = [row["measured"] / 2**20 for row in mine]
        memory.plot(members, gib, label=f"{work}, measured", **line)
        gib = [row["predicted"] / 2**20 for row in mine]
        line |= {"linestyle": "--", "marker": "", "label": f"{work}, predicted"}
        memory.plot(members, gib, **line)
    speed.set_title("examples/s of all members together", loc="left")
    memory.set_title("memory of the population, MiB", loc="left")
    memory.legend(frameon=False, fontsize=9)
    for axes in (speed, memory):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("members")
        axes.grid(color="#e3e6ea")
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_formatter("{x:.0f}")
    figure.savefig(path, metadata={"Date": None, "Creator": None})


def show(rows: list[dict[str, Any]]) -> None:
    """The points as a table in Markdown."""
    print("| work | members | examples/s | memory predicted, MiB | measured, MiB |")
    print("|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['work']} | {row['members']} | {row['examples_per_second']:,.0f} | "
            f"{row['predicted'] / 2**20:,.0f} | {row['measured'] / 2**20:,.0f} |"
        )


def in_its_own_process(work: str, members: int) -> dict[str, Any]:
    """The row that a worker process measured."""
    command = [sys.executable, __file__, "--worker", work, str(members)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(
            f"error: {work} with {members} members failed: {done.stderr.strip()}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure the requested points, add them to the JSON, print and draw all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--works", nargs="+", choices=WORKS, default=[])
    parser.add_argument("--members", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument(
        "--order", action="store_true", help="compare separate and shared batches"
    )
    parser.add_argument(
        "--rounds", type=int, default=9, help="rounds of timing, with --order"
    )
    parser.add_argument("--json", type=Path, help="file of points, extended if present")
    parser.add_argument("--svg", type=Path, help="file to draw the points to")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.worker:
        print(json.dumps(point(flags.worker[0], int(flags.worker[1]))))
        return
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python", sys.version.split()[0]
    )
    if flags.order:
        for work in flags.works:
            for members in flags.members:
                row = order_ratio(work, members, flags.rounds)
                low, high = row["quartiles"]
                print(
                    f"{work}, {members} members: {row['own']:,.0f} examples/s with "
                    f"separate batches, {row['shared']:,.0f} with shared ones, ratio "
                    f"{row['ratio']:.3f} (quartiles {low:.3f} to {high:.3f})"
                )
        return
    rows = {}
    if flags.json and flags.json.exists():
        known = json.loads(flags.json.read_text())
        rows = {(row["work"], row["members"]): row for row in known}
    for work in flags.works:
        for members in flags.members:
            rows[work, members] = in_its_own_process(work, members)
    points = sorted(rows.values(), key=lambda r: (WORKS.index(r["work"]), r["members"]))
    show(points)
    if flags.json:
        flags.json.write_text(json.dumps(points, indent=1) + "\n")
    if flags.svg:
        draw(points, flags.svg)


if __name__ == "__main__":
    main()
