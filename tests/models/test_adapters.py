"""Modules of four libraries as models: equal to the library's own calls."""

import functools
import inspect
import re
import subprocess
import sys
import warnings
from pathlib import Path

import equinox as eqx
import flax
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from dlworkshop import models
from dlworkshop.errors import UserError
from dlworkshop.models import BATCH_AXES

ROOT = Path(__file__).parent.parent.parent
KEY = jax.random.key(3)
X = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
IMAGES = np.random.default_rng(1).normal(size=(8, 6, 4, 3)).astype(np.float32)
# float32, sums of at most 8 * 24 terms of size 1, squared in a variance: rounding of
# some 1e-6, seen up to 1e-6; a statistic of another batch is wrong by 1e-1
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def assert_close(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **CLOSE), a, b)


# ----- the same network of dropout and a hyper-parameter, in four libraries -----


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train, *, scale=1.0):
        x = nn.relu(nn.Dense(16)(x))
        x = nn.Dropout(0.5)(x, deterministic=not train)
        return {"logits": scale * nn.Dense(3)(x)}


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(5, 16, rngs=rngs)])
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, x, *, scale=1.0):
        x = self.dropout(nnx.relu(self.layers[0](x)))
        return {"logits": scale * self.head(x)}


class Equinox(eqx.Module):
    layers: list
    dropout: eqx.nn.Dropout
    activation: object

    def __init__(self, key):
        a, b = jax.random.split(key)
        self.layers = [eqx.nn.Linear(5, 16, key=a), eqx.nn.Linear(16, 3, key=b)]
        self.dropout = eqx.nn.Dropout(0.5)
        self.activation = jax.nn.relu

    def __call__(self, x, *, scale=1.0, key=None):
        x = self.dropout(self.activation(self.layers[0](x)), key=key)
        return {"logits": scale * self.layers[1](x)}


def haiku(x, is_training, *, scale=1.0):
    x = jax.nn.relu(hk.Linear(16)(x))
    if is_training:
        x = hk.dropout(hk.next_rng_key(), 0.5, x)
    return {"logits": scale * hk.Linear(3)(x)}


def own_linen(key, x, train_key):
    params = Linen().init(key, x, train=False)
    rngs = None if train_key is None else {"dropout": train_key}
    return Linen().apply(params, x, train=train_key is not None, rngs=rngs)


def own_nnx(key, x, train_key):
    del train_key
    module = Nnx(nnx.Rngs(key))
    module.eval()
    return module(x)


def own_equinox(key, x, train_key):
    module = eqx.nn.inference_mode(Equinox(key), train_key is None)
    return module(x, key=train_key)


def own_haiku(key, x, train_key):
    net = hk.transform(haiku)
    params = net.init(key, x, is_training=True)
    return net.apply(params, train_key, x, is_training=train_key is not None)


MODELS = {
    "linen": (models.from_linen(Linen()), own_linen),
    "nnx": (models.from_nnx(Nnx), own_nnx),
    "equinox": (models.from_equinox(Equinox), own_equinox),
    "haiku": (models.from_haiku(hk.transform(haiku)), own_haiku),
}


@pytest.fixture(params=MODELS)
def adapted(request):
    return MODELS[request.param]


def test_outputs_are_those_of_the_library(adapted):
    model, own = adapted
    assert isinstance(model, models.Model)
    params = model.init(KEY, X[0])
    assert_close(model.apply(params, X[0]), own(KEY, X[0], None))
    if own is not own_nnx:  # whose streams are its own: see below
        key = jax.random.key(8)
        assert_close(model.apply(params, X[0], key=key), own(KEY, X[0], key))


def test_a_key_means_training(adapted):
    model, _ = adapted
    params = model.init(KEY, X[0])
    plain = model.apply(params, X[0])["logits"]
    np.testing.assert_array_equal(plain, model.apply(params, X[0])["logits"])
    keys = jax.random.split(KEY, 3)
    one, two, again = (
        model.apply(params, X[0], key=keys[i])["logits"] for i in (0, 1, 0)
    )
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, two) and not np.allclose(one, plain)
    # and so under vmap: the examples of a batch have masks of their own
    same = jnp.broadcast_to(X[0], (3, 5))
    many = jax.vmap(lambda x, key: model.apply(params, x, key=key))(same, keys)
    np.testing.assert_allclose(many["logits"][:2], [one, two], rtol=1e-5, atol=1e-6)


def test_dropout_keeps_the_mean(adapted):
    model, _ = adapted

    def hidden(params, key):  # through a head which is linear
        return model.apply(params, X[0], key=key)["logits"]

    params = model.init(KEY, X[0])
    many = jax.vmap(hidden, (None, 0))(params, jax.random.split(KEY, 4000))
    plain = model.apply(params, X[0])["logits"]
    # five standard errors
    error = 5 * many.std(0) / 4000**0.5
    assert (jnp.abs(many.mean(0) - plain) < error).all()


