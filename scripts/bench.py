"""Examples per second of training, for dlworkshop and its peers in one run.

    python scripts/bench.py                    # the perceptron and the small CNN
    python scripts/bench.py --all --json bench.json      # all works; `make bench`
    python scripts/bench.py --works mlp --systems dlworkshop pytorch --rounds 9

Every system trains the same network on the same number of examples. The work "cnn of a
user" is the network of `cnn` written with the layers of Flax, and the work `vgg16`
extracts features, forwards only. Each system runs in its own process, warmed up and
compiled; then the systems take turns, so that other load on the machine affects all of
them, and the median of the rounds is reported. On a shared machine a time alone means
little: compare the ratios. Systems whose package is not installed are skipped and named
(`pip install ".[peers]"` installs them).
"""

import argparse
import functools
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

BATCH, IMAGES, MEMBERS = 128, 10_000, 16
SECONDS = 2.0  # of work in one turn, about

VGG16_IMAGES, VGG16_SIDE = 16, 224  # of one step of the work "vgg16"
USERS = "cnn of a user"  # written with Flax, by somebody who knows nothing of ours
# Systems that take part where not all do: the features of VGG16 are extracted, not
# trained; those that are no systems of ours do not care who wrote the network.
SYSTEMS_OF = {
    "vgg16": ("dlworkshop", "pytorch", "keras tensorflow", "keras jax"),
    USERS: ("dlworkshop", "dlworkshop population", "pytorch"),
}

# 3x3 convolutions with 2x2 average pooling, fully connected layers, then 10 logits;
# perceptrons train by Adam, the convolutional network by SGD with momentum.
FEATURES = {"mlp": (), "mlp wide": (), "cnn": (32, 64), USERS: (32, 64)}
HIDDEN = {"mlp": (128,), "mlp wide": (1024, 1024), "cnn": (256,), USERS: (256,)}
WORKS = (*HIDDEN, "vgg16")  # vgg16: features of 224x224 images, forwards only
SYSTEMS = {  # -> the package that it needs, and environment
    "dlworkshop": ("jax", {}),
    "dlworkshop population": ("jax", {"JAX_NUM_CPU_DEVICES": str(os.cpu_count())}),
    "flax script": ("flax", {}),
    "pytorch": ("torch", {}),
    "keras tensorflow": ("tensorflow", {"KERAS_BACKEND": "tensorflow"}),
    "keras jax": ("keras", {"KERAS_BACKEND": "jax"}),
}


def flops(work: str) -> int:
    """Floating-point operations per example of an update, in matrix products only.

    For VGG16 the operations of the convolutions in a forward pass.
    """
    if work == "vgg16":
        from dlworkshop.models.vgg16 import BLOCKS  # noqa: PLC0415

        total, channels, side = 0, 3, VGG16_SIDE
        for convolutions, features in BLOCKS:
            for _ in range(convolutions):
                total += 2 * 9 * channels * features * side**2
                channels = features
            side //= 2
        return total
    products, width, side = [], 1, 28  # multiply-adds of each layer
    for features in FEATURES[work]:
        products.append(9 * width * features * side**2)
        width, side = features, side // 2
    width *= side**2
    for units in (*HIDDEN[work], 10):
        products.append(width * units)
        width = units
    return 2 * (3 * sum(products) - products[0])  # the image needs no gradient


def examples() -> tuple[Any, Any]:
    """Random images [N, 28, 28, 1] uint8 and labels [N]; speed ignores the values."""
    import numpy as np  # noqa: PLC0415

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, 28, 28, 1), dtype=np.uint8)
    return images, rng.integers(0, 10, IMAGES).astype(np.int32)


