"""Checksums of raw files."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dlworkshop.errors import UserError
from dlworkshop.files import open_regular


def official(name: str) -> dict[str, Any]:
    """The URL of each official raw file -> its `.size` in bytes and sha256 `.checksum`.

    >>> sorted(int(info.size) for info in official("mnist").values())[0]  # test labels
    4542
    """
    import tensorflow_datasets as tfds  # noqa: PLC0415

    # tfds looks for the checksums beside the code of the official class.
    return tfds.builder_cls(name.partition("/")[0]).url_infos


def sha256(path: str | Path) -> str:
    """SHA-256 of a regular file, as hex."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(paths: Iterable[Path]) -> dict[Path, str]:
    """`sha256` of each file."""
    return {path: sha256(path) for path in paths}


def key(paths: Iterable[Path]) -> str:
    """16 hex digits that differ if the contents of the files differ."""
    return hashlib.sha256("".join(digests(paths).values()).encode()).hexdigest()[:16]


def check_official(name: str, paths: Iterable[Path]) -> None:
    """Compare the files that look like the official ones with tfds' checksums.

    A file looks official by its name and size; a file of another size is the user's.

    Raises:
        UserError: if a checksum differs, or a file belongs to another data set.
    """
    infos = official(name)
    # The data sets of the MNIST family share their file names.
    owner = {
        info.checksum: other
        for other in ("mnist", "fashion_mnist", "kmnist")
        for info in official(other).values()
    }
    for path, digest in digests(paths).items():
        if owner.get(digest, name) != name:
            raise UserError(
                f"{path} is the file of {owner[digest]}, wanted the one of {name}: "
                "load it under its own name."
            )
        for url, info in infos.items():
            same_size = path.stat().st_size == info.size
            claims = url.rsplit("/", 1)[-1] == path.name and same_size
            if claims and digest != info.checksum:
                raise UserError(
                    f"{path} has sha256 {digest}, wanted {info.checksum} of the "
                    f"official file: fetch it again from {url}."
                )
