"""Measurement of the rounding error of the value of a function.

The error is estimated from third differences of f at eight points that are so close
that f is linear between them (More & Wild 2011, SIAM J. Sci. Comput. 33(3), 1292-1314).
"""

import numpy as np

CLEAR = 64  # f has changed if it differs by so many rounding errors


def levels_of(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rounding error [Q] of values [8, Q] at equal distances.

    Returns:
        The estimate by third differences, and the part of it that sixth differences
        confirm, to which the curvature of f contributes less.
    """
    top = np.max(np.abs(y), axis=0)  # [Q]; a square of 1e200 or 1e-200 is out of range
    y = y / np.where(top > 0, top, 1.0)
    third, sixth = np.diff(y, 3, axis=0), np.diff(y, 6, axis=0)  # [5, Q], [2, Q]
    # the mean square of k-th differences of white noise is (2 k over k) times its own
    third = top * np.sqrt(np.mean(third**2, axis=0) / 20)
    sixth = top * np.sqrt(np.mean(sixth**2, axis=0) / 924)
    return third, np.minimum(third, 2 * sixth)


def rounding_of(values, at, own, rng, *, far: bool = False) -> np.ndarray:
    """The rounding error [Q] of a value of f near `at`.

    It is measured in a random direction slightly beside `at`, which may be a kink.

    Args:
        values: points [D] -> values of f [points, Q].
        at: [D], in the dtype of f.
        own: [D], the sizes of its entries.
        rng: of the direction.
        far: whether to try larger spacings if f is constant over the small ones.
    """
    eps = float(np.finfo(at.dtype).eps)
    direction, aside = own * rng.choice([-1.0, 1.0], (2, at.size))  # [D] each
    levels, seen = [], []
    spacings = [2**6 * eps, np.sqrt(eps) / 16]
    spacings += [1.2 * spacings[1] * 2 ** (5 * k) for k in (1, 2, 3) if far]
    start = at + 16 * np.sqrt(eps) * aside
    for spacing in spacings:
        y = values(
            [(start + k * spacing * direction).astype(at.dtype) for k in range(8)]
        )
        with np.errstate(all="ignore"):
            levels.append(levels_of(y))
            seen.append(np.ptp(y, axis=0) > CLEAR * levels[-1][0])
    (near, _), (wide, _), *farther = levels
    waves = seen[0] & ~seen[1]  # f is smooth on the smaller scale only
    found = np.where(waves, near, np.maximum(near, wide))
    for _, level in farther:
        found = np.where(found == 0, level, found)
    return np.nan_to_num(found, nan=0.0, posinf=0.0)
