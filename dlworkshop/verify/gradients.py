"""Autodiff against finite differences, parameter by parameter, in float64."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from dlworkshop.errors import UserError
from dlworkshop.types import PyTree

NUM_STEPS = 5  # step sizes a probe is measured at
NUM_RANDOM = 3  # random directions through a parameter too large for every entry
KINK_SHARE = 0.05  # of a parameter's probes; more, and it counts as unchecked
EPS = float(np.finfo(np.float64).eps)


class ParameterCheck(NamedTuple):
    """What came out for one array of the tree."""

    path: str  # "params['dense']['kernel']"
    shape: tuple[int, ...]
    checked: int  # entries differenced one by one
    directions: int  # directions through all entries; 0 when every entry was checked
    error: float  # largest |autodiff - difference| / norm of this array's gradient,
    # scaled down where rounding blurs the difference: wrong if above the tolerance
    resolution: float  # errors above it, over that norm, are called wrong anywhere;
    # inf where the gradient is 0, or too small to tell from rounding
    worst: str  # the entry or direction with that error
    autodiff: float  # its slope by autodiff
    difference: float  # its slope by differences
    kinks: int  # probes without a slope to compare with; not part of `error`
    ok: bool


class GradientReport(NamedTuple):
    """One row for each parameter; `str(report)` is a table."""

    rows: tuple[ParameterCheck, ...]
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether every parameter's gradient was checked and is right."""
        return all(row.ok for row in self.rows)

    @property
    def worst(self) -> ParameterCheck:
        """The row to look at first: a failed one, then the largest error."""
        return max(self.rows, key=lambda row: (not row.ok, row.error))

    def __str__(self) -> str:
        head = "parameter shape checked error resolution autodiff difference kinks"
        table = [(*head.split(), "worst entry")]
        for row in self.rows:
            count = f"{row.checked}+{row.directions}d" if row.directions else "all"
            numbers = (f"{x:.1e}" for x in (row.error, row.resolution))
            slopes = (f"{x:.10g}" for x in (row.autodiff, row.difference))
            unsure = "" if row.error > self.tolerance else "NOT CHECKED, kinks or noise"
            note = row.worst if row.ok else f"{row.worst} <- {unsure or 'WRONG'}"
            shape = str(row.shape)
            table.append(
                (row.path, shape, count, *numbers, *slopes, f"{row.kinks}", note)
            )
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
        verdict = "agree" if self.ok else "DISAGREE"
        seen = max((r.resolution for r in self.rows if r.resolution < 1), default=0.0)
        first = (
            f"autodiff and differences {verdict}: relative error "
            f"{self.worst.error:.1e} at {self.worst.path} {self.worst.worst}, "
            f"tolerance {self.tolerance:.0e}, coarsest resolution {seen:.0e}"
        )
        return "\n".join([first, *lines])


