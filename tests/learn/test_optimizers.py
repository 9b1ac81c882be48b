"""One list of checks for every optimizer, and the schedules that multiply them."""

import dataclasses
import functools
import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

from dlworkshop import models
from dlworkshop.errors import UserError
from dlworkshop.learn import optimizers, schedules
from tests import references

OPTIMIZERS = [
    optimizers.sgd,
    optimizers.nesterov,
    optimizers.adamw,
    optimizers.muon,
    optimizers.clipped(optax.adam),
]
CLIP = {"clip_norm": 10.0}


@pytest.fixture(params=OPTIMIZERS, ids=lambda make: make.__name__)
def optimizer(request):
    needs = inspect.signature(request.param).parameters
    more = {name: value for name, value in CLIP.items() if name in needs}
    return functools.partial(request.param, **more)


def descend(optimizer, learning_rate, num_steps=200, **numbers):
    """Minimise |W A - I|^2 + |b - 1|^2, whose minimum is 0."""
    matrix = jnp.array([[2.0, 0.5], [0.0, 1.0]])

    def loss(params):
        residual = params["kernel"] @ matrix - jnp.eye(2)
        return jnp.sum(residual**2) + jnp.sum((params["bias"] - 1) ** 2)

    def step(carry, index):
        params, opt_state = carry
        value, grads = jax.value_and_grad(loss)(params)
        rate = learning_rate * (1 - index / num_steps)
        tx = optimizer(learning_rate=rate, **numbers)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    params = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
    opt_state = optimizer(learning_rate=learning_rate, **numbers).init(params)
    (params, _), _ = jax.lax.scan(step, (params, opt_state), jnp.arange(num_steps))
    return loss(params), params


def test_it_descends(optimizer):
    loss, _ = descend(optimizer, jnp.asarray(0.05))
    assert float(loss) < 1e-3  # from 4 at the start


def test_one_program_serves_every_learning_rate(optimizer):
    traces = []

    @jax.jit
    def run(rate):
        traces.append(1)
        return descend(optimizer, rate, 5)[0]

    losses = [float(run(jnp.asarray(rate))) for rate in (0.01, 0.02, 0.05)]
    assert len(traces) == 1
    assert len(set(losses)) == 3


@pytest.mark.parametrize(
    "make",
    [optimizers.sgd, optimizers.nesterov, optimizers.adamw, optimizers.muon],
    ids=lambda m: m.__name__,
)
def test_weight_decay_acts_on_kernels_only(make):
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones((3, 1, 1))}
    still = jax.tree.map(jnp.zeros_like, params)
    tx = make(learning_rate=jnp.asarray(0.5), weight_decay=jnp.asarray(0.1))
    updates, _ = tx.update(still, tx.init(params), params)
    size = 0.05 * 1.9 if make is optimizers.nesterov else 0.05  # 1 + momentum ahead
    np.testing.assert_allclose(updates["kernel"], np.full((2, 3), -size), rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], np.zeros((3, 1, 1)))


@pytest.mark.parametrize(
    "make",
    [optimizers.sgd, optimizers.adamw, optimizers.muon],
    ids=lambda m: m.__name__,
)
def test_what_is_a_kernel_can_be_said_otherwise(make):
    params = {"kernel": jnp.ones((2, 3)), "table": jnp.ones((3, 3))}
    still = jax.tree.map(jnp.zeros_like, params)
    mask = lambda params: {name: name == "kernel" for name in params}  # noqa: E731
    tx = make(learning_rate=0.5, weight_decay=0.1, mask=mask)
    updates, _ = tx.update(still, tx.init(params), params)
    assert float(jnp.abs(updates["kernel"]).min()) > 0
    np.testing.assert_array_equal(updates["table"], np.zeros((3, 3)))


