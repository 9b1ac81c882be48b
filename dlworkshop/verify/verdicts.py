"""The verdict on a slope by autodiff: right, wrong, or not checked."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dlworkshop.verify.differences import Probe, Slope
from dlworkshop.verify.functions import Part
from dlworkshop.verify.report import RIGHT, UNCHECKED, WRONG, ParameterCheck

# a check with a coarser resolution than this counts as no check
COARSE = {np.dtype(np.float64): 1e-3, np.dtype(np.float32): 0.25}
NOTHING = 1e-14  # a slope below it is that of a constant function
NUM_SURE = 2  # directions that must be checked if not all entries are checked


class Look(NamedTuple):
    """A probe with its slopes by autodiff and by differences."""

    probe: Probe
    autodiff: dict[str, np.ndarray]  # mode -> [Q]
    slope: Slope
    against: np.ndarray  # [Q], the size to which errors are relative
    unit: np.ndarray  # [Q], the norm of the array's gradient, in steps of the probe
    size: np.ndarray  # [Q], the same, but smaller if the array is badly scaled


class Verdict(NamedTuple):
    """The verdict on one slope of one output."""

    error: float  # relative to the admissible error, times the tolerance
    resolution: float
    lost: bool
    kink: bool
    wrong: bool
    mode: str
    output: int
    look: Look


def row_of(
    part: Part,
    looks: Sequence[Look],
    material: np.ndarray,
    names: Sequence[str],
    tolerance: float,
    coarse: float,
    suffix: str,
    terms: np.ndarray | None = None,
) -> ParameterCheck:
    """The result for one array.

    Args:
        part: the array.
        looks: its probes.
        material: [Q], whether the gradient of an output differs from 0 significantly.
        names: [Q] of the outputs.
        tolerance: a slope with a larger error is wrong.
        coarse: with a coarser resolution the slope counts as not checked.
        suffix: of the names of the modes.
        terms: [Q], sizes of the terms that cancel where the gradient is not material.
    """
    seen_terms = coarse * (np.zeros(len(names)) if terms is None else terms)
    found = [
        judge(look, mode, q, tolerance, coarse if material[q] else None, seen_terms[q])
        for look in looks
        for mode in look.autodiff
        for q in range(len(names))
    ]
    entries = {look.probe.name for look in looks if look.probe.is_entry}
    rays = {look.probe.name for look in looks if not look.probe.is_entry}
    lost = {v.look.probe.name for v in found if v.lost}
    size = part.stop - part.start
    sure = len(rays - {"the gradient"} - lost)
    forgiven = rays if len(entries) == size or sure >= NUM_SURE else set()
    unchecked = lost - forgiven
    wrong = any(v.wrong for v in found)

    def badness(v: Verdict):  # an entry is more informative than a direction
        missed = v.lost and v.look.probe.name in unchecked
        broken = not np.isfinite(v.look.autodiff[v.mode][v.output])
        is_entry = v.look.probe.is_entry
        return v.wrong, missed, broken, v.wrong and is_entry, v.error

    worst = max(found, key=badness)
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


def judge(
    look: Look,
    mode: str,
    q: int,
    tolerance: float,
    coarse: float | None,
    least: float,
) -> Verdict:
    """Compare the slope of output `q` by a `mode` of autodiff with differences.

    A slope with an error above the tolerance is wrong; with a resolution above `coarse`
    it is not checked. `coarse` is None if the gradient is practically 0; then a change
    of f of `least` or more must show.
    """
    slope = Slope(*(x[q] for x in look.slope))
    exact, central, doubt = (
        float(x) for x in (look.autodiff[mode][q], slope.central, slope.doubt)
    )
    against, unit = float(look.against[q]), float(look.unit[q])
    wanted = tolerance / 4 * max(against, float(look.size[q]))
    off = abs(exact - central) if np.isfinite(exact) else np.inf
    bar, is_kink = max(tolerance * against, 2 * doubt), False
    if np.isfinite(doubt) and doubt <= max(wanted, 8 * float(slope.noise)):
        lost = False
        # f is constant: autodiff may have a rounding error
        if not central and off * max(1.0, look.probe.scale) <= NOTHING:
            off = 0.0
    elif is_kink := bool(slope.kink):
        low, high = sorted((float(slope.left), float(slope.right)))
        off = max(low - exact, exact - high, 0.0) if np.isfinite(exact) else np.inf
        bar = tolerance * against + 2 * float(slope.apart)
        unit = max(unit, abs(low), abs(high))  # autodiff may be 0 at a kink
        lost = off > bar and not look.probe.is_entry
    else:  # the estimates never agreed: only slopes far from all of them are wrong
        bar = max(tolerance * against, 8 * doubt)
        settled = 8 * doubt <= abs(central) and np.isfinite(exact)
        vague = coarse is None and doubt > tolerance * float(slope.moved)
        vague = vague and doubt * look.probe.scale > least
        lost = vague if off <= bar < np.inf else not settled
    if not np.isfinite(exact):  # forward mode: 0 times another entry's inf is nan
        back = look.autodiff.get("rev") if mode == "fwd" else None
        lost = lost or (back is not None and bool(np.isfinite(back[q])))
    elif not lost and off <= bar and coarse is not None and bar > coarse * unit:
        lost = True
    if lost and np.isfinite([exact, central]).all():
        # unless its share of the gradient is negligible
        most = max(abs(exact), abs(central) + 2 * doubt)
        lost = not most <= tolerance * float(look.unit.max())
    error = 0.0 if lost or not off else tolerance * off / bar if bar else np.inf
    resolution = bar / unit if unit and coarse is not None else 0.0
    return Verdict(error, resolution, lost, is_kink, error > tolerance, mode, q, look)
