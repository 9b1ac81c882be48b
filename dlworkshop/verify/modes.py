"""Reverse mode and forward mode, each held against differences."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dlworkshop.errors import UserError
from dlworkshop.verify.differences import Differences, Probe, Slope
from dlworkshop.verify.functions import Function, Part, mode_is_missing
from dlworkshop.verify.probes import Heard, probes_of, scale_of
from dlworkshop.verify.report import (
    RIGHT,
    UNCHECKED,
    WRONG,
    Comparison,
    ParameterCheck,
    norm_of,
)

FLOOR = 1e-3  # of the norm of a gradient: slopes below are held against so much
COARSE = {np.dtype(np.float64): 1e-3, np.dtype(np.float32): 0.25}  # nothing was seen
NUM_FORWARD = 32  # entries of an array whose slopes forward mode is asked for
NUM_HEARD = 2  # directions that are to be sure where not every entry is looked at


class Found(NamedTuple):
    """Of one function: a row for each array, and whether both modes are transposes."""

    rows: tuple[ParameterCheck, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]


class _Look(NamedTuple):
    """A probe, its slopes by autodiff, and by differences."""

    probe: Probe
    autodiff: dict[str, np.ndarray]  # mode -> [Q]
    slope: Slope
    against: np.ndarray  # [Q], the size that errors are held against
    unit: np.ndarray  # [Q], the norm of the array's gradient, in steps of the probe
    size: np.ndarray  # [Q], the same, or less where the array is badly scaled


class _Verdict(NamedTuple):
    error: float  # over what it was held against, times the tolerance
    resolution: float
    lost: bool
    kink: bool
    wrong: bool
    mode: str
    output: int
    look: _Look


def check(
    fn: Function,
    modes: Sequence[str],
    tolerance: float,
    max_entries: int,
    seed: int,
    suffix: str = "",
) -> Found:
    """Hold autodiff of `fn` against differences.

    Args:
        fn: the function and the point.
        modes: "rev", "fwd" or both; one that JAX does not have for `fn` is noted.
        tolerance: above it an error is wrong.
        max_entries: see `probes.probes_of`.
        seed: of what is random.
        suffix: of the names of the modes in the report, " over rev".

    Raises:
        UserError: `fn` is not finite here, or has no derivative in any of the modes.
    """
    rng = np.random.default_rng(seed)
    heard, at = Heard(fn.outputs, rng), fn.at

    def values(points):
        return np.stack([heard(y) for y in [fn.value(point) for point in points]])

    sizes = [np.abs(at[p.start : p.stop].astype(np.float64)) for p in fn.inputs]
    own = np.concatenate([np.where(x > 0, x, scale_of(x)) for x in sizes])  # [D]
    differences = Differences(values, at, own, rng)
    if not np.isfinite(value := differences.value).all():  # [Q]
        place = int(np.argmin(np.isfinite(value)))
        raise UserError(
            f"{heard.names[place] or 'f'} is {value[place]} at these arguments: wanted "
            "finite numbers; mend it, or check at others."
        )
    there, notes = _there(fn, modes)
    cotangents = heard.cotangents().astype(at.dtype)
    grads = np.zeros((len(value), at.size))
    if "rev" in there:
        grads = np.stack([np.asarray(fn.pull(at, u), np.float64) for u in cotangents])
    looks: list[_Look] = []
    asked = dict.fromkeys(range(len(fn.inputs)), 0)
    for probe in probes_of(fn.inputs, at, grads, max_entries, rng):
        autodiff = {}
        if "rev" in there:
            with np.errstate(invalid="ignore"):
                autodiff["rev"] = probe.dot(grads)
        asked[probe.part] += probe.is_entry
        if "fwd" in there and (not probe.is_entry or asked[probe.part] <= NUM_FORWARD):
            ray = np.zeros(at.size, at.dtype)
            ray[probe.start : probe.start + probe.vector.size] = probe.vector
            autodiff["fwd"] = heard(fn.push(at, ray))
        part = fn.inputs[probe.part]
        looks.append(_look(differences, probe, part, autodiff, grads, own, tolerance))
    negligible = _negligible(fn, value, grads * own)
    rows = [
        _row(
            part,
            [look for look in looks if look.probe.part == i],
            heard.names,
            tolerance,
            material,
            COARSE[at.dtype],
            suffix,
        )
        for i, (part, material) in enumerate(zip(fn.inputs, ~negligible, strict=True))
    ]
    both = _transposes(fn, looks, grads, tolerance, suffix)
    return Found(tuple(rows), both, notes)


def _there(fn: Function, modes: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """The modes that JAX has for `fn`, and what it says about the others."""
    there, said = [], []
    for mode in modes:
        try:
            if mode == "rev":
                fn.pull(fn.at, np.zeros(fn.outputs[-1].stop, fn.at.dtype))
            else:
                fn.push(fn.at, np.zeros_like(fn.at))
            there.append(mode)
        except Exception as error:
            if not mode_is_missing(error):
                raise
            words = str(error).strip().splitlines()[0]
            name = {"rev": "reverse", "fwd": "forward"}[mode]
            said.append(f"{name} mode is not there, and was not checked: {words}")
    if not there:
        raise UserError(f"f has no derivative to check; {'; '.join(said)}")
    return there, tuple(said)


def _look(differences, probe, part, autodiff, grads, own, tolerance) -> _Look:
    at = differences.at
    span = slice(part.start, part.stop)
    here = np.where(np.isfinite(grads[:, span]), grads[:, span], 0.0)  # [Q, n]
    if probe.is_entry:
        unit = np.array([norm_of(row) for row in here])
        scaled = np.array([norm_of(row) for row in here * own[span]]) / probe.scale
        size = np.minimum(unit, scaled)
    else:
        unit = size = np.array([norm_of(row) for row in here * probe.vector])
    known = [np.where(np.isfinite(a), np.abs(a), 0.0) for a in autodiff.values()]
    known = np.max(known, axis=0)  # [Q]

    def against(slope):
        found = np.where(np.isfinite(slope), np.abs(slope), 0.0)
        return np.maximum(np.maximum(found, known), FLOOR * size)

    def enough(slope):
        nothing = (slope == 0) & (known == 0)
        wanted = tolerance / 4 * np.maximum(against(slope), size)
        return np.where(nothing, np.inf, wanted)

    rounding = np.zeros(len(grads))
    if not probe.is_entry:  # the points of a direction are rounded, too
        moved = here * at[span].astype(np.float64)
        lengths = np.array([norm_of(row) for row in moved])
        rounding = differences.eps / 4 * lengths

    def contradicted(slope):
        bar = tolerance * against(slope)
        return any(np.any(np.abs(slope - exact) > bar) for exact in autodiff.values())

    slope = differences.along(probe, enough, contradicted, rounding)
    return _Look(probe, autodiff, slope, against(slope.central), unit, size)


def _negligible(fn: Function, value: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """[parts, Q]: whether an array's gradient moves f by less than rounding does."""
    eps = float(np.finfo(fn.at.dtype).eps)
    norms = np.array(
        [[norm_of(row[p.start : p.stop]) for row in moved] for p in fn.inputs]
    )
    return norms <= 64 * eps * (np.abs(value) + 64 * norms.max(axis=0))


