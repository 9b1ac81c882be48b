"""How each claim of the lesson is made false."""

FAST = {"seeds": 6, "sizes": (16, 64, 256), "num_epochs": 40, "hidden": 32}
SLOW = True


def all_alike(deal):
    """Every member sees as many examples as the one with the fewest."""
    return lambda config, *rest: deal(config, *rest[:-1], config.sizes[0])


def of_others(deal):
    """What counts as seen is not what was learnt from."""

    def wrong(config, num_examples, seed, size):
        own, _ = deal(config, num_examples, seed, size)
        return own, deal(config, num_examples, seed + 100, size)[1]

    return wrong


PLANTED = [
    ({"deal": all_alike}, ["The more examples"]),
    (
        {"deal": of_others},
        ["Every network memorises", "With the most examples", "With shuffled labels"],
    ),
]
