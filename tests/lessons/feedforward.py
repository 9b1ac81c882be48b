"""How each claim of the lesson is made false."""

FAST = {"seeds": 5, "depth": 3}
PLANTED = [
    (
        {"by_loops": lambda f: lambda x, w: f(x, w) * (1 + 1e-12)},
        ["Matrix products and Flax"],
    ),
    (
        {"sigma": lambda sigma: lambda z: z + 0.01 * z.sum()},
        ["Cutting W_ij", "The more layers"],
    ),
]
