"""How a value of f is rounded, as measured.

Third differences of f at eight points so near to each other that f itself does not bend
between them (More & Wild 2011, SIAM J. Sci. Comput. 33(3), 1292-1314).
"""

import numpy as np

CLEAR = 64  # over the rounding: a movement of f that is seen


def levels_of(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rounding [Q] in values [8, Q] at equal distances, by differences.

    Returns:
        By the third ones, and what of it the sixth ones say, too: f bends less there.
    """
    third, sixth = np.diff(y, 3, axis=0), np.diff(y, 6, axis=0)  # [5, Q], [2, Q]
    # of white noise, the mean square is (2 k over k) times its own
    third = np.sqrt(np.mean(third**2, axis=0) / 20)
    sixth = np.sqrt(np.mean(sixth**2, axis=0) / 924)
    return third, np.minimum(third, 2 * sixth)


def rounding_of(values, at, own, rng, *, far: bool = False) -> np.ndarray:
    """The rounding [Q] of a value of f near `at`, which may be a kink: a step aside.

    Args:
        values: points [D] -> f there, [points, Q].
        at: [D], in the dtype that f computes in.
        own: [D], the sizes of its entries.
        rng: of the direction.
        far: look further where it is constant, as stairs are.
    """
    eps = float(np.finfo(at.dtype).eps)
    direction, aside = own * rng.choice([-1.0, 1.0], (2, at.size))  # [D] each
    levels, seen = [], []
    for spacing in (2**6 * eps, np.sqrt(eps) / 16):
        start = at + 16 * np.sqrt(eps) * aside
        y = values(
            [(start + k * spacing * direction).astype(at.dtype) for k in range(8)]
        )
        with np.errstate(all="ignore"):
            levels.append(levels_of(y)[0])
            seen.append(np.ptp(y, axis=0) > CLEAR * levels[-1])
    waves = seen[0] & ~seen[1]  # it is smooth, but not on the larger scale
    found = np.where(waves, levels[0], np.max(levels, axis=0))
    for k in (1, 2, 3) if far else ():
        spacing = 1.2 * np.sqrt(eps) / 16 * 2 ** (5 * k)
        y = values(
            [(start + i * spacing * direction).astype(at.dtype) for i in range(8)]
        )
        with np.errstate(all="ignore"):
            found = np.where(found == 0, levels_of(y)[1], found)
    return np.nan_to_num(found, nan=0.0, posinf=0.0)
