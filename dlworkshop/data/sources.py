"""Reading of the raw files of a named data set, each of which is checked."""

import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dlworkshop.data import raw
from dlworkshop.data.catalogue import ENTRIES, Entry
from dlworkshop.errors import UserError

Columns = dict[str, np.ndarray]  # feature name -> [N, ...]


class Raw(NamedTuple):
    """Both official splits, with the columns of the tfds builder."""

    train: Columns  # image [N, H, W, C] uint8, label [N] uint8, perhaps coarse_label
    test: Columns
    class_names: dict[str, list[str]]  # label column -> names, if a file has them


def locate(name: str, folder: Path) -> tuple[list[Path], list[str]]:
    """The raw files of `name` in `folder`, and the names of missing ones."""
    entry = ENTRIES[name]
    if entry.archive and (folder / entry.archive).is_file():
        return [folder / entry.archive], []
    found, missing = [], []
    for file in (*entry.train, *entry.test, *entry.class_files):
        places = [folder / f"{file}.gz", folder / file, folder / entry.folder / file]
        path = next((place for place in places if place.is_file()), None)
        found += [path] if path else []
        missing += [] if path else [file]
    return found, missing


def find(name: str, folder: Path) -> list[Path]:
    """The raw files of `name` in `folder`: all of them, or [] if there is none.

    Raises:
        UserError: if some are missing, or there is only a pickle, which can run code.
    """
    found, missing = locate(name, folder)
    if found and missing:
        raise UserError(
            f"{folder} has {found[0].name} but not {', '.join(missing)}: put the "
            f"missing raw files of {name} there too."
        )
    if not found and name.startswith("cifar"):
        pickles = [*folder.glob("cifar*-python*"), *folder.glob("cifar-10-batches-py")]
        if pickles:
            raise UserError(
                f"{pickles[0]} is a Python pickle, which can run any code when opened, "
                f"so it is not read: put {ENTRIES[name].archive} there instead."
            )
    return found


def read(name: str, paths: list[Path]) -> Raw:
    """Read and check the raw files that `find` found.

    Raises:
        UserError: if a file is damaged or does not match the others.
    """
    entry = ENTRIES[name]
    wanted = (*entry.train, *entry.test, *entry.class_files)
    if entry.archive and paths[0].name == entry.archive:
        contents = _unpack(paths[0], wanted)
    else:
        contents = {
            path.name.removesuffix(".gz"): (str(path), path.read_bytes())
            for path in paths
        }
    files = {f: (where, raw.gunzip(d, where)) for f, (where, d) in contents.items()}
    names = {}
    for column, file in zip(_label_columns(entry), entry.class_files, strict=False):
        where, data = files[file]
        names[column] = data.decode(errors="replace").split()
        wanted_count = 20 if column == "coarse_label" else entry.num_classes
        if len(names[column]) != wanted_count:
            raise UserError(
                f"{where} has {len(names[column])} class names, wanted {wanted_count}: "
                "fetch it again."
            )
    split = _read_cifar if entry.class_files else _read_idx
    return Raw(split(entry, entry.train, files), split(entry, entry.test, files), names)


def _unpack(archive: Path, wanted: tuple[str, ...]) -> dict[str, tuple[str, bytes]]:
    """The wanted members of a tar or zip archive, read into memory."""
    files, size = {}, archive.stat().st_size
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as box:
                for member in box.namelist():
                    file = member.rsplit("/", 1)[-1].removesuffix(".gz")
                    if file in wanted:
                        name = f"{archive}:{member}"
                        with box.open(member) as opened:
                            files[file] = name, raw.read_at_most(opened, size, name)
        else:
            with tarfile.open(archive) as tar:
                for item in tar:
                    file = item.name.rsplit("/", 1)[-1]
                    content = tar.extractfile(item) if file in wanted else None
                    if content:
                        name = f"{archive}:{item.name}"
                        files[file] = name, raw.read_at_most(content, size, name)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error) as e:
        raise UserError(f"{archive} is a damaged archive ({e}): fetch it again.") from e
    lacking = [file for file in wanted if file not in files]
    if lacking:
        raise UserError(f"{archive} lacks {', '.join(lacking)}: fetch it again.")
    return files


def _label_columns(entry: Entry) -> tuple[str, ...]:
    return ("coarse_label", "label")[-max(1, len(entry.class_files)) :]


def _read_idx(entry: Entry, names: tuple[str, ...], files: dict) -> Columns:
    (image_file, _), (label_file, _) = pair = [files[name] for name in names]
    image, label = raw.parse_idx_pair(*pair)  # [N, H, W, 1], [N]
    if image.shape[1:3] != (28, 28):
        raise UserError(
            f"{image_file} has images of {image.shape[1:3]}, wanted (28, 28): load "
            "data of your own by their path, not by this name."
        )
    _check_labels(label, label_file, entry.first_label, entry.num_classes)
    return {"image": image, "label": label}


def _read_cifar(entry: Entry, names: tuple[str, ...], files: dict) -> Columns:
    columns = _label_columns(entry)
    labels, images = [], []
    for name in names:
        where, data = files[name]
        label, image = raw.parse_cifar(data, where, len(columns))
        _check_labels(label[:, -1], where, 0, entry.num_classes)
        labels.append(label)
        images.append(image)
    label = np.concatenate(labels)  # [N, label columns]
    result = {"image": np.concatenate(images)}
    return result | {column: label[:, i] for i, column in enumerate(columns)}


def _check_labels(label: np.ndarray, where: str, first: int, count: int) -> None:
    bad = (label < first) | (label >= first + count)  # [N]
    if bad.any():
        at = int(bad.argmax())
        raise UserError(
            f"{where} has label {label[at]} at example {at}, wanted {first} to "
            f"{first + count - 1}: fetch it again, or load it under its own name."
        )
