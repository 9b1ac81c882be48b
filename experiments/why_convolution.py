"""Why are images not simply given to a fully connected network?

A photo of 1000 x 1000 pixels in 3 colours is 3 million inputs, and each hidden unit has
a weight for every one. A convolution looks at a few pixels at a time (local receptive
field) with the same weights everywhere (shared weights): a dense layer most of whose
weights are 0 and the others equal in groups. It moves when the image moves.

    python experiments/why_convolution.py

Expect a CNN that reads some 86 % of shifted digits after 1,200 examples, where an MLP
of as many parameters reads 62 %, and that is ahead of it after half as many; in about
10 seconds on 2 cores.

Source: course, "Images are different": 64x64x3 = 12,288 inputs, 1000x1000x3 = 3 million
inputs x hidden units; LeCun et al. (1989), Neural Computation 1, 541-551.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from dlworkshop import data, models
from dlworkshop.models.convolution import Conv, convolve
from dlworkshop.report.figures import BAND, COLOURS, band
from dlworkshop.run import experiment
from dlworkshop.run.lesson import Exercise, Figure, Lesson
from dlworkshop.verify import claims

SIDES = (64, 224, 1000)  # of square images with 3 colours, in pixels
UNITS, KERNELS = 1000, 64
CANVAS = 12  # pixels each way; a digit has 8


@dataclass(frozen=True)
class Config(experiment.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 8
    """How many networks of each kind, each with digits and places of its own."""
    sizes: tuple[int, ...] = (150, 300, 600, 1200)
    """Numbers of training examples, each twice the one before."""
    num_steps: int = 400
    """Updates with 32 examples each."""
    learning_rate: float = 0.01
    """Of Adam, for both kinds."""


def by_loops(image, kernel):
    """s_ijf = sum_abc x_(i+a)(j+b)c K_abcf: the same K at every place i, j."""
    (h, w, _, num_kernels), (height, width, _) = kernel.shape, image.shape
    s = np.zeros((height - h + 1, width - w + 1, num_kernels))
    for i, j, f in np.ndindex(s.shape):
        for a, b, c in np.ndindex(kernel.shape[:3]):
            s[i, j, f] += image[i + a, j + b, c] * kernel[a, b, c, f]
    return s


def ties(image_shape, kernel_shape):
    """[inputs, units]: which entry of K is their weight; -1 where there is none."""
    (h, w, _, num_kernels), (height, width, _) = kernel_shape, image_shape
    rows, columns = height - h + 1, width - w + 1
    which = np.full((*image_shape, rows, columns, num_kernels), -1)
    entry = np.arange(np.prod(kernel_shape)).reshape(kernel_shape)
    for i, j in np.ndindex(rows, columns):
        which[i : i + h, j : j + w, :, i, j] = entry  # local, and shared
    return which.reshape(np.prod(image_shape), -1)


def by_matrix(image, matrix):
    return image.ravel() @ matrix  # a dense layer


def by_library(image, kernel):
    return convolve(image, kernel, padding="VALID")


def layer(image, kernel):
    return jnp.tanh(convolve(image, kernel))  # [H, W, F]: zeros around the image


def receptive_field(depth):
    """Pixels each way that a unit sees after `depth` convolutions with pooling."""
    r, stride = 1, 1
    for _ in range(depth):
        r += (3 - 1) * stride  # + (extent - 1) x the product of all strides before
        r, stride = r + (2 - 1) * stride, 2 * stride  # pooling has extent 2, stride 2
    return r


def place(image, where):
    """A digit at row and column `where` of an empty canvas."""
    empty = jnp.zeros((CANVAS, CANVAS, 1))
    return lax.dynamic_update_slice(empty, image / 255, (*where, 0))


def accuracy(model, digits, config, size, key):
    """Of a network that saw `size` digits, each at a random place, on others."""
    keys = jax.random.split(key, 5)
    splits = zip(keys[:2], (digits.train, digits.test), strict=True)
    (seen, label), (unseen, truth) = (
        (
            jax.vmap(place)(
                split.image,
                jax.random.randint(key, (len(split.label), 2), 0, CANVAS - 7),
            ),
            jnp.asarray(split.label),
        )
        for key, split in splits
    )
    chosen = jax.random.permutation(keys[2], len(label))

    def loss(params, index):
        logits = models.predict(model, params, seen[index])
        errors = optax.softmax_cross_entropy_with_integer_labels(logits, label[index])
        return errors.mean()

    def step(state, key):
        params, memory = state
        index = chosen[jax.random.randint(key, (32,), 0, size)]
        updates, memory = adam.update(jax.grad(loss)(params, index), memory)
        return (optax.apply_updates(params, updates), memory), None

    adam = optax.adam(
        optax.cosine_decay_schedule(config.learning_rate, config.num_steps)
    )
    params = model.init(keys[3], seen[0])
    steps = jax.random.split(keys[4], config.num_steps)
    (params, _), _ = lax.scan(step, (params, adam.init(params)), steps)
    return (models.predict(model, params, unseen).argmax(-1) == truth).mean()


NETWORKS = {
    "CNN": models.cnn((8, 16), dense=(24,), pooling=models.max_pool),
    "MLP": models.mlp((32,)),
}


def num_weights(init, shape):
    """Parameters for images of this shape; no image and no weight is ever made."""
    params = jax.eval_shape(init, jax.random.key(0), jnp.zeros(shape, jnp.uint8))
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@jax.enable_x64(True)
def identities(num_draws):
    """A convolution by three roads, its gradient by two, and what a shift does."""
    shapes = (7, 6, 2), (3, 3, 2, 2), (40,), (16, 16, 2)
    which = ties(*shapes[:2])  # [84, 40]

    def draw(key):
        keys = jax.random.split(key, len(shapes))
        return [jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)]

    def shift(image):
        return jnp.roll(image, (1, 2), (0, 1))

    def inner(image):  # 2 pixels of receptive field, 2 of the shift
        return image[4:-4, 4:-4]

    @jax.jit
    @jax.vmap
    def roads(image, kernel, pull, picture):
        matrix = jnp.where(which < 0, 0, kernel.ravel()[which])
        shared = jax.grad(lambda k: by_library(image, k).ravel() @ pull)(kernel)
        each = jax.grad(lambda m: by_matrix(image, m) @ pull)(matrix)  # dL/dM
        places = jnp.where(which < 0, 0, each)
        summed = jnp.zeros(kernel.size).at[which].add(places).reshape(kernel.shape)
        small = kernel / 4  # not too far into the flat ends of tanh

        def deep(image):
            return layer(layer(image, small), small)

        return (
            [by_matrix(image, matrix).reshape(5, 4, 2), by_library(image, kernel)],
            (shared, summed),
            (inner(deep(shift(picture))), inner(shift(deep(picture)))),
        )

    drawn = jax.vmap(draw)(jax.random.split(jax.random.key(0), num_draws))
    found, kernel_gradients, moves = roads(*drawn)
    loops = [by_loops(*d) for d in zip(*map(np.asarray, drawn[:2]), strict=True)]
    return [
        claims.exact(
            "A convolution is a dense layer with shared weights",
            found,
            [np.array(loops)] * 2,
            roundings=18 + 1,
            scale=float(np.abs(loops).max() * 18**0.5),
            why="a sum of 18 products, in three orders",
        ),
        claims.exact(
            "The gradient of a shared weight is the sum over its places",
            *kernel_gradients,
            roundings=20 + 1,
            why="a sum of 20 products, one for each place, in two orders",
        ),
        claims.exact(
            "A shifted image gives shifted features",
            *moves,
            roundings=2 * (18 + 10),
            scale=1.0,
            why="two sums of 18 products, each with a tanh, which is at most 1; at "
            "the borders it cannot hold, so they are left out",
        ),
    ]


def sight(depth, key):
    """|d unit / d pixel| [64, 64] of a central unit of a random network."""
    kernel_key, image_key = jax.random.split(key)
    kernels = jax.random.normal(kernel_key, (depth, 3, 3, 1, 1)) / 3

    def unit(image):
        for kernel in kernels:
            image = models.average_pool(layer(image, kernel))
        return image[image.shape[0] // 2, image.shape[1] // 2, 0]

    return abs(jax.grad(unit)(jax.random.normal(image_key, (64, 64, 1))))[..., 0]


def main(config: Config) -> Lesson:
    """Count, compare, look; then let two kinds of network read shifted digits."""
    shapes = [(side, side, 3) for side in SIDES]
    mlps = np.array([num_weights(models.mlp((UNITS,)).init, s) for s in shapes])
    convs = np.array([num_weights(Conv(KERNELS).init, s) for s in shapes])
    per_unit = (mlps - 10 * UNITS - 10) / UNITS - 1  # less the outputs and the biases

    keys, depths = jax.random.split(jax.random.key(1), config.seeds), (1, 2, 4)
    seen = [np.asarray(jax.jit(jax.vmap(partial(sight, d)))(keys)) for d in depths]
    extents = np.stack([each.any(1).sum(-1) for each in seen], 1)  # [P, depths]
    argued = [receptive_field(depth) for depth in depths]

    digits = data.load("digits")
    sizes, right, weights = jnp.array(config.sizes), {}, {}
    for name, model in NETWORKS.items():
        each_size = jax.vmap(partial(accuracy, model, digits, config), (0, None))
        # seed by seed: what many networks remember would not fit into the cache
        each_seed = jax.jit(partial(lax.map, partial(each_size, sizes)))
        right[name] = np.asarray(each_seed(keys))  # [P, sizes]
        weights[name] = num_weights(model.init, (CANVAS, CANVAS, 1))
    ahead = right["CNN"] - right["MLP"]

    def parameters(axes):
        axes.plot(SIDES, mlps, "o-", color=COLOURS[1], label=f"dense, {UNITS:,} units")
        label = f"convolution, {KERNELS} kernels 3x3"
        axes.plot(SIDES, convs, "o-", color=COLOURS[0], label=label)
        axes.set(xscale="log", yscale="log", ylabel="parameters", ylim=(300, 3e10))
        axes.set_xlabel("side of a square colour image (pixels)")
        axes.set_xticks(SIDES, SIDES)
        axes.legend()

    small = ties((6, 6, 1), (3, 3, 1, 1))

    def tied_matrix(panels):
        for axes, entries in zip(
            panels, (np.arange(9).reshape(3, 3), small), strict=True
        ):
            shown = np.ma.masked_less(entries, 0)
            axes.imshow(shown, "viridis", interpolation="none", aspect="auto")
            axes.grid(visible=False)
        panels[0].set(title="kernel", xticks=range(3), yticks=range(3))
        panels[1].set(title="the dense layer", xlabel="unit", ylabel="pixel")

    def receptive_fields(panels):
        for axes, depth, each in zip(panels, depths, seen, strict=True):
            axes.imshow(each.mean(0), "viridis", interpolation="none")
            axes.set(title=f"convolutions: {depth}", xlabel="pixel")
            axes.grid(visible=False)

    def sample_efficiency(axes):
        for (name, values), colour in zip(right.items(), COLOURS, strict=False):
            label = f"{name}, {weights[name]:,} parameters"
            band(axes, config.sizes, 100 * values, label, colour)
        axes.set(xscale="log", xlabel="training examples", ylabel="test accuracy (%)")
        axes.set_xticks(config.sizes, config.sizes)
        axes.minorticks_off()
        axes.legend(loc="lower right")

    last = [100 * values[:, -1].mean() for values in right.values()]
    return Lesson(
        f"With {config.sizes[-1]:,} shifted digits to learn from a CNN reads "
        f"{last[0]:.1f} % of new ones, an MLP of as many parameters {last[1]:.1f} %",
        claims=[
            claims.bounded(
                "A dense unit has H x W x C weights",
                per_unit - [np.prod(shape) for shape in shapes],
                equal_to=0,
                why="one for each input: 12,288 of 64x64x3, 3 million of 1000x1000x3",
            ),
            claims.bounded(
                "A convolution has as many parameters whatever the image's size",
                convs,
                equal_to=3 * 3 * 3 * KERNELS + KERNELS,
                why="3x3 pixels x 3 colours for each kernel, and its bias",
            ),
            *identities(config.seeds),
            claims.bounded(
                "A unit sees what the formula of the receptive field says",
                extents - argued,
                equal_to=0,
                why="r grows by (extent - 1) x the strides before; measured as the "
                "rows in which the unit's gradient is not 0",
            ),
            claims.bounded(
                "The networks that are compared have as many parameters",
                abs(weights["CNN"] / weights["MLP"] - 1),
                at_most=0.01,
                why="a hundredth more or less decides nothing",
            ),
            claims.greater(
                "The CNN reads more shifted digits, whatever their number",
                ahead.min(1),
                0.0,
                why="what it learns at one place it knows at all; the least of its "
                "leads over the numbers of examples, for each seed",
            ),
            claims.greater(
                "The CNN reads more after half the examples",
                right["CNN"][:, :-1].mean(1),
                right["MLP"][:, 1:].mean(1),
                why="a dense layer meets each digit at 25 places as so many images; "
                "half is asked for, paired by seed",
            ),
        ],
        figures=[
            Figure(
                sample_efficiency,
                f"The CNN with {config.sizes[0]} digits reads "
                f"{100 * right['CNN'][:, 0].mean():.0f} %, the MLP "
                f"{100 * right['MLP'][:, 0].mean():.0f} %; with "
                f"{config.sizes[-1]:,} {last[0]:.0f} % and {last[1]:.0f} %",
                f"Digits of 8x8 pixels at random places of {CANVAS}x{CANVAS}. {BAND}",
            ),
            Figure(
                parameters,
                f"1000 x 1000 pixels: {mlps[-1] / 1e9:.1f} billion parameters in a "
                f"dense layer, {convs[-1]:,} in a convolution",
                "Counted in the real modules, outputs of the dense network included.",
            ),
            Figure(
                tied_matrix,
                f"A convolution is a dense layer: {(small >= 0).sum()} of "
                f"{small.size} weights are not 0, and only {small.max() + 1} differ",
                "An image of 6x6 pixels and one 3x3 kernel. Equal colours: one shared "
                "weight. White: 0.",
                panels=2,
            ),
            Figure(
                receptive_fields,
                f"One convolution with pooling sees {argued[0]} pixels each way, "
                f"{depths[-1]} see {argued[-1]}",
                "Colour, from dark to light: |gradient| of a central unit with respect "
                f"to each pixel, mean of {config.seeds} random networks.",
                panels=len(depths),
            ),
        ],
        exercises=[
            Exercise(
                "Let a digit always lie in the middle: `where` in `place` becomes "
                "(2, 2). What happens to the two curves?",
                "They meet, and the two claims about what the CNN reads fail: weights "
                "shared over places are of little use where there is one place.",
            ),
        ],
        summary={"dataset": "digits", "members": config.seeds},
    )


if __name__ == "__main__":
    experiment.start(main, Config)
