"""What does JAX do with a function?

Five transformations are applied to the network of the course, with 6 inputs, 4 hidden
units and 1 output: `jit` compiles it, `grad` differentiates it, `vmap` lifts it to a
batch and to a population, `scan` repeats a training step, and sharding spreads the
population over the devices. Read the script from top to bottom; it prints each
statement and checks it.

    python experiments/jax_in_ten_minutes.py

Expect all 14 statements to hold, in about 16 seconds on 2 cores.

Source: course, "Tutorial of the framework"; the documentation of JAX, docs.jax.dev.
"""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from slides import jax_in_ten_minutes as slides

from dlworkshop import workshop
from dlworkshop.types import Claim
from dlworkshop.verify import check_gradients, claims
from dlworkshop.workshop.lesson import Figure, Lesson, check_settings
from dlworkshop.workshop.timing import in_turns


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 8
    """Number of members of the population."""
    num_steps: int = 1000
    """Number of training steps."""


def init(key):
    """Weights of a 6-4-1 network; randomness is an argument."""
    w1_key, w2_key = jax.random.split(key)
    w1, w2 = jax.random.normal(w1_key, (6, 4)), jax.random.normal(w2_key, (4, 1))
    return {"w1": w1, "w2": w2}


def forward(params, x):
    """A pure function of ONE example: x [6] -> []."""
    return (jax.nn.sigmoid(x @ params["w1"]) @ params["w2"])[0]


def loss(params, x, y):
    return (forward(params, x) - y) ** 2 / 2


def batch_loss(params, xs, ys):
    """vmap lifts the loss of one example to a batch [B, 6], [B]."""
    return jax.vmap(loss, in_axes=(None, 0, 0))(params, xs, ys).mean()


def step(params, _, xs, ys):
    """A step of gradient descent as scan wants it: state, input -> state, output."""
    value, grads = jax.value_and_grad(batch_loss)(params, xs, ys)
    return jax.tree.map(lambda p, g: p - g, params, grads), value


def train(key, xs, ys, num_steps):
    """scan makes a whole run one program: params, losses [num_steps]."""
    return jax.lax.scan(partial(step, xs=xs, ys=ys), init(key), length=num_steps)


FEW = 20  # steps
ROUNDED = partial(
    claims.equal_up_to_rounding,
    roundings=60,
    why="two layers with a few dozen roundings each",
)
STEPPED = partial(
    claims.equal_up_to_rounding,
    roundings=60 * FEW,
    why="every step adds its own roundings",
)
COUNTED = partial(claims.bounded, why="one trace for each shape and dtype")


