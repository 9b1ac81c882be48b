"""The importance of each hyper-parameter for the ranking of the trials."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

LEAST = 4  # trials; with fewer no importance is computed
TREES, REPEATS = 100, 10


def importance(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The share of each hyper-parameter in the ranking of the trials.

    A forest of extremely randomised trees (Geurts et al. 2006) learns the rank of a
    trial from its hyper-parameters. The importance of a hyper-parameter is the loss of
    accuracy when its values are permuted among the trials (Breiman 2001), as a share of
    the sum over all hyper-parameters. Ranks are used instead of scores so that a single
    diverged trial does not dominate. With few trials the estimate is poor.

    Args:
        rows: one for each trial, the best first.

    Returns:
        Name -> share, the largest first; empty for fewer than four trials, or if no
        hyper-parameter varies.

    >>> rows = [{"hparams": {"rate": rate, "act": act, "fixed": 1}}
    ...         for rate in (0.1, 0.2, 0.3) for act in ("relu", "tanh")]
    >>> {name: round(share, 1) for name, share in importance(rows).items()}
    {'rate': 0.9, 'act': 0.1}
    """
    names = list(rows[0]["hparams"]) if rows else []
    columns = {name: [row["hparams"][name] for row in rows] for name in names}
    varied = {n: own for n, own in columns.items() if len(set(map(repr, own))) > 1}
    if len(rows) < LEAST or not varied:
        return {}
    # these imports take a second
    from sklearn.ensemble import ExtraTreesRegressor  # noqa: PLC0415
    from sklearn.inspection import permutation_importance  # noqa: PLC0415

    x = np.stack([_numbers(own) for own in varied.values()], 1)  # [N, D]
    forest = ExtraTreesRegressor(TREES, random_state=0).fit(x, np.arange(len(rows)))
    found = permutation_importance(
        forest, x, np.arange(len(rows)), n_repeats=REPEATS, random_state=0
    )
    lost = np.maximum(found.importances_mean, 0)
    shares = zip(varied, lost / max(lost.sum(), 1e-12), strict=True)
    return dict(sorted(((n, float(s)) for n, s in shares), key=lambda pair: -pair[1]))


def _numbers(values: Sequence[Any]) -> np.ndarray:
    """Values [N] as ranks; text is ranked alphabetically."""
    if all(isinstance(value, int | float) for value in values):
        return rankdata(values)
    return np.unique([str(value) for value in values], return_inverse=True)[1]
