"""How each claim of the lesson is made false."""

FAST = {"seeds": 8, "widths": (2, 8, 64), "num_steps": 800}
COMPUTING = SLOW = True


def half_a_width_late(staircase):
    """Stairs that begin where the curve has already reached their height."""

    def wrong(curve, width):
        w, b, c, d = staircase(curve, width)
        return w, b - w / 2 / width, c, d

    return wrong


PLANTED = [
    (
        {
            "staircase": half_a_width_late,
            "CURVES": lambda curves: curves | {"jump": lambda x: 0 * x},
        },
        ["By hand", "At a jump"],
    ),
    (
        {"learn": lambda learn: lambda config, _, *rest: learn(config, 2, *rest)},
        ["Over all widths, the error"],
    ),
]
