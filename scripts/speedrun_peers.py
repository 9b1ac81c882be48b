"""Time the recipe of `mnist_speedrun.py` in PyTorch and Keras, in turns with ours.

    python experiments/mnist_speedrun.py --peers    # calls this script

Each system runs in its own process, which trains one model to warm up (or compile) and
then one model in each turn: the same network, the same number of steps, and the data
resident as floats. It reports seconds of training and accuracy on the validation split.
Argument: the recipe as JSON. Output: system -> seconds and accuracies, as JSON.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
SYSTEMS = {"dlworkshop": "jax", "pytorch": "torch", "keras tensorflow": "tensorflow"}
Turn = Callable[[int], tuple[float, float]]  # seed -> seconds, validation accuracy


def pytorch(config: Any, mnist: Any, layers: Any, hidden: int) -> Turn:
    """Eager PyTorch, batches by index."""
    import torch  # noqa: PLC0415
    from torch import nn  # noqa: PLC0415

    def tensors(split):
        image = torch.from_numpy(split.inputs.copy()).permute(0, 3, 1, 2).contiguous()
        label = torch.from_numpy(split.targets.copy()).long()
        return (image.float() / 255 - 0.13) / 0.31, label

    (images, labels), (held, held_labels) = map(
        tensors, (mnist.train, mnist.validation)
    )
    steps = len(labels) // config.batch_size

    def build():
        parts, channels, side = [], 1, 28
        for size, features in layers:
            parts += [nn.Conv2d(channels, features, size, stride=2), nn.Hardswish()]
            channels, side = features, (side - size) // 2 + 1
        parts += [nn.Flatten(), nn.Linear(channels * side**2, hidden), nn.Hardswish()]
        return nn.Sequential(*parts, nn.Linear(hidden, 10))

    def turn(seed):
        torch.manual_seed(seed)
        net = build()
        rate, betas = config.learning_rate, (config.b1, config.b2)
        optimizer = torch.optim.Adam(net.parameters(), rate, betas)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, rate, steps * config.num_epochs, cycle_momentum=False
        )
        loss_fn = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
        started = time.perf_counter()
        for _ in range(config.num_epochs):
            order = torch.randperm(len(labels))
            for index in order.split(config.batch_size)[:steps]:
                optimizer.zero_grad()
                loss_fn(net(images[index]), labels[index]).backward()
                optimizer.step()
                schedule.step()
        seconds = time.perf_counter() - started
        with torch.no_grad():
            right = net(held).argmax(1) == held_labels
        return seconds, right.float().mean().item()

    return turn


def keras(config: Any, mnist: Any, layers: Any, hidden: int) -> Turn:
    """`model.fit` on arrays, 32 steps to an execution; compiled once."""
    import keras as k  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    class OneCycle(k.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            done = k.ops.cast(step, "float32") / total
            up = 0.5 - 0.5 * k.ops.cos(np.pi * done / 0.3)
            down = 0.5 + 0.5 * k.ops.cos(np.pi * (done - 0.3) / 0.7)
            part = k.ops.where(done < 0.3, 0.04 + 0.96 * up, down)
            return config.learning_rate * part

    def arrays(split):
        image = np.asarray(split.inputs, np.float32)
        return (image / 255 - 0.13) / 0.31, np.eye(10, dtype=np.float32)[split.targets]

    (images, labels), held = map(arrays, (mnist.train, mnist.validation))
    steps = len(labels) // config.batch_size
    total, used = steps * config.num_epochs, steps * config.batch_size

    def build():
        parts = [k.layers.Input((28, 28, 1))]
        for size, features in layers:
            parts.append(
                k.layers.Conv2D(features, size, strides=2, activation="hard_silu")
            )
        parts += [k.layers.Flatten(), k.layers.Dense(hidden, activation="hard_silu")]
        return k.Sequential([*parts, k.layers.Dense(10)])

    net = build()
    adam = k.optimizers.Adam(OneCycle(), config.b1, config.b2)
    loss = k.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=config.label_smoothing
    )
    net.compile(adam, loss, metrics=["accuracy"], steps_per_execution=32)

    def turn(seed):
        k.utils.set_random_seed(seed)
        net.set_weights(build().get_weights())
        for variable in adam.variables:  # the same program learns anew
            variable.assign(k.ops.zeros_like(variable))
        started = time.perf_counter()
        net.fit(
            images[:used],
            labels[:used],
            batch_size=config.batch_size,
            epochs=config.num_epochs,
            verbose=0,
        )
        seconds = time.perf_counter() - started
        return seconds, float(net.evaluate(*held, batch_size=500, verbose=0)[1])

    return turn


def worker(system: str, recipe: str) -> None:
    """Warm up, then train one model for each line read."""
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print; answers are ours
    sys.path.insert(0, str(EXPERIMENTS))
    import mnist_speedrun as ours  # noqa: PLC0415

    from dlworkshop import data  # noqa: PLC0415

    config = dataclasses.replace(ours.Config(), **json.loads(recipe))
    mnist = data.load("mnist", config.data_dir)
    if system == "dlworkshop":
        turn = ours.alone(config, mnist)
    else:
        make = pytorch if system == "pytorch" else keras
        turn = make(config, mnist, ours.LAYERS, ours.HIDDEN)
    turn(0)
    print("[]", file=answers, flush=True)
    for seed, _ in enumerate(sys.stdin):
        print(json.dumps(turn(seed)), file=answers, flush=True)


def begin(system: str, recipe: str) -> subprocess.Popen[str]:
    """The process of one system, ready for its first turn."""
    return subprocess.Popen(
        [sys.executable, __file__, recipe, system],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={
            "JAX_NUM_CPU_DEVICES": str(os.cpu_count()),  # the batch is split over them
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERAS_BACKEND": "tensorflow",
        },
    )


def ask(process: subprocess.Popen[str], question: str = "") -> list[float]:
    """The next answer of a worker."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(question)
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit(
            f"error: a worker failed: run it alone to see why, {process.args!r}"
        )
    return json.loads(line)


def main(recipe: str) -> None:
    """All installed systems take turns, so that other load affects all of them."""
    systems = [s for s, package in SYSTEMS.items() if importlib.util.find_spec(package)]
    processes = {}
    for system in systems:
        processes[system] = begin(system, recipe)
        ask(processes[system])
    turns: dict[str, list[list[float]]] = {system: [] for system in systems}
    for _ in range(json.loads(recipe)["alone"]):
        for system, process in processes.items():
            time.sleep(0.3)  # threads of the one before it spin for a while
            turns[system].append(ask(process, "go\n"))
    for process in processes.values():
        process.kill()
    rows = {
        system: dict(
            zip(("seconds", "accuracy"), zip(*pairs, strict=True), strict=True)
        )
        for system, pairs in turns.items()
    }
    print(json.dumps(rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", help="flags of mnist_speedrun.py as JSON")
    parser.add_argument("system", nargs="?", choices=SYSTEMS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    worker(asked.system, asked.recipe) if asked.system else main(asked.recipe)
