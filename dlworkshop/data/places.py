"""Folders of data sets."""

import os
import re
from pathlib import Path

from dlworkshop.files import private_folder


def cache_dir() -> Path:
    """$DLWORKSHOP_DATA, or a private folder in the user's cache; created if missing."""
    if "DLWORKSHOP_DATA" in os.environ:
        folder = Path(os.environ["DLWORKSHOP_DATA"])
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    return private_folder("data")


def read_only(folder: Path) -> bool:
    """Whether `folder` exists but is not writable."""
    return folder.is_dir() and not os.access(folder, os.W_OK)


def newest(root: Path, name: str) -> Path | None:
    """The folder of the newest version of `name` prepared below `root`, if any."""
    versions = [
        path.parent
        for path in (root / name).glob("*/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", path.parent.name)
    ]
    return max(
        versions, key=lambda path: [*map(int, path.name.split("."))], default=None
    )
