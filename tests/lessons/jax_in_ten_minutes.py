"""How each statement is made false."""

import itertools

import jax
import jax.numpy as jnp

SLOW = True
FAST = {"seeds": 8, "num_steps": 100}
draws = itertools.count()


class Broken:
    """A module with some of its functions replaced."""

    def __init__(self, **wrong):
        self.wrong = wrong

    def __call__(self, original):
        self.original = original
        return self

    def __getattr__(self, name):
        return self.wrong.get(name) or getattr(self.original, name)


def off(transform):
    """The transformed function is a little wrong."""

    def wrong(function, *args, **kwargs):
        right = transform(function, *args, **kwargs)
        return lambda *a: jax.tree.map(lambda leaf: leaf * (1 + 1e-9), right(*a))

    return wrong


def careless(init):
    """Draws that do not depend on the key, but on when they are made."""

    def wrong(key):
        now = jax.random.fold_in(jax.random.key(0), next(draws))
        return jax.tree.map(lambda w: w + 0 * init(key)["w1"].sum(), init(now))

    return wrong


def half_hidden(loss):
    """Moves with the weights by a little that autodiff does not see."""
    return lambda p, x, y: loss(p, x, y) + 1e-6 * jax.lax.stop_gradient(p["w1"]).sum()


def frozen(step):
    return lambda params, i, xs, ys: (params, step(params, i, xs, ys)[1])


def same_key(key, num=2):
    return jnp.stack([key] * num)


def elsewhere(keys, _):
    return jax.random.split(jax.random.key(9), len(keys))


def still(calls, turns):
    """A clock that stands still."""
    return jnp.ones((turns, len(calls)))


PLANTED = [
    (
        {
            "jax": Broken(jit=off(lambda f: f), grad=off(jax.grad)),
            "init": careless,
            "in_turns": lambda _: still,
        },
        [
            "Equal keys",
            "jit changes",
            "Another value",
            "Another dtype",
            "Compiled code",
            "grad computes",
            "Member i",
            "scan computes",
        ],
    ),
    (
        {
            "jax": Broken(
                vmap=off(jax.vmap),
                device_put=elsewhere,
                random=Broken(split=same_key)(jax.random),
            ),
            "loss": half_hidden,
            "in_turns": lambda _: still,
            "step": frozen,
        },
        [
            "Split keys",
            "Central differences",
            "vmap over examples",
            "Every member learns",
            "Each device",
            "Where a member",
        ],
    ),
]
