"""How each claim of the lesson is made false."""

from types import SimpleNamespace

FAST = {"seeds": 8, "num_steps": 150}
COMPUTING = SLOW = True


def curved(network):
    """A network that is given the product of its inputs needs no bend."""
    return lambda *args: network(*args) - 99 * args[-1][0] * args[-1][1]


PLANTED = [
    (
        {
            "ACTIVATIONS": lambda a: a | {"no activation": lambda z: z + 1e-9 * z**2},
            "network": curved,
        },
        [
            "Three layers",
            "Without a bend",
            "A single unit that only rises",
        ],
    ),
    (
        {
            "ACTIVATIONS": lambda a: dict.fromkeys(a, lambda z: z),
            "toy": lambda toy: SimpleNamespace(xor=toy.rings),
        },
        ["With ", "A single unit that dips", "One unit that folds"],
    ),
]
