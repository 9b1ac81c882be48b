"""How each claim of the lesson is made false."""

SLOW = True
FAST = {"seeds": 5, "num_rates": 9, "num_epochs": 27}
COMPUTING = True


def upside_down(halve):
    """The worst are kept."""
    return lambda losses, *by: halve(-losses, *by)


def generous(halve):
    """Half of the settings are kept, of however many there should be."""
    return lambda losses, first, factor: halve(losses, first, 2)


def reversed_in_time(agreement):
    """The first rung is the surest."""
    return lambda losses, rungs: agreement(losses, rungs)[::-1]


PLANTED = [
    (
        {"halve": upside_down},
        ["The population that", "Halving finds", "It loses less"],
    ),
    ({"halve": generous, "agreement": reversed_in_time}, ["Halving takes", "At later"]),
]
