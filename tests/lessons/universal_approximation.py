"""How each claim of the lesson is made false."""

FAST = {"seeds": 8, "widths": (2, 8, 64), "num_steps": 800}
COMPUTING = SLOW = True


def half_as_high(staircase):
    """Stairs that go half as high as the curve."""

    def wrong(*args):
        w, b, c, d = staircase(*args)
        return w, b, c / 2, d

    return wrong


PLANTED = [
    (
        {
            "staircase": half_as_high,
            "CURVES": lambda curves: curves | {"jump": lambda x: 0 * x},
        },
        ["By hand", "At a jump"],
    ),
    (
        {"learn": lambda learn: lambda config, _, *rest: learn(config, 2, *rest)},
        ["Over all widths, the error"],
    ),
]