def ours(work: str, members: int) -> Callable[[int], int]:
    """steps -> examples: the program that `fit` runs between two host updates."""
    import jax  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415
    import optax  # noqa: PLC0415

    from dlworkshop import losses, metrics, models  # noqa: PLC0415
    from dlworkshop.data.order import Order  # noqa: PLC0415
    from dlworkshop.learn.step import spec_of  # noqa: PLC0415
    from dlworkshop.models.convolution import has_convolutions  # noqa: PLC0415
    from dlworkshop.models.model import BATCH as BATCH_AXIS  # noqa: PLC0415
    from dlworkshop.train.autotune import measure, rule_of_thumb  # noqa: PLC0415
    from dlworkshop.train.flops import update_flops  # noqa: PLC0415
    from dlworkshop.train.members import product  # noqa: PLC0415
    from dlworkshop.train.mesh import MEMBER, make_mesh, shard  # noqa: PLC0415
    from dlworkshop.train.programs import Programs  # noqa: PLC0415
    from dlworkshop.types import Batch, Dataset  # noqa: PLC0415

    images, labels = examples()
    rates: dict[str, float] = {"learning_rate": 1e-3}
    model, optimizer = models.mlp(HIDDEN[work]), optax.adam
    if FEATURES[work]:
        rates = {"learning_rate": 0.01, "momentum": 0.9}
        model = models.cnn(FEATURES[work], HIDDEN[work])
        optimizer = optax.sgd
        if work == USERS:
            model = models.from_linen(flax_network(work))
    hparams, seeds = product(rates, members)
    mesh = make_mesh(members, BATCH, jax.devices())
    params = jax.eval_shape(model.init, jax.random.key(0), images[0])
    spec = spec_of(
        model,
        optimizer,
        losses.cross_entropy,
        rates,
        {"accuracy": metrics.accuracy},
    )
    order = Order(seeds, IMAGES, BATCH)
    convolutions = has_convolutions(model.apply, params, images[0])
    flops_each = update_flops(model, images[0])
    choice = rule_of_thumb(
        BATCH,
        flops_each,
        members // mesh.shape[MEMBER],
        convolutions=convolutions,
        platform=mesh.devices.flat[0].platform,
    )
    if convolutions:  # as `fit` does for a run that is worth it
        split = Batch(images, labels)
        dataset = Dataset(split, split, split, ())
        choice = measure(
            functools.partial(Programs, spec),
            mesh,
            models.stateful(model),
            hparams,
            seeds,
            dataset,
            BATCH,
        )
    programs = Programs(spec, mesh, execution=choice)
    hparams = shard(mesh, jax.tree.map(lambda h: np.asarray(h, float), hparams), MEMBER)
    seeds_there = shard(mesh, np.asarray(seeds, np.uint32), MEMBER)
    population = programs.begin(seeds_there, hparams, images[0])
    data = shard(mesh, Batch(images, labels))

    def train(steps: int) -> int:
        nonlocal population
        steps = min(steps, order.steps_per_epoch)
        index = shard(mesh, order.steps(0, steps), None, MEMBER, BATCH_AXIS)
        population, seen = programs.chunk(population, hparams, data, index)
        jax.block_until_ready((population, seen))
        return steps * BATCH * members

    return train


def flax_network(work: str) -> Any:
    """Images [..., 28, 28, 1] -> logits [..., 10], with layers of Flax."""
    from flax import linen as nn  # noqa: PLC0415

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, *, key=None):
            for features in FEATURES[work]:
                x = nn.relu(nn.Conv(features, (3, 3))(x))
                x = nn.avg_pool(x, (2, 2), (2, 2))
            x = x.reshape(*x.shape[:-3], -1)
            for units in HIDDEN[work]:
                x = nn.relu(nn.Dense(units)(x))
            return nn.Dense(10)(x)

    return Net()


def flax_script(work: str) -> Callable[[int], int]:
    """A jitted step for each batch, as in the examples of Flax and optax."""
    import jax  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415
    import optax  # noqa: PLC0415

    images, labels = examples()
    net = flax_network(work)
    tx = optax.sgd(0.01, momentum=0.9) if FEATURES[work] else optax.adam(1e-3)
    params = net.init(jax.random.key(0), images[:1] / 255.0)
    opt_state = tx.init(params)

    @jax.jit
    def step(params, opt_state, image, label):
        def loss_fn(params):
            logits = net.apply(params, image.astype("float32") / 255)
            return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()

        grads = jax.grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state

    rng = np.random.default_rng(0)

    def train(steps: int) -> int:
        nonlocal params, opt_state
        for _ in range(steps):
            index = rng.integers(0, IMAGES, BATCH)
            params, opt_state = step(params, opt_state, images[index], labels[index])
        jax.block_until_ready(params)
        return steps * BATCH

    return train


def pytorch(work: str) -> Callable[[int], int]:
    """Eager PyTorch, the data resident as uint8, batches by index."""
    import torch  # noqa: PLC0415
    from torch import nn  # noqa: PLC0415

    images, labels = (torch.from_numpy(a) for a in examples())
    images, labels = images.permute(0, 3, 1, 2).contiguous(), labels.long()
    layers: list[Any] = []
    width, side = 1, 28
    for features in FEATURES[work]:
        layers += [nn.Conv2d(width, features, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)]
        width, side = features, side // 2
    layers.append(nn.Flatten())
    width *= side**2
    for units in HIDDEN[work]:
        layers += [nn.Linear(width, units), nn.ReLU()]
        width = units
    net = nn.Sequential(*layers, nn.Linear(width, 10))
    optimizer: Any = torch.optim.Adam(net.parameters(), 1e-3)
    if FEATURES[work]:
        optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)
    loss_fn = nn.CrossEntropyLoss()

    def train(steps: int) -> int:
        for _ in range(steps):
            index = torch.randint(0, IMAGES, (BATCH,))
            optimizer.zero_grad()
            loss = loss_fn(net(images[index].float() / 255), labels[index])
            loss.backward()
            optimizer.step()
        loss.item()
        return steps * BATCH

    return train


