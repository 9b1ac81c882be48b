"""Safe reading of .npz files, which may be damaged or hostile."""

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np


def read_npz(path: Path, most: int | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name.

    Pickles are not read, and sizes are checked before memory is allocated.

    Raises:
        ValueError: if the file is damaged, or its arrays together have more than
            `most` bytes.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.npz")
    >>> np.savez(path, x=np.arange(3))
    >>> read_npz(path)["x"].tolist()
    [0, 1, 2]
    >>> read_npz(path, most=100)
    Traceback (most recent call last):
    ValueError: its arrays take 152 bytes, more than 100
    """
    try:
        with zipfile.ZipFile(path) as file:
            entries = file.infolist()
            size = sum(entry.file_size for entry in entries)
            if most is not None and size > most:
                raise ValueError(f"its arrays take {size:,} bytes, more than {most:,}")
            for entry in (each for each in entries if each.filename.endswith(".npy")):
                with file.open(entry) as array:
                    _check(entry, array)
        with np.load(path, allow_pickle=False) as file:
            arrays = ((name, file[name]) for name in file.files)
            return {n: array for n, array in arrays if hasattr(array, "dtype")}
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    except Exception as error:  # a damaged file may raise anything
        said = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(said) from None


def _check(entry: zipfile.ZipInfo, file: IO[bytes]) -> None:
    """Check that an entry is a complete array of plain values."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    if dtype.hasobject:
        raise ValueError(f"{entry.filename} holds Python objects, which are not read")
    wanted = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or wanted > entry.file_size:
        raise ValueError(
            f"{entry.filename} has {entry.file_size:,} bytes for {list(shape)} of "
            f"{dtype}"
        )