def test_params_are_a_plain_tree_of_arrays(adapted):
    model, _ = adapted

    def only_dicts(tree):
        if isinstance(tree, dict):
            assert all(isinstance(name, str) for name in tree)
            return all(map(only_dicts, tree.values()))
        return isinstance(tree, jax.Array) and tree.dtype == jnp.float32

    params = model.init(KEY, X[0])
    assert only_dicts(params) and models.num_params(params) == 6 * 16 + 17 * 3
    assert f"{6 * 16 + 17 * 3}" in models.table(model, X[0])


def test_members_are_stacked_by_vmap(adapted):
    model, _ = adapted
    keys = jax.random.split(KEY, 3)
    many = jax.jit(jax.vmap(model.init, (0, None)))(keys, X[0])
    for i, key in enumerate(keys):
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], many), model.init(key, X))
    outputs = jax.vmap(model.apply, (0, None))(many, X[0])["logits"]
    assert outputs.shape == (3, 3) and not np.allclose(outputs[0], outputs[1])


def test_hyper_parameters_show_through(adapted):
    model, _ = adapted
    params = model.init(KEY, X[0])
    signature = inspect.signature(model.apply)
    assert list(signature.parameters) == ["params", "inputs", "key", "scale"]
    assert signature.parameters["scale"].default == 1.0
    lifted = inspect.signature(models.stateful(model).apply)
    assert list(lifted.parameters) == ["params", "state", "inputs", "key", "scale"]
    twice = jax.jit(lambda s: model.apply(params, X[0], scale=s))(2.0)
    assert_close(twice["logits"], 2 * model.apply(params, X[0])["logits"])
    with pytest.raises(TypeError, match=r"no keyword train \(it takes: scale\)"):
        model.apply(params, X[0], train=True)


def test_gradients_are_central_differences(adapted, assert_gradients):
    model, _ = adapted
    x = jnp.asarray(X[0], float)

    def loss(params):
        return jnp.sum(model.apply(params, x, key=KEY)["logits"] ** 2)

    assert_gradients(loss, model.init(KEY, X[0]))


def test_it_passes_the_door(adapted):
    model, _ = adapted
    params = model.init(KEY, X[0])
    models.check_one_example(model, params, (), X)
    models.check_state(model, params, (), X)


# ----- running statistics: the one-example form against the library's batches -----


class LinenNorm(nn.Module):
    axis_name: object = BATCH_AXES

    @nn.compact
    def __call__(self, x, use_running_average):
        x = nn.Conv(4, (3, 3))(x)
        x = nn.BatchNorm(use_running_average, momentum=0.9, axis_name=self.axis_name)(x)
        return nn.Dense(2)(nn.tanh(x).mean((-3, -2)))


class NnxNorm(nnx.Module):
    def __init__(self, axis_name, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.9, axis_name=axis_name, rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.tanh(self.norm(self.conv(x))).mean((-3, -2)))


