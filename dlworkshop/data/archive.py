"""Safe reading of .npz files, which may be damaged or hostile."""

import contextlib
import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from dlworkshop.files import open_regular


class Arrays(Mapping[str, np.ndarray]):
    """The arrays of an .npz file by name; each is read when it is asked for.

    Pickles are not read, and sizes are checked before memory is allocated.

    Args:
        path: of the file.
        most: the bytes of all arrays together.

    Raises:
        ValueError: if the file or the array is damaged, or the arrays together have
            more than `most` bytes.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.npz")
    >>> np.savez(path, x=np.arange(3))
    >>> Arrays(path)["x"].tolist()
    [0, 1, 2]
    >>> Arrays(path, most=100)
    Traceback (most recent call last):
    ValueError: its arrays take 152 bytes, more than 100
    """

    def __init__(self, path: Path, most: int | None = None):
        self._path = path
        self._read: dict[str, np.ndarray] = {}
        with _opened(path) as box:
            entries = box.infolist()
        size = sum(entry.file_size for entry in entries)
        if most is not None and size > most:
            raise ValueError(f"its arrays take {size:,} bytes, more than {most:,}")
        self._entries = {
            entry.filename.removesuffix(".npy"): entry
            for entry in entries
            if entry.filename.endswith(".npy")
        }

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self._entries[name]
        if name not in self._read:
            with _opened(self._path) as box:
                with box.open(entry) as file:
                    _check(entry, file)
                with box.open(entry) as file:
                    array = np.lib.format.read_array(file, allow_pickle=False)
                    if file.read(1):  # the end also verifies the checksum
                        raise ValueError(f"{name} is longer than its shape")
            self._read[name] = array
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip file; any exception becomes a ValueError of one sentence."""
    try:
        with open_regular(path) as opened, zipfile.ZipFile(opened) as box:
            yield box
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
