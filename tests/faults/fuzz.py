"""Changed files through each reader: one sentence, or it works; nothing else."""

import random
import shutil
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from safetensors.numpy import save

from dlworkshop import data
from dlworkshop.data.readers import store
from dlworkshop.errors import UserError
from dlworkshop.models import weights
from dlworkshop.train.params_file import read_params
from tests.conftest import compiled_soon, make_photos
from tests.faults import test_run_folder as attacks
from tests.faults.mutate import mutated

LAYERS = ["a", "b"]


def folders(tally: Any, scratch: Path, rng: random.Random, tries: Iterator[int]):
    """Run folders, as `test_run_folder` attacks a few."""
    with compiled_soon():
        photos, folder = make_photos(scratch / "photos"), scratch / "base"
        attacks.again(photos, folder)
        want = {name: way(folder, photos) for name, way in attacks.WAYS.items()}
        for _ in tries:
            seed, forged = rng.randrange(1 << 30), rng.random() < 0.6
            kind = "forged" if forged else "damaged"
            try:
                done = attacks.attack(folder, want, photos, seed, forged, scratch)
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


READERS: list[Callable[[Path], Reader]] = [npz, prepared, params, keras, torchvision]


def readers(tally: Any, scratch: Path, rng: random.Random, tries: Iterator[int]):
    """Each reader in turn; the files are as they were at the beginning of a try."""
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
        if name == "npz":
            shutil.rmtree(files[0].parent / "cache", ignore_errors=True)
        file, seed = rng.choice(files), rng.randrange(1 << 30)
        try:
            file.write_bytes(mutated(file, random.Random(seed)))
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

    def wrong(self, what: str, details: str) -> None:
        raise AssertionError(f"{what}: {details}")
