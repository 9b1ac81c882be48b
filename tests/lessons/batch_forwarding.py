"""How each claim of the lesson is made false."""

import numpy as np

FAST = {"seeds": 8, "batch_sizes": (1, 64, 1024)}
SLOW = True
PLANTED = [
    (
        {
            "by_matrices": lambda f: lambda x, w1, w2: f(x - 0.01 * x.mean(0), w1, w2),
            # a clock that stands still for a batch as long as for its rows
            "in_turns": lambda _: (
                lambda calls, turns: np.array(
                    [[len(args[0]) if args else 16 for _, *args in calls]] * turns
                )
            ),
        },
        [
            "A loop over the rows",
            "The output of a row",
            "The gradient of a batch",
            "The largest batch",
        ],
    )
]