def check_gradients(
    f: Callable[[PyTree], Any],
    params: PyTree,
    *,
    tolerance: float = 1e-8,
    max_entries: int = 256,
    seed: int = 0,
) -> GradientReport:
    """Compare `jax.grad(f)(params)` with central differences of `f`, in float64.

    Works whatever `jax_enable_x64` is, and leaves it so: `f` is traced anew under
    `jax.enable_x64(True)`, with `params` cast to float64 (JAX keys its caches by that
    setting, so programs compiled outside are neither used nor disturbed).

    **What is probed.** Every entry of an array of up to `max_entries`. Of a larger one,
    `max_entries` random entries and four directions through all n of its entries: along
    its gradient (an error of scale shows in full) and three random ones. An error
    vector e shows in a random unit direction as about |e| / sqrt(n), so no array, and
    no entry of one, is left out of the sum; what is seen is coarser by sqrt(n).

    **Step.** A central difference at step h is off by h^2 |f'''| / 6 from truncation
    and by eps |f| / h from rounding; together they are least at h ~ cbrt(eps) = 6e-6
    for a function and entry of scale 1, leaving eps^(2/3) (Nocedal & Wright, Numerical
    Optimization, 2006, sec. 8.1). The scale of `f` is not known, so five steps are
    measured, powers of two (x + h is then exact) around it: from 2^-9 max(s, 1) down
    to 2^-17 min(s, 1) or less, s the larger of the entry and its array's root mean
    square. Two neighbours, a ratio r apart, cancel the h^2 term:
    (r^2 D(h/r) - D(h)) / (r^2 - 1). The step is taken where two such estimates agree
    best (Ridders 1982, Advances in Engineering Software 4(2), 75-76).

    **Kinks.** The slopes from the right and from the left differ by
    J(h) = (f(x+h) - 2 f(x) + f(x-h)) / h, which falls like h where `f` is smooth, and
    stays where x is a kink (ReLU at 0); so half of (r J(h/r) - J(h)) / (r - 1) counts
    as doubt about the slope, beside the disagreement of estimates and 8 eps |f| / h. A
    probe in more doubt than the tolerance counts as a kink, unless autodiff is off by
    more than twice the doubt: that is wrong at a kink too.

    **Verdict.** A probe is wrong if it is off by more than `tolerance` times the norm
    of its array's gradient, not of its own slope, which may be 0 by chance, and by more
    than twice the doubt, so that a gradient of 0 is not held against rounding (the
    report's `resolution` says how coarse that made the check of an array). An array
    fails with one wrong probe, or with more kinks than one and 5 % of its probes.

    Args:
        f: pytree of real arrays -> real scalar; JAX can trace it (as under `jit`).
        params: pytree of real floating arrays, any dtype; where to check.
        tolerance: > 0, relative to the gradient's norm, array by array.
        max_entries: >= 1, entries of one array checked one by one.
        seed: of the random entries and directions.

    Returns:
        A report; `report.ok` is the verdict. A wrong gradient does not raise.

    Raises:
        UserError: params not real, floating and finite; `f` not a real finite scalar,
            not computed in float64 all the way, or its gradient not finite.

    >>> report = check_gradients(lambda w: jnp.sum(jnp.sin(w)), jnp.arange(3.0))
    >>> report.ok, report.rows[0].checked
    (True, 3)
    """
    if not tolerance > 0 or max_entries < 1:
        raise UserError(
            f"tolerance={tolerance} and max_entries={max_entries}: wanted above 0 and "
            "at least 1."
        )
    leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
    paths = ["params" + jax.tree_util.keystr(path) for path, _ in leaves]
    arrays = [_real64(path, x) for path, (_, x) in zip(paths, leaves, strict=True)]
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        tree = jax.tree_util.tree_unflatten(treedef, arrays)
        flat, unravel = ravel_pytree(tree)  # [D]
        if not flat.size:
            raise UserError("params holds no numbers: there is no gradient to check.")
        grad = _float64_gradient(f, unravel, flat)  # [D]
        # A probe moves entries start:stop by a step times one of `directions`.
        directions = np.ones((2 + NUM_RANDOM, flat.size))  # row 0 is for single entries
        probes: list[tuple[int, int, int]] = []
        scales: list[float] = []
        ends, stop = [], 0  # of each parameter's probes; of its entries
        for path, x in zip(paths, arrays, strict=True):
            start, stop = stop, stop + x.size
            part = _finite(f"the gradient of {path}", grad[start:stop].reshape(x.shape))
            entries, rms = np.arange(x.size), np.sqrt(np.mean(x**2)) if x.any() else 0.0
            if x.size > max_entries:
                entries = np.sort(rng.choice(x.size, max_entries, replace=False))
                rays = rng.standard_normal((1 + NUM_RANDOM, x.size))
                rays[0] = part.reshape(-1) if part.any() else rays[0]
                rays /= np.linalg.norm(rays, axis=1, keepdims=True)
                directions[1:, start:stop] = rays
                probes += [(start, stop, j) for j in range(1, 2 + NUM_RANDOM)]
                scales += [rms] * (1 + NUM_RANDOM)
            probes += [(start + int(i), start + int(i) + 1, 0) for i in entries]
            scales += list(np.maximum(np.abs(x.reshape(-1)[entries]), rms))
            ends.append(len(probes))
        steps = _steps(np.array(scales))  # [M, NUM_STEPS]
        values = _evaluate(f, unravel, flat, directions, np.array(probes), steps)
    exact = [directions[j, a:b] @ grad[a:b] for a, b, j in probes]
    measured = np.stack([exact, *_slopes(values, steps)])  # [4, M]
    rows, first, start = [], 0, 0
    for path, x, last in zip(paths, arrays, ends, strict=True):
        names = [
            f"direction {j}" if j else str([*map(int, np.unravel_index(a, x.shape))])
            for a, j in ((a - start, j) for a, _, j in probes[first:last])
        ]
        if names:
            norm = float(np.linalg.norm(grad[start : start + x.size]))
            mine = measured[:, first:last]
            rows.append(_row(path, x.shape, norm, names, mine, tolerance))
        first, start = last, start + x.size
    return GradientReport(tuple(rows), tolerance)


