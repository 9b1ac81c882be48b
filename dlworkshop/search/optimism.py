"""Selection bias of early stopping, for scores on the examples it used."""

from collections.abc import Sequence

import numpy as np

from dlworkshop.train.history import History


def of_stopping(history: History, members: Sequence[int], name: str) -> np.ndarray:
    """Change of each member's validation score if all had stopped at one time.

    A member takes its parameters where its own validation loss was lowest, and is then
    scored on the same examples: the more a curve wavers, the more that flatters. Where
    the mean curve of several members is lowest, little is chance.

    Args:
        history: of a run with early stopping by the loss.
        members: [n] of one setting, with other seeds or folds.
        name: of the score, as "loss" or "accuracy".

    Returns:
        [n], to be added to the scores; zeros where they were not followed, or not
        defined, as an R2 of equal targets.

    Source: Tibshirani & Tibshirani (2009), A bias correction for the minimum error
    rate in cross-validation, for each fold.

    >>> loss = [[1.0, 1.0], [0.4, 0.8], [0.6, 0.5]]  # of two members, at three looks
    >>> lines = [{"step": i, "epoch": i, "train": {}, "validation": {"loss": row}}
    ...          for i, row in enumerate(loss)]
    >>> of_stopping(History(lines), [0, 1], "loss").round(3).tolist()  # at the last one
    [0.2, 0.0]
    """
    names = f"validation/{name}", "validation/loss"
    if not set(names) <= set(history.names):
        return np.zeros(len(members))
    score, loss = (history[each][:, list(members)] for each in names)
    looks = np.isfinite(loss).any(1)
    score, loss = _filled(score[looks]), _filled(loss[looks])
    if not np.isfinite(loss).all() or not len(loss):
        return np.zeros(len(members))
    together, own = loss.mean(1).argmin(), loss.argmin(0)
    change = score[together] - score[own, np.arange(len(members))]
    return np.where(np.isfinite(change), change, 0.0)


def _filled(curves: np.ndarray) -> np.ndarray:
    """[T, n] of the evaluations; the last value of members that had stopped."""
    for now, before in zip(curves[1:], curves[:-1], strict=True):
        now[:] = np.where(np.isfinite(now), now, before)
    return curves