class EquinoxNorm(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    head: eqx.nn.Linear

    def __init__(self, axis_name, key):
        a, b = jax.random.split(key)
        self.conv = eqx.nn.Conv2d(3, 4, 3, padding=1, key=a)
        self.norm = eqx.nn.BatchNorm(4, axis_name, momentum=0.9, mode="batch")
        self.head = eqx.nn.Linear(4, 2, key=b)

    def __call__(self, x, state):
        x, state = self.norm(self.conv(jnp.moveaxis(x, -1, 0)), state)
        return self.head(jnp.tanh(x).mean((1, 2))), state


def haiku_norm(axis_name):
    def function(x, is_training):
        x = hk.Conv2D(4, 3)(x)
        x = hk.BatchNorm(True, True, 0.9, cross_replica_axis=axis_name)(x, is_training)
        return hk.Linear(2)(jnp.tanh(x).mean((-3, -2)))

    return hk.transform_with_state(function)


def linen_batch(params, state, x, train):
    module = LinenNorm(None)
    outputs, new = module.apply(
        {"params": params, **state}, x, not train, mutable=["batch_stats"]
    )
    return outputs, dict(new)


def nnx_batch(params, state, x, train):
    module = NnxNorm(None, nnx.Rngs(0))
    for part, values in ((nnx.Param, params), (nnx.BatchStat, state)):
        nnx.update(module, jax.tree.unflatten(
            jax.tree.structure(nnx.state(module, part)), jax.tree.leaves(values)
        ))  # fmt: skip
    (module.train if train else module.eval)()
    outputs = module(x)
    stats = nnx.state(module, nnx.BatchStat)
    return outputs, jax.tree.unflatten(
        jax.tree.structure(state), jax.tree.leaves(stats)
    )


def equinox_batch(params, state, x, train):
    def build():
        return eqx.nn.make_with_state(EquinoxNorm)("b", key=KEY)

    module, index = build()
    arrays, static = eqx.partition(module, eqx.is_inexact_array)
    by_name = [
        params["conv"]["weight"],
        params["conv"]["bias"],
        params["norm"]["weight"],
        params["norm"]["bias"],
        params["head"]["weight"],
        params["head"]["bias"],
    ]
    module = eqx.combine(
        jax.tree.unflatten(jax.tree.structure(arrays), by_name), static
    )
    index = jax.tree.unflatten(jax.tree.structure(index), jax.tree.leaves(state))
    module = eqx.nn.inference_mode(module, not train)
    outputs, index = jax.vmap(
        module, axis_name="b", in_axes=(0, None), out_axes=(0, None)
    )(x, index)
    return outputs, jax.tree.unflatten(
        jax.tree.structure(state), jax.tree.leaves(index)
    )


def haiku_batch(params, state, x, train):
    # Haiku keeps the rank of its inputs in what belongs to their channels
    def ranked(p):
        return p[None] if p.shape == (1, 1, 4) else p

    outputs, new = haiku_norm(None).apply(
        *jax.tree.map(ranked, (params, state)), None, x, is_training=train
    )
    return outputs, jax.tree.map(lambda a, b: a.reshape(b.shape), new, state)


NORMED = {
    "linen": (models.from_linen(LinenNorm()), linen_batch),
    "linen batched": (models.from_linen(LinenNorm(), batched=True), linen_batch),
    "nnx": (models.from_nnx(lambda rngs: NnxNorm(BATCH_AXES, rngs)), nnx_batch),
    "equinox": (
        models.from_equinox(lambda key: EquinoxNorm(BATCH_AXES, key)),
        equinox_batch,
    ),
    "haiku": (models.from_haiku(haiku_norm(BATCH_AXES)), haiku_batch),
    "haiku batched": (
        models.from_haiku(haiku_norm(BATCH_AXES), batched=True),
        haiku_batch,
    ),
}


@pytest.fixture(
    params=[
        # Haiku's own are tried, and batched ones of Linen's
        pytest.param(name, marks=pytest.mark.slow) if name == "haiku batched" else name
        for name in NORMED
    ],
    ids=lambda name: name.replace(" ", "-"),
)
def normed(request):
    return NORMED[request.param]


def over_examples(model):
    """[B, ...] of one device, as the engine lifts a model in training."""
    return jax.vmap(
        lambda p, s, x, key: model.apply(p, s, x, key=key),
        in_axes=(None, None, 0, 0),
        out_axes=(0, None),
        axis_name="example",
    )


def lifted(model, num_devices):
    """The whole batch: an axis "batch" by vmap, or by two devices."""
    examples = over_examples(model)
    if num_devices == 1:
        whole = jax.vmap(
            examples, (None, None, 0, 0), out_axes=(0, None), axis_name="batch"
        )

        def lift(params, state, x, keys):
            outputs, state = whole(params, state, x[None], keys[None])
            return outputs[0], state

        return lift
    mesh = Mesh(np.array(jax.devices()[:num_devices]), ("batch",))
    whole, split = PartitionSpec(), PartitionSpec("batch")
    return jax.shard_map(
        examples,
        mesh=mesh,
        in_specs=(whole, whole, split, split),
        out_specs=(split, whole),
        check_vma=False,
    )


def step(call):
    """(params, ...) -> gradients, outputs, new state of a loss that no shift hides."""

    def loss(params, *arguments):
        outputs, state = call(params, *arguments)
        return jnp.mean(outputs**2), (outputs, state)

    return jax.jit(jax.grad(loss, has_aux=True))


@pytest.mark.slow
def test_batch_norm_is_that_of_the_whole_batch(normed):
    model, batch = normed
    assert isinstance(model, models.StatefulModel)
    begun, fresh = jax.jit(model.init)(KEY, IMAGES[0])
    keys = jax.random.split(KEY, len(IMAGES))
    theirs = step(lambda p, s, x: batch(p, s, x, True))
    for num_devices in (1, 2):
        ours = step(lifted(model, num_devices))
        params, state, other = begun, fresh, fresh
        for _ in range(2):  # the second begins from statistics of the first
            found = ours(params, state, IMAGES, keys)
            wanted = theirs(params, other, IMAGES)
            assert_close(found, wanted)
            grads, (_, state) = found
            other = wanted[1][1]
            params = optax.tree.add_scale(params, -0.1, grads)
        assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads)) > 1e-2
    # with no key the running statistics answer, and stay
    apply = jax.jit(model.apply)
    answer, same = apply(params, state, IMAGES[0])
    expected = jax.jit(lambda *given: batch(*given, False)[0][0])
    np.testing.assert_allclose(answer, expected(params, state, IMAGES), **CLOSE)
    assert_close(same, state)
    assert not np.allclose(answer, apply(params, fresh, IMAGES[0])[0])


@pytest.mark.slow
def test_gradients_inside_the_mesh_are_those_of_the_whole_batch(normed):
    model, batch = normed
    params, state = model.init(KEY, IMAGES[0])
    keys = jax.random.split(KEY, len(IMAGES))
    examples = over_examples(model)

    def on_one_device(params, state, x, keys):
        def loss(params):
            return jnp.mean(examples(params, state, x, keys)[0] ** 2)

        return jax.lax.pmean(jax.grad(loss)(params), "batch")

    whole, split = PartitionSpec(), PartitionSpec("batch")
    mesh = Mesh(np.array(jax.devices()[:2]), ("batch",))
    grads = jax.jit(
        jax.shard_map(
            on_one_device,
            mesh=mesh,
            in_specs=(whole, whole, split, split),
            out_specs=whole,
            check_vma=False,
        )
    )(params, state, IMAGES, keys)
    wanted, _ = step(lambda p, s, x: batch(p, s, x, True))(params, state, IMAGES)
    assert_close(grads, wanted)


