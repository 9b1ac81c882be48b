"""The report of a gradient check, as a table."""

from typing import NamedTuple

import numpy as np

RIGHT, WRONG, UNCHECKED = "right", "WRONG", "not checked"


class ParameterCheck(NamedTuple):
    """The result for one array of the arguments."""

    path: str  # "params['dense']['kernel']", or "d/d(...)" for second derivatives
    shape: tuple[int, ...]
    checked: int  # entries that were checked one by one
    directions: int  # directions through all entries
    error: float  # largest |autodiff - difference|, relative to the admissible error,
    # times the tolerance: the slope is wrong if it is above the tolerance
    resolution: float  # errors above it, relative to the norm of this array's gradient,
    # would be called wrong; inf if the gradient is 0, or too small to distinguish
    worst: str  # the entry or direction with the largest error, and the output
    autodiff: float  # its slope by autodiff
    difference: float  # its slope by differences
    mode: str  # its mode of autodiff: "rev", "fwd", "fwd over rev" ...
    kinks: int  # probes whose one-sided slopes differ, with autodiff between them
    unchecked: int  # probes without a slope to compare with
    verdict: str  # "right", "WRONG" or "not checked"

    @property
    def ok(self) -> bool:
        """Whether this array's gradient was checked and is right."""
        return self.verdict == RIGHT


class Comparison(NamedTuple):
    """A comparison of f with itself under a transformation, such as jit."""

    name: str  # "vmap"
    ok: bool
    difference: float  # the largest relative difference
    where: str  # "the gradient of params['w']"

    def __str__(self) -> str:
        """One line."""
        verdict = "equal" if self.ok else "DIFFERENT"
        return f"{self.name}: {verdict}, {self.difference:.1e} at {self.where}"


class Culprit(NamedTuple):
    """An equation of f whose own derivative is wrong."""

    name: str  # "custom_vjp of activation", "div"
    where: str  # "model.py:12 (forward)"
    finding: str  # the entry and both slopes

    def __str__(self) -> str:
        """One line."""
        at = f" at {self.where}" if self.where else ""  # f may be a function of JAX
        return f"{self.name}{at}: {self.finding}"


class GradientReport(NamedTuple):
    """The result of a check, a row per array; `str(report)` is a table."""

    rows: tuple[ParameterCheck, ...]
    tolerance: float
    comparisons: tuple[Comparison, ...] = ()
    culprits: tuple[Culprit, ...] = ()
    notes: tuple[str, ...] = ()  # missing modes, and limits of the check
    seed: int = 0

    @property
    def ok(self) -> bool:
        """Whether every array's gradient was checked and is right."""
        return all(row.ok for row in self.rows) and all(c.ok for c in self.comparisons)

    @property
    def verdict(self) -> str:
        """`WRONG` if anything is wrong, else `not checked` or `right`."""
        found = {row.verdict for row in self.rows}
        if WRONG in found or not all(c.ok for c in self.comparisons):
            return WRONG
        return UNCHECKED if UNCHECKED in found else RIGHT

    @property
    def worst(self) -> ParameterCheck:
        """The most important row: wrong before not checked before the largest error."""
        order = (RIGHT, UNCHECKED, WRONG)
        return max(
            self.rows,
            key=lambda row: (
                order.index(row.verdict),
                not np.isfinite(row.autodiff),
                row.error,
            ),
        )

    def __str__(self) -> str:
        """The verdict, the culprits, the table, and the notes."""
        said = {
            RIGHT: "autodiff and differences agree",
            WRONG: "autodiff and differences DISAGREE",
            UNCHECKED: "autodiff is NOT CHECKED: differences have no slope to compare "
            "with",
        }
        worst, verdict = self.worst, self.verdict
        first = said[verdict]
        again = [c for c in self.comparisons if c.name == "repeat" and not c.ok]
        if again:
            first = (
                "f is not deterministic: two calls differ by "
                f"{again[0].difference:.1e} at {again[0].where}"
            )
        elif not (worst.ok or np.isfinite(worst.autodiff)):
            first = f"autodiff is {worst.autodiff:g} at {worst.path} {worst.worst}: "
            if worst.mode == "fwd" and worst.verdict == UNCHECKED:
                first = first.replace("autodiff", "forward mode") + (
                    "NOT CHECKED, reverse mode is finite there: differentiate in "
                    "reverse, and check with modes=('rev',)"
                )
            elif worst.verdict == WRONG:
                first += "autodiff and differences DISAGREE"
            else:
                first += "NOT CHECKED, differences have no slope there"
        elif verdict == WRONG and all(row.verdict != WRONG for row in self.rows):
            first = "two ways to compute f or its derivatives DISAGREE"
        elif verdict == UNCHECKED:
            first += f" at {worst.path} {worst.worst}"
        else:
            seen = max((r.resolution for r in self.rows if r.resolution < 1), default=0)
            first += (
                f": relative error {worst.error:.1e} at {worst.path} {worst.worst}, "
                f"tolerance {self.tolerance:.0e}, coarsest resolution {seen:.0e}"
            )
        lines = [first, *(f"culprit: {culprit}" for culprit in self.culprits)]
        lines += [str(c) for c in self.comparisons if not c.ok]
        lines += [*self._table(), *self.notes, f"seed {self.seed}"]
        return "\n".join(lines)

    def _table(self) -> list[str]:
        head = "parameter shape checked mode error resolution autodiff difference kinks"
        table = [(*head.split(), "worst entry")]
        for row in self.rows:
            count = f"{row.checked}+{row.directions}d"
            numbers = (f"{x:.1e}" for x in (row.error, row.resolution))
            slopes = (f"{x:.10g}" for x in (row.autodiff, row.difference))
            note = row.worst
            if row.verdict == WRONG:
                note += " <- WRONG"
            elif row.verdict == UNCHECKED:
                more = f", nor {row.unchecked - 1} more" if row.unchecked > 1 else ""
                note += f" <- NOT CHECKED{more}"
            shape, kinks = str(row.shape), str(row.kinks)
            mode = row.mode
            table.append((row.path, shape, count, mode, *numbers, *slopes, kinks, note))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]


def norm_of(x: np.ndarray) -> float:
    """The Euclidean norm of the finite entries of an array, without overflow."""
    x = np.abs(x[np.isfinite(x)])
    top = float(x.max(initial=0.0))
    return top * float(np.linalg.norm(x / top)) if top else 0.0
