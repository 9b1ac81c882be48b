"""The report of a derivative check, as a table."""

from typing import NamedTuple

import numpy as np

RIGHT, WRONG, UNCHECKED = "right", "WRONG", "not checked"


class ParameterCheck(NamedTuple):
    """The result for one array that is differentiated by."""

    path: str  # "params['dense']['kernel']"; of second derivatives "d/d(...)" is of ...
    shape: tuple[int, ...]
    checked: int  # entries differenced one by one
    directions: int  # directions through all entries
    error: float  # largest |autodiff - difference| over what it was held against, times
    # the tolerance: wrong if above the tolerance
    resolution: float  # errors above it, over the norm of this array's gradient, are
    # called wrong anywhere; inf where the gradient is 0, or cannot be told from it
    worst: str  # the entry or direction with that error, and the output
    autodiff: float  # its slope by autodiff
    difference: float  # its slope by differences
    mode: str  # of autodiff, there: "rev", "fwd", "fwd over rev" ...
    kinks: int  # probes at which the slopes from both sides differ, autodiff between
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
    difference: float  # the largest, over the size of what is compared
    where: str  # "the gradient of params['w']"

    def __str__(self) -> str:
        """One line."""
        verdict = "equal" if self.ok else "DIFFERENT"
        return f"{self.name}: {verdict}, {self.difference:.1e} at {self.where}"


class Culprit(NamedTuple):
    """An equation of f whose own derivative is wrong."""

    name: str  # "custom_vjp of activation", "div"
    where: str  # "model.py:12 (forward)"
    finding: str  # the entry, both slopes

    def __str__(self) -> str:
        """One line."""
        return f"{self.name} at {self.where}: {self.finding}"


class GradientReport(NamedTuple):
    """The result of a check, a row per array; `str(report)` is a table."""

    rows: tuple[ParameterCheck, ...]
    tolerance: float
    comparisons: tuple[Comparison, ...] = ()
    culprits: tuple[Culprit, ...] = ()
    notes: tuple[str, ...] = ()  # what was not there, or could not be seen
    seed: int = 0

    @property
    def ok(self) -> bool:
        """Whether every array's gradient was checked and is right."""
        return all(row.ok for row in self.rows) and all(c.ok for c in self.comparisons)

    @property
    def verdict(self) -> str:
        """`WRONG` if anything is, else `not checked` if anything is, else `right`."""
        found = {row.verdict for row in self.rows}
        if WRONG in found or not all(c.ok for c in self.comparisons):
            return WRONG
        return UNCHECKED if UNCHECKED in found else RIGHT

    @property
    def worst(self) -> ParameterCheck:
        """The row to look at first: a wrong one, one not checked, the largest error."""
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
        """The verdict, the culprits, the table, and what could not be seen."""
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
            if worst.verdict == WRONG:
                first += "autodiff and differences DISAGREE"
            else:
                first += "NOT CHECKED, differences have no slope there"
        elif verdict == WRONG and all(row.verdict != WRONG for row in self.rows):
            first = "derivatives are not the same on two roads"
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
