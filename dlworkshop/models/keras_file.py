"""Reading of Keras' HDF5 weights, with a time limit for damaged files.

HDF5 loops forever in some damaged files and cannot be interrupted. So another process
reads the file first, with a time limit. It runs this module, which imports nothing of
this library, so that it starts in a quarter of a second.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

SECONDS, BYTES_A_SECOND = 8.0, 2e7  # limits of the time to read, for a slow disk
MOST_TIMES, LITTLE = 100, 1 << 20  # compressed arrays may be larger than the file


def read(path: Path, layers: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """Layer -> kernel and bias, from an HDF5 file of Keras 2 or 3.

    `layers` are the names in order, which files of Keras before 3.9 do not store.

    Raises:
        ValueError: if the file is damaged, or has another format.
    """
    seconds = SECONDS + path.stat().st_size / BYTES_A_SECOND
    command = [sys.executable, "-W", "ignore", __file__, str(path), *layers]
    try:
        subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"reading it takes more than {seconds:.0f} s") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or [
            f"HDF5 ends with {error.returncode}"
        ]
        raise ValueError(said[-1]) from None
    return _read(path, layers)


def _read(path: Path, layers: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    import h5py  # noqa: PLC0415

    found: dict[str, dict[str, np.ndarray]] = {}
    with h5py.File(path) as file:
        root = file.get("model_weights", file)  # a group if the file has a whole model
        if "layer_names" in root.attrs:  # Keras 2, and Keras 3's .h5
            for name in map(_text, root.attrs["layer_names"]):
                group = root[name]
                weights = [group[_text(w)] for w in group.attrs["weight_names"]]
                found[name] = _named(weights, path, found)
        else:  # .weights.h5 of Keras 3
            unnamed = iter(layers)
            for folder in sorted(root["layers"], key=_class_and_number):
                variables = root["layers"][folder]["vars"]
                weights = [variables[i] for i in sorted(variables)]
                # Keras before 3.9 stores the order of the layers only
                name = variables.attrs.get("name")
                if name is None and weights:
                    name = next(unnamed, folder)
                found[_text(name)] = _named(weights, path, found)
    return {name: arrays for name, arrays in found.items() if arrays}


def _named(weights: list, path: Path, before: dict) -> dict[str, np.ndarray]:
    """The weights of a layer by name, from Keras' order: kernel, bias.

    `before` are the layers that were read, with which its arrays share a limit.
    """
    size = sum(array.nbytes for layer in before.values() for array in layer.values())
    for array in weights:
        elsewhere = array.file.filename != str(path)  # a link to another file
        if elsewhere or array.external or array.is_virtual:
            raise ValueError(f"{array.name} lies in another file")
        size += array.nbytes
        if size > MOST_TIMES * path.stat().st_size + LITTLE:
            raise ValueError(f"its arrays up to {array.name} have {size:,} bytes")
    return {
        name: np.asarray(array)
        for name, array in zip(("kernel", "bias", "more"), weights, strict=False)
    }


def _class_and_number(folder: str) -> tuple[str, int]:
    """Sort key: conv2d, conv2d_1, ..., conv2d_10, dense, the order of creation."""
    found = re.fullmatch(r"(.*?)(?:_(\d+))?", folder)
    return (found[1], int(found[2] or 0)) if found else (folder, 0)


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


if __name__ == "__main__":
    try:
        _read(Path(sys.argv[1]), sys.argv[2:])
    except Exception as damage:  # a damaged file may raise anything
        sys.exit(" ".join(str(damage).split()) or type(damage).__name__)