def test_sgd_is_optaxs_where_nothing_decays():
    for ours, theirs in (
        (optimizers.sgd, optax.sgd),
        (
            functools.partial(optimizers.sgd, momentum=0.8),
            functools.partial(optax.sgd, momentum=0.8),
        ),
        (
            optimizers.nesterov,
            functools.partial(optax.sgd, momentum=0.9, nesterov=True),
        ),
    ):
        found, wanted = (descend(make, 0.02, 9)[1] for make in (ours, theirs))
        jax.tree.map(np.testing.assert_array_equal, found, wanted)


class Attention(nn.Module):
    """Every kind of parameter that has a kernel's rank without being one."""

    @nn.compact
    def __call__(self, tokens):  # [T]
        x = nn.Embed(11, 8, name="embed")(tokens)
        x = x + self.param("position", nn.initializers.zeros, (x.shape[0],))[:, None]
        x = nn.MultiHeadDotProductAttention(num_heads=2, name="attention")(x)
        x = nn.LayerNorm(name="norm")(x)
        return nn.Conv(4, (3,), name="conv")(x)


def test_kernels_of_linen():
    init = jax.eval_shape(Attention().init, jax.random.key(0), jnp.arange(5))
    params = init["params"]
    mask = jax.tree_util.tree_leaves_with_path(optimizers.kernels(params))
    chosen = {jax.tree_util.keystr(path) for path, kernel in mask if kernel}
    assert params["attention"]["query"]["bias"].ndim == 2
    assert chosen == {
        "['attention']['key']['kernel']",
        "['attention']['out']['kernel']",
        "['attention']['query']['kernel']",
        "['attention']['value']['kernel']",
        "['conv']['kernel']",
    }


def test_kernels_of_nnx():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.embed = nnx.Embed(11, 8, rngs=rngs)
            self.layers = nnx.List([nnx.Linear(8, 4, rngs=rngs)])
            self.norm = nnx.BatchNorm(4, rngs=rngs)

    params = nnx.split(Net(nnx.Rngs(0)), nnx.Param, ...)[1]
    for tree in (params, nnx.to_pure_dict(params)):
        mask = jax.tree_util.tree_leaves_with_path(optimizers.kernels(tree))
        assert len(mask) == 5
        (chosen,) = [jax.tree_util.keystr(path) for path, kernel in mask if kernel]
        assert "layers" in chosen
        assert "kernel" in chosen


def test_kernels_of_haiku_of_equinox_and_of_no_library():
    haiku = {
        "linear": {"w": jnp.ones((2, 3)), "b": jnp.ones(3)},
        "embed": {"embeddings": jnp.ones((9, 2))},
        "norm": {"scale": jnp.ones((1, 3)), "offset": jnp.ones((1, 3))},
        "score": {"w": jnp.ones(3)},
    }
    found = optimizers.kernels(haiku)
    assert found["linear"] == {"w": True, "b": False}
    assert found["score"] == {"w": True}
    assert not any(jax.tree.leaves([found["embed"], found["norm"]]))

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Layer:  # with attributes, as Equinox's modules
        weight: jax.Array
        bias: jax.Array

    conv = Layer(jnp.ones((4, 2, 3, 3)), jnp.ones((4, 1, 1)))
    norm = Layer(jnp.ones(4), jnp.ones(4))
    found = optimizers.kernels([conv, norm])
    assert [(layer.weight, layer.bias) for layer in found] == [
        (True, False),
        (False, False),
    ]
    own = {"pos": 0, "pos_embed": 0, "cls": 0, "MaskToken": 0, "emb": 0, "compose": 1}
    found = optimizers.kernels({name: jnp.ones((5, 2)) for name in own})
    assert found == {name: bool(kernel) for name, kernel in own.items()}
    by_hand = [(jnp.ones((2, 3)), jnp.ones(3)), {"theta": jnp.ones((3, 1))}]
    assert optimizers.kernels(by_hand) == [(True, False), {"theta": True}]


