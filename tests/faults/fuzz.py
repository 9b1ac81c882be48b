"""Changed files through each reader: one sentence, or it works; nothing else.

No call may take more than `LONGEST` seconds, nor the process grow by more than `MOST`.
"""

import contextlib
import gzip
import random
import resource
import shutil
import struct
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image
from safetensors.numpy import save

from dlworkshop import data
from dlworkshop.data.readers import images, store
from dlworkshop.errors import UserError
from dlworkshop.models import weights
from dlworkshop.serve.predict import Skipped, predict_files
from dlworkshop.train.params_file import read_params
from tests.conftest import compiled_soon, make_photos
from tests.faults import test_run_folder as attacks
from tests.faults.mutate import mutated

LAYERS = ["a", "b"]
LONGEST = 10.0  # seconds of CPU of one call
MOST = 1024  # MiB more than before the first call


@contextlib.contextmanager
def limits(tally: Any) -> Iterator[Callable[[str], contextlib.AbstractContextManager]]:
    """Watch the time of each call, and at the end the memory of all of them."""
    longest, before = ["nothing", 0.0], peak()

    @contextlib.contextmanager
    def call(what: str):
        start = time.process_time()
        yield
        taken = time.process_time() - start
        if taken > longest[1]:
            longest[:] = what, taken
        if taken > LONGEST:
            tally.wrong(f"{what}: slow", f"{taken:.1f} s")

    yield call
    grown = peak() - before
    tally.figure(f"longest call {longest[1]:.2f} s ({longest[0]})")
    tally.figure(f"memory {before:,.0f} MiB, at most {grown:,.0f} MiB more")
    if grown > MOST:
        tally.wrong("memory", f"{grown:,.0f} MiB more")