@pytest.mark.slow
def test_two_members_have_statistics_of_their_own(normed):
    model, batch = normed
    begin = jax.jit(jax.vmap(model.init, (0, None)))
    members = begin(jax.random.split(KEY, 2), IMAGES[0])
    keys = jax.random.split(KEY, len(IMAGES))
    population = jax.jit(jax.vmap(lifted(model, 1), (0, 0, None, None)))
    both = population(*members, IMAGES, keys)
    for i in range(2):
        params, state = jax.tree.map(lambda leaf, i=i: leaf[i], members)
        found = jax.tree.map(lambda leaf, i=i: leaf[i], both)
        assert_close(found, batch(params, state, IMAGES, True))


def test_statistics_pass_the_door(normed):
    model, _ = normed
    params, state = model.init(KEY, IMAGES[0])
    models.check_one_example(model, params, state, IMAGES)
    models.check_state(model, params, state, IMAGES)


NO_AXIS = {
    "linen": models.from_linen(LinenNorm(None)),
    "nnx": models.from_nnx(lambda rngs: NnxNorm(None, rngs)),
    "haiku": models.from_haiku(haiku_norm(None)),
    "linen, of one device": models.from_linen(LinenNorm("example")),
    "equinox, of one device": models.from_equinox(lambda k: EquinoxNorm("example", k)),
}


@pytest.mark.parametrize("name", NO_AXIS, ids=lambda name: name.replace(", ", "-"))
def test_statistics_of_each_example_are_refused(name):
    model = NO_AXIS[name]
    params, state = model.init(KEY, IMAGES[0])
    with pytest.raises(UserError, match=r"axis_name=models.BATCH_AXES"):
        models.check_state(model, params, state, IMAGES)
    if "device" not in name:  # and where the engine lifts it, with the same sentence
        keys = jax.random.split(KEY, len(IMAGES))
        with pytest.raises(ValueError, match="out_axes") as caught:
            lifted(model, 1)(params, state, IMAGES, keys)
        assert "differs between the examples" in str(models.explain(caught.value))


def test_an_axis_that_is_not_there_is_refused():
    model = models.from_linen(LinenNorm("devices"))
    params, state = model.init(KEY, IMAGES[0])
    with pytest.raises(UserError, match=r"not there .*devices.*: give axis_name=mod"):
        models.check_state(model, params, state, IMAGES)
    assert models.explain(ValueError("another")) is None


def test_a_model_that_looks_at_its_batch_in_evaluation_is_refused():
    call = lambda module, x: module(x, use_running_average=False)  # noqa: E731
    model = models.from_linen(LinenNorm(), call=call, stateful=True)
    params, state = model.init(KEY, IMAGES[0])
    with pytest.raises(UserError, match="looks at its batch without a key"):
        models.check_one_example(model, params, state, IMAGES)


def test_a_state_of_another_form_is_refused():
    model = models.StatefulModel(
        lambda key, x: (jnp.ones(()), jnp.zeros(())),
        lambda params, state, x, *, key=None: (x, jnp.zeros(2)),
    )
    with pytest.raises(UserError, match=r"was float32\[\] and becomes float32\[2\]"):
        models.check_state(model, jnp.ones(()), jnp.zeros(()), X)


class Mean(nn.Module):
    start: object

    @nn.compact
    def __call__(self, x, train):
        mean = self.variable("stats", "mean", lambda: self.start)
        if train:
            mean.value = 0.5 * mean.value + jax.lax.pmean(x.mean(), BATCH_AXES)
        return x


def test_a_state_of_integers_does_not_cut_off_fractions():
    for start in (jnp.zeros(()), jnp.zeros((), jnp.bfloat16)):
        model = models.from_linen(Mean(start))
        params, state = model.init(KEY, X[0])
        models.check_state(model, params, state, X)
    model = models.from_linen(Mean(jnp.array(0)))
    params, state = model.init(KEY, X[0])
    with pytest.raises(UserError, match=r"int32\[\].* and becomes .*float32\[\]"):
        models.check_state(model, params, state, X)


# ----- layers that take the first axis for the batch -----


