"""Reader of IDX files like those of MNIST, of any size: images and labels."""

import functools
import re
from pathlib import Path

from dlworkshop.data import raw
from dlworkshop.data.readers import arrays
from dlworkshop.data.readers.examples import inside, shape, to_example
from dlworkshop.data.readers.reader import Options
from dlworkshop.data.readers.split_names import SPLIT_NAMES
from dlworkshop.errors import UserError

__all__ = ["inside", "shape", "to_example"]  # the same for all images

KINDS: tuple[str, ...] = ("image",)
OPTIONS: tuple[str, ...] = ()
IDX = re.compile(r"(?P<split>.*?)[-_.]?images[-_.]idx3[-_.]ubyte(\.gz)?$")
IDX_SPLITS = SPLIT_NAMES | {"t10k": 2, "": 0}


def matches(path: Path) -> bool:
    """Whether `path` is an IDX file of images, or a folder with such files."""
    return bool(_images(path))


def files(path: Path) -> tuple[list[Path], tuple[str, ...]]:
    """The files of images and of labels."""
    home = _images(path)[0].parent
    return sorted(f for f in home.iterdir() if "ubyte" in f.name), ()


def read(path: Path, options: Options) -> arrays.Parts:
    """The files of images, each with its file of labels.

    Raises:
        UserError: if a file is damaged, has no labels, or there is no train split.
    """
    del options  # this format has none
    parts: arrays.Parts = {}
    for file in _images(path):
        match = IDX.match(file.name)
        name = match["split"].lower() if match else ""
        if name not in IDX_SPLITS:
            raise UserError(
                f"{file} is of an unknown split '{name}': name it train, validation, "
                "test or t10k"
            )
        partner = file.name.replace("images", "labels").replace("idx3", "idx1")
        homes = [partner, f"{partner}.gz", partner.removesuffix(".gz")]
        labels = [
            file.with_name(home) for home in homes if file.with_name(home).is_file()
        ]
        if not labels:
            raise UserError(f"{file} has no labels beside it: put {partner} there")
        pair = [(str(f), f.read_bytes()) for f in (file, labels[0])]
        parts[IDX_SPLITS[name]] = raw.parse_idx_pair(*pair)
    if 0 not in parts:
        raise UserError(f"{path} has no IDX files of a train split: add them")
    return parts


def _images(path: Path) -> list[Path]:
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    return [file for file in inside if file.is_file() and IDX.match(file.name)]


prepare = functools.partial(arrays.prepare, read)
fingerprint = functools.partial(arrays.fingerprint, read)
labelled = functools.partial(arrays.labelled, read)
