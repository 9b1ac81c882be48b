"""Why are images not simply given to a fully connected network?

A photo of 1000 x 1000 pixels in 3 colours is 3 million inputs, and each hidden unit has
a weight for every one: 3 billion for 1,000 units, where 64 kernels of 3x3 have 1,792.
A convolution looks at a few pixels at a time (local receptive field) with the same
weights everywhere (shared weights). It is a dense layer most of whose weights are 0 and
the others equal in groups, and it moves when the image moves. A CNN and an MLP of as
many parameters learn digits that lie anywhere, each at the rate that validation chose.

    python experiments/why_convolution.py

Expect a CNN that reads some 85 % of shifted digits after 1,200 examples, where the MLP
reads 67 %, and that is ahead of it after half as many; in about 40 seconds on 2 cores.

Source: course, "Images are different": 64x64x3 = 12,288 inputs, 1000x1000x3 = 3 million
inputs x hidden units; LeCun et al. (1989), Neural Computation 1, 541-551.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlworkshop import data, losses, metrics, models
from dlworkshop.data import toy
from dlworkshop.learn.chunk import gather
from dlworkshop.learn.descent import batch_mean, descend
from dlworkshop.models.convolution import Conv, convolve
from dlworkshop.report.figures import BAND
from dlworkshop.report.lesson_figures import curves, picture
from dlworkshop.run import experiment
from dlworkshop.run.lesson import Exercise, Figure, Lesson, crossed
from dlworkshop.verify import claims


@dataclass(frozen=True)
class Config(experiment.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 8
    """How many networks of each kind, each with digits and places of its own."""
    sizes: tuple[int, ...] = (150, 300, 600, 1200)
    """Numbers of training examples, each twice the one before."""
    learning_rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)
    """Of Adam; validation chooses one for each kind and number of examples."""
    num_steps: int = 400
    """Updates with 32 examples each."""


CANVAS = 12  # digits of 8 x 8 lie anywhere on 12 x 12
NETWORKS = {
    "CNN": models.cnn((8, 16), dense=(24,), pooling=models.max_pool),
    "MLP": models.mlp((32,)),
}


def num_weights(init, shape):
    """Parameters for images of this shape; no image and no weight is ever made."""
    image = jnp.zeros(shape, jnp.uint8)
    return models.num_params(jax.eval_shape(init, jax.random.key(0), image))


def by_loops(x, kernel):
    """s_ijf = sum_abc x_(i+a)(j+b)c K_abcf: the same K at every place i, j."""
    h, w, _, num_kernels = kernel.shape
    s = np.zeros((len(x) - h + 1, len(x[0]) - w + 1, num_kernels))
    for i, j, f in np.ndindex(s.shape):
        for a, b, c in np.ndindex(kernel.shape[:3]):
            s[i, j, f] += x[i + a, j + b, c] * kernel[a, b, c, f]
    return s


def tied(kernel, shape):
    """W [inputs, units] of the dense layer x W that is this convolution."""
    h, w, _, num_kernels = kernel.shape
    rows, columns = shape[0] - h + 1, shape[1] - w + 1
    matrix = np.zeros((*shape, rows, columns, num_kernels))
    for i, j in np.ndindex(rows, columns):
        matrix[i : i + h, j : j + w, :, i, j] = kernel  # local, and shared
    return matrix.reshape(np.prod(shape), -1)


def layer(x, kernel):
    return jnp.tanh(convolve(x, kernel))  # [H, W, F]: zeros around the image


def receptive_field(depth):
    """Pixels each way that a unit sees after `depth` convolutions with pooling."""
    r, stride = 1, 1
    for _ in range(depth):
        r += (3 - 1) * stride  # + (extent - 1) x the product of all strides before
        r, stride = r + (2 - 1) * stride, 2 * stride  # pooling has extent 2, stride 2
    return r


def sight(depth, key):
    """|d unit / d pixel| [64, 64] of a central unit of a random network."""
    kernel_key, image_key = jax.random.split(key)

    def unit(x):
        for kernel in jax.random.normal(kernel_key, (depth, 3, 3, 1, 1)) / 3:
            x = models.average_pool(layer(x, kernel))
        return x[len(x) // 2, len(x) // 2, 0]

    return abs(jax.grad(unit)(jax.random.normal(image_key, (64, 64, 1))))[..., 0]


@jax.enable_x64(True)
def identities():
    """A convolution by three roads, and what a shift of the image does to it."""
    rng, shapes = np.random.default_rng(0), [(7, 6, 2), (3, 3, 2, 2), (16, 16, 2)]
    x, kernel, large = (rng.normal(size=shape) for shape in shapes)
    s = by_loops(x, kernel)  # [5, 4, 2]
    dense = (x.ravel() @ tied(kernel, x.shape)).reshape(s.shape)

    moved = partial(jnp.roll, shift=(1, 2), axis=(0, 1))
    features = partial(layer, kernel=kernel / 18)  # where tanh is not flat
    inner = slice(3, -3)  # 1 pixel of receptive field, 2 of the shift
    shapes = [(side, side, 3) for side in (64, 224, 1000)]
    kinds = models.mlp((1000,)), Conv(64)  # hidden units and 10 classes; kernels
    counted = [[num_weights(kind.init, shape) for shape in shapes] for kind in kinds]
    dense_counts = (np.prod(shapes, 1) + 1) * 1000 + (1000 + 1) * 10
    return [
        claims.exact(
            "A dense layer grows with the image, a convolution does not",
            np.array(counted),
            np.array([dense_counts, [(3 * 3 * 3 + 1) * 64] * 3]),
            roundings=0,
            why="a unit has H x W x C weights, 12,288 or 3 million, and a bias; a "
            "kernel 3x3 pixels x 3 colours, and a bias",
        ),
        claims.exact(
            "A convolution is a dense layer with shared weights",
            [dense, convolve(x, kernel, padding="VALID")],
            [s, s],
            roundings=18 + 1,
            scale=by_loops(abs(x), abs(kernel)).max(),
            why="a sum of 18 products, in three orders; scale: the sum of their sizes",
        ),
        claims.exact(
            "A shifted image gives shifted features",
            features(moved(large))[inner, inner],
            moved(features(large))[inner, inner],
            roundings=18 + 10,
            scale=1.0,
            why="a sum of 18 products, some 1 together, and its tanh; at the borders "
            "it cannot hold, so they are left out",
        ),
    ]


def scores(model, config, rate, size, key, train, *others):
    """Shares of the other splits that a network reads which saw `size` digits."""
    init_key, order_key = jax.random.split(key)
    order = jax.random.randint(order_key, (config.num_steps, 32), 0, size)  # [T, B]
    loss, share = (
        batch_mean(model, f) for f in (losses.cross_entropy, metrics.accuracy)
    )
    adam = optax.adam(optax.cosine_decay_schedule(rate, config.num_steps))
    start = model.init(init_key, train.image[0])
    params, _ = descend(loss, start, adam, gather(train, order))
    return jnp.stack([share(params, split) for split in others])


def sample_efficiency(model, config):
    """Shares read of the test split [P, sizes], at the rates that validation chose."""
    rates, sizes = np.array(config.learning_rates), np.array(config.sizes)
    all_rates, found = crossed(partial(scores, model, config)), []
    for seed in range(config.seeds):  # more at once would not fit into the cache
        splits = [toy.scattered(s, CANVAS, seed) for s in data.load("digits")[:3]]
        found.append(all_rates(rates, sizes, jax.random.key(seed), *splits))
    validation, test = np.moveaxis(np.array(found), -1, 0)  # [P, rates, sizes] each
    best = validation.mean(0).argmax(0)  # [sizes]
    return test[:, best, range(len(sizes))], rates[best]


def main(config: Config) -> Lesson:
    """Count, compare, look; then let two kinds of network read shifted digits."""
    keys, depths = jax.random.split(jax.random.key(0), config.seeds), (1, 2, 4)
    seen = [np.array(jax.jit(jax.vmap(partial(sight, d)))(keys)) for d in depths]
    argued = [receptive_field(depth) for depth in depths]
    sizes = {k: num_weights(m.init, (CANVAS, CANVAS, 1)) for k, m in NETWORKS.items()}
    found = {name: sample_efficiency(m, config) for name, m in NETWORKS.items()}
    (cnn, cnn_rates), (mlp, mlp_rates) = found.values()  # [P, sizes]
    small = tied(np.arange(1, 10).reshape(3, 3, 1, 1), (6, 6, 1))

    def reads(axes):
        names = [f"{name}, {number:,} parameters" for name, number in sizes.items()]
        right = dict(zip(names, (100 * cnn, 100 * mlp), strict=True))
        looks = {"xlabel": "training examples", "ylabel": "test accuracy (%)"}
        curves(axes, config.sizes, right, xscale="log", **looks)

    def tied_matrix(axes):
        shown = np.where(small, small, np.nan)
        picture(axes, shown, "W of the dense layer", "viridis", aspect="auto")

    def receptive_fields(axes):
        means = [each.mean(0) / each.mean(0).max() for each in seen]
        picture(axes, np.stack(means), "after 1, 2 and 4 convolutions", "viridis")

    return Lesson(
        f"With {config.sizes[-1]:,} shifted digits to learn from, a CNN reads "
        f"{cnn[:, -1].mean():.0%} of new ones, an equal MLP {mlp[:, -1].mean():.0%}",
        claims=[
            *identities(),
            claims.bounded(
                "A unit sees what the formula of the receptive field says",
                np.stack([each.any(1).sum(-1) for each in seen], 1) - argued,
                equal_to=0,
                why="measured as the rows in which the unit's gradient is not 0",
            ),
            claims.bounded(
                "The networks that are compared have as many parameters",
                abs(sizes["CNN"] / sizes["MLP"] - 1),
                at_most=0.01,
                why="a hundredth more or less decides nothing",
            ),
            claims.greater(
                "The CNN reads more shifted digits, whatever their number",
                (cnn - mlp).min(1),
                0.0,
                why="what it learns at one place it knows at all; the least of its "
                "leads over the numbers of examples, for each seed",
            ),
            claims.greater(
                "With half the examples the CNN reads more, whatever their number",
                (cnn[:, :-1] - mlp[:, 1:]).min(1),
                0.0,
                why="a dense layer meets each digit at 25 places as so many images; "
                "half is asked for, and the least of the leads of each seed counts",
            ),
        ],
        figures=[
            Figure(
                "reads",
                reads,
                f"After {config.sizes[0]} examples the CNN reads "
                f"{cnn[:, 0].mean():.0%}, the MLP {mlp[:, 0].mean():.0%}",
                f"Digits of 8x8 pixels anywhere on {CANVAS}x{CANVAS}; rates of the CNN "
                f"{cnn_rates.tolist()}, of the MLP {mlp_rates.tolist()}. {BAND}",
            ),
            Figure(
                "tied_matrix",
                tied_matrix,
                f"A convolution is a dense layer: {np.count_nonzero(small)} of "
                f"{small.size} weights are not 0, and only 9 differ",
                "An image of 6x6 pixels and one 3x3 kernel. Equal colours: one shared "
                "weight; white: 0. A row: a pixel. A column: a unit.",
            ),
            Figure(
                "receptive_fields",
                receptive_fields,
                f"One convolution with pooling sees {argued[0]} pixels each way, "
                f"{depths[-1]} see {argued[-1]}",
                "Images of 64x64 pixels. Light: |gradient| of a central unit with "
                f"respect to a pixel, mean of {config.seeds} random networks.",
            ),
        ],
        exercises=[
            Exercise(
                "Let each digit lie in the middle: instead of `toy.scattered(...)`, "
                "`s._replace(image=toy.placed(s.image, 2, 2, CANVAS))`. What happens "
                "to the two curves?",
                "They change places, 98 % of the MLP to 97 %, and the claims about "
                "what the CNN reads fail: weights shared over places are of little "
                "use where there is one place.",
            ),
        ],
        summary={"dataset": "digits", "members": config.seeds},
    )


if __name__ == "__main__":
    experiment.start(main, Config)