def _finite(what: str, x: np.ndarray) -> np.ndarray:
    if bad := np.argwhere(~np.isfinite(x)).tolist():
        raise UserError(
            f"{what} is {x[tuple(bad[0])]} at {bad[0]}: wanted finite numbers; mend "
            "it, or check at other params."
        )
    return x


def _real64(path: str, x: Any) -> np.ndarray:
    if not jnp.issubdtype(dtype := jax.dtypes.result_type(x), jnp.floating):
        raise UserError(
            f"{path} is {dtype}: wanted real floating numbers; move what is not "
            "differentiated out of params, into f."
        )
    return _finite(path, np.asarray(x).astype(np.float64))


def _float64_gradient(f, unravel, flat) -> np.ndarray:
    try:
        jaxpr, out = jax.make_jaxpr(f, return_shape=True)(unravel(flat))
        real = hasattr(out, "dtype") and jnp.issubdtype(out.dtype, jnp.floating)
        if not real or out.shape != ():
            raise UserError(f"f returned {out}: wanted one real scalar, of shape ().")
        came = _narrowed(jaxpr.jaxpr, jaxpr.jaxpr.invars)
        if not came and out.dtype == jnp.float64:
            value, grad = jax.jit(jax.value_and_grad(lambda v: f(unravel(v))))(flat)
            _finite("f(params)", np.asarray(value))
            return np.asarray(grad)
        came = came or f"it returns {out.dtype}"
    except TypeError as error:  # lax does not promote float64 params and float32 data
        if "float32" not in str(error) and "float16" not in str(error):
            raise
        came = str(error).splitlines()[0]
    raise UserError(
        f"f does not compute in float64 all the way: {came}. Cast the arrays f closes "
        "over to the dtype of params, or make them inside f, and let no layer of it "
        "force a dtype."
    )


def _narrowed(jaxpr: Any, moving: Any) -> str:
    """What first turns float64 that moves with params into a smaller float, or ""."""
    moves = set(map(id, moving))
    for eqn in jaxpr.eqns:
        hit = [id(v) in moves for v in eqn.invars]
        if not any(hit):
            continue
        moves |= set(map(id, eqn.outvars))
        bodies: list[Any] = [
            getattr(x, "jaxpr", x)  # a ClosedJaxpr's, or itself
            for param in eqn.params.values()
            for x in (param if isinstance(param, tuple) else (param,))
            if hasattr(x, "eqns")
        ]
        for body in bodies:
            moving = body.invars
            if len(hit) == len(moving) and eqn.primitive.name != "scan":  # a plain call
                moving = [v for v, h in zip(moving, hit, strict=True) if h]
            if found := _narrowed(body, moving):
                return found
        came = {v.aval.dtype for v, h in zip(eqn.invars, hit, strict=True) if h}
        for v in [] if bodies or np.dtype("float64") not in came else eqn.outvars:
            small = jnp.issubdtype(v.aval.dtype, jnp.floating)
            if small and v.aval.dtype.itemsize < 8:
                return f"{eqn.primitive.name} makes {v.aval.dtype} of float64"
    return ""