def peak() -> float:
    """The most memory that the process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def folders(tally: Any, scratch: Path, rng: random.Random, tries: Iterator[int]):
    """Run folders, as `test_run_folder` attacks a few."""
    with compiled_soon():
        photos, folder = make_photos(scratch / "photos"), scratch / "base"
        attacks.again(photos, folder)
        want = {name: way(folder, photos) for name, way in attacks.WAYS.items()}
        with limits(tally) as call:
            for _ in tries:
                seed, forged = rng.randrange(1 << 30), rng.random() < 0.6
                kind = "forged" if forged else "damaged"
                try:
                    with call(f"seed {seed}"):
                        done = attacks.attack(
                            folder, want, photos, seed, forged, scratch
                        )
                    tally.good(f"{kind}: {done}")
                except Exception:
                    tally.wrong(kind, traceback.format_exc())


Reader = tuple[list[Path], Callable[[], Any]]  # files to be changed, and who reads them


def npz(folder: Path) -> Reader:
    """Of data: images and vectors, numbers and words."""
    rng = np.random.default_rng(0)
    path = folder / "x.npz"
    inputs = rng.integers(0, 256, (30, 4, 4), np.uint8)
    np.savez(path, x=inputs, y=np.array(["a", "bb", "c"])[np.arange(30) % 3])
    return [path], lambda: data.load(path, folder / "cache")


def prepared(folder: Path) -> Reader:
    """Data that were prepared before, with all that a run reads of them."""
    path, cache = folder / "v.npz", folder / "cache"
    rng = np.random.default_rng(0)
    np.savez(path, x=rng.normal(size=(30, 3)), y=np.arange(30) % 3)
    first = data.load(path, cache)
    home = cache / "own" / first.fingerprint
    wanted = contents(first)

    def again():
        found = contents(store.read(home, "v"))
        for name, each in wanted.items():
            if not np.array_equal(found[name], each):
                raise AssertionError(f"other {name}")

    return sorted(path for path in home.iterdir() if path.is_file()), again


def contents(dataset) -> dict[str, Any]:
    """What a run learns from."""
    found = {"classes": np.array(dataset.classes)}
    for name in ("train", "validation", "test"):
        split = getattr(dataset, name)
        found[name] = np.asarray(split.inputs[:])
        found[f"{name} targets"] = np.asarray(split.targets)
    return found


def params(folder: Path) -> Reader:
    """Of a run."""
    path = folder / "params.safetensors"
    example = {"shape": [2], "dtype": "float32"}
    about = {"name": "x", "fingerprint": "", "classes": [], "shape": [2]}
    config = {
        "dataset": about | {"example": example},
        "model": {"name": "mlp"},
        "hparams": {"rate": [0.1]},
        "model_hparams": {},
    }
    from dlworkshop.train.params_file import write_params  # noqa: PLC0415

    write_params(path, {"a": np.ones((1, 2, 3), np.float32)}, (), config)
    return [path], lambda: read_params(path)


def keras(folder: Path) -> Reader:
    """Weights of Keras."""
    path = folder / "keras.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in LAYERS]
        for name in LAYERS:
            group = file.create_group(name)
            names = [f"{name}/kernel:0", f"{name}/bias:0"]
            group.attrs["weight_names"] = [each.encode() for each in names]
            group.create_dataset(names[0], data=np.ones((3, 3, 2, 2), np.float32))
            group.create_dataset(names[1], data=np.zeros(2, np.float32))
    return [path], lambda: weights.read(path, LAYERS, {name: name for name in LAYERS})


def torchvision(folder: Path) -> Reader:
    """Weights of torchvision."""
    path = folder / "torch.safetensors"
    arrays = {f"{name}.bias": np.zeros(2, np.float32) for name in LAYERS}
    arrays["a.weight"] = np.ones((2, 2, 3, 3), np.float32)
    arrays["b.weight"] = np.ones((2, 8), np.float32)
    path.write_bytes(save(arrays, {"config": "{}"}))
    return [path], lambda: weights.read(path, LAYERS, {name: name for name in LAYERS})


def pictures(folder: Path) -> Reader:
    """Image files of each format, as a worker reads them."""
    colour = np.random.default_rng(0).integers(0, 256, (12, 9, 3), np.uint8)
    image = Image.fromarray(colour)
    for name in images.FORMATS:
        image.save(folder / f"{name.lower()}.image", name)
    image.save(folder / "palette.image", "GIF", save_all=True, append_images=[image])
    Image.fromarray(colour[..., 0].astype(np.uint16) << 6).save(
        folder / "wide.image", "PNG"
    )
    image.save(folder / "packed.image", "TIFF", compression="tiff_lzw")
    exif = Image.Exif()
    exif[0x0112] = 6  # the orientation
    image.save(folder / "turned.image", "JPEG", exif=exif, progressive=True)
    files = sorted(folder.iterdir())

    def decode():
        bad = ""
        for file in files:
            try:
                for grey in (1, 3):
                    preprocessing = images.as_shaped((8, 8, grey))
                    pixels = images.decode(file.read_bytes(), preprocessing)
                    assert pixels.shape == (8, 8, grey), pixels.shape
            except ValueError as error:
                bad = str(error)
            images.look(str(file))
            images.is_colourful(str(file))
            images.bits_in(str(file))
        if bad:
            raise UserError(bad)

    return files, decode


def table(folder: Path) -> Reader:
    """A CSV file with numbers, words, dates and empty cells."""
    path = folder / "table.csv"
    lines = ["kind,length,day,place"]
    for i in range(40):
        lines.append(
            f"{'abc'[i % 3]},{i % 7 / 4 or ''},2024-01-{i % 28 + 1:02d},"
            f'"{("north", "süd, unten", "")[i % 5 % 3]}"'
        )
    path.write_text("\n".join(lines) + "\n")
    return [path], lambda: data.load(path, folder / "cache", target="kind")


def idx(folder: Path) -> Reader:
    """Images and labels like those of MNIST, packed and not."""
    home = folder / "idx"
    home.mkdir()
    rng = np.random.default_rng(0)
    for name, size in [("train", 60), ("t10k", 12)]:
        pixels = rng.integers(0, 256, (size, 5, 5), np.uint8)
        labels = np.arange(size, dtype=np.uint8) % 3
        header = struct.pack(">HBB", 0, 8, 3) + struct.pack(">3I", *pixels.shape)
        file = home / f"{name}-images-idx3-ubyte.gz"
        file.write_bytes(gzip.compress(header + pixels.tobytes()))
        header = struct.pack(">HBBI", 0, 8, 1, size)
        (home / f"{name}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    return sorted(home.iterdir()), lambda: data.load(home, folder / "cache")


def asked(folder: Path) -> Reader:
    """Image files that a run is asked about."""
    with compiled_soon():
        photos = make_photos(folder / "photos")
        run = attacks.again(photos, folder / "run")
    files = sorted(photos.rglob("*.png"))[:3]

    def answer():
        for found in predict_files(run, files):
            if isinstance(found, Skipped):
                raise UserError(found.reason)

    return files, answer


READERS: list[Callable[[Path], Reader]] = [
    npz,
    prepared,
    params,
    keras,
    torchvision,
    pictures,
    table,
    idx,
    asked,
]


def readers(tally: Any, scratch: Path, rng: random.Random, tries: Iterator[int]):
    """Each reader in turn; the files are as they were at the beginning of a try."""
    with limits(tally) as call:
        _readers(tally, scratch, rng, tries, call)


def _readers(
    tally: Any, scratch: Path, rng: random.Random, tries: Iterator[int], call: Any
):
    made = []
    for each in READERS:
        folder = scratch / each.__name__
        folder.mkdir()
        files, read = each(folder)
        made.append((each.__name__, files, {f: f.read_bytes() for f in files}, read))
    for number in tries:
        name, files, before, read = made[number % len(made)]
        for file in files:
            file.write_bytes(before[file])
        if name != "prepared":  # which is in its cache
            shutil.rmtree(scratch / name / "cache", ignore_errors=True)
        file, seed = rng.choice(files), rng.randrange(1 << 30)
        try:
            file.write_bytes(mutated(file, random.Random(seed)))
            with call(f"{name}, seed {seed}"):
                read()
            tally.good(f"{name}: read")
        except UserError as error:
            if "\n" in str(error):
                tally.wrong(f"{name}: several lines", str(error))
            tally.good(f"{name}: one sentence")
        except Exception:
            what = f"seed {seed} in {file.name} {traceback.format_exc()}"
            tally.wrong(name, what)


class Strict:
    """A tally of a test: what is wrong fails it at once."""

    def __init__(self):
        self.seen: set[str] = set()

    def good(self, what: str) -> None:
        self.seen.add(what)

    def figure(self, text: str) -> None:
        self.seen.add(text)

    def wrong(self, what: str, details: str) -> None:
        raise AssertionError(f"{what}: {details}")
