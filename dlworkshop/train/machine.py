"""The machine that a run computes on: devices, processor, versions of libraries."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from dlworkshop.train import cgroups

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "dlworkshop")


def versions() -> dict[str, str]:
    """Versions of Python and the libraries."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # used from a checkout
            found[package] = "not installed"
    return found


def device(devices) -> str:
    """The devices in words.

    >>> import jax
    >>> device(jax.devices()[:1])
    '1 x cpu'
    """
    first = devices[0]
    kind = first.device_kind if first.platform != "cpu" else "cpu"
    return f"{len(devices)} x {kind}"


def properties(root: Path = Path("/")) -> dict[str, Any]:
    """What timings depend on: the processor, its cores and some versions, as JSON.

    Args:
        root: where the system's folders /proc and /sys are.
    """
    known = versions()
    of_programs = {name: known[name] for name in ("jax", "jaxlib", "dlworkshop")}
    return {"processor": processor(root), "cores": cores(root), **of_programs}


def processor(root: Path = Path("/")) -> str:
    """The model of the CPU; Python's `platform` only says "x86_64"."""
    try:
        lines = (root / "proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    known: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        known.setdefault(name.strip(), value.strip())
    # ARM has numbers instead of a name
    names = ("model name", "CPU implementer", "CPU part", "cpu family", "model")
    found = [known[name] for name in names if name in known]
    return " ".join(found) or platform.processor() or platform.machine()


def cores(root: Path = Path("/")) -> float:
    """The number of cores that this process may use, by affinity and cgroup quota.

    >>> 0 < cores() <= os.cpu_count()
    True
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = float(len(os.sched_getaffinity(0)))
    else:
        allowed = float(os.cpu_count() or 1)
    return min([allowed, *cgroups.cpu_quotas(root)])
