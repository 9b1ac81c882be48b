"""Checks of an installation: packages, devices, folders, and one computation."""

import importlib.metadata
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from packaging.requirements import Requirement

from dlworkshop.data import places
from dlworkshop.report import terminal
from dlworkshop.train import processes
from dlworkshop.train.cache import cache_folder
from dlworkshop.train.machine import versions
from dlworkshop.workshop import launch

SIZE = 64  # rows and columns of the matrices that are multiplied
MARKS = {True: "ok", False: "BROKEN", None: "-"}


class Finding(NamedTuple):
    """One check and its result."""

    name: str
    found: str
    works: bool | None  # None: optional, and not installed


def show(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> int:
    """Print the findings of `examine`; returns 1 if something required is broken.

    Args:
        coordinator, num_processes, process_id: as in `launch.joined`. Only the first
            process prints; the status is the same for all.
    """
    try:
        with launch.joined(coordinator, num_processes, process_id, failed=1):
            rows = list(everywhere())
            if processes.is_first():
                terminal.show(("", "", ""), [(MARKS[f.works], *f[:2]) for f in rows])
            return int(any(each.works is False for each in rows))
    except launch.UnreachableError as error:
        terminal.print_error(error)
        return 1


def everywhere() -> Iterator[Finding]:
    """Findings of the first process, different findings of others, and collectives.

    All processes must call this function; they get the same findings.
    """
    every = processes.allgather_json([list(each) for each in examine()])
    first, *others = [[Finding(*each) for each in rows] for rows in every]
    yield from first
    known = {(each.name, each.works) for each in first}
    said = next(each.found for each in first if each.name == "versions")
    for index, other in enumerate(others, 1):
        for name, found, works in other:
            # `fit` requires the same versions in all processes
            good = works and (name != "versions" or found == said)
            if (name, good) not in known:
                yield Finding(f"process {index}: {name}", found, good)
    if others:
        counts = processes.allgather_json(jax.local_device_count())
        if (wrong := processes.uneven(counts)) is not None:
            yield Finding("devices", wrong, False)
        yield _collectives()


def _collectives() -> Finding:
    """Check sums and exchanges over all devices of all processes."""
    devices = np.asarray(jax.devices())
    what = f"{processes.count()} processes, {devices.size} devices"
    sharding = NamedSharding(Mesh(devices, ("device",)), PartitionSpec("device"))
    own = processes.put(np.arange(devices.size, dtype=np.float32), sharding)
    started = time.perf_counter()
    total = processes.fetch(jax.jit(jnp.sum)(own))  # includes compilation
    back = processes.fetch(own)
    seconds = time.perf_counter() - started
    right = total == back.sum() and np.array_equal(back, np.arange(devices.size))
    seen = all(processes.allgather_json(bool(right)))  # processes may differ
    verdict = "sums and exchanges are right" if seen else "sums or exchanges are wrong"
    return Finding("collectives", f"{what}: {verdict} ({seconds:.1f} s)", seen)


def examine() -> Iterator[Finding]:
    """Check everything that a run needs, and the optional extras."""
    needs = importlib.metadata.requires("dlworkshop") or []
    wanted = [Requirement(text) for text in needs]
    said = [f"{name} {version}" for name, version in versions().items()]
    yield Finding("versions", ", ".join(said), True)
    missing = _missing(wanted, "")
    found = f"lacks {', '.join(missing)}" if missing else "all required packages"
    yield Finding("packages", found, not missing)
    yield from _devices()
    yield _folder("programs", cache_folder("programs"), private=True)
    try:
        data = places.cache_dir()
    except OSError:
        data = None
    yield _folder("data", data, private="DLWORKSHOP_DATA" not in os.environ)
    about = importlib.metadata.metadata("dlworkshop")
    for extra in about.get_all("Provides-Extra") or []:
        missing = _missing(wanted, extra)
        found = f"lacks {', '.join(missing)}" if missing else "installed"
        yield Finding(f"extra {extra}", found, None if missing else True)


def _missing(requirements: list[Requirement], extra: str) -> list[str]:
    """Unmet requirements of an extra, or of the package itself if `extra` is ""."""
    asked = [each for each in requirements if _asks(each, extra)]
    return [lack for each in asked if (lack := lacks(each)) is not None]


def _asks(requirement: Requirement, extra: str) -> bool:
    """Whether a requirement belongs to this extra on this platform."""
    if requirement.marker is None:
        return not extra
    here = requirement.marker.evaluate({"extra": extra})
    return here and (not extra or not requirement.marker.evaluate({"extra": ""}))


def lacks(wanted: Requirement) -> str | None:
    """The requirement if it is not met, else an unmet requirement of its extras.

    >>> lacks(Requirement("numpy>=2")), lacks(Requirement("numpy>=1000"))
    (None, 'numpy>=1000')
    """
    try:
        found = importlib.metadata.version(wanted.name)
        behind = importlib.metadata.requires(wanted.name) or []
    except importlib.metadata.PackageNotFoundError:
        found, behind = None, []
    if found is None or not wanted.specifier.contains(found, prereleases=True):
        return str(wanted).partition(";")[0].strip()
    requirements = [Requirement(text) for text in behind]
    missing = [_missing(requirements, extra) for extra in wanted.extras]
    return next((lack for part in missing for lack in part), None)


def _devices() -> Iterator[Finding]:
    try:
        devices = jax.local_devices()
    except RuntimeError as error:
        yield Finding("devices", str(error).partition("\n")[0], False)
        return
    for device in devices:
        name = f"{device.platform} {device.id}"
        try:
            right = computes(device)
        except RuntimeError as error:  # XLA: out of memory, or a broken driver
            reason = str(error).partition("\n")[0]
            yield Finding(name, f"{device.device_kind}: {reason}", False)
        else:
            verdict = "computes correctly" if right else "computes wrong results"
            yield Finding(name, f"{device.device_kind}, {verdict}", right)


def computes(device: jax.Device) -> bool:
    """Whether the gradient of sum(tanh(x w)) by w equals NumPy's in float64.

    Its entries are sums of SIZE products of numbers below 5, so the error in float32 is
    about SIZE * 5 * 2^-24 = 2e-5. The bound of 1e-3 allows for an inexact tanh; the
    error of a broken device is about 1.

    >>> computes(jax.devices()[0])
    True
    """
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(SIZE, SIZE)), rng.normal(size=(SIZE, SIZE)) / 8
    expected = x.T @ (1 - np.tanh(x @ w) ** 2)

    def total(w, x):
        return jnp.tanh(jnp.matmul(x, w, precision="highest")).sum()

    there = jax.device_put((w.astype(np.float32), x.astype(np.float32)), device)
    found = jax.jit(jax.grad(total))(*there)
    return bool(np.abs(np.asarray(found) - expected).max() <= 1e-3)


def _folder(name: str, folder: Path | None, private: bool) -> Finding:
    if folder is None or not os.access(folder, os.W_OK):
        return Finding(name, f"{folder or 'the cache'} cannot be written", False)
    alone = folder.stat().st_mode & 0o077 == 0
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    whose = "private" if alone else "not private"
    found = f"{folder} ({whose}, {size / 1e6:,.0f} MB)"
    return Finding(name, found, alone or not private)
