"""Constructors of `types.Claim`: a statement, a measurement, and the verdict.

A claim about anything random needs several measurements. The kinds of evidence are:

- `equal_up_to_rounding`, `gradients`: two computations of the same numbers in float64,
  with a tolerance derived from their roundings;
- `greater`, `less`, `falls`, `rises`, `share`: results of independent seeds and a named
  test, paired if both sides share the seeds;
- `turns`: ratios of times that were measured in turns, in a random order;
- `bounded`: counts and measurements that must all satisfy a bound.
"""

import warnings

import numpy as np
import scipy

from dlworkshop.errors import UserError, repr_of
from dlworkshop.types import Array, Claim, PyTree
from dlworkshop.verify.report import GradientReport

EPS = float(np.finfo(np.float64).eps)
LEVEL = 0.01  # a false statistical claim holds by chance at most once in a hundred
LEAST_SEEDS = 5  # with fewer seeds the spread is unknown
LEAST_TURNS = 7  # 2^-7 < LEVEL; with fewer turns p cannot be below LEVEL


def equal_up_to_rounding(
    statement: str,
    found: PyTree,
    expected: PyTree,
    *,
    roundings: int,
    why: str,
    scale: float | None = None,
) -> Claim:
    """Two computations agree up to rounding.

    A chain of k roundings changes a number by at most about k u of its largest term,
    where u = eps / 2 (Higham 2002, Accuracy and Stability, lemma 3.1). Two such
    computations therefore differ by at most k eps.

    Args:
        statement: the claim.
        found, expected: trees of equal structure and shapes, float64 or integer.
        roundings: k, of the longer of the two computations of one number.
        why: how k was counted.
        scale: the largest term in the computations; by default the largest |expected|.

    Raises:
        ValueError: if shapes differ, numbers are not in float64, or `scale` is not
            above 0.

    >>> claim = equal_up_to_rounding(
    ...     "0.1 + 0.2 = 0.3", 0.1 + 0.2, 0.3, roundings=2, why="two sums")
    >>> claim.verdict, claim.n
    ('holds', 1)
    """
    both = _leaves(found), _leaves(expected)
    shapes = [[x.shape for x in leaves] for leaves in both]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"'{statement}' compares the shapes {shapes[0]} with {shapes[1]}: make "
            "them equal"
        )
    if scale is not None and not 0 < scale < np.inf:
        raise ValueError(f"'{statement}' has the scale {scale}: give a number above 0")
    ours, theirs = (np.concatenate([x.ravel() for x in leaves]) for leaves in both)
    if scale is None:
        scale = float(np.abs(theirs).max(initial=0.0)) or 1.0
    errors = np.abs(ours - theirs) / scale
    test = f"largest of {errors.size:,} differences in float64, as a share of "
    return _every(statement, errors, "<=", roundings * EPS, why, f"{test}{scale:.3g}")


def gradients(
    statement: str,
    report: GradientReport,
    *,
    why: str = "central differences in float64 resolve eps^(2/3), some 4e-11",
) -> Claim:
    """Autodiff agrees with central differences; see `verify.check_gradients`."""
    errors = [row.error if row.checked else np.nan for row in report.rows]
    n = sum(row.checked + row.directions for row in report.rows)
    test = f"largest error of {n:,} central differences in float64, as a share of the "
    test += "gradient's norm"
    claim = _every(statement, errors, "<=", report.tolerance, why, test)
    verdict = claim.verdict if report.ok else "fails"
    return claim._replace(n=n, verdict=verdict)


def bounded(
    statement: str,
    values: Array,
    *,
    why: str,
    at_most: float | None = None,
    at_least: float | None = None,
    equal_to: float | None = None,
) -> Claim:
    """All values satisfy a bound.

    Raises:
        ValueError: unless exactly one bound is given.

    >>> bounded("a triangle has 3 sides", [3], equal_to=3, why="its name").verdict
    'holds'
    """
    bounds = {"<=": at_most, ">=": at_least, "=": equal_to}
    given = [(sign, bound) for sign, bound in bounds.items() if bound is not None]
    if len(given) != 1:
        raise ValueError(f"'{statement}' has {len(given)} bounds: give exactly one")
    relation, bound = given[0]
    size = np.size(values)
    test = f"every one of {size:,} obeys the bound" if size > 1 else "counted"
    return _every(statement, values, relation, bound, why, test)


def greater(
    statement: str, values: Array, than: Array, *, why: str, by: float = 0.0
) -> Claim:
    """The mean over seeds exceeds a number, or another mean in a paired test.

    The test is a one-sided t-test (Student 1908) on the n values, or on n differences
    if `than` contains a number for each seed.

    Args:
        statement: the claim.
        values: [n], one for each seed.
        than: a number, or [n] for the same seeds in the same order.
        why: the reason for `than` and `by`.
        by: minimum difference.

    Raises:
        UserError: with fewer than 5 seeds.

    >>> claim = greater("heads", [1, 2, 1, 2, 1, 2], 0, why="it counts heads")
    >>> claim.verdict, claim.value, claim.p < 0.001
    ('holds', 1.5, True)
    """
    return _t_test(statement, values, than, ">", by, why)


