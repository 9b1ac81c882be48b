"""Your own data: a folder of images for each class, a CSV, .npz or IDX files.

They are prepared once, under a key of their content and of how it is to be prepared,
and read from there; a second load reads no content of theirs.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dlworkshop.data.readers import arrays, csv_file, folder, images, store, table
from dlworkshop.errors import UserError
from dlworkshop.types import Dataset

TABLES = (".csv", ".tsv", ".txt")


def load(
    path: Path,
    root: Path,
    *,
    target: str | None = None,
    group_by: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    resize: str = "crop",
) -> Dataset:
    """Load what lies at `path`; see `dlworkshop.data.load` for the arguments.

    `root` is where prepared data are kept.
    """
    size = _check_size(image_size)
    if resize not in images.RESIZES:
        raise UserError(
            f"resize is '{resize}': choose one of {', '.join(images.RESIZES)}"
        )
    options = {
        "target": target,
        "group_by": group_by,
        "image_size": size,
        "resize": resize,
    }
    idx = arrays.idx_files(path)
    listed = folder.listing(path) if path.is_dir() and not idx else None
    _check_options(path, listed is not None, bool(idx), options)
    files = listed.files if listed else _idx_all(idx) or [path]
    where = {"path": str(path.absolute()), "classes": listed and listed.classes}
    signed = store.signature(files, options | where)
    prepared = store.find(root, signed)
    if prepared is None:
        with store.partial(root) as partial:
            if listed:
                made = folder.prepare(
                    listed, partial, image_size=size, resize=resize, group_by=group_by
                )
            elif idx:
                made = arrays.prepare(arrays.read_idx(idx), path, partial)
            elif path.suffix == ".npz":
                made = arrays.prepare(arrays.read_npz(path, target), path, partial)
            else:
                made = table.prepare(
                    csv_file.read(path), partial, target=target, group_by=group_by
                )
            prepared = store.commit(root, partial, made, signed)
    return store.read(prepared, path.absolute().stem)


def to_example(
    source: Path | Mapping[str, str] | np.ndarray, how: Mapping[str, Any]
) -> np.ndarray:
    """One file, row or array as the model takes it, prepared as its data were.

    Args:
        source: an image file; a row, column -> text; or an array.
        how: `Dataset.preprocessing`, or what is in a run's `preprocessing.json`.

    Returns:
        [H, W, C] uint8 or [D] float32.

    Raises:
        UserError: if that is no image, or a column is not there, or an array has
            another shape.

    >>> how = {"kind": "table", "columns": [table.fit("x", ["1", "3"], numeric=True)]}
    >>> to_example({"x": "3"}, how).tolist()
    [1.0]
    """
    if how["kind"] == "table" and isinstance(source, Mapping):
        return table.transform({k: [v] for k, v in source.items()}, how)[0]
    if how["kind"] in ("array", "image") and isinstance(source, np.ndarray):
        if list(source.shape) != shape_of(how):
            raise UserError(
                f"an example has shape {list(source.shape)}, wanted {shape_of(how)}"
            )
        if how["kind"] == "image" and source.dtype != np.uint8:
            raise UserError(f"an image is {source.dtype}, wanted uint8 in 0 to 255")
        return arrays.transform(source[None], how)[0]
    if how["kind"] != "image" or not isinstance(source, Path):
        wanted = {"image": "an image file", "table": "a row", "array": "an array"}
        raise UserError(f"{source} is given, wanted {wanted[how['kind']]}")
    try:
        return images.decode(source.read_bytes(), how)
    except (OSError, ValueError) as error:
        raise UserError(f"{source} cannot be read as an image: {error}") from None


def shape_of(how: Mapping[str, Any]) -> list[int]:
    """Of an example that `to_example` makes.

    >>> shape_of({"kind": "table", "columns": [table.fit("x", ["1", ""], True)]})
    [2]
    """
    if how["kind"] == "image":
        return [how["height"], how["width"], how["channels"]]
    if how["kind"] == "array":
        return list(how["shape"])
    columns = how["columns"]
    return [sum(len(c.get("values", "1")) + c["missing"] for c in columns)]


def fingerprint(
    path: Path, how: Mapping[str, Any], target: str | None, group_by: str | None
) -> str:
    """What `Dataset.fingerprint` is once `path` is prepared so; nothing is prepared.

    Raises:
        UserError: if `path` is no labelled data of the kind that `how` prepares.
    """
    if idx := arrays.idx_files(path):
        return _key(arrays.read_idx(idx), path)
    if path.suffix == ".npz":
        return _key(arrays.read_npz(path, target), path)
    if path.is_dir():
        found = folder.listing(path)
        return folder.key(found.names, store.sha256(found.files), how, group_by)
    if path.suffix.lower() not in TABLES:
        raise _of_no_kind(path)
    return table.key(csv_file.read(path), target, group_by)


def asked(
    path: Path, how: Mapping[str, Any], target: str | None, group_by: str | None
) -> dict[str, Any]:
    """The options of `load` by which `path` is prepared as `how` says."""
    options: dict[str, Any] = {"target": target, "group_by": group_by}
    if path.is_dir() and not arrays.idx_files(path):
        options["image_size"] = how["height"], how["width"]
        options["resize"] = how["resize"]
    return options


def _key(parts: arrays.Parts, path: Path) -> str:
    inputs, labels, given = arrays.join(parts, path)
    return arrays.key(arrays.digests(inputs), labels, given, inputs.shape)


def _check_size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(s, int) and 1 <= s <= 4096 for s in pair):
        raise UserError(
            f"image_size is {size}: give the pixels of a side, 1 to 4096, or (height, "
            "width)"
        )
    return pair[0], pair[1]


def _check_options(
    path: Path, is_folder: bool, is_idx: bool, options: Mapping[str, Any]
) -> None:
    """An option that nothing would read is a mistake."""
    is_table = path.suffix.lower() in TABLES
    if not (is_folder or is_idx or is_table or path.suffix == ".npz"):
        raise _of_no_kind(path)
    read = {
        "target": is_table or path.suffix == ".npz",
        "group_by": is_folder or is_table,
        "image_size": is_folder,
    }
    for name, used in read.items():
        if options[name] is not None and not used:
            raise UserError(
                f"{name} is '{options[name]}', which {path} does not need: leave it out"
            )


def _of_no_kind(path: Path) -> UserError:
    return UserError(
        f"{path} is of no kind that is known: give a folder with a folder for each "
        "class, a CSV, an .npz or IDX files"
    )


def _idx_all(files: list[Path]) -> list[Path]:
    """The files of images and those of labels beside them."""
    if not files:
        return []
    return sorted(f for f in files[0].parent.iterdir() if "ubyte" in f.name)