def _row(part, looks, names, tolerance, material, coarse, suffix) -> ParameterCheck:
    has_kinks = any(look.probe.is_entry and look.slope.kink.any() for look in looks)
    found = [
        _judge(look, mode, q, tolerance, coarse if material[q] else None, has_kinks)
        for look in looks
        for mode in look.autodiff
        for q in range(len(names))
    ]
    entries = {look.probe.name for look in looks if look.probe.is_entry}
    rays = {look.probe.name for look in looks if not look.probe.is_entry}
    lost = {v.look.probe.name for v in found if v.lost}
    size = part.stop - part.start
    sure = len(rays - {"the gradient"} - lost)
    forgiven = rays if len(entries) == size or sure >= NUM_HEARD else set()
    unchecked = lost - forgiven
    wrong = any(v.wrong for v in found)
    worst = max(
        found,
        key=lambda v: (v.wrong, v.look.probe.name in unchecked and v.lost, v.error),
    )
    look, q = worst.look, worst.output
    seen = max((v.resolution for v in found if not v.lost), default=0.0)
    return ParameterCheck(
        path=part.path,
        shape=part.shape,
        checked=len(entries),
        directions=len(rays),
        error=worst.error,
        resolution=seen if 0 < seen < 1 else np.inf,
        worst=" of ".join(filter(None, [look.probe.name, names[q]])),
        autodiff=float(look.autodiff[worst.mode][q]),
        difference=float(look.slope.central[q]),
        mode=worst.mode + suffix,
        kinks=len({v.look.probe.name for v in found if v.kink}),
        unchecked=len(unchecked),
        verdict=WRONG if wrong else UNCHECKED if unchecked else RIGHT,
    )