def tutorial(config):  # noqa: PLR0915 (it is read from top to bottom)
    """Statements to print, each followed by its claims and figures."""
    key, x_key, teacher_key = (jax.random.key(seed) for seed in range(3))
    xs = jax.random.normal(x_key, (32, 6))
    ys = jax.vmap(partial(forward, init(teacher_key)))(xs)  # outputs of the teacher
    params, x, y = init(key), xs[0], ys[0]

    yield "Keys: randomness is an argument, so equal keys draw equal numbers."
    yield ROUNDED("Equal keys give equal weights", params, init(jax.random.key(0)))
    one, other = (init(k)["w1"] for k in jax.random.split(key))
    apart, why = np.abs(one - other), "numbers drawn from a density are never equal"
    yield claims.bounded(
        "Split keys give other weights", apart, at_least=1e-12, why=why
    )

    yield "jit: traced once for each shape and dtype, compiled, and then fast."
    traced = []

    def noisy(params, x):
        traced.append(x.shape)  # a side effect happens only while tracing
        return forward(params, x)

    fast = jax.jit(noisy)
    yield ROUNDED("jit changes no number", fast(params, x), forward(params, x))
    fast(params, xs[1])
    yield COUNTED("Another value is not traced again", len(traced), equal_to=1)
    fast(params, x.astype(jnp.float32))
    yield COUNTED("Another dtype is traced again", len(traced), equal_to=2)
    quick, slow = in_turns([(f, params, x) for f in (fast, forward)], 10).T
    why = "one call instead of one for each operation"
    yield claims.turns("Compiled code is faster", slow / quick, above=1, why=why)

    yield "grad: the function that computes the derivative."
    a = jax.nn.sigmoid(x @ params["w1"])
    by_hand = (forward(params, x) - y) * a[:, None]  # dL/dW2 = (o - y) a
    grads = jax.grad(loss)(params, x, y)
    yield ROUNDED("grad computes what the chain rule says", grads["w2"], by_hand)
    report = check_gradients(lambda p: loss(p, x, y), params)
    yield claims.gradients("Central differences agree with grad", report)

    yield "vmap: from one example to a batch, from one model to a population."
    looped = jnp.stack([forward(params, x) for x in xs])
    batch = jax.vmap(forward, in_axes=(None, 0))(params, xs)
    yield ROUNDED("vmap over examples computes what a loop computes", batch, looped)
    members = jax.random.split(key, config.seeds)
    population = jax.vmap(init)(members)  # every leaf has a new first axis [P]
    alone = [init(member) for member in members]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    yield ROUNDED("Member i of a population equals model i alone", population, stacked)
    runs = jax.jit(jax.vmap(lambda key: train(key, xs, ys, 100)[1][-1]))
    sizes = 4 ** np.arange(5)
    drawn = [jax.random.split(key, int(size)) for size in sizes]
    taken = in_turns([(runs, keys) for keys in drawn], 5)
    yield slides.population(sizes, taken)

    yield "scan: many steps are one program."
    stepped = params
    for _ in range(FEW):
        stepped, _ = step(stepped, None, xs, ys)
    scanned, _ = train(key, xs, ys, FEW)
    yield STEPPED("scan computes what the loop computes", scanned, stepped)
    whole = jax.jit(jax.vmap(lambda key: train(key, xs, ys, config.num_steps)[1]))
    losses = np.asarray(whole(members))  # [P, num_steps]: vmap of scan of grad of vmap
    first, last = np.log10(losses[:, [0, -1]]).T
    statement, why = "Every member learns from its teacher", "a tenth of its first loss"
    yield claims.less(statement, last, first, by=1.0, why=f"at most {why}, in log10")
    yield slides.learning(losses)

    yield "Sharding: the same program, spread over the devices."
    count = math.gcd(jax.device_count(), config.seeds)
    mesh = jax.make_mesh((count,), ("member",), devices=jax.devices()[:count])
    placed = jax.device_put(members, NamedSharding(mesh, PartitionSpec("member")))
    everyone = jax.jit(jax.vmap(lambda key: train(key, xs, ys, FEW)[0]))
    spread, here = everyone(placed), everyone(members)
    held = [shard.data.shape[0] for shard in spread["w1"].addressable_shards]
    share, why = config.seeds // count, "the number of devices divides the members"
    yield claims.bounded("Each device has its share", held, equal_to=share, why=why)
    yield STEPPED("Where a member lives changes nothing", spread, here)


@jax.enable_x64(True)
def main(config: Config) -> Lesson:
    """Check one transformation after the other, and print the statements."""
    check_settings(config, seeds=claims.LEAST_SEEDS, num_steps=1)
    said = []
    for part in tutorial(config):
        said.append(part)
        if isinstance(part, str):
            print(part)
        elif isinstance(part, Claim):
            print(f"  {part.verdict}: {part.statement}")
    found = [part for part in said if isinstance(part, Claim)]
    held = sum(claim.verdict == "holds" for claim in found)
    return Lesson(
        f"{held} of {len(found)} statements about keys, jit, grad, vmap, scan and "
        "sharding hold",
        claims=found,
        figures=[part for part in said if isinstance(part, Figure)],
        exercises=slides.exercises(),
        summary={"members": config.seeds},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
