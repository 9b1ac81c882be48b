"""One list of checks for every optimizer, and the schedules that multiply them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlworkshop.learn import optimizers, schedules
from dlworkshop.types import HParams

OPTIMIZERS = [
    optimizers.sgd,
    optimizers.nesterov,
    optimizers.adam,
    optimizers.adamw,
    optimizers.muon,
]


@pytest.fixture(params=OPTIMIZERS, ids=lambda make: make.__name__)
def make_optimizer(request):
    return request.param


def descend(make_optimizer, hparams, num_steps=200):
    """Minimise |W A - I|^2 + |b - 1|^2, whose minimum is 0."""
    matrix = jnp.array([[2.0, 0.5], [0.0, 1.0]])

    def loss(params):
        residual = params["kernel"] @ matrix - jnp.eye(2)
        return jnp.sum(residual**2) + jnp.sum((params["bias"] - 1) ** 2)

    def step(carry, index):
        params, opt_state = carry
        value, grads = jax.value_and_grad(loss)(params)
        scaled = hparams._replace(
            learning_rate=hparams.learning_rate * (1 - index / num_steps)
        )
        updates, opt_state = make_optimizer(scaled).update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    params = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
    opt_state = make_optimizer(hparams).init(params)
    (params, _), _ = jax.lax.scan(step, (params, opt_state), jnp.arange(num_steps))
    return loss(params), params


def test_it_descends(make_optimizer):
    loss, _ = descend(make_optimizer, HParams(jnp.asarray(0.05), weight_decay=None))
    assert float(loss) < 1e-3  # from 4 at the start


def test_one_program_serves_every_learning_rate(make_optimizer):
    traces = []

    @jax.jit
    def run(rate):
        traces.append(1)
        return descend(make_optimizer, HParams(rate), 5)[0]

    losses = [float(run(jnp.asarray(rate))) for rate in (0.01, 0.02, 0.05)]
    assert len(traces) == 1
    assert len(set(losses)) == 3


@pytest.mark.parametrize(
    "make",
    [optimizers.sgd, optimizers.adamw, optimizers.muon],
    ids=lambda m: m.__name__,
)
def test_weight_decay_acts_on_kernels_only(make):
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    still = jax.tree.map(jnp.zeros_like, params)
    optimizer = make(HParams(jnp.asarray(0.5), weight_decay=jnp.asarray(0.1)))
    updates, _ = optimizer.update(still, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.05 * np.ones((2, 3)), rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], np.zeros(3))


def test_muon_orthogonalises_a_convolution_as_a_matrix():
    rng = np.random.default_rng(0)
    grads = {"kernel": jnp.asarray(rng.normal(size=(3, 3, 2, 4)), jnp.float32)}
    optimizer = optimizers.muon(HParams(jnp.asarray(1.0)))
    updates, _ = optimizer.update(grads, optimizer.init(grads), grads)
    singular = np.linalg.svd(updates["kernel"].reshape(18, 4), compute_uv=False)
    # five Newton-Schulz iterations bring all singular values near one common size
    assert singular.max() / singular.min() < 2.5
    spread = np.linalg.svd(grads["kernel"].reshape(18, 4), compute_uv=False)
    assert spread.max() / spread.min() > singular.max() / singular.min()


def test_schedules_stay_in_range_and_end_low():
    for make in (schedules.constant, schedules.cosine, schedules.one_cycle):
        values = jax.vmap(make(50))(jnp.arange(50.0))
        assert float(values.min()) >= 0 and float(values.max()) <= 1 + 1e-6
    assert float(schedules.one_cycle(50)(jnp.asarray(49.0))) < 1e-3
    assert float(schedules.cosine(50)(jnp.asarray(49.0))) < 2e-3
    assert float(schedules.constant(50)(jnp.asarray(49.0))) == 1


def test_a_run_of_one_step_has_a_schedule():
    for make in (schedules.constant, schedules.cosine, schedules.one_cycle):
        assert np.isfinite(float(make(1)(jnp.asarray(0.0))))
