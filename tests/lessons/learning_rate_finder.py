"""How each claim of the lesson is made false."""

FAST = {"seeds": 10, "num_rates": 11, "num_steps": (20, 60)}


def ascending(descend):
    """Every update makes the loss larger, and a small rate the least so."""

    def wrong(loss, *rest):
        return descend(lambda *args: -loss(*args), *rest)

    return wrong


PLANTED = [
    (
        {"descend": ascending},
        ["Fresh seeds learn more at the suggested rate than at a tenth", "With more"],
    ),
    (
        {"descend": lambda _: lambda loss, w, optimizer, batches: (w, None)},
        ["Fresh seeds learn more at the suggested rate than at ten"],
    ),
]