class Grouped(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.GroupNorm(2)(nn.Conv(4, (3, 3))(x))
        return nn.Dense(3, kernel_init=nn.initializers.zeros)(x.mean((-3, -2)) ** 2)


class Flattened(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x.reshape((x.shape[0], -1)))


class NnxGrouped(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.GroupNorm(3, 3, rngs=rngs)

    def __call__(self, x):
        return self.norm(x) ** 2


def haiku_flat(x):
    return hk.Linear(3)(hk.Flatten()(x))


FOR_BATCHES = {
    "linen GroupNorm": lambda batched: models.from_linen(Grouped(), batched=batched),
    "linen reshape": lambda batched: models.from_linen(Flattened(), batched=batched),
    "nnx GroupNorm": lambda batched: models.from_nnx(NnxGrouped, batched=batched),
    "haiku Flatten": lambda batched: models.from_haiku(
        hk.transform(haiku_flat), batched=batched
    ),
}


@pytest.mark.parametrize("name", FOR_BATCHES, ids=lambda name: name.replace(" ", "-"))
def test_a_module_for_batches_is_refused_unless_batched(name):
    make = FOR_BATCHES[name]
    model = make(False)
    params = model.init(KEY, IMAGES[0])
    with pytest.raises(UserError, match="batched=True"):
        models.check_one_example(model, params, (), IMAGES)
    model = make(True)
    params = model.init(KEY, IMAGES[0])
    models.check_one_example(model, params, (), IMAGES)
    models.check_one_example(model, params, (), IMAGES[:1])
    assert f"{models.num_params(params)}" in models.table(model, IMAGES[0])


class OverTime(nn.Module):
    """Of one example [T, D]; runs on [B, T, D] too, and means something else there."""

    @nn.compact
    def __call__(self, x):
        return nn.softmax(jnp.cumsum(nn.Dense(4)(x), axis=0)[::-1], axis=0)


ONE_EXAMPLE = {
    "over time": models.from_linen(OverTime()),
    "dense": models.from_linen(nn.Dense(3)),
    "convolution": models.from_linen(nn.Conv(3, (3, 3))),
    "layer norm": models.from_linen(nn.LayerNorm()),
    "ours": models.cnn((4,), (5,)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_EXAMPLE, ids=lambda name: name.replace(" ", "-"))
def test_a_module_of_one_example_passes(name):
    model = ONE_EXAMPLE[name]
    inputs = IMAGES if name in ("convolution", "ours") else IMAGES[..., 0]
    params = model.init(KEY, inputs[0])
    models.check_one_example(model, params, (), inputs)
    models.check_one_example(model, params, (), inputs[:1])


def test_batched_answers_are_the_librarys():
    model = models.from_linen(Grouped(), batched=True)
    assert model.config == {"name": "Grouped", "batched": True}
    params = Grouped().init(KEY, IMAGES)["params"]
    params = jax.tree.map(lambda p: p + 0.1, params)
    np.testing.assert_allclose(
        models.predict(model, params, IMAGES),
        Grouped().apply({"params": params}, IMAGES),
        **CLOSE,
    )


def test_a_module_that_drops_the_batch_is_refused():
    model = models.from_linen(
        nn.Dense(3), batched=True, call=lambda module, x: module(x)[0]
    )
    params = model.init(KEY, X[0])
    with pytest.raises(UserError, match=r"shape \(3,\), wanted \[1, ...\]"):
        model.apply(params, X[0])


# ----- how Linen modules say that they train -----


class Drop(nn.Module):
    @nn.compact
    def __call__(self, x, drop):
        return nn.Dropout(0.5, deterministic=not drop)(x)


WORDS = {
    "train": lambda module, x, train: module(x, train),
    "training": lambda module, x, *, training=True: module(x, training),
    "is_training": lambda module, x, is_training=True: module(x, is_training),
    "deterministic": lambda module, x, deterministic: module(x, not deterministic),
    "use_running_average": lambda m, x, use_running_average: m(
        x, not use_running_average
    ),
    "key": lambda module, x, *, key=None: module(x, key is not None),
}


@pytest.mark.parametrize("word", WORDS)
def test_linen_is_told_in_its_own_words(word):
    model = models.from_linen(Drop(), call=WORDS[word])
    ones = jnp.ones(40)
    assert (model.apply({}, ones) == 1).all()
    assert 0 < (model.apply({}, ones, key=KEY) == 0).sum() < 40


class Field(nn.Module):
    deterministic: bool = False
    noise: float = 0.0

    @nn.compact
    def __call__(self, x):
        if self.noise and not self.deterministic:
            x += self.noise * jax.random.normal(self.make_rng("noise"), x.shape)
        return nn.Dropout(0.5, deterministic=self.deterministic)(x)


def test_linen_is_told_by_a_field_and_streams_have_other_names():
    ones = jnp.ones(40)
    model = models.from_linen(Field(noise=0.1))
    assert (model.apply({}, ones) == 1).all()
    one, two = (model.apply({}, ones, key=key) for key in jax.random.split(KEY))
    assert len(set(one.tolist())) > 10 and not np.allclose(one, two)


class Modes(nn.Module):
    @nn.compact
    def __call__(self, x, mode):
        return nn.Dropout(0.5)(x, deterministic=mode == "eval")


def test_what_cannot_be_told_is_an_error_and_a_function_covers_it():
    with pytest.raises(UserError, match=r"'mode' beside the inputs.*call=function"):
        models.from_linen(Modes())
    model = models.from_linen(
        Modes(), call=lambda module, x, train: module(x, "train" if train else "eval")
    )
    ones = jnp.ones(40)
    assert (model.apply({}, ones) == 1).all()
    assert (model.apply({}, ones, key=KEY) == 0).any()
    untold = models.from_linen(nn.Sequential([nn.Dropout(0.5)]))
    with pytest.raises(UserError, match="must be told whether they train"):
        untold.init(KEY, ones)
    always = models.from_linen(Drop(), call=lambda module, x: module(x, drop=True))
    with pytest.raises(UserError, match="random numbers without a key"):
        always.apply({}, ones)


class Encoder(nn.Module):
    @nn.compact
    def encode(self, x, train=False):
        return nn.Dropout(0.5, deterministic=not train)(x)


class NnxEncoder(nnx.Module):
    def encode(self, x, train=False):
        return x


class EquinoxEncoder(eqx.Module):
    def encode(self, x, train=False):
        return x


@pytest.mark.parametrize(
    ("adapt", "module"),
    [
        (models.from_linen, Encoder()),
        (models.from_nnx, NnxEncoder()),
        (models.from_equinox, EquinoxEncoder()),
    ],
)
def test_a_call_is_not_bound_to_its_module(adapt, module):
    adapt(module, call=type(module).encode)
    with pytest.raises(UserError, match=rf"as {type(module).__name__}.encode"):
        adapt(module, call=module.encode)


def test_a_flag_in_other_words_is_refused():
    for flag in ("is_train=False", "enable_dropout=True", "evaluate=False"):
        call = eval(f"lambda module, x, {flag}: module(x)")
        with pytest.raises(UserError, match=f"takes '{flag}', which seems to say"):
            models.from_linen(nn.Dense(3), call=call)
    models.from_linen(nn.Dense(3), call=lambda module, x, interval=True: module(x))


def test_the_config_names_a_call_and_no_address():
    call = functools.partial(WORDS["train"], train=True)
    assert models.from_linen(Drop(), call=call).config["call"] == "<lambda>"


class Hidden(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        make = getattr(nn, "Batch" + "Norm")  # which no reader of code can find
        return make(use_running_average=not train, axis_name=BATCH_AXES)(x)


def test_state_that_was_not_found_is_asked_for():
    model = models.from_linen(Hidden())
    with pytest.raises(UserError, match=r"keeps batch_stats .*stateful=True"):
        model.init(KEY, X[0])
    model = models.from_linen(Hidden(), stateful=True)
    params, state = model.init(KEY, X[0])
    assert set(state) == {"batch_stats"}
    models.check_state(model, params, state, X)


def norm_function(x, train):
    return nn.BatchNorm(not train)(x)


class ByFunction(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return norm_function(x, train)


class ByPackage(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return jax.nn.relu(flax.linen.BatchNorm(not train)(x))


class Counter(nn.Module):
    @nn.compact
    def __call__(self, x):
        count = self.variable("counts", "steps", lambda: jnp.zeros(()))
        if not self.is_initializing() and self.is_mutable_collection("counts"):
            count.value += 1
        return nn.Dense(2)(x)


class Outer(nn.Module):
    inner: object = Counter

    @nn.compact
    def __call__(self, x):
        return self.inner()(x)


class Sows(nn.Module):
    @nn.compact
    def __call__(self, x):
        self.sow("losses", "size", (x**2).sum())
        return nn.Dense(2)(x)


def test_sown_values_are_refused():
    model = models.from_linen(Sows(), stateful=True)
    params, state = model.init(KEY, X[0])
    with pytest.raises(UserError, match="as Linen's sow gives it: return such values"):
        model.apply(params, state, X[0], key=KEY)


def test_state_is_found_in_code_and_fields():
    sequence = nn.Sequential([nn.Dense(3), Counter()])
    for module in (ByFunction(), ByPackage(), Outer(), nn.BatchNorm(), sequence):
        assert isinstance(models.from_linen(module), models.StatefulModel), module
    for module in (Linen(), Outer(nn.LayerNorm), nn.SelfAttention(2)):
        assert isinstance(models.from_linen(module), models.Model), module
    model = models.from_linen(Outer())
    params, state = model.init(KEY, X[0])
    assert model.apply(params, state, X[0])[1] == state
    _, state = model.apply(params, state, X[0], key=KEY)
    _, state = jax.jit(model.apply)(params, state, X[0], key=KEY)
    assert jax.tree.leaves(state) == [2]


def test_a_hyper_parameter_needs_no_default():
    class Tempered(nn.Module):
        @nn.compact
        def __call__(self, x, *, temperature):
            return nn.Dense(3)(x) / temperature

    model = models.from_linen(Tempered())
    params = model.init(KEY, X[0])
    parameter = inspect.signature(model.apply).parameters["temperature"]
    assert parameter.default is parameter.empty
    one, two = (model.apply(params, X[0], temperature=t) for t in (1.0, 2.0))
    assert_close(one, 2 * two)


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x, state=None, params=None, *, scale=1.0):
        assert state is None and params is None
        return scale * nn.Dense(2)(x)


def of_a_state(params, state, *, key=None, scale=1.0):  # such as that of a robot
    return scale * (state @ params)


@pytest.mark.parametrize(
    "make",
    [
        lambda: models.from_linen(Recurrent()),
        lambda: models.Model(lambda key, state: jnp.ones((5, 2)), of_a_state),
    ],
    ids=["linen", "bare"],
)
def test_names_of_other_arguments_are_no_hyper_parameters(make):
    model = make()
    lifted = models.stateful(model)
    names = list(inspect.signature(lifted.apply).parameters)
    assert names == ["params", "state", "inputs", "key", "scale"]
    params, state = lifted.init(KEY, X[0])
    twice, _ = lifted.apply(params, state, X[0], scale=2.0)
    assert_close(twice, 2 * model.apply(params, X[0]))


def test_a_keyword_that_nobody_can_give_is_refused():
    def apply(params, x, *, key=None, state):
        return x

    class Needs(nn.Module):
        @nn.compact
        def __call__(self, x, *, state):
            return x

    for make in (
        lambda: models.stateful(models.Model(lambda key, x: 0.0, apply)),
        lambda: models.from_linen(Needs()),
    ):
        with pytest.raises(UserError, match="needs 'state' by keyword"):
            make()


# ----- what is particular to NNX, Equinox and Haiku -----


def test_an_nnx_module_is_not_changed_and_its_streams_begin_from_the_key():
    module = Nnx(nnx.Rngs(0))
    before = jax.tree.map(jnp.array, nnx.to_pure_dict(nnx.state(module, nnx.Param)))
    model = models.from_nnx(module)
    params = model.init(KEY, X[0])
    model.apply(params, X[0], key=KEY)
    assert module.dropout.deterministic is False
    assert int(module.dropout.rngs.count[...]) == 0
    assert_close(before, nnx.to_pure_dict(nnx.state(module, nnx.Param)))
    # all members begin from the numbers of the module
    assert_close(params, model.init(jax.random.key(9), X[0]))
    # the library's own call, with the stream begun by hand
    module.train()
    module.dropout.rngs.key[...] = jax.random.fold_in(KEY, 1)
    assert_close(model.apply(params, X[0], key=KEY), module(X[0]))


def test_nnx_with_rngs_in_its_call():
    class Told(nnx.Module):
        def __init__(self, rngs):
            self.dropout = nnx.Dropout(0.5)

        def __call__(self, x, rngs=None):
            return self.dropout(x, rngs=rngs)

    model = models.from_nnx(Told)
    ones = jnp.ones(40)
    assert (model.apply({}, ones) == 1).all()
    found = model.apply({}, ones, key=KEY)
    np.testing.assert_array_equal(found, nnx.Dropout(0.5)(ones, rngs=nnx.Rngs(KEY)))


def test_nnx_that_is_random_without_a_key_is_refused():
    class Always(nnx.Module):
        def __init__(self, rngs):
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.dropout(x, deterministic=False)

    model = models.from_nnx(Always)
    model.apply({}, jnp.ones(4), key=KEY)
    for apply in (model.apply, jax.jit(model.apply)):
        with pytest.raises(UserError, match="random numbers without a key"):
            apply({}, jnp.ones(4))
    with pytest.raises(UserError, match=r"wanted an nnx.Module"):
        models.from_nnx(lambda rngs: 3)


def test_nnx_with_a_recurrent_layer():
    """It takes a key for its first carry, of which it makes zeros."""
    make = lambda rngs: nnx.RNN(nnx.GRUCell(5, 4, rngs=rngs))  # noqa: E731
    model = models.from_nnx(make, batched=True)
    params = model.init(KEY, X)
    for apply in (model.apply, jax.jit(model.apply)):
        assert_close(apply(params, X), make(nnx.Rngs(KEY))(X[None])[0])


def test_equinox_trains_what_is_trainable():
    def only_the_head(module):
        frozen = jax.tree.map(lambda _: False, module)
        return eqx.tree_at(lambda m: m.layers[1], frozen, replace=True)

    module = Equinox(KEY)
    model = models.from_equinox(module, trainable=only_the_head)
    params = model.init(KEY, X[0])
    assert set(params["layers"]) == {"1"}
    assert_close(model.apply(params, X[0]), own_equinox(KEY, X[0], None))
    # made from each member's key, what is not trained is part of its state
    model = models.from_equinox(Equinox, trainable=only_the_head)
    params, state = jax.vmap(model.init, (0, None))(jax.random.split(KEY), X[0])
    assert state["constants"]["layers"]["0"]["weight"].shape == (2, 16, 5)
    outputs, same = jax.vmap(model.apply, (0, 0, None))(params, state, X[0])
    assert outputs["logits"].shape == (2, 3)
    assert_close(same, state)


class Loaded(eqx.Module):
    """With arrays of NumPy, as a file of weights has them."""

    weight: object
    order: object

    def __init__(self, key):
        self.weight = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
        self.order = np.arange(5)[::-1]

    def __call__(self, x):
        return x[self.order] @ self.weight


@pytest.mark.parametrize("make", [Loaded, Loaded(KEY)], ids=["class", "module"])
def test_equinox_trains_arrays_of_numpy(make):
    model = models.stateful(models.from_equinox(make))
    params, state = model.init(KEY, X[0])
    assert set(params) == {"weight"}
    outputs, _ = model.apply(params, state, X[0])
    assert_close(outputs, jnp.asarray(Loaded(KEY)(X[0])))


def test_equinox_with_state_made_by_hand():
    made = eqx.nn.make_with_state(EquinoxNorm)(BATCH_AXES, key=KEY)
    by_hand = models.from_equinox(made)
    by_key = models.from_equinox(lambda key: EquinoxNorm(BATCH_AXES, key))
    assert_close(by_hand.init(KEY, IMAGES[0]), by_key.init(KEY, IMAGES[0]))
    sequential = models.from_equinox(
        lambda key: eqx.nn.Sequential(
            [
                eqx.nn.Linear(5, 4, key=key),
                eqx.nn.BatchNorm(4, BATCH_AXES, mode="ema"),
                eqx.nn.Dropout(0.5),
            ]
        )
    )
    params, state = sequential.init(KEY, X[0])
    models.check_state(sequential, params, state, X)
    keys = jax.random.split(KEY, len(X))
    outputs, state = lifted(sequential, 1)(params, state, X, keys)
    assert outputs.shape == (8, 4) and (outputs == 0).any()
    assert sequential.apply(params, state, X[0])[0].shape == (4,)
    with pytest.raises(UserError, match=r"wanted an eqx.Module"):
        models.from_equinox(lambda key: key)


def test_haiku_is_given_transformed():
    with pytest.raises(UserError, match=r"hk.transform"):
        models.from_haiku(haiku)
    quiet = hk.without_apply_rng(hk.transform(lambda x: hk.Linear(3)(2 * x)))
    model = models.from_haiku(quiet)
    params = model.init(KEY, X[0])
    assert_close(model.apply(params, X[0]), model.apply(params, X[0], key=KEY))


# ----- the door of the room, and the documentation -----


@pytest.mark.slow
def test_importing_models_loads_no_other_library():
    code = """
import sys, dlworkshop.models as models
print([m for m in ("flax.nnx", "equinox", "haiku") if m in sys.modules])
print(models.from_nnx.__name__, "flax.nnx" in sys.modules, "haiku" in sys.modules)
sys.modules["haiku"] = None
try:
    models.from_haiku
except ValueError as error:
    print(error)
"""
    with warnings.catch_warnings():
        run = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
    nothing, nnx_only, absent = run.stdout.splitlines()
    assert nothing == "[]" and nnx_only == "from_nnx True False"
    assert absent.endswith("pip install dm-haiku")


BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/models.md").read_text(), re.S)


def test_the_haiku_function_of_the_documentation_is_a_model():
    scope: dict = {"__name__": "documentation"}
    exec(compile(BLOCKS[0], "models.md", "exec"), scope)
    model = scope["model"]
    params = model.init(KEY, X[0])
    dropped, plain = (
        model.apply(params, X[0], key=key, dropout=jnp.float32(0.5))
        for key in (KEY, None)
    )
    assert plain.shape == (10,) and not np.allclose(dropped, plain)
    assert_close(
        plain,
        hk.without_apply_rng(
            hk.transform(lambda x: scope["network"](x, is_training=False))
        ).apply(params, X[0]),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    BLOCKS[1:3],
    ids=["batch-norm", "group-norm"],
)
def test_the_networks_of_the_documentation_learn(code):
    assert len(code.splitlines()) <= 40
    scope: dict = {"__name__": "documentation"}
    exec(compile(code, "models.md", "exec"), scope)
    module = scope["ResNet"](stages=(8, 16), blocks=1)
    model = scope["model"]
    batched = bool(model.config.get("batched"))
    assert isinstance(model, models.Model if batched else models.StatefulModel)
    images = np.random.default_rng(2).random((12, 8, 8, 3), np.float32)
    labels = np.arange(12) % 2
    images[labels == 1, :, :4] += 0.5
    shapes = jax.eval_shape(models.stateful(model).init, KEY, images[0])[0]
    assert models.num_params(shapes) > 200_000
    model = models.stateful(models.from_linen(module, batched=batched))
    params, state = model.init(KEY, images[0])
    models.check_one_example(model, params, state, images)
    models.check_state(model, params, state, images)
    lift = lifted(model, 1)

    @jax.jit
    def descend(params, state, keys):
        def loss(params):
            logits, new = lift(params, state, images, keys)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), new

        (value, new), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return optax.tree.add_scale(params, -0.1, grads), new, value

    losses = []
    for i in range(8):
        keys = jax.random.split(jax.random.fold_in(KEY, i), 12)
        params, state, value = descend(params, state, keys)
        losses.append(float(value))
    assert losses[-1] < 0.7 * losses[0]
    assert models.predict(model, params, images, state).shape == (12, 10)