def less(
    statement: str, values: Array, than: Array, *, why: str, by: float = 0.0
) -> Claim:
    """The mean over seeds is below a number, or another mean; see `greater`."""
    return _t_test(statement, values, than, "<", 0.0 - by, why)  # 0.0, not -0.0


def turns(
    statement: str,
    ratios: Array,
    *,
    why: str,
    above: float | None = None,
    below: float | None = None,
) -> Claim:
    """Ratios of times, one for each interleaved turn, are above or below a number.

    The test is a one-sided signed-rank test (Wilcoxon 1945) on the logarithms of ratio
    / bound. A t-test would be wrong, because a machine that is slow for a while affects
    several turns alike. The signed-rank test does not need independent noise if each
    turn makes its calls in a random order, as `workshop.timing.in_turns` does: if the
    bound were the true ratio, the random order would decide the sign in each turn, and
    these orders are independent of the machine (Fisher 1935, chapter III).

    Args:
        statement: the claim.
        ratios: [n], each of two times of the same turn.
        why: the reason for the bound.
        above, below: the bound; exactly one is given.

    Raises:
        UserError: with fewer than 7 turns.
        ValueError: unless exactly one bound is given, above 0.

    >>> turns("twice as fast", [2.5, 2.2, 9, 2.4, 2.3, 2.6, 2.1], above=2, why="").p
    0.0078125
    """
    if (above is None) == (below is None):
        raise ValueError(f"'{statement}' needs a bound: give either above or below")
    ratios = _vector(statement, ratios, "turn")
    n = _enough(statement, ratios, LEAST_TURNS, "turns")
    relation, side = ("<", "less") if above is None else (">", "greater")
    bound = float(below if above is None else above)  # type: ignore[arg-type]
    if not bound > 0:
        raise ValueError(f"'{statement}' has the bound {bound}: ratios are above 0")
    with np.errstate(divide="ignore", invalid="ignore"):  # ratios of 0 and below
        logs = np.log(ratios) - np.log(bound)
    p = scipy.stats.wilcoxon(
        logs, zero_method="zsplit", alternative=side, method="exact"
    ).pvalue
    test = "signed-rank test on logarithms, one-sided; turns in random order; median, "
    test += "lowest and highest of the turns"
    spread = ratios.min(), ratios.max()
    value = np.median(ratios)
    return _tested(statement, value, spread, n, relation, bound, why, test, p)


def rises(statement: str, values: Array, *, why: str) -> Claim:
    """The values [n, k] rise along k settings, for each of n seeds.

    The test is Page's trend test (1963), which ranks the k values of each seed, so that
    values of different seeds are not compared. For k = 2 this is the sign test. The
    value of the claim is the mean rank correlation.

    Raises:
        UserError: with fewer than 5 seeds (7 for k = 2), or fewer than 2 settings.

    >>> rises("it grows", [[1, 2, 3, 4]] * 5, why="see there").verdict
    'holds'
    """
    return _trend(statement, _numbers(statement, values), ">", why)


def falls(statement: str, values: Array, *, why: str) -> Claim:
    """The values [n, k] fall along k settings, for each of n seeds; see `rises`."""
    return _trend(statement, _numbers(statement, values), "<", why)


def share(statement: str, successes: Array, *, at_least: float, why: str) -> Claim:
    """More than this share of all possible seeds succeed.

    The test is an exact binomial test; the spread is the 95 % interval of Clopper and
    Pearson (1934).

    Args:
        statement: the claim.
        successes: [n] bool, one for each seed.
        at_least: share in (0, 1).
        why: the reason for this share.

    Raises:
        UserError: with fewer than 5 seeds, or if `successes` are numbers.

    >>> share("nearly all", [True] * 64, at_least=0.9, why="all but bad luck").verdict
    'holds'
    """
    given, successes = successes, np.asarray(successes)
    if successes.dtype != bool or successes.ndim != 1:
        raise UserError(
            f"'{statement}' counts {repr_of(given)}: give True or False for each seed"
        )
    n = _enough(statement, successes)
    hits = int(successes.sum())
    p = scipy.stats.binomtest(hits, n, at_least, "greater").pvalue
    spread = scipy.stats.binomtest(hits, n).proportion_ci(0.95)
    test = "exact binomial test, one-sided; 95 % interval of the share"
    return _tested(statement, hits / n, spread, n, ">", at_least, why, test, p)


def check_seeds(seeds: int) -> None:
    """Check the number of seeds before the work instead of after it.

    Raises:
        UserError: with fewer than 5 seeds.

    >>> check_seeds(5)
    """
    if seeds < LEAST_SEEDS:
        raise UserError(
            f"seeds is {seeds}, too few for a claim about seeds: give at least "
            f"{LEAST_SEEDS}"
        )


