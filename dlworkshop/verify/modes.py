"""Reverse mode and forward mode, each compared with differences."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dlworkshop.errors import UserError
from dlworkshop.verify.differences import Differences, Probe
from dlworkshop.verify.functions import Function, Part, first_line, mode_is_missing
from dlworkshop.verify.linear import ADDITIVE, NAME, compare_linear
from dlworkshop.verify.probes import Selection, finite, probes_of, scale_of
from dlworkshop.verify.report import (
    UNCHECKED,
    WRONG,
    Comparison,
    ParameterCheck,
    norm_of,
)
from dlworkshop.verify.rounding import levels_of, rounding_of
from dlworkshop.verify.terms import terms_of
from dlworkshop.verify.verdicts import COARSE, Look, row_of

FLOOR = 1e-3  # errors are relative to at least this share of the gradient's norm
NUM_COLUMNS = 256  # most columns of a Jacobian that is computed by forward mode
NUM_NOISY = 16  # outputs for which the rounding error of the gradient is measured
ENOUGH = 8  # an array with so many wrong probes is not probed any further
CANCEL = 64  # roundings of the largest terms by which the two modes may differ
NUM_FORWARD = 32  # entries whose slopes forward mode computes beside reverse mode


class Found(NamedTuple):
    """A row for each array, and whether the modes are transposes of each other."""

    rows: tuple[ParameterCheck, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]
    modes: tuple[str, ...] = ()  # the modes that exist for the function
    suffix: str = ""  # of their names, such as " over rev"

    @property
    def is_wrong(self) -> bool:
        """Whether anything is wrong, rather than not checked."""
        wrong = any(row.verdict == WRONG for row in self.rows)
        return wrong or not all(c.ok for c in self.comparisons)


class _Noise:
    """Rounding errors of slopes by autodiff, measured like those of f.

    All entries are moved. An algorithm is exact up to a few roundings of its arguments,
    to which an ill-conditioned derivative is sensitive (the derivative of a nearly
    singular determinant changes by far more than eps). If a single entry moved, most
    intermediate values would be rounded the same each time.
    """

    def __init__(self, fn: Function, selection: Selection, modes, own, rng):
        eps = float(np.finfo(fn.at.dtype).eps)
        ray = 64 * eps * own * rng.choice([-1.0, 1.0], fn.at.size)  # [D]
        self.points = [(fn.at + k * ray).astype(fn.at.dtype) for k in range(1, 9)]
        self.fn, self.selection, self.modes = fn, selection, modes
        self.gradients = functools.lru_cache(NUM_NOISY)(self._gradients)

    def __call__(self, probe: Probe, accused: np.ndarray) -> np.ndarray:
        """Rounding errors [Q] of the slopes along a probe, for accused outputs [Q]."""
        found = np.zeros((2, 8, len(accused)))  # for both modes
        if "fwd" in self.modes:
            ray = probe.ray(self.fn.at)
            found[0] = [
                self.selection(self.fn.push(point, ray)) for point in self.points
            ]
        if "rev" in self.modes:
            for q in np.flatnonzero(accused)[:NUM_NOISY]:
                found[1, :, q] = probe.dot(self.gradients(int(q)))
        with np.errstate(all="ignore"):
            level = np.maximum(*(levels_of(each)[0] for each in found))
            return np.nan_to_num(4 * level, posinf=0.0)

    def _gradients(self, q: int) -> np.ndarray:  # [8, D]
        u = self.selection.cotangents()[q].astype(self.fn.at.dtype)
        pulled = [self.fn.pull(point, u) for point in self.points]
        return np.array(pulled, np.float64)


class _Array:
    """One array under test, and the scale of its errors."""

    def __init__(self, part: Part, at: np.ndarray, grads: np.ndarray, own: np.ndarray):
        span = slice(part.start, part.stop)
        self.part = part
        self.grads = finite(grads[:, span])  # [Q, n]
        self.unit = _norms(self.grads)  # [Q]
        self.scaled = _norms(self.grads * own[span])
        self.moved = _norms(self.grads * at[span].astype(np.float64))
        self.looks: list[Look] = []
        self.num_wrong = 0  # of the probes

    def look(
        self, differences, probe: Probe, autodiff, tolerance: float, noise: _Noise
    ) -> None:
        """Measure a slope by differences, as precisely as a verdict requires.

        The rounding error of autodiff (`noise`) is measured if a slope seems wrong.
        """
        if probe.is_entry:
            unit, size = self.unit, np.minimum(self.unit, self.scaled / probe.scale)
            rounding = np.zeros_like(unit)
        else:
            unit, size = _norms(self.grads * probe.vector), self.scaled
            is_something = (differences.value != 0) | (differences.rounding != 0)
            # the points on the ray are rounded too
            rounding = differences.eps / 4 * self.moved * is_something
        known = np.max([np.abs(finite(a)) for a in autodiff.values()], axis=0)  # [Q]

        def against(slope):
            found = np.abs(finite(slope))
            return np.maximum(np.maximum(found, known), FLOOR * size)

        def enough(slope):
            wanted = tolerance / 4 * np.maximum(against(slope.central), size)
            # 0 is certain to `verdicts.COARSE`; a gradient of 0 has the scale of f
            nothing = (slope.central == 0) & (known == 0)
            still = np.where(slope.moved > 0, tolerance * slope.moved, np.inf)
            coarse = COARSE[differences.at.dtype] / 8 * unit
            coarse = np.where(unit > 0, coarse, still)
            return np.where(nothing, np.maximum(coarse, wanted), wanted)

        rough = np.full_like(unit, np.nan)  # [Q], rounding of autodiff; NaN: unknown

        def contradicted(slope, doubt):
            off = np.fmax.reduce([np.abs(slope - a) for a in autodiff.values()])
            accused = off > np.maximum(tolerance * against(slope), 2 * doubt)
            if doubt.any() and np.isnan(rough[accused]).any():
                rough[accused] = noise(probe, accused)[accused]
            return accused & (off > 2 * (doubt + np.nan_to_num(rough)))

        slope = differences.along(probe, enough, contradicted, rounding)
        accused = contradicted(slope.central, slope.doubt) & np.isfinite(slope.doubt)
        self.num_wrong += bool(accused.any())
        more = np.nan_to_num(rough)
        slope = slope._replace(doubt=slope.doubt + more, noise=slope.noise + more)
        sizes = against(slope.central), unit, size
        self.looks.append(Look(probe, autodiff, slope, *sizes))


def check(
    fn: Function,
    modes: Sequence[str],
    tolerance: float,
    max_entries: int,
    seed: int,
    suffix: str = "",
    rounding: np.ndarray | None = None,
    size: float = 1.0,
    additive: float = ADDITIVE,
) -> Found:
    """Compare autodiff of `fn` with differences.

    Args:
        fn: the function and the point.
        modes: "rev", "fwd" or both; a note is added if `fn` lacks one of them.
        tolerance: a slope with a larger error is wrong.
        max_entries: see `probes.probes_of`.
        seed: of all random choices.
        suffix: of the names of the modes in the report, such as " over rev".
        rounding: [M], rounding errors of the outputs, if they are known to be larger
            than a measurement shows.
        size: of a cotangent for which the derivatives are to be linear.
        additive: the tolerance for sums of cotangents, if it is above `tolerance`.

    Raises:
        UserError: if `fn` is not finite at the point, or has no derivative in any of
            the modes.
    """
    rng = np.random.default_rng(seed)
    selection, at = Selection(fn.outputs, rng), fn.at

    def values(points):
        return np.stack([selection(y) for y in [fn.numbers(point) for point in points]])

    own = sizes_of(fn)
    differences = Differences(values, at, own, rng)
    if not np.isfinite(value := differences.value).all():  # [Q]
        place = int(np.argmin(np.isfinite(value)))
        raise UserError(
            f"{selection.names[place] or 'f'} is {value[place]} at these arguments, "
            "but must be finite: correct f, or check it at other arguments"
        )
    there, notes = _there(fn, modes)
    cotangents = selection.cotangents().astype(at.dtype)
    known = 0.0 if rounding is None else np.abs(cotangents) @ rounding  # [Q]
    differences.rounding = np.maximum(differences.rounding, known)
    grads = _gradients(fn, there, selection, cotangents)
    noise = _Noise(fn, selection, there, own, rng)
    arrays = [_Array(part, at, grads, own) for part in fn.inputs]
    for probe in probes_of(fn.inputs, at, grads, max_entries, rng):
        array = arrays[probe.part]
        if array.num_wrong >= ENOUGH:
            continue
        autodiff = {}
        if "rev" in there:
            autodiff["rev"] = probe.dot(grads)
        if "fwd" in there and (
            "rev" not in there or not probe.is_entry or len(array.looks) < NUM_FORWARD
        ):
            autodiff["fwd"] = selection(fn.push(at, probe.ray(at)))
        if autodiff:
            array.look(differences, probe, autodiff, tolerance, noise)
    largest = np.max([array.scaled for array in arrays], axis=0)  # [Q]
    least = 64 * differences.eps * (np.abs(value) + 64 * largest) + 64 * known
    how = selection.names, tolerance, COARSE[at.dtype], suffix
    rows = [row_of(a.part, a.looks, a.scaled > least, *how) for a in arrays]
    terms = terms_of(fn, there)
    for i, (array, row) in enumerate(zip(arrays, rows, strict=True)):
        if row.verdict == UNCHECKED:  # the terms of a zero gradient may be known
            ray, span = np.zeros_like(at), slice(array.part.start, array.part.stop)
            ray[span] = own[span]
            sizes = np.array([terms(ray, u) for u in cotangents])
            material = array.scaled > least + CANCEL * differences.eps * sizes
            rows[i] = row_of(array.part, array.looks, material, *how, sizes)
    both = _transposed(fn, arrays, differences, grads, tolerance, noise, suffix)
    scaled, more = compare_linear(
        fn, there, own, tolerance, seed, size, cotangents, grads, additive
    )
    both += tuple(c._replace(name=c.name + suffix) for c in scaled)
    return Found(tuple(rows), both, (*notes, *more), tuple(there), suffix)


def _gradients(fn: Function, there, selection: Selection, cotangents) -> np.ndarray:
    """Gradients [Q, D] of the selected numbers; 0 if forward mode is too expensive."""
    at = fn.at
    if "rev" in there:
        return np.stack([np.asarray(fn.pull(at, u), np.float64) for u in cotangents])
    if at.size > NUM_COLUMNS:
        return np.zeros((len(cotangents), at.size))
    rays = np.eye(at.size, dtype=at.dtype)
    return np.stack([selection(fn.push(at, ray)) for ray in rays], axis=1)


def _there(fn: Function, modes: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """The modes that JAX has for `fn`, and the reasons for missing ones."""
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
            said.append(
                f"{NAME[mode]} mode is not available and was not checked: "
                f"{first_line(error)}"
            )
    if not there:
        raise UserError(f"f has no derivative to check: {'; '.join(said)}")
    return there, tuple(said)


def _norms(x: np.ndarray) -> np.ndarray:
    """Norms [Q, n] -> [Q]."""
    return np.array([norm_of(row) for row in x])


def _transposed(
    fn: Function, arrays: Sequence[_Array], differences, grads, tolerance, noise, suffix
) -> tuple[Comparison, ...]:
    """Whether the two modes are transposes of each other; empty for a single mode."""
    looks = [look for array in arrays for look in array.looks]
    none, terms = np.zeros(len(grads)), terms_of(fn)
    found = _transposes(fn, looks, grads, tolerance, noise, terms, none, suffix)
    if not found or found[0].ok:
        return found
    # f may compute in a coarser dtype internally; the last probe moves all entries
    last = [array.looks[-1].probe for array in arrays if array.looks]
    level = np.max([differences.climb(p, none == 0)[0] for p in last], axis=0)
    largest = np.max([array.scaled for array in arrays], axis=0)  # [Q]
    with np.errstate(all="ignore"):
        level = np.nan_to_num(8 * level / (np.abs(differences.value) + largest))
    return _transposes(fn, looks, grads, tolerance, noise, terms, level, suffix)


def _transposes(
    fn, looks, grads, tolerance, noise, terms, level, suffix
) -> tuple[Comparison, ...]:
    """Compare <u, J v> by forward mode with <J^T u, v> by reverse mode."""
    cotangents = noise.selection.cotangents().astype(fn.at.dtype)
    eps = float(np.finfo(fn.at.dtype).eps)
    worst = -1.0, 0.0, ""  # difference over its bound, relative difference, place
    for look in (look for look in looks if len(look.autodiff) == 2):
        size = np.abs(grads[:, look.probe.start :][:, : look.probe.vector.size])
        with np.errstate(all="ignore"):
            size = size @ np.abs(look.probe.vector)  # [Q]
            apart = np.abs(look.autodiff["fwd"] - look.autodiff["rev"])
            apart = finite(apart)
            bar = np.maximum(tolerance / 10 * size, level * look.unit)
            bar = np.maximum(bar, look.slope.noise)
            if (apart > bar).any():
                bar = np.maximum(bar, 8 * noise(look.probe, apart > bar))
            for q in np.flatnonzero(apart > bar):
                largest = terms(look.probe.ray(fn.at), cotangents[q])
                bar[q] = max(bar[q], CANCEL * eps * largest)
            ratio = np.where((apart > 0) & (bar > 0), apart / bar, 0.0)
        q = np.argmax(ratio)
        if ratio[q] > worst[0]:
            path = f"{fn.inputs[look.probe.part].path} {look.probe.name}"
            worst = float(ratio[q]), float(apart[q] / size[q]) if size[q] else 0.0, path
    if worst[0] < 0:
        return ()
    name = f"forward and reverse mode{suffix}"
    return (Comparison(name, worst[0] <= 1, worst[1], worst[2]),)


def noise_of(fn: Function, function: Callable, seed: int) -> np.ndarray:
    """Rounding errors of the value, gradient or tangent of `fn`.

    Args:
        fn: the function and the point.
        function: [D] -> [R], the value, gradient or tangent.
        seed: of the direction in which rounding is measured.

    Returns:
        [R], the rounding error of each number.
    """

    def values(points):
        return np.stack(
            [np.asarray(function(jnp.asarray(x)), np.float64) for x in points]
        )

    rng = np.random.default_rng(seed)
    measured = rounding_of(values, fn.at, sizes_of(fn), rng, far=True)
    size = np.nan_to_num(np.abs(values([fn.at])[0]), posinf=0.0)
    return measured + float(np.finfo(fn.at.dtype).eps) * size


def sizes_of(fn: Function) -> np.ndarray:
    """Sizes of the entries [D]; an entry that is 0 has the size of its array."""
    sizes = [np.abs(fn.at[p.start : p.stop].astype(np.float64)) for p in fn.inputs]
    return np.concatenate([np.where(x > 0, x, scale_of(x)) for x in sizes])


def cotangent_of(fn: Function, seed: int) -> np.ndarray:
    """A random direction [M] among the outputs; 1 for a scalar."""
    size = fn.outputs[-1].stop
    rng = np.random.default_rng(seed)
    u: Any = rng.standard_normal(size) if size > 1 else np.ones(1)
    return (u / np.linalg.norm(u)).astype(fn.at.dtype)
