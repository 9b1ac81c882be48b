"""Reverse mode and forward mode, each held against differences."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dlworkshop.errors import UserError
from dlworkshop.verify.differences import Differences, Probe
from dlworkshop.verify.functions import Function, Part, mode_is_missing
from dlworkshop.verify.probes import Heard, probes_of, scale_of
from dlworkshop.verify.report import WRONG, Comparison, ParameterCheck, norm_of
from dlworkshop.verify.rounding import levels_of, rounding_of
from dlworkshop.verify.verdicts import COARSE, Look, row_of

FLOOR = 1e-3  # of the norm of a gradient: slopes below are held against so much
NUM_COLUMNS = 256  # of a Jacobian that forward mode makes where there is no other
NUM_NOISY = 4  # outputs whose gradients' rounding is looked at before an accusation
NUM_FORWARD = 32  # entries of an array whose slopes forward mode is asked for


class Found(NamedTuple):
    """Of one function: a row for each array, and whether both modes are transposes."""

    rows: tuple[ParameterCheck, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]
    modes: tuple[str, ...] = ()  # those of which there are derivatives

    @property
    def is_wrong(self) -> bool:
        """Whether anything is, rather than not checked."""
        wrong = any(row.verdict == WRONG for row in self.rows)
        return wrong or not all(c.ok for c in self.comparisons)


class _Array:
    """An array that is moved, and what slopes along it are held against."""

    def __init__(self, part: Part, at: np.ndarray, grads: np.ndarray, own: np.ndarray):
        span = slice(part.start, part.stop)
        self.part = part
        self.grads = np.where(
            np.isfinite(grads[:, span]), grads[:, span], 0.0
        )  # [Q, n]
        self.unit = _norms(self.grads)  # [Q]
        self.scaled = _norms(self.grads * own[span])
        self.moved = _norms(self.grads * at[span].astype(np.float64))

    def look(
        self, differences, probe: Probe, autodiff, tolerance: float, noise: Callable
    ) -> Look:
        """Measure a slope as well as is needed to judge those by autodiff.

        Before an accusation `noise`, of a probe and the outputs [Q] that are accused,
        says how autodiff itself is rounded there.
        """
        if probe.is_entry:
            unit, size = self.unit, np.minimum(self.unit, self.scaled / probe.scale)
            rounding = np.zeros_like(unit)
        else:
            unit, size = _norms(self.grads * probe.vector), self.scaled
            rounding = differences.eps / 4 * self.moved  # its points are rounded, too
        known = [np.where(np.isfinite(a), np.abs(a), 0.0) for a in autodiff.values()]
        known = np.max(known, axis=0)  # [Q]

        def against(slope):
            found = np.where(np.isfinite(slope), np.abs(slope), 0.0)
            return np.maximum(np.maximum(found, known), FLOOR * size)

        def enough(slope):
            nothing = (slope == 0) & (known == 0)
            wanted = tolerance / 4 * np.maximum(against(slope), size)
            return np.where(nothing, np.inf, wanted)

        def contradicted(slope, doubt):
            bar = np.maximum(tolerance * against(slope), 2 * doubt)
            return np.any([np.abs(slope - a) > bar for a in autodiff.values()], axis=0)

        slope = differences.along(probe, enough, contradicted, rounding)
        accused = contradicted(slope.central, slope.doubt) & np.isfinite(slope.doubt)
        if accused.any():
            slope = slope._replace(doubt=slope.doubt + noise(probe, accused))
        return Look(probe, autodiff, slope, against(slope.central), unit, size)


def check(
    fn: Function,
    modes: Sequence[str],
    tolerance: float,
    max_entries: int,
    seed: int,
    suffix: str = "",
    rounding: np.ndarray | None = None,
) -> Found:
    """Hold autodiff of `fn` against differences.

    Args:
        fn: the function and the point.
        modes: "rev", "fwd" or both; one that JAX does not have for `fn` is noted.
        tolerance: above it an error is wrong.
        max_entries: see `probes.probes_of`.
        seed: of what is random.
        suffix: of the names of the modes in the report, " over rev".
        rounding: [M], of the outputs, where it is known to be more than shows in them.

    Raises:
        UserError: `fn` is not finite here, or has no derivative in any of the modes.
    """
    rng = np.random.default_rng(seed)
    heard, at = Heard(fn.outputs, rng), fn.at

    def values(points):
        return np.stack([heard(y) for y in [fn.value(point) for point in points]])

    own = _own(fn)
    differences = Differences(values, at, own, rng)
    if not np.isfinite(value := differences.value).all():  # [Q]
        place = int(np.argmin(np.isfinite(value)))
        raise UserError(
            f"{heard.names[place] or 'f'} is {value[place]} at these arguments: wanted "
            "finite numbers; mend it, or check at others."
        )
    there, notes = _there(fn, modes)
    cotangents = heard.cotangents().astype(at.dtype)
    known = 0.0 if rounding is None else np.abs(cotangents) @ rounding  # [Q]
    differences.rounding = np.maximum(differences.rounding, known)
    grads = np.zeros((len(value), at.size))
    if "rev" in there:
        grads = np.stack([np.asarray(fn.pull(at, u), np.float64) for u in cotangents])
    elif at.size <= NUM_COLUMNS:
        columns = [heard(fn.push(at, ray)) for ray in np.eye(at.size, dtype=at.dtype)]
        grads = np.stack(columns, axis=1)

    noise = functools.partial(_noise_of_autodiff, fn, heard, cotangents, there)
    arrays = [_Array(part, at, grads, own) for part in fn.inputs]
    looks: list[list[Look]] = [[] for _ in arrays]
    for probe in probes_of(fn.inputs, at, grads, max_entries, rng):
        autodiff = {}
        if "rev" in there:
            autodiff["rev"] = probe.dot(grads)
        mine = looks[probe.part]
        if "fwd" in there and (not probe.is_entry or len(mine) < NUM_FORWARD):
            autodiff["fwd"] = heard(fn.push(at, probe.ray(at)))
        if autodiff:
            mine.append(
                arrays[probe.part].look(differences, probe, autodiff, tolerance, noise)
            )
    scaled = np.stack([array.scaled for array in arrays])  # [arrays, Q]
    least = 64 * differences.eps * (np.abs(value) + 64 * scaled.max(axis=0))
    least += 64 * known
    rows = [
        row_of(
            part, mine, heard.names, tolerance, big > least, COARSE[at.dtype], suffix
        )
        for part, mine, big in zip(fn.inputs, looks, scaled, strict=True)
    ]
    every = [look for mine in looks for look in mine]
    both = _transposes(fn, every, grads, tolerance, np.zeros(len(value)), suffix)
    if both and not both[0].ok:  # f may round more coarsely than its dtype, inside
        last = [mine[-1].probe for mine in looks if mine]  # all entries together
        wanted = np.ones(len(value), bool)
        level = np.max([differences.climb(p, wanted)[0] for p in last], axis=0)
        with np.errstate(all="ignore"):
            level = np.nan_to_num(8 * level / (np.abs(value) + scaled.max(axis=0)))
        both = _transposes(fn, every, grads, tolerance, level, suffix)
    return Found(tuple(rows), both, notes, tuple(there))


def _noise_of_autodiff(fn, heard, cotangents, there, probe, accused) -> np.ndarray:
    """What rounding makes of slopes [Q] by autodiff, where they are accused [Q]."""
    at, ray = fn.at, probe.ray(fn.at)
    spacing = 64 * float(np.finfo(at.dtype).eps) * 2.0 ** np.round(np.log2(probe.scale))
    found = np.zeros((8, len(accused)))
    for k in range(8):
        point = (at + (k + 1) * spacing * ray).astype(at.dtype)
        if "fwd" in there:
            found[k] = heard(fn.push(point, ray))
            continue
        for q in np.flatnonzero(accused)[:NUM_NOISY]:
            back = np.asarray(fn.pull(point, cotangents[q]), np.float64)
            found[k, q] = probe.dot(back)
    with np.errstate(all="ignore"):
        return np.nan_to_num(4 * levels_of(found)[0], posinf=0.0)


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


def _norms(x: np.ndarray) -> np.ndarray:
    """[Q, n] -> [Q]."""
    return np.array([norm_of(row) for row in x])


def _transposes(fn, looks, grads, tolerance, level, suffix) -> tuple[Comparison, ...]:
    """<u, J v> by forward mode is <J^T u, v> by reverse mode, wherever both are.

    They may differ by a share `level` [Q] of the norm of a gradient: f's rounding.
    """
    worst: tuple[float, float, str] | None = None
    for look in looks:
        if len(look.autodiff) < 2:
            continue
        size = np.abs(grads[:, look.probe.start :][:, : look.probe.vector.size])
        with np.errstate(all="ignore"):
            size = size @ np.abs(look.probe.vector)  # [Q]
            apart = np.abs(look.autodiff["fwd"] - look.autodiff["rev"])
            bar = np.maximum(tolerance / 10 * size, level * look.unit)
            bar = np.maximum(bar, look.slope.noise)
            ratio = np.where(apart > 0, apart / bar, 0.0)
        q = int(np.argmax(np.where(np.isfinite(ratio), ratio, 0.0)))
        if np.isfinite(ratio[q]) and (worst is None or ratio[q] > worst[0]):
            path = f"{fn.inputs[look.probe.part].path} {look.probe.name}"
            worst = float(ratio[q]), float(apart[q] / size[q]) if size[q] else 0.0, path
    if worst is None:
        return ()
    name = f"forward and reverse mode{suffix}"
    return (Comparison(name, worst[0] <= 1, worst[1], worst[2]),)


def noise_of(fn: Function, road: Callable, seed: int) -> np.ndarray:
    """How a value, a gradient or a tangent of `fn` is rounded, number by number.

    Args:
        fn: the function, and the point.
        road: [D] -> [R], what is looked at.
        seed: of the direction in which rounding is measured.

    Returns:
        [R], in the units of what `road` returns.
    """

    def values(points):
        return np.stack([np.asarray(road(jnp.asarray(x)), np.float64) for x in points])

    rng = np.random.default_rng(seed)
    measured = rounding_of(values, fn.at, _own(fn), rng, far=True)
    size = np.nan_to_num(np.abs(values([fn.at])[0]), posinf=0.0)
    return measured + float(np.finfo(fn.at.dtype).eps) * size


def _own(fn: Function) -> np.ndarray:
    """[D], the sizes of the entries, that of their array where they are 0."""
    sizes = [np.abs(fn.at[p.start : p.stop].astype(np.float64)) for p in fn.inputs]
    return np.concatenate([np.where(x > 0, x, scale_of(x)) for x in sizes])


def cotangent_of(fn: Function, seed: int) -> np.ndarray:
    """A random direction [M] among the outputs; 1 for a scalar."""
    size = fn.outputs[-1].stop
    rng = np.random.default_rng(seed)
    u: Any = rng.standard_normal(size) if size > 1 else np.ones(1)
    return (u / np.linalg.norm(u)).astype(fn.at.dtype)
