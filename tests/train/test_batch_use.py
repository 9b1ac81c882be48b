"""A loss over the batch is one over the whole batch, however the batch is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlworkshop import data, fit, models
from dlworkshop.errors import UserError
from dlworkshop.train import autotune
from tests.train.test_resume import assert_close

pytestmark = pytest.mark.usefixtures("unreported")


def drawn(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def contrast(everyone, out):
    return jax.nn.logsumexp(everyone @ out) - out @ out


def centered(mean, out):
    return ((out - mean) ** 2).sum()


@jax.jit
def means(out):
    return jax.lax.pmean(out, models.BATCH_AXES)


PLAIN = {  # the second argument of each loss, from the outputs [B, K] of a batch
    contrast: lambda out: jnp.broadcast_to(out, (len(out), *out.shape)),
    centered: lambda out: jnp.broadcast_to(out.mean(0), out.shape),
}
# what an example sees of the batch, its loss, and the devices that share the batch
SEEN = {
    "all": (models.all_examples, contrast, 4),
    "mean": (means, centered, 4),
    "all of a device": (lambda out: jax.lax.all_gather(out, "example"), contrast, 1),
    "the mean of a device": (lambda out: jax.lax.pmean(out, "example"), centered, 1),
    "a sum by its number": (
        lambda out: jax.lax.psum(out, models.BATCH_AXES) / jax.lax.axis_size("example"),
        centered,
        1,
    ),
}


def over_the_batch(see, loss):
    def objective(model, params, state, inputs, targets, *, key):
        out, state = model.apply(params, state, inputs, key=key)
        seen = jnp.zeros_like(out) if key is None else see(out)
        return loss(seen, out), (out, state)

    return objective


def one_step(model, inputs, see, loss, devices):
    """Loss and parameters after a step, and what they should be."""
    weights = np.arange(1.0, len(inputs) + 1, dtype=np.float32)
    start = model.init(jax.random.key(0), inputs[0])
    split = inputs[:2], None
    run = fit(
        model,
        data.from_arrays(inputs, None, weights=weights, validation=split, test=split),
        optax.sgd,
        objective=over_the_batch(see, loss),
        hparams={"learning_rate": 0.1},
        batch_size=len(inputs),
        start=start,
        devices=devices,
        num_epochs=1,
    )

    def plain(params):
        out = models.predict(model, params, inputs)
        return (weights / weights.mean() * jax.vmap(loss)(PLAIN[loss](out), out)).mean()

    value, grads = jax.value_and_grad(plain)(start)
    moved = jax.tree.map(lambda p, g: p[None] - 0.1 * g, start, grads)
    return run, value, moved


def assert_taken(run, value, moved):
    np.testing.assert_allclose(run.history["train/loss"], value, rtol=1e-5)
    assert_close(run.params, moved, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", SEEN)
def test_a_batch_is_split_over_devices_only_if_each_sees_all(name):
    see, loss, over = SEEN[name]
    inputs = drawn(8, 5)
    model = models.mlp((4,), num_classes=3)
    run, value, moved = one_step(model, inputs, see, loss, jax.devices())
    assert run.summary["mesh"]["batch"] == over
    assert_taken(run, value, moved)


def test_micro_batches_are_off_for_a_loss_over_the_batch(monkeypatch):
    monkeypatch.setattr(autotune, "CACHED", 1.0)  # micro-batches of 32
    inputs = drawn(64, 6, 6, 1)
    model = models.cnn((4,), num_classes=3)
    assert_taken(
        *one_step(model, inputs, models.all_examples, contrast, jax.devices()[:1])
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {
                "objective": over_the_batch(
                    lambda x: jax.lax.pmean(x, "batch"), centered
                )
            },
            r"the axis 'batch' alone.*models\.BATCH_AXES",
        ),
        (
            {"loss": lambda out, _: (out - jax.lax.pmean(out, "example")) @ out},
            "looks at its batch without a key.*objective",
        ),
    ],
)
def test_what_cannot_see_the_batch_is_refused(given, said):
    dataset = data.from_arrays(drawn(40, 5), None)
    with pytest.raises(UserError, match=said):
        fit(models.mlp((4,), num_classes=3), dataset, **given, batch_size=8)
