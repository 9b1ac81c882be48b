"""How each claim of the lesson is made false."""

import jax

SLOW = True
FAST = {"members": (1, 8)}


def copies(_):
    """A compiler that repeats each network, whatever it is given, and at once."""

    def compiled(lift, params, batches):
        numbers = sum(leaf.size for leaf in jax.tree.leaves(params))
        return numbers * 1e-15, numbers

    return compiled


def short(compiled):
    """Programs of which only the signature is looked at."""

    def wrong(lift, params, batches):
        return 1.0, len(jax.tree.leaves(params))

    return wrong


def still(in_turns):
    """A clock that stands still when programs run."""

    def wrong(calls, turns, take=lambda *call: 1.0):
        return in_turns(calls, turns, take)

    return wrong


PLANTED = [
    (
        # and a clock that stands still
        {"compiled": copies, "in_turns": still},
        ["Side by side, a", "Compiling a", "Written out, the", "One short"],
    ),
    ({"compiled": short}, ["Written out, it"]),
]