def _leaves(tree: PyTree) -> list[np.ndarray]:
    import jax  # noqa: PLC0415 (other claims do not need it)

    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    for leaf in leaves:
        if leaf.dtype != np.float64 and not np.issubdtype(leaf.dtype, np.integer):
            raise ValueError(
                f"an exact claim needs float64, got {leaf.dtype}: compute it under "
                "jax.enable_x64(True)"
            )
    return leaves


def _numbers(statement: str, values: Array) -> np.ndarray:
    try:
        return np.atleast_1d(np.asarray(values, np.float64))
    except (TypeError, ValueError):
        raise UserError(
            f"'{statement}' is about {repr_of(values)}: give numbers"
        ) from None


def _vector(statement: str, values: Array, of: str) -> np.ndarray:
    values = _numbers(statement, values)
    if values.ndim != 1:
        raise UserError(f"'{statement}' has values {values.shape}: give one per {of}")
    return values


def _every(statement, values, relation, bound, why, test) -> Claim:
    values = _numbers(statement, values).ravel()
    if not values.size:
        raise ValueError(f"'{statement}' has nothing to measure: give it values")
    off = {"<=": values - bound, ">=": bound - values, "=": np.abs(values - bound)}
    excess = off[relation]
    worst = float(values[np.argmax(np.where(np.isnan(excess), np.inf, excess))])
    spread = (float(values.min()), float(values.max()))
    verdict = "holds" if np.all(excess <= 0) else "fails"  # NaN is not <= 0
    return Claim(
        statement, worst, spread, values.size, relation, bound, why, test, None, verdict
    )


def _t_test(statement, values, than, relation, by, why) -> Claim:
    values = _vector(statement, values, "seed")
    n = _enough(statement, values)
    paired = np.ndim(than) > 0
    than = _numbers(statement, than)
    if paired and np.shape(than) != values.shape:
        raise ValueError(
            f"'{statement}' pairs {values.shape} with {np.shape(than)}: give both for "
            "the same seeds"
        )
    measured = values - than if paired else values  # [n]
    bound = by if paired else float(than[0]) + by
    side = "greater" if relation == ">" else "less"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # equal values have no spread
        p = scipy.stats.ttest_1samp(measured, bound, alternative=side).pvalue
        spread = scipy.stats.ttest_1samp(measured, bound).confidence_interval(0.95)
    test = "paired t-test on the differences" if paired else "t-test"
    test += ", one-sided; 95 % interval of the mean"
    value = measured.mean()
    return _tested(statement, value, spread, n, relation, bound, why, test, p)


def _trend(statement, values, relation, why) -> Claim:
    n = _enough(statement, values)
    if values.ndim != 2 or values.shape[1] < 2:
        raise UserError(
            f"'{statement}' has values {values.shape}: give [n, k] with at least 2 "
            "settings"
        )
    num_settings = values.shape[1]
    if num_settings == 2:
        _enough(statement, values, LEAST_TURNS)
    order = np.arange(1, num_settings + 1)
    ranks = order if relation == ">" else order[::-1]
    p = np.nan
    each = np.full(n, np.nan)
    if np.isfinite(values).all():
        if num_settings > 2:
            p = scipy.stats.page_trend_test(values, predicted_ranks=ranks).pvalue
        else:
            p = _sign(values @ (ranks - 1.5))
        ranked = scipy.stats.rankdata(values, axis=1) - order.mean()  # [n, k]
        lengths = np.linalg.norm(ranked, axis=1) * np.linalg.norm(order - order.mean())
        each = ranked @ order / np.maximum(lengths, EPS)  # [n]; 0 where all are equal
    kind = "Page's trend test" if num_settings > 2 else "one-sided sign test"
    test = f"{kind} over {num_settings} settings; rank correlation, mean, "
    test += "lowest and highest over seeds"
    spread = each.min(), each.max()
    return _tested(statement, each.mean(), spread, n, relation, 0.0, why, test, p)


def _sign(differences) -> float:
    """What Page's test is for two settings, which SciPy does not take; without ties."""
    hits, misses = (differences > 0).sum(), (differences < 0).sum()
    if hits + misses == 0:
        return 1.0
    return scipy.stats.binomtest(hits, hits + misses, 0.5, "greater").pvalue


def _tested(statement, value, spread, n, relation, bound, why, test, p) -> Claim:
    low, high = map(float, spread)
    verdict = "holds" if p < LEVEL else "fails"  # p is NaN for non-finite values
    measured = float(value), (low, high), n
    return Claim(
        statement, *measured, relation, float(bound), why, test, float(p), verdict
    )


def _enough(
    statement: str, values: np.ndarray, least: int = LEAST_SEEDS, what: str = "seeds"
) -> int:
    if len(values) < least:
        raise UserError(
            f"'{statement}' has only {len(values)} {what}: give at least {least} "
            f"(--seeds {least})"
        )
    return len(values)
