"""A member of a population is the lone run; members differ; a bad one dies alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlworkshop import fit, models
from dlworkshop.learn import population as pop
from dlworkshop.learn.losses import cross_entropy
from dlworkshop.learn.step import init_state, make_train_step, spec_of
from dlworkshop.types import Batch, TrainState

MODELS = {  # the MLP trains side by side, the CNN one by one on a CPU
    "mlp": models.mlp((16,), dropout=0.2, num_classes=4),
    "cnn": models.cnn((4,), (8,), num_classes=4),
}


def train(model, dataset, devices, optimizer=optax.sgd, **changes):
    settings = {
        "hparams": {"learning_rate": [0.05, 0.2], "momentum": 0.9},
        "seeds": 2,
        "num_epochs": 3,
        "batch_size": 16,
        "devices": devices,
    }
    return fit(model, dataset, optimizer, **settings | changes)


def leaves(run, member):
    return [np.asarray(leaf)[member] for leaf in jax.tree.leaves(run.params)]


@pytest.fixture(scope="module")
def together(quadrants):
    """together(name of a model) -> the run of its four members, trained once."""
    return functools.cache(
        lambda name: train(MODELS[name], quadrants, jax.devices()[:1])
    )


@pytest.mark.parametrize("name", MODELS)
def test_member_is_the_lone_run(name, together, quadrants, one_device):
    run = together(name)
    for member in (1, 2):  # they differ in both, and must not be taken for each other
        row = run.summary["population"][member]
        alone = train(
            MODELS[name],
            quadrants,
            one_device,
            hparams=row["hparams"],
            seeds=[row["seed"]],
        )
        for a, b in zip(leaves(run, member), leaves(alone, 0), strict=True):
            # 18 updates in float32 whose sums may be taken in another order: some
            # 18 * 2**-24 relative to parameters of size 1, with room for growth
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", MODELS)
def test_members_differ(name, together):
    run = together(name)
    for one in range(4):
        for two in range(one):
            distances = [
                np.abs(a - b).max()
                for a, b in zip(leaves(run, one), leaves(run, two), strict=True)
            ]
            assert max(distances) > 1e-2, (one, two)


def test_one_trace_serves_all_chunks_and_rates(quadrants, one_device):
    traces, after_chunks = [], []

    def counting_loss(outputs, label):
        traces.append(1)
        return cross_entropy(outputs, label)

    run = train(
        MODELS["mlp"],
        quadrants,
        one_device,
        loss=counting_loss,
        steps_per_chunk=2,
        hparams={"learning_rate": [0.01, 0.1, 0.5]},
        observe=[lambda _: after_chunks.append(len(traces))],
    )
    assert run.summary["steps"] == 18 and len(after_chunks) == 9
    # the third chunk of an epoch is followed by an evaluation: its program is the last
    assert len(set(after_chunks[2:])) == 1


def test_a_bad_member_dies_alone(together, quadrants, one_device):
    hparams = {"learning_rate": [0.05, 1e30, 0.2], "momentum": 0.9}
    run = train(MODELS["mlp"], quadrants, one_device, hparams=hparams)
    status = [row["status"] for row in run.summary["population"]]
    assert status == ["finished"] * 2 + ["quarantined"] * 2 + ["finished"] * 2
    for leaf in jax.tree.leaves(run.params):
        assert np.isfinite(leaf).all()
    best = run.summary["settings"][0]  # whose members alone are told together
    assert best["members"] in ([0, 1], [4, 5])
    for split in ("validation", "test"):
        assert run.summary[split] == best[split]
        rows = [run.summary["population"][member] for member in best["members"]]
        mean = np.mean([row[split]["accuracy"] for row in rows])
        assert run.summary[split]["accuracy"]["mean"] == pytest.approx(mean)
        assert run.summary[split]["accuracy"]["n"] == 2
    bad = run.summary["population"][2]
    assert bad["steps"] < 18 and f"step {bad['steps'] + 1}" in bad["note"]
    assert bad["hparams"]["learning_rate"] == pytest.approx(1e30)
    healthy = together("mlp")
    for ours, theirs in ((0, 0), (1, 1), (4, 2), (5, 3)):
        for a, b in zip(leaves(run, ours), leaves(healthy, theirs), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-5)


def test_a_gradient_that_is_not_finite_is_caught_before_it_is_applied(
    quadrants, one_device
):
    @jax.custom_vjp
    def poisoned(x):
        return x

    poisoned.defvjp(lambda x: (x, None), lambda _, g: (g * jnp.inf,))

    def loss(outputs, label):  # finite in value, not in gradient
        return cross_entropy(poisoned(outputs), label)

    options = {"loss": loss, "outputs": "logits", "num_epochs": 1}
    run = train(MODELS["mlp"], quadrants, one_device, **options)
    assert {row["status"] for row in run.summary["population"]} == {"quarantined"}
    assert {row["steps"] for row in run.summary["population"]} == {0}
    assert run.summary["test"]["accuracy"] == {"mean": None, "sem": None, "n": 0}


def test_its_neighbours_keep_their_bits(quadrants, one_device):
    options = {"num_epochs": 1, "optimizer": optax.sgd}
    one, two = (
        train(MODELS["mlp"], quadrants, one_device, hparams=hparams, **options)
        for hparams in ({"learning_rate": [0.1, 1e30]}, {"learning_rate": [0.1, 0.2]})
    )
    assert one.summary["population"][-1]["status"] == "quarantined"
    for a, b in zip(leaves(one, 0), leaves(two, 0), strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("name", ["mlp", pytest.param("cnn", marks=pytest.mark.slow)])
def test_an_update_that_overflows_is_not_applied(name, quadrants, one_device):
    """The gradient is finite, what the optimizer makes of it is not."""

    def optimizer(learning_rate, key):
        del key
        return optax.scale(learning_rate * jnp.inf)

    run = train(
        MODELS[name],
        quadrants,
        one_device,
        hparams={"learning_rate": 0.1},
        optimizer=optimizer,
        num_epochs=1,
    )
    assert {row["status"] for row in run.summary["population"]} == {"quarantined"}
    assert {row["steps"] for row in run.summary["population"]} == {0}
    assert run.summary["test"]["accuracy"]["n"] == 0
    for leaf in jax.tree.leaves(run.params):
        assert np.isfinite(leaf).all()


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(), (3,), (4, 3), (2, 2, 4, 3)])
def test_one_number_that_is_not_finite_is_seen(shape, bad, on_cpu):
    leaf = np.full(shape, np.finfo(np.float32).max, np.float32)
    tree = {"fine": np.zeros((2, 2), np.float32), "none": np.zeros((0, 2)), "w": leaf}
    assert pop.all_finite(tree, on_cpu)
    for place in np.ndindex(shape):
        leaf_with = leaf.copy()
        leaf_with[place] = bad
        assert not pop.all_finite({**tree, "w": leaf_with}, on_cpu)


def test_early_stopping_keeps_the_best_and_stops_that_member(quadrants, one_device):
    patience, rates = 2, [0.0, 0.1]
    run = train(
        MODELS["mlp"],
        quadrants,
        one_device,
        hparams={"learning_rate": rates},
        num_epochs=6,
        patience=patience,
    )
    for row in run.summary["population"][:2]:  # a rate of zero never gets better
        assert row["status"] == "stopped early"
        assert row["steps"] == 6 * (1 + patience)
    for row in run.summary["population"][2:]:
        assert row["steps"] > 6 * (1 + patience)
    for row, final in zip(
        run.summary["population"],
        np.asarray(validation_losses(run, quadrants)),
        strict=True,
    ):
        assert final == pytest.approx(row["best_validation_loss"], rel=1e-5)


def validation_losses(run, dataset):
    logits = run.predict(dataset.validation.inputs)  # [P, N, K]
    losses = jax.vmap(jax.vmap(cross_entropy), (0, None))(
        logits, dataset.validation.targets
    )
    return losses.mean(-1)


def test_best_follows_the_lowest_loss():
    params = {"w": jnp.arange(3.0)}
    keys = jax.random.split(jax.random.key(0), 3)
    state = TrainState(jnp.full(3, 7), params, (), (), keys)
    population = pop.begin(state)
    population = pop.keep_best(population, jnp.array([1.0, 2.0, jnp.nan]), 2, None)
    moved = state._replace(params={"w": params["w"] + 10}, step=state.step + 1)
    population = pop.keep_best(
        population._replace(train=moved), jnp.array([2.0, 1.0, jnp.nan]), 2, None
    )
    assert population.best[0]["w"].tolist() == [0.0, 11.0, 2.0]
    assert population.best_step.tolist() == [7, 8, 0]
    assert population.epochs_without_improvement.tolist() == [1, 0, 2]
    assert population.status.tolist() == [pop.RUNNING, pop.RUNNING, pop.STOPPED]


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("sequential", [False, True])
def test_every_lift_is_the_loop(size, sequential):
    x, y = np.random.default_rng(0).random((2, size, 4)).astype(np.float32)
    lifted = pop.map_members(lambda a, b: {"dot": a @ b, "sum": a + b}, sequential)
    found = jax.jit(lifted)(x, y)
    np.testing.assert_allclose(found["dot"], (x * y).sum(1), rtol=1e-6)
    np.testing.assert_allclose(found["sum"], x + y)


def test_a_group_is_taken_and_put_back():
    everyone = {"key": jax.random.split(jax.random.key(0), 5), "w": jnp.arange(5.0)}
    group = jnp.array([1, 4, 5, 5])  # two places are empty
    part = pop.gather_members(everyone, group)
    assert part["w"].tolist() == [1.0, 4.0, 4.0, 4.0]
    changed = part | {"w": part["w"] + jnp.array([10.0, 20.0, 30.0, 40.0])}
    back = pop.scatter_members(everyone, group, changed)
    assert back["w"].tolist() == [0.0, 11.0, 2.0, 3.0, 24.0]
    assert (back["key"] == everyone["key"]).all()


def test_dropout_and_smoothing_may_differ_between_members(quadrants, one_device):
    run = fit(
        models.mlp((16,), num_classes=4),
        quadrants,
        optax.sgd,
        hparams={"learning_rate": 0.2, "dropout": [0.0, 0.5]},
        batch_size=16,
        devices=one_device,
    )
    plain = fit(
        models.mlp((16,), num_classes=4),
        quadrants,
        optax.sgd,
        hparams={"learning_rate": 0.2},
        batch_size=16,
        devices=one_device,
    )
    for a, b in zip(leaves(run, 0), leaves(plain, 0), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)
    assert any(
        np.abs(a - b).max() > 1e-3
        for a, b in zip(leaves(run, 0), leaves(run, 1), strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize("spoilt", [None, 1])
def test_off_the_cpu_a_step_is_the_same(spoilt):
    # both are compiled for a CPU here, and may fuse, so round, in other places
    model = MODELS["mlp"]
    spec = spec_of(model, optax.adam, cross_entropy)
    step = make_train_step(spec)
    hparams = {"learning_rate": jnp.array([1e-2, 1e-3, 1e-1])}
    image = np.random.default_rng(0).normal(size=(64, 4, 4, 1)).astype(np.float32)
    data = Batch(jnp.asarray(image), jnp.arange(64) % 4)
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    state = jax.vmap(lambda key, h: init_state(spec, h, key, data.inputs[0]))(
        keys, hparams
    )
    if spoilt is not None:
        state = state._replace(
            params=jax.tree.map(lambda p: p.at[spoilt].set(jnp.inf), state.params)
        )
    feed = jnp.arange(2 * 3 * 8).reshape(2, 3, 8)
    found = [
        jax.jit(pop.make_population_chunk(step, on_cpu=on_cpu))(
            pop.begin(state), hparams, data, feed
        )
        for on_cpu in (True, False)
    ]
    for one, two in zip(*map(jax.tree.leaves, map(without_keys, found)), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-7)
    running = [pop.RUNNING] * 3
    if spoilt is not None:
        running[spoilt] = pop.PARAMETERS
    assert found[1][0].status.tolist() == running


def without_keys(found):
    population, metrics = found
    train = population.train
    return (*train._replace(key=0), population.status, metrics)


@pytest.mark.parametrize(
    ("loss", "note"),
    [
        (lambda o, t: jnp.log(0 * o.sum()), "the loss was not finite at step 1 of 6"),
        (lambda o, t: jnp.sqrt(0 * o.sum()), "the gradient was not finite at step 1"),
        (lambda o, t: 1e30 * o.sum(), "the parameters were not finite after step 0"),
    ],
)
def test_what_was_not_finite_first_is_said(loss, note, quadrants, one_device):
    run = fit(
        models.logistic(),
        quadrants,
        optax.sgd,
        hparams={"learning_rate": [1e-9, 1e9]},
        loss=loss,
        metrics={},
        batch_size=16,
        devices=one_device,
        quiet=True,
    )
    row = run.summary["population"][1]
    assert row["status"] == "quarantined" and row["note"].startswith(note)


def spike(step, *, at_step_7):
    """Gradients that are multiplied once."""

    def train_step(train, batch, hparams):
        grads, state, metrics = step.gradient(train, batch, hparams)
        scale = jnp.where(train.step == 7, at_step_7, 1.0)
        grads = jax.tree.map(lambda leaf: leaf * scale, grads)
        return step.advance(train, grads, state, metrics, hparams)[0], metrics

    return train_step


@pytest.mark.parametrize("chunk", [2, None])
def test_a_second_moment_that_overflows_does_not_freeze_a_member(
    chunk, quadrants, one_device
):
    run = fit(
        models.logistic(4),
        quadrants,
        optax.adam,
        hparams={"learning_rate": 0.01, "at_step_7": [1.0, 1e25]},
        make_step=spike,
        batch_size=16,
        num_epochs=3,
        steps_per_chunk=chunk,
        devices=one_device,
        quiet=True,
    )
    fine, row = run.summary["population"]
    assert fine["status"] == "finished"
    assert row["status"] == "quarantined"
    assert row["note"].startswith("the optimizer's state was not finite after step 6")
    assert "opt_state[0].nu['Dense_0']['bias'] of adam is not finite" in row["note"]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.params))


def infinite_now_and_then(learning_rate):
    """Descent whose state has an infinity from the start, and again later."""

    def init(params):
        return {"best": jnp.array(jnp.inf), "count": jnp.array(0)}

    def update(grads, state, params=None, *, value, **_):
        again = state["count"] % 4 == 3
        best = jnp.where(again, jnp.inf, jnp.minimum(state["best"], value))
        steps = jax.tree.map(lambda leaf: -learning_rate * leaf, grads)
        return steps, {"best": best, "count": state["count"] + 1}

    return optax.GradientTransformationExtraArgs(init, update)


def plateau(learning_rate):
    tail = optax.contrib.reduce_on_plateau(patience=1)
    return optax.chain(optax.adam(learning_rate), tail)


@pytest.mark.parametrize("optimizer", [infinite_now_and_then, plateau])
def test_an_optimizer_may_keep_an_infinity_on_purpose(optimizer, quadrants):
    options = {"hparams": {"learning_rate": 0.01}, "batch_size": 16, "num_epochs": 2}
    run = fit(models.logistic(4), quadrants, optimizer, quiet=True, **options)
    assert run.summary["population"][0]["status"] == "finished"
