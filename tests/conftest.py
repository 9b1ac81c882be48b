"""What all tests share: four devices, a cache, programs compiled soon, tiny data."""

import contextlib
import gc
import os
import resource
import runpy
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax._src import compiler
from PIL import Image

from dlworkshop import report
from dlworkshop.learn import losses
from dlworkshop.types import Batch, Dataset

ROOT = Path(__file__).parent.parent

# The tests' own cache folder, warm in the second run; never the user's.
os.environ["XDG_CACHE_HOME"] = str(ROOT / ".pytest_cache" / "home")
os.environ.pop("DLWORKSHOP_DATA", None)
jax.config.update("jax_num_cpu_devices", 4)
# to walk over all of JAX and what it traced, again and again, took 5 % of the time
gc.set_threshold(10_000, 10, 10)


# What makes XLA compile soon on a CPU: one module, and the kernels of fused operations
# as they were made before (JAX 0.12 has no other way); each saves about half.
SOON = {"xla_cpu_parallel_codegen_split_count": 1}
if jax.__version_info__ < (0, 11):
    SOON["xla_cpu_use_fusion_emitters"] = False
# the same for programs in processes of their own, as their environment
SOON_THERE = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
    "XLA_FLAGS": " ".join(f"--{name}={int(value)}" for name, value in SOON.items()),
}


