"""The machine that a run computes on, as far as timings depend on it."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import jax
import jaxlib

from dlworkshop.train import cgroups


def properties(root: Path = Path("/")) -> dict[str, Any]:
    """The processor, its cores and the versions of the libraries, as JSON.

    Args:
        root: where the system's folders /proc and /sys are.
    """
    try:
        version = importlib.metadata.version("dlworkshop")
    except importlib.metadata.PackageNotFoundError:  # used from a checkout
        version = ""
    return {
        "processor": processor(root),
        "cores": cores(root),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "dlworkshop": version,
    }


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