def keras(work: str) -> Callable[[int], int]:
    """`model.fit` on arrays, with 32 steps per execution."""
    import keras as k  # noqa: PLC0415

    images, labels = examples()
    floats = images.astype("float32") / 255
    net = k.Sequential([k.layers.Input((28, 28, 1))])
    for features in FEATURES[work]:
        net.add(k.layers.Conv2D(features, 3, padding="same", activation="relu"))
        net.add(k.layers.AveragePooling2D(2))
    net.add(k.layers.Flatten())
    for units in HIDDEN[work]:
        net.add(k.layers.Dense(units, activation="relu"))
    net.add(k.layers.Dense(10))
    net.compile(
        k.optimizers.SGD(0.01, momentum=0.9)
        if FEATURES[work]
        else k.optimizers.Adam(1e-3),
        k.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=32,
    )

    def train(steps: int) -> int:
        whole = IMAGES // BATCH
        epochs = max(1, round(steps / whole))
        size = min(steps, whole) * BATCH
        net.fit(
            floats[:size], labels[:size], batch_size=BATCH, epochs=epochs, verbose=0
        )
        return epochs * size

    return train


def vgg16(system: str) -> Callable[[int], int]:
    """steps -> images whose features (mean over the last maps, [512]) are computed."""
    import numpy as np  # noqa: PLC0415

    shape = (VGG16_IMAGES, VGG16_SIDE, VGG16_SIDE, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    if system == "dlworkshop":
        import jax  # noqa: PLC0415

        from dlworkshop import models  # noqa: PLC0415
        from dlworkshop.serve.features import Extractor  # noqa: PLC0415

        model = models.vgg16(pooling="avg")
        params = jax.jit(model.init)(jax.random.key(0), images[0])
        extractor = Extractor(model, params, images)

        def ours(steps: int) -> int:
            return sum(len(rows) for _ in range(steps) for rows in extractor(images))

        return ours
    if system == "pytorch":
        import torch  # noqa: PLC0415
        from torch import nn  # noqa: PLC0415

        from dlworkshop.models.vgg16 import BLOCKS  # noqa: PLC0415

        layers: list[Any] = []
        channels = 3
        for convolutions, features in BLOCKS:
            for _ in range(convolutions):
                layers += [nn.Conv2d(channels, features, 3, padding=1), nn.ReLU()]
                channels = features
            layers.append(nn.MaxPool2d(2))
        net = nn.Sequential(*layers).to(memory_format=torch.channels_last).eval()
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)  # channels last in memory

        def torchs(steps: int) -> int:
            with torch.inference_mode():
                for _ in range(steps):
                    for first in range(0, VGG16_IMAGES, 8):
                        net(pixels[first : first + 8].float()).mean((2, 3))
            return steps * VGG16_IMAGES

        return torchs
    import keras as k  # noqa: PLC0415

    network = k.applications.VGG16(
        include_top=False, weights=None, pooling="avg", input_shape=shape[1:]
    )

    def keras_predict(steps: int) -> int:
        for _ in range(steps):
            network.predict(images, batch_size=VGG16_IMAGES, verbose=0)
        return steps * VGG16_IMAGES

    return keras_predict


def matrix_product() -> Callable[[], float]:
    """A function that measures large float32 matrix products, in FLOP/s."""
    import jax  # noqa: PLC0415
    import jax.numpy as jnp  # noqa: PLC0415

    size, repeats = 2048, 8
    a = jax.random.normal(jax.random.key(0), (size, size), jnp.float32)
    product = jax.jit(lambda a: a @ a).lower(a).compile()

    def peak() -> float:
        best = 0.0
        for _ in range(repeats):
            started = time.perf_counter()
            product(a).block_until_ready()
            best = max(best, 2 * size**3 / (time.perf_counter() - started))
        return best

    peak()
    return peak


def work_for(system: str, work: str) -> Callable[[int], int]:
    """The training function of one system, not warmed up yet."""
    if work == "vgg16":
        return vgg16(system)
    if system == "dlworkshop":
        return ours(work, 1)
    if system == "dlworkshop population":
        return ours(work, MEMBERS)
    if system == "flax script":
        return flax_script(work)
    return pytorch(work) if system == "pytorch" else keras(work)