@contextlib.contextmanager
def compiled_soon(level: int = 0):
    """Programs compile in a fraction of the time, and run the slower for it.

    Args:
        level: of LLVM's optimisation; 1 is for what runs longer than it compiles.
    """
    options = compiler.get_compile_options

    def of_few(*args, env_options_overrides=None, **kwargs):
        few = SOON | {"xla_backend_optimization_level": level}
        overrides = few | (env_options_overrides or {})
        return options(*args, env_options_overrides=overrides, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        # no setting of JAX reaches these options of every program
        patch.setattr(compiler, "get_compile_options", of_few)
        jax.config.update("jax_disable_most_optimizations", True)
        try:
            yield
        finally:
            jax.config.update("jax_disable_most_optimizations", False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Compile soon what runs once: it takes most of the time.

    Where other programs must give the same bits the test is marked `optimized`, and
    they are compiled as users have them; what runs for long is marked `computing`.
    """
    if item.get_closest_marker("optimized"):
        return (yield)
    with compiled_soon(level=1 if item.get_closest_marker("computing") else 0):
        return (yield)


def make_dataset(sizes=(96, 33, 33), classes=4, side=8, seed=0) -> Dataset:
    """Images whose bright quadrant names their class: learnt in a few steps."""
    rng = np.random.default_rng(seed)
    splits = []
    for size in sizes:
        label = rng.integers(0, classes, size).astype(np.int32)
        image = rng.integers(0, 120, (size, side, side, 1), dtype=np.uint8)
        half = side // 2
        for i, k in enumerate(label):
            row, column = divmod(int(k), 2)
            image[
                i, row * half : (row + 1) * half, column * half : (column + 1) * half
            ] += 60
        splits.append(Batch(image, label))
    names = tuple("abcdefgh"[:classes])
    return Dataset(*splits, names, "quadrants", f"{sizes}{seed}")


@pytest.fixture(scope="session")
def quadrants() -> Dataset:
    """96 / 33 / 33 images [8, 8, 1] of 4 classes."""
    return make_dataset()


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """As of `make_photos`."""
    return make_photos(tmp_path_factory.mktemp("own") / "photos")


def make_photos(folder: Path) -> Path:
    """40 images [8, 8, 1] of 4 classes, as PNG files in a folder of each class."""
    split = make_dataset((40, 1, 1)).train
    for i, (image, label) in enumerate(zip(split.inputs, split.targets, strict=True)):
        path = folder / f"kind {'abcd'[label]}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    return folder


@pytest.fixture(scope="session")
def image_run(photos, tmp_path_factory) -> Path:
    """The folder of a run of two members on `photos`."""
    return train(photos, tmp_path_factory, num_epochs=2)


@pytest.fixture(scope="session")
def penguins(tmp_path_factory) -> Path:
    """A CSV of 60 rows in which a number and a word tell three kinds apart."""
    rng = np.random.default_rng(0)
    rows = [
        f"{kind},{10 * k + rng.normal():.3f},{('north', 'south', '')[i // 3 % 3]}"
        for i in range(60)
        for k, kind in [(i % 3, ("ada", "bob", "cleo")[i % 3])]
    ]
    path = tmp_path_factory.mktemp("own") / "penguins.csv"
    path.write_text("\n".join(["kind,length,island", *rows]) + "\n")
    return path


@pytest.fixture(scope="session")
def table_run(penguins, tmp_path_factory) -> Path:
    """The folder of a run of two members on `penguins`."""
    return train(penguins, tmp_path_factory, target="kind")


@pytest.fixture(scope="session")
def houses(tmp_path_factory) -> Path:
    """A CSV of 90 rows: a size and a town tell the price, and two labels."""
    rng = np.random.default_rng(0)
    rows = ["size,town,price,large,dear"]
    for i in range(90):
        size, town = rng.uniform(30, 200), ("north", "south", "")[i % 3]
        price = 100_000 + 1500 * size + 40_000 * (i % 3) + rng.normal(0, 9000)
        rows.append(
            f"{size:.2f},{town},{price:.2f},{int(size > 110)},{int(price > 300_000)}"
        )
    path = tmp_path_factory.mktemp("own") / "houses.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="session")
def price_run(houses, tmp_path_factory) -> Path:
    """The folder of a run of two members on the price of `houses`."""
    return train(houses, tmp_path_factory, 4, losses.squared_error, target="price")


@pytest.fixture(scope="session")
def labels_run(houses, tmp_path_factory) -> Path:
    """The folder of a run of two members on the labels of `houses`."""
    target = ("large", "dear")
    return train(
        houses, tmp_path_factory, 4, losses.binary_cross_entropy, target=target
    )


def train(
    path, tmp_path_factory, num_epochs=1, loss=losses.cross_entropy, **options
) -> Path:
    """A small run in a folder."""
    from dlworkshop import data, fit, models  # noqa: PLC0415

    dataset = data.load(path, **options)
    targets = dataset.train.targets
    workdir = tmp_path_factory.mktemp("run")
    with reports(WRITE):
        fit(
            models.mlp(
                (8,),
                num_classes=len(dataset.classes) or int(np.prod(targets.shape[1:])),
            ),
            dataset,
            loss=loss,
            hparams={"learning_rate": 0.03},
            seeds=2,
            num_epochs=num_epochs,
            batch_size=8,
            devices=jax.devices()[:1],
            workdir=workdir,
        )
    return workdir


@pytest.fixture
def start(monkeypatch, capsys):
    """start(script, *flags) -> exit code, stdout and stderr of `python script flags`.

    It runs in this process: another would take seconds to begin.
    """
    # a script divides the CPU before JAX begins, which it has done here
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "4")

    def run(script, *flags):
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, flags)])
        code = 0
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as left:
            code = left.code or 0
        return code, *capsys.readouterr()

    return run


WRITE = report.write


@contextlib.contextmanager
def reports(write=lambda workdir: (workdir / "report.html").write_text("</html>")):
    """Runs leave an empty report, or what `write` makes of the folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "write", write)
        yield


@pytest.fixture(scope="module")
def unreported():
    """Runs leave an empty report: drawing one takes as long as a small training."""
    with reports():
        yield


@pytest.fixture
def reported():
    """Runs leave a report all the same, in a module that has none else."""
    with reports(WRITE):
        yield


@pytest.fixture
def one_device():
    return jax.devices()[:1]


@pytest.fixture
def full_disk():
    """A context in which no file may have bytes: what a full disk does to a writer."""

    @contextlib.contextmanager
    def full(most=0):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return full