class Tokens(eqx.Module):
    """Layers of Equinox whose parameters are all called `weight` and `bias`."""

    table: eqx.nn.Embedding
    patches: eqx.nn.Conv1d
    norms: list

    def __init__(self, key):
        self.table = eqx.nn.Embedding(5, 3, key=key)
        self.patches = eqx.nn.Conv1d(3, 2, 1, key=key)
        bare = eqx.nn.LayerNorm((2, 4), use_weight=False)
        self.norms = [eqx.nn.LayerNorm((2, 4)), eqx.nn.RMSNorm((2, 4)), bare]

    def __call__(self, tokens):  # [4]
        x = self.patches(jax.vmap(self.table)(tokens).T)
        return self.norms[1](self.norms[0](x))


def test_kernels_of_a_model_of_equinox():
    model, tokens = models.from_equinox(Tokens), jnp.arange(4)
    params = model.init(jax.random.key(0), tokens)
    mask = jax.tree_util.tree_leaves_with_path(optimizers.kernels(params))
    chosen = [jax.tree_util.keystr(path) for path, kernel in mask if kernel]
    assert len(mask) == 8 and chosen == ["['patches']['weight']"]
    alone = Tokens(jax.random.key(0))(tokens)
    np.testing.assert_allclose(model.apply(params, tokens), alone, rtol=1e-6)
    table = models.from_equinox(lambda key: eqx.nn.Embedding(5, 3, key=key))
    assert [*table.init(jax.random.key(0), tokens[0])] == ["embedding"]


@pytest.mark.parametrize(
    ("names", "shape", "matrix"),  # [inputs, outputs]
    [
        (("conv", "kernel"), (3, 3, 2, 4), lambda k: k.reshape(18, 4)),
        (("linear", "weight"), (4, 18), lambda k: k.T),
        (("conv", "weight"), (4, 2, 3, 3), lambda k: k.reshape(4, 18).T),
        (("query", "kernel"), (18, 2, 3), lambda k: k.reshape(18, 6)),
        (("value", "kernel"), (18, 2, 3), lambda k: k.reshape(18, 6)),
        (("out", "kernel"), (2, 3, 18), lambda k: k.reshape(6, 18)),
    ],
)
def test_muon_orthogonalises_a_kernel_as_the_matrix_that_it_is(names, shape, matrix):
    outer, inner = names
    grads = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    flat = matrix(grads)
    ours, optaxs = optimizers.muon(jnp.asarray(1.0)), optax.contrib.muon(1.0)
    tree = {outer: {inner: grads}}
    updates, _ = ours.update(tree, ours.init(tree), tree)
    wanted, _ = optaxs.update(flat, optaxs.init(flat), flat)
    # the products are of other layouts: rounding, grown by five iterations
    np.testing.assert_allclose(matrix(updates[outer][inner]), wanted, atol=1e-5)
    singular = np.linalg.svd(wanted, compute_uv=False)
    assert singular.max() / singular.min() < 2.5  # near one common size


@pytest.mark.parametrize("clip_norm", [0.05, 10.0])  # below and above the norm
def test_clipping_is_the_reference(clip_norm):
    rng = np.random.default_rng(0)
    grads = {name: 0.1 * rng.normal(size=(4, 3)) for name in "ab"}
    wanted = references.clip_by_global_norm(grads, clip_norm)
    for dtype, rtol in ((np.float32, 1e-6), (jnp.bfloat16, 2**-7)):
        given = {name: jnp.asarray(grad, dtype) for name, grad in grads.items()}
        tx = optimizers.clipped(optax.sgd)(
            learning_rate=1.0, clip_norm=jnp.float32(clip_norm)
        )
        updates, _ = jax.jit(tx.update)(given, tx.init(given), given)
        for name, update in updates.items():
            assert update.dtype == dtype
            np.testing.assert_allclose(-np.float64(update), wanted[name], rtol=rtol)


def test_the_norm_of_float16_gradients_does_not_overflow():
    grads = {"w": jnp.full(4, 300, jnp.float16)}  # their squares would
    tx = optimizers.clip_by_global_norm(1.0)
    updates, _ = tx.update(grads, tx.init(grads))
    np.testing.assert_allclose(updates["w"], 0.5, rtol=1e-3)


