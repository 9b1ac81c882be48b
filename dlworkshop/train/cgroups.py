"""Limits of memory and cores by Linux control groups (cgroups).

Containers and jobs of a cluster are such groups. Groups are nested, and each may have
its own limit. Version 2 has one tree of groups, version 1 has one for each kind of
limit; a system may have both.

Source: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
"""

from collections.abc import Iterator
from pathlib import Path


def memory_left(root: Path = Path("/")) -> Iterator[int]:
    """Bytes left in each enclosing group that has a limit.

    Pages of files count as used, but the system frees inactive ones when memory is
    needed.

    Args:
        root: where the system's folders /proc and /sys are.
    """
    for folder, version in _folders(root, "memory"):
        if version == 2:
            names = "memory.max", "memory.current", "inactive_file"
        else:
            names = (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )
        limit, used = (_number(_text(folder / name)) for name in names[:2])
        if limit is None or used is None:
            continue
        statistics = dict(
            line.partition(" ")[::2]
            for line in _text(folder / "memory.stat").splitlines()
        )
        inactive = _number(statistics.get(names[2], "")) or 0
        yield limit - max(0, used - inactive)


def cpu_quotas(root: Path = Path("/")) -> Iterator[float]:
    """Cores granted by each enclosing group with a quota."""
    for folder, version in _folders(root, "cpu"):
        if version == 2:
            texts = [*_text(folder / "cpu.max").split(), "", ""][:2]
        else:
            names = "cpu.cfs_quota_us", "cpu.cfs_period_us"
            texts = [_text(folder / name) for name in names]
        quota, period = map(_number, texts)
        if quota is not None and period and quota > 0:  # -1 is none
            yield quota / period


def _folders(root: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """Folder and cgroup version of each enclosing group, the innermost first."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        home = root / "sys/fs/cgroup"
        if not controllers:
            version = 2
            if not (home / "cgroup.controllers").exists():
                home = home / "unified"
        elif controller in controllers.split(","):
            version = 1
            home = home / controller
        else:
            continue
        # A container sees its own group as the root, so the path may not exist.
        inner = home / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if not folder.is_relative_to(home):
                break
            yield folder, version


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""


def _number(text: str) -> int | None:
    """The number in a file; None for "max" and anything else."""
    try:
        return int(text)
    except ValueError:
        return None