def _judge(look: _Look, mode, q, tolerance, coarse, has_kinks) -> _Verdict:
    """One slope by autodiff, against what differences say about it."""
    slope = Slope(*(x[q] for x in look.slope))
    exact, against = float(look.autodiff[mode][q]), float(look.against[q])
    wanted = tolerance / 4 * max(against, float(look.size[q]))
    good = slope.doubt <= max(wanted, 8 * slope.noise)
    bar = max(tolerance * against, 2 * slope.doubt)
    kink, lost = False, False
    off = abs(exact - slope.central) if np.isfinite(exact) else np.inf
    if good:
        if off > bar and has_kinks and not look.probe.is_entry:
            lost = True  # kinks of several entries that cancel look smooth
    elif slope.kink:
        kink, low, high = True, *sorted((slope.left, slope.right))
        off = max(low - exact, exact - high, 0.0) if np.isfinite(exact) else np.inf
        bar = 2 * slope.apart + tolerance * against
        lost = off > bar and not (look.probe.is_entry and np.isfinite(exact))
    else:
        bar = max(tolerance * against, 8 * slope.doubt)
        settled = 8 * slope.doubt <= abs(slope.central) and np.isfinite(exact)
        lost = not (settled and off > bar)
    if not lost and off <= bar and coarse and bar > coarse * look.unit[q]:
        lost = True
    if lost and np.isfinite(exact):  # unless it carries next to nothing
        most = max(abs(exact), abs(slope.central) + 2 * slope.doubt)
        lost = not most <= tolerance * look.unit.max()
    error = 0.0 if lost or not off else tolerance * off / bar if bar else np.inf
    resolution = bar / look.unit[q] if look.unit[q] and coarse else 0.0
    return _Verdict(
        float(error), resolution, lost, kink, error > tolerance, mode, q, look
    )


def _transposes(fn, looks, grads, tolerance, suffix) -> tuple[Comparison, ...]:
    """<u, J v> by forward mode is <J^T u, v> by reverse mode, for all that was asked."""
    worst: tuple[float, float, str] | None = None
    for look in looks:
        if len(look.autodiff) < 2:
            continue
        size = np.abs(grads[:, look.probe.start :][:, : look.probe.vector.size])
        with np.errstate(all="ignore"):
            size = size @ np.abs(look.probe.vector)  # [Q]
            apart = np.abs(look.autodiff["fwd"] - look.autodiff["rev"])
            bar = np.maximum(tolerance / 10 * size, look.slope.noise)
            ratio = np.where(apart > 0, apart / bar, 0.0)
        q = int(np.argmax(np.where(np.isfinite(ratio), ratio, 0.0)))
        if np.isfinite(ratio[q]) and (worst is None or ratio[q] > worst[0]):
            path = f"{fn.inputs[look.probe.part].path} {look.probe.name}"
            worst = float(ratio[q]), float(apart[q] / size[q]) if size[q] else 0.0, path
    if worst is None:
        return ()
    name = f"forward and reverse mode{suffix}"
    return (Comparison(name, worst[0] <= 1, worst[1], worst[2]),)


def cotangent_of(fn: Function, seed: int) -> np.ndarray:
    """A random direction [M] among the outputs; 1 for a scalar."""
    size = fn.outputs[-1].stop
    rng = np.random.default_rng(seed)
    u: Any = rng.standard_normal(size) if size > 1 else np.ones(1)
    return (u / np.linalg.norm(u)).astype(fn.at.dtype)