def _steps(scale: np.ndarray) -> np.ndarray:
    """[M] scales of what is moved -> [M, NUM_STEPS] steps, falling powers of two."""
    exponent = np.log2(np.where(scale > 0, scale, 1.0))  # [M]
    top = -9 + np.maximum(np.ceil(exponent), 0)  # [M]
    bottom = -17 + np.minimum(np.floor(exponent), 0)  # [M]
    fall = np.ceil((top - bottom) / (NUM_STEPS - 1))  # [M]
    return np.exp2(top[:, None] - fall[:, None] * np.arange(NUM_STEPS))


def _evaluate(f, unravel, flat, directions, probes, steps):
    """f at params [], at +step and at -step of each probe [M, NUM_STEPS]: one program,
    so that what the three round differently is small."""
    at = np.stack([steps, -steps], axis=1)  # [M, 2, NUM_STEPS]
    lanes = int(np.clip(2**20 // flat.size, 1, 64))  # side by side in memory
    pad = lanes - at.size % lanes  # to whole batches, and f(params) at least once
    columns = [np.repeat(column, at[0].size) for column in probes.T]
    columns = [np.pad(column, (0, pad)) for column in (*columns, at.ravel())]
    place = np.arange(flat.size)  # [D]

    @jax.jit
    def run(flat, directions, columns):
        def one(probe):
            start, stop, j, step = probe
            inside = (place >= start) & (place < stop)  # [D]
            return f(unravel(flat + jnp.where(inside, step * directions[j], 0.0)))

        return jax.lax.map(one, columns, batch_size=lanes)

    values = np.asarray(run(flat, directions, columns))
    ahead, behind = np.moveaxis(values[: at.size].reshape(at.shape), 1, 0)
    return values[-1], ahead, behind


def _slopes(values, steps):
    """Each probe's slope, what speaks against it, and the rounding in it: [M] each."""
    value, ahead, behind = values
    ratio = (steps[:, 0] / steps[:, 1])[:, None]  # [M, 1]
    with np.errstate(invalid="ignore", over="ignore"):  # f may leave its domain
        central = (ahead - behind) / (2 * steps)  # [M, NUM_STEPS]
        jump = (ahead - 2 * value + behind) / steps
        slope = (ratio**2 * central[:, 1:] - central[:, :-1]) / (ratio**2 - 1)
        jump = (ratio * jump[:, 1:] - jump[:, :-1]) / (ratio - 1)
        apart = np.maximum(np.abs(np.diff(slope)), np.abs(jump[:, 1:]) / 2)
    apart = np.where(np.isfinite(apart), apart, np.inf)  # [M, NUM_STEPS - 2]
    noise = 8 * EPS * abs(value) / steps[:, 2:]
    best = np.arange(len(steps)), np.argmin(apart + noise, axis=1)
    return slope[:, 1:][best], apart[best], noise[best]


def _row(path, shape, norm, names, measured, tolerance) -> ParameterCheck:
    exact, slope, apart, noise = measured  # [M] each, of this parameter's probes
    doubt = apart + noise
    sure = np.isfinite(doubt)
    off = np.where(sure, np.abs(exact - slope), 0.0)
    # An autodiff gradient of 0 is measured by the slopes it should have met.
    met = np.max(np.abs(slope[sure]) - 2 * doubt[sure], initial=0.0)
    norm = max(norm, float(met))
    bar = np.maximum(tolerance * norm, 2 * doubt)  # off by more is wrong
    lost = ~(off > bar) & (doubt > np.maximum(tolerance * norm, 8 * noise))
    error = np.divide(tolerance * off, bar, out=np.zeros_like(off), where=off > 0)
    error = np.where(lost, 0.0, error)
    at = int(np.argmax(error if error.any() else lost))
    kinks = int(lost.sum())
    few = kinks <= max(1, KINK_SHARE * len(lost)) and kinks < len(lost)
    seen = np.max(bar[~lost], initial=0.0)
    rays = sum(name.startswith("direction") for name in names)
    return ParameterCheck(
        path=path,
        shape=shape,
        checked=len(names) - rays,
        directions=rays,
        error=float(error[at]),
        resolution=float(seen / norm) if seen < norm else np.inf,
        worst=names[at],
        autodiff=float(exact[at]),
        difference=float(slope[at]),
        kinks=kinks,
        ok=few and bool(error[at] <= tolerance),
    )
