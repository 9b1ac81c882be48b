"""Prepared examples on disk: ArrayRecord files in folders named by a content hash.

A prepared folder has `records-*.array_record` with the bytes of one example in each
record, `targets.npy`, `split.npy`, `names.json` (the source of each example) and
`about.json` (shape, dtype, classes, preprocessing and data card).
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np

from dlworkshop import run_files
from dlworkshop.data import checksums
from dlworkshop.data.content import SPLITS
from dlworkshop.data.readers.images import RECORDS
from dlworkshop.data.rows import LazyArray
from dlworkshop.errors import UserError
from dlworkshop.files import (
    DAY,
    atomic_rename,
    atomic_write,
    partial_folder,
    read_own,
    remove_left_over,
)
from dlworkshop.run_files import schema
from dlworkshop.types import Array, Batch, Dataset

NAMES = "names.json"  # of a prepared folder
VERSION = 9  # of the format; data of another version are prepared again


class Records(LazyArray):
    """Examples in ArrayRecord files as an array [N, ...], read on demand.

    Args:
        files: of records of one size, in order.
        starts: [files + 1] number of the first record of each file, and the total.
        index: [N] record number of each row.
        shape, dtype: of one example.
    """

    def __init__(
        self,
        files: Sequence[Path],
        starts: Sequence[int],
        index: np.ndarray,
        shape: Sequence[int],
        dtype: Any,
    ):
        super().__init__(index, shape, dtype)
        self._files, self._starts = list(files), list(starts)
        self._readers: dict[int, Any] = {}

    def names(self, rows: Any) -> list[str]:
        """The sources of rows [n]: files, or rows of a table."""
        path = self._files[0].parent / NAMES
        try:
            names = json.loads(path.read_text())
            return [names[number] for number in self._index[rows].tolist()]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise UserError(
                f"{path} is damaged ({error}): delete its folder and load again"
            ) from error

    def _read(self, numbers: np.ndarray) -> np.ndarray:
        values = np.empty((numbers.size, *self.shape[1:]), self.dtype)
        file_of = np.searchsorted(self._starts, numbers, side="right") - 1
        for file in np.unique(file_of):
            at = np.flatnonzero(file_of == file)
            try:
                records = self._reader(file).read(
                    (numbers[at] - self._starts[file]).tolist()
                )
                values[at] = np.frombuffer(b"".join(records), self.dtype).reshape(
                    len(at), *self.shape[1:]
                )
            except (ValueError, RuntimeError, IndexError) as error:
                raise UserError(
                    f"{self._files[file]} is damaged ({error}): delete its folder and "
                    "load again"
                ) from error
        return values

    def _reader(self, file: int) -> Any:
        if file not in self._readers:
            from array_record.python import array_record_module  # noqa: PLC0415

            # two threads may both open the file; then one of the readers is dropped
            self._readers[file] = array_record_module.ArrayRecordReader(
                str(self._files[file]),
                options="readahead_buffer_size:0",
                file_reader_buffer_size=32768,
            )
        return self._readers[file]


class Prepared(NamedTuple):
    """The description of examples whose records are in a folder."""

    key: str  # hash of the original content
    targets: np.ndarray  # [N] int32 of classes, or float32 [N, ...]
    split: np.ndarray  # [N] int8, indices in SPLITS
    names: Sequence[str]  # [N] source of each example
    classes: Sequence[str]  # [K]; empty if targets are numbers
    shape: Sequence[int]  # of one example
    dtype: str
    files: Sequence[tuple[str, int]]  # of records, with the number of each
    preprocessing: Mapping[str, Any]  # converts a file or row to an example
    card: Mapping[str, Any]  # the data card
    groups: np.ndarray | None = None  # [N] int, if examples are grouped


def write_records(folder: Path, examples: Array) -> list[tuple[str, int]]:
    """Write examples [N, ...] as one file of records; returns its name and N."""
    from array_record.python.array_record_module import (  # noqa: PLC0415
        ArrayRecordWriter,
    )

    name = "records-00000.array_record"
    writer = ArrayRecordWriter(str(folder / name), RECORDS)
    for example in examples:
        writer.write(example.tobytes())
    writer.close()
    return [(name, len(examples))]


def digest(parts: Iterable[Any]) -> str:
    """16 hex digits that differ if the parts, as text, differ.

    >>> digest(["a", 1]) == digest(["a", 1]), digest(["a", 1]) == digest(["a1"])
    (True, False)
    """
    sha = hashlib.sha256()
    for part in parts:
        sha.update(str(part).encode("utf-8", "surrogateescape") + b"\0")
    return sha.hexdigest()[:16]


def sha256(files: Iterable[str | Path]) -> list[str]:
    """SHA-256 of each file, as hex; "" if it cannot be read."""
    found = []
    for path in files:
        try:
            # reading a pipe would block
            found.append(checksums.sha256(path) if os.path.isfile(path) else "")
        except OSError:
            found.append("")
    return found


def signature(paths: Iterable[str | Path], options: Mapping[str, Any]) -> str:
    """A key of the status of files, which changes if a file changes.

    No content is read. As in git's index, a change of a file's bytes always changes the
    time of its last status change, so the key identifies content on this machine.
    """
    parts: list[Any] = [VERSION, json.dumps(options, sort_keys=True)]
    for path in paths:
        parts.append(path)
        try:
            stat = os.stat(path)
        except OSError:  # a dangling link, or one to itself
            continue
        parts.append((stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    return digest(parts)


def find(root: Path, signed: str) -> Path | None:
    """The folder prepared from files with this signature, if there is one."""
    try:
        key = read_own(root / "index" / signed, most=100).decode()
    except (OSError, ValueError):  # it is written again
        return None
    folder = root / key
    return folder if key.isalnum() and (folder / "about.json").is_file() else None


@contextlib.contextmanager
def partial(root: Path) -> Iterator[Path]:
    """A temporary folder to prepare in; it is removed unless `commit` renames it."""
    root.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):
        remove_left_over(root / "index", DAY)
    with partial_folder(root) as folder:
        yield folder


class About(TypedDict):
    """The contents of `about.json`, without its `digest`."""

    key: str
    classes: list[str]
    shape: list[schema.Size]
    dtype: schema.Dtype
    files: list[tuple[str, schema.Size]]
    groups: bool
    preprocessing: schema.Conversion | None
    card: schema.Card


def commit(root: Path, folder: Path, made: Prepared, signed: str) -> Path:
    """Rename a prepared folder to its content hash, atomically."""
    arrays = {"targets.npy": made.targets, "split.npy": made.split}
    if made.groups is not None:
        arrays["groups.npy"] = made.groups
    for name, array in arrays.items():
        np.save(folder / name, array)
    (folder / NAMES).write_text(json.dumps(list(made.names)))
    apart = dict.fromkeys(("targets", "split", "names"))
    apart |= {"groups": made.groups is not None}
    written = *arrays, NAMES
    digests = dict(zip(written, sha256(folder / name for name in written), strict=True))
    about = made._asdict() | apart | {"version": VERSION, "sha256": digests}
    about = json.loads(json.dumps(about))
    about["digest"] = run_files.digest("about.json", about)
    (folder / "about.json").write_text(json.dumps(about))
    folder.chmod(root.stat().st_mode & 0o777)  # mkdtemp made it private
    final = root / made.key
    atomic_rename(folder, final)  # an existing folder has the same content
    index = root / "index"
    index.mkdir(exist_ok=True)
    atomic_write(index / signed, made.key)
    return final


def read(folder: Path, name: str) -> Dataset:
    """The data set in a prepared folder.

    Raises:
        UserError: if its files are damaged.
    """
    try:
        about = _about(folder)
        targets, split = (np.load(folder / f"{n}.npy") for n in ("targets", "split"))
        groups = np.load(folder / "groups.npy") if about["groups"] else None
        files = [folder / Path(file).name for file, _ in about["files"]]
        missing = [str(file) for file in files if not file.is_file()]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        starts = np.cumsum([0, *(n for _, n in about["files"])]).tolist()
        if not len(targets) == len(split) == starts[-1]:
            raise ValueError(f"it has {len(targets)} targets, {starts[-1]} examples")
    except Exception as error:  # a damaged file may raise anything
        raise UserError(
            f"{folder} is damaged ({error!s:.300}): delete that folder and load again."
        ) from error
    train, validation, test = (
        Batch(
            Records(files, starts, index, about["shape"], about["dtype"]),
            targets[index],
        )
        for index in (np.flatnonzero(split == number) for number in range(len(SPLITS)))
    )
    return Dataset(
        train,
        validation,
        test,
        classes=tuple(about["classes"]),
        name=name,
        fingerprint=about["key"],
        preprocessing=about["preprocessing"],
        card=about["card"],
        groups=None if groups is None else (groups[split == 0], groups[split == 1]),
    )


def _about(folder: Path) -> dict[str, Any]:
    """The contents of `about.json`, after verification of all digests.

    Raises:
        ValueError: if a digest differs; earlier versions have none.
    """
    path = folder / "about.json"
    about = run_files.parsed(run_files.contents(path), path, About)
    known = about.pop("digest", None)
    if known is not None and known != run_files.digest(path.name, about):
        raise ValueError("about.json is not as it was written")
    for name, digest in about.get("sha256", {}).items():
        if sha256([folder / Path(name).name]) != [digest]:
            raise ValueError(f"{name} is not as it was written")
    return about
