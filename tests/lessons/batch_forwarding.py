"""How each claim of the lesson is made false."""

FAST = {"seeds": 8, "batch_sizes": (1, 64, 1024)}
PLANTED = [
    (
        {
            "by_matrices": lambda f: lambda x, w1, w2: f(x - 0.01 * x.mean(0), w1, w2),
            # a clock that stands still for a batch as long as for its rows
            "seconds": lambda f: lambda g, *args: float(len(args[0])) if args else 16.0,
        },
        [
            "A loop over the rows",
            "The output of a row",
            "The gradient of a batch",
            "The largest batch",
        ],
    )
]