def test_a_clipped_constructor_shows_its_keywords():
    for make in (optax.adam, functools.partial(optax.sgd, nesterov=True)):
        before = inspect.signature(make).parameters
        after = inspect.signature(optimizers.clipped(make)).parameters
        assert {*after} == {*before, "clip_norm"}
        assert after["clip_norm"].default is inspect.Parameter.empty

    def mine(learning_rate, **numbers): ...

    assert [*inspect.signature(optimizers.clipped(mine)).parameters] == [
        "learning_rate",
        "clip_norm",
        "numbers",
    ]
    assert optimizers.clipped(optax.adam).__name__ == "clipped_adam"
    with pytest.raises(UserError, match="already"):
        optimizers.clipped(optimizers.clipped(optax.adam))
    zero = {"w": jnp.zeros(3)}
    tx = optimizers.clipped(optax.sgd)(0.1, clip_norm=1.0)
    assert not tx.update(zero, tx.init(zero))[0]["w"].any()  # and no 0 / 0


SCHEDULES = [schedules.constant, schedules.cosine, schedules.one_cycle]


def test_schedules_stay_in_range_and_end_low():
    for make in SCHEDULES:
        values = jax.vmap(make(50))(jnp.arange(50.0))
        assert float(values.min()) >= 0 and float(values.max()) <= 1 + 1e-6
    assert float(schedules.one_cycle(50)(jnp.asarray(49.0))) < 1e-3
    assert float(schedules.cosine(50)(jnp.asarray(49.0))) < 2e-3
    assert float(schedules.constant(50)(jnp.asarray(49.0))) == 1


def test_a_run_of_one_step_has_a_schedule():
    found = [float(make(1)(jnp.asarray(0.0))) for make in SCHEDULES]
    np.testing.assert_allclose(found, [1, 1, 1 / 25], rtol=1e-6)
    # the way up takes at least one step
    assert float(schedules.one_cycle(2)(jnp.asarray(1.0))) == 1


def test_cosine_is_the_reference():
    for num_steps, warmup in ((30, 6), (30, 0), (7, 3)):
        multiplier = schedules.cosine(num_steps, warmup / num_steps)
        found = jax.vmap(multiplier)(jnp.arange(float(num_steps)))
        wanted = [
            references.warmup_cosine(step, num_steps, warmup)
            for step in range(num_steps)
        ]
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_one_cycle_is_two_half_cosines():
    steps, num_steps = np.arange(40), 40
    for warmup, floor in ((0.3, 1e-4), (0.5, 0.1)):
        top = warmup * num_steps
        up, down = steps / top, (steps - top) / (num_steps - 1 - top)
        rise = 1 / 25 + (1 - 1 / 25) * np.sin(np.pi * up / 2) ** 2
        fall = floor + (1 - floor) * np.cos(np.pi * down / 2) ** 2
        found = jax.vmap(schedules.one_cycle(num_steps, warmup, floor))(steps)
        np.testing.assert_allclose(found, np.where(steps < top, rise, fall), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "numbers"),
    [
        (schedules.cosine, {"warmup": [0.0, 0.05, 0.33, 0.9]}),
        (
            schedules.one_cycle,
            {"warmup": [0.0, 0.3, 0.33, 0.9], "floor": [0, 1e-4, 0.1, 1]},
        ),
    ],
)
def test_members_may_differ_in_the_numbers_of_a_schedule(make, numbers):
    steps = jnp.arange(60.0)

    @jax.jit
    @jax.vmap
    def values(numbers):
        return jax.vmap(make(60, **numbers))(steps)

    found = values({name: jnp.array(each) for name, each in numbers.items()})
    for member in range(4):
        mine = {name: each[member] for name, each in numbers.items()}
        # float32 numbers against Python's: a share of steps is off by 1e-7
        np.testing.assert_allclose(
            found[member], jax.vmap(make(60, **mine))(steps), atol=3e-6
        )
    assert len({row.tobytes() for row in np.asarray(found)}) == 4
