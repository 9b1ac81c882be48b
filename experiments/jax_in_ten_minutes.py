"""What does JAX do with a function?

Five transformations on the network of the course, 6 inputs, 4 hidden units, 1 output:
`jit` compiles it, `grad` differentiates it, `vmap` lifts it to a batch and to a
population, `scan` repeats a training step, and sharding spreads the population over the
devices. Read it from top to bottom; it prints what it does, and each line is checked.

    python experiments/jax_in_ten_minutes.py

Expect 14 statements that hold, in about 16 seconds on 2 cores.

Source: course, "Tutorial of the framework"; the documentation of JAX, docs.jax.dev.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from slides import jax_in_ten_minutes as slides

from dlworkshop.run import experiment
from dlworkshop.run.clock import seconds
from dlworkshop.run.lesson import Lesson
from dlworkshop.verify import check_gradients, claims


@dataclass(frozen=True)
class Config(experiment.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 8
    """Members of the population."""
    num_steps: int = 1000
    """Training steps."""


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
ROUNDED = partial(claims.exact, roundings=60, why="two layers of a few roundings each")
STEPPED = partial(claims.exact, roundings=60 * FEW, why="every step adds its own")


def keys(config, xs, ys):
    """Keys: randomness is an argument, so equal keys draw equal numbers."""
    key = jax.random.key(0)
    yield ROUNDED("Equal keys give equal weights", init(key), init(jax.random.key(0)))
    one, other = (init(k)["w1"] for k in jax.random.split(key))
    apart, why = np.abs(one - other), "numbers drawn from a density are never equal"
    yield claims.bounded("Split keys give others", apart, at_least=1e-12, why=why)


def jit(config, xs, ys):
    """jit: traced once for each shape and dtype, compiled, and then fast."""
    params, traced = init(jax.random.key(0)), []

    def noisy(params, x):
        traced.append(x.shape)  # a side effect happens while tracing, and then no more
        return forward(params, x)

    fast = jax.jit(noisy)
    yield ROUNDED("jit changes no number", fast(params, xs[0]), forward(params, xs[0]))
    fast(params, xs[1])
    counted = partial(claims.bounded, why="one trace for each shape and dtype")
    yield counted("Another value is not traced again", len(traced), equal_to=1)
    fast(params, xs[0].astype(jnp.float32))
    yield counted("Another dtype is", len(traced), equal_to=2)
    turns = [[seconds(f, params, xs[0]) for f in (fast, forward)] for _ in range(10)]
    why = "one call instead of one for each operation; in log2 of the time, in turns"
    yield claims.less("What is compiled is faster", *np.log2(turns).T, why=why)


def grad(config, xs, ys):
    """grad: the function that computes the derivative."""
    params, x = init(jax.random.key(0)), xs[0]
    a = jax.nn.sigmoid(x @ params["w1"])
    by_hand = (forward(params, x) - ys[0]) * a[:, None]  # dL/dW2 = (o - y) a
    grads = jax.grad(loss)(params, x, ys[0])
    yield ROUNDED("grad finds what the chain rule finds", grads["w2"], by_hand)
    report = check_gradients(lambda p: loss(p, x, ys[0]), params)
    yield claims.gradients("Moving each weight a little says the same", report)


def vmap(config, xs, ys):
    """vmap: from one example to a batch, from one model to a population."""
    params = init(jax.random.key(0))
    looped = jnp.stack([forward(params, x) for x in xs])
    batch = jax.vmap(forward, in_axes=(None, 0))(params, xs)
    yield ROUNDED("vmap over examples is a loop, all at once", batch, looped)
    members = jax.random.split(jax.random.key(0), config.seeds)
    population = jax.vmap(init)(members)  # every leaf has a new first axis [P]
    alone = [init(member) for member in members]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    yield ROUNDED("Member i of a population is model i alone", population, stacked)


def scan(config, xs, ys):
    """scan: many steps are one program."""
    key = jax.random.key(0)
    params = init(key)
    for _ in range(FEW):
        params, _ = step(params, None, xs, ys)
    scanned, _ = train(key, xs, ys, FEW)
    yield STEPPED("scan does what the loop does", scanned, params)
    first, last = np.log10(learn(config, xs, ys)[:, [0, -1]]).T
    statement, why = "Every member learns from its teacher", "a tenth of its first loss"
    yield claims.less(statement, last, first, by=1.0, why=f"{why}, in log10")


def sharding(config, xs, ys):
    """Sharding: the same program, spread over the devices."""
    usable = [n for n in range(1, jax.device_count() + 1) if config.seeds % n == 0]
    devices = jax.devices()[: max(usable)]
    mesh = jax.make_mesh((len(devices),), ("member",), devices=devices)
    members = jax.random.split(jax.random.key(0), config.seeds)
    placed = jax.device_put(members, NamedSharding(mesh, PartitionSpec("member")))
    everyone = jax.jit(jax.vmap(lambda key: train(key, xs, ys, FEW)[0]))
    spread, here = everyone(placed), everyone(members)
    held = [shard.data.shape[0] for shard in spread["w1"].addressable_shards]
    share, why = config.seeds // len(devices), "it is a divisor of the members"
    yield claims.bounded("Each device has its share", held, equal_to=share, why=why)
    yield STEPPED("Where a member lives changes nothing", spread, here)


def learn(config, xs, ys):
    """Losses [P, num_steps] of a population: vmap of scan of grad of vmap, jitted."""
    members = jax.random.split(jax.random.key(0), config.seeds)
    everyone = jax.vmap(lambda key: train(key, xs, ys, config.num_steps)[1])
    return np.asarray(jax.jit(everyone)(members))


@jax.enable_x64(True)
def main(config: Config) -> Lesson:
    """One transformation after the other, printed as they are checked."""
    xs = jax.random.normal(jax.random.key(1), (32, 6))
    teacher = init(jax.random.key(2))
    ys = jax.vmap(forward, in_axes=(None, 0))(teacher, xs)
    found = []
    for part in (keys, jit, grad, vmap, scan, sharding):
        print(part.__doc__)
        for claim in part(config, xs, ys):
            found.append(claim)
            print(f"  {claim.verdict}: {claim.statement}")

    sizes = 4 ** np.arange(5)
    runs = jax.jit(jax.vmap(lambda key: train(key, xs, ys, 100)[1][-1]))
    members = [jax.random.split(jax.random.key(0), int(n)) for n in sizes]
    taken = np.array([[seconds(runs, m) for m in members] for _ in range(5)])
    held = sum(claim.verdict == "holds" for claim in found)
    return Lesson(
        f"{held} of {len(found)} statements about keys, jit, grad, vmap, scan and "
        "sharding hold",
        claims=found,
        figures=[
            slides.learning(learn(config, xs, ys)),
            slides.population(sizes, taken),
        ],
        exercises=slides.exercises(),
        summary={"members": config.seeds},
    )


if __name__ == "__main__":
    experiment.start(main, Config)