def worker(system: str, work: str) -> None:
    """Warm up, find the number of steps per turn, then run a turn per line read."""
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print; answers are ours
    train = work_for(system, work)
    steps, seconds = 1, 0.0
    train(steps)
    while seconds < SECONDS / 4 and steps < 1000:
        steps *= 2
        train(steps)  # where these shapes are new, this compiles
        started = time.perf_counter()
        done = train(steps)
        seconds = time.perf_counter() - started
    turns = max(1, round(SECONDS / max(seconds, 1e-3)))
    print(json.dumps({"ready": done}), file=answers, flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        count = sum(train(steps) for _ in range(turns))
        rate = count / (time.perf_counter() - started)
        print(json.dumps({"rate": rate}), file=answers, flush=True)


def begin(system: str, work: str) -> subprocess.Popen[str]:
    """The process of one system, ready for its first turn."""
    environment = {**os.environ, **SYSTEMS[system][1], "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        [sys.executable, __file__, "--worker", system, "--works", work],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    if not answer(process):
        raise SystemExit(
            f"error: {system} failed on the work '{work}': run its worker alone to see "
            f"why, python {__file__} --worker '{system}' --works '{work}'"
        )
    return process


def answer(process: subprocess.Popen[str]) -> dict[str, float]:
    """The next line of a worker."""
    assert process.stdout is not None
    line = process.stdout.readline()
    return json.loads(line) if line else {}


def turn(process: subprocess.Popen[str]) -> float:
    """Examples per second of one turn."""
    assert process.stdin is not None
    time.sleep(0.3)  # threads of the one before it spin for a while
    process.stdin.write("go\n")
    process.stdin.flush()
    return answer(process)["rate"]


def measure(
    work: str, systems: list[str], rounds: int, peak: Callable[[], float]
) -> list[dict]:
    """All systems and the matrix product on one work, in turns; a row for each."""
    processes = {system: begin(system, work) for system in systems}
    rates: dict[str, list[float]] = {system: [] for system in systems}
    peaks = []
    for _ in range(rounds):
        for system, process in processes.items():
            rates[system].append(turn(process))
        time.sleep(0.3)
        peaks.append(peak())
    for process in processes.values():
        process.kill()
    return [
        {
            "work": work,
            "system": system,
            "examples_per_second": statistics.median(rates[system]),
            "low": min(rates[system]),
            "high": max(rates[system]),
            "rounds": rounds,
            "peak": statistics.median(peaks),
            "peak_share": flops(work)
            * statistics.median(
                rate / best for rate, best in zip(rates[system], peaks, strict=True)
            ),
        }
        for system in systems
    ]


def show(rows: list[dict]) -> None:
    """Print a table with the ratio to PyTorch or, without it, to the first system."""
    for row in rows:
        same = [r for r in rows if r["work"] == row["work"]]
        base = next((r for r in same if r["system"] == "pytorch"), same[0])
        ratio = row["examples_per_second"] / base["examples_per_second"]
        middle, low, high = (
            f"{row[name]:,.{1 if row[name] < 100 else 0}f}"
            for name in ("examples_per_second", "low", "high")
        )
        print(
            f"{row['work']:13} {row['system']:22} {middle:>10} examples/s "
            f"({low} to {high})  {ratio:5.2f} x "
            f"{base['system']}, {100 * row['peak_share']:.0f} % of the peak"
        )


def main() -> None:
    """Measure the requested works, print the table, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--works", nargs="+", choices=WORKS, default=["mlp", "cnn"])
    parser.add_argument("--all", action="store_true", help="measure all works")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", default=None, help="file to write the rows to")
    parser.add_argument("--worker", choices=SYSTEMS, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.rounds < 1:
        parser.error("--rounds must be at least 1")
    if flags.worker:
        worker(flags.worker, flags.works[0])
        return
    needs = {system: SYSTEMS[system][0] for system in flags.systems}
    systems = [s for s, package in needs.items() if importlib.util.find_spec(package)]
    for system in needs.keys() - set(systems):
        print(f"skipped: {system} ({needs[system]} is not installed)")
    peak = matrix_product()
    installed = {item.name: item.version for item in importlib.metadata.distributions()}
    packages = ("jax", "torch", "keras", "tensorflow", "tensorflow-cpu", "numpy")
    versions = {name: installed[name] for name in packages if name in installed}
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, matrix-product peak "
        f"{peak() / 1e9:.0f} GFLOP/s; {versions}; a population has {MEMBERS} members, "
        "and its examples/s are the sum over all members"
    )
    rows = []
    for work in WORKS if flags.all else flags.works:
        able = [s for s in systems if s in SYSTEMS_OF.get(work, SYSTEMS)]
        rows += measure(work, able, flags.rounds, peak)
    show(rows)
    if flags.json:
        with open(flags.json, "w") as file:
            json.dump({"versions": versions, "rows": rows}, file, indent=2)


if __name__ == "__main__":
    main()
