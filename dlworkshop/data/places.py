"""Where data sets live on disk."""

import os
import re
from pathlib import Path


def cache_dir() -> Path:
    """$DLWORKSHOP_DATA, or a private folder in the user's cache; made if missing."""
    if "DLWORKSHOP_DATA" in os.environ:
        folder = Path(os.environ["DLWORKSHOP_DATA"])
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "dlworkshop" / "data"
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def read_only(folder: Path) -> bool:
    """Whether `folder` is there but not ours to write in."""
    return folder.is_dir() and not os.access(folder, os.W_OK)


def settle(made: Path, final: Path) -> None:
    """Give a finished folder its name, unless another process was faster with it."""
    try:
        os.rename(made, final)
    except OSError:
        if not final.exists():
            raise


def newest(root: Path, name: str) -> Path | None:
    """The folder of the newest version of `name` prepared below `root`, if any."""
    versions = [
        path.parent
        for path in (root / name).glob("*/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", path.parent.name)
    ]
    return max(versions, key=_version, default=None)


def _version(folder: Path) -> list[int]:
    return [int(part) for part in folder.name.split(".")]
