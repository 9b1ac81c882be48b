"""The first member that fails says which operation did it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlworkshop import data, fit, models
from dlworkshop.models import Model
from dlworkshop.train.diagnosis import origin

PLAIN = models.logistic(num_classes=4)


def broken(params, inputs, *, key=None):
    logits = PLAIN.apply(params, inputs, key=key)
    return jnp.log(logits - 100)


def flat(outputs, targets):
    return jnp.sqrt(0 * outputs.sum())


def large(outputs, targets):
    return 1e30 * outputs.sum()


def own_step(step):
    def train_step(train, batch, hparams):
        rate = hparams["learning_rate"]
        grads, _, metrics = step.gradient(train, batch, hparams)
        params = jax.tree.map(lambda p, g: p - rate * g / (g - g), train.params, grads)
        return train._replace(params=params, step=train.step + 1), metrics

    return train_step


@pytest.mark.parametrize(
    ("changes", "what", "cause"),
    [
        ({"model": Model(PLAIN.init, broken)}, "the loss", "log at"),
        ({"loss": flat, "metrics": {}}, "the gradient", "div at"),
        ({"loss": large, "metrics": {}}, "the parameters", ""),
        ({"make_step": own_step}, "the parameters", "div at"),
    ],
)
def test_the_operation_is_named(changes, what, cause, quadrants, caplog):
    settings = {"hparams": {"learning_rate": 1e9}, "batch_size": 16, "seeds": 2}
    settings |= {"model": PLAIN, "optimizer": optax.sgd, "devices": jax.devices()[:1]}
    run = fit(dataset=quadrants, **settings | changes)
    note = run.summary["population"][0]["note"]
    assert f": {what}" in note and f"because of {cause}" in note
    assert not cause or "test_diagnosis.py" in note
    assert note.partition(": ")[2] in caplog.text


def test_inputs_on_disk_that_are_not_finite_are_named(quadrants, tmp_path):
    """Those in memory are refused before the first step."""
    x = quadrants.train.inputs.astype(np.float32)
    split = (x[:20], quadrants.train.targets[:20])
    held = {"validation": split, "test": split, "classes": quadrants.classes}
    np.save(tmp_path / "x.npy", x * np.nan)
    on_disk = np.load(tmp_path / "x.npy", mmap_mode="r")
    dataset = data.from_arrays(on_disk, quadrants.train.targets, **held)
    run = fit(PLAIN, dataset, batch_size=16, quiet=True)
    note = run.summary["population"][0]["note"]
    assert note.endswith("the loss is not finite because of the batch.inputs")


def test_the_first_of_several_members_is_explained(quadrants, caplog):
    """Unless settings are being chosen."""

    def wrong_sign(outputs, targets, *, w):
        return outputs.sum() ** 2 + jnp.log(w)

    options = {"loss": wrong_sign, "metrics": {}, "batch_size": 16}
    options["hparams"] = {"w": [1.0, -1.0, -2.0], "learning_rate": 0.1}
    run = fit(PLAIN, quadrants, optax.sgd, **options)
    first, second = (run.summary["population"][member]["note"] for member in (1, 2))
    assert "because of log at " in first and "test_diagnosis.py" in first
    assert f"member 1 is quarantined: {first}" in caplog.text
    assert "because" not in second
    run = fit(PLAIN, quadrants, optax.sgd, **options, read_test=False)
    assert "because" not in run.summary["population"][1]["note"]


def test_an_operation_of_a_library_has_no_place():
    def norm(x):
        return (jax.grad(jnp.linalg.norm)(x * 0),)

    said = origin(norm, ["y"], [jnp.ones(2)], ["x"])
    assert said == "y is not finite because of div"


@pytest.mark.parametrize("reverse", [False, True])
def test_a_loop_is_looked_into(reverse):
    def turn(carry, x):
        return carry + 1, jnp.log(carry - x)  # of -1 in the last turn

    def f(x):
        return (jax.lax.scan(turn, 1.0, x, reverse=reverse)[1].sum(),)

    x = jnp.array([0.0, 1.0, 4.0])
    said = origin(f, ["y"], [x[::-1] if reverse else x], ["x"])
    assert said.startswith("y is not finite because of log at ")
    assert "test_diagnosis.py" in said


def test_calls_are_looked_into_and_masks_are_not_accused():
    @jax.jit
    def inner(x):
        masked = jnp.where(x > 0, x, -jnp.inf)
        return jax.nn.softmax(masked) / jnp.where(x.sum() > 10, 0.0, 1.0)

    def step(x):
        return (jax.checkpoint(inner)(x).sum(),)

    x = jnp.array([-1.0, 3.0, 9.0])
    assert origin(step, ["y"], [x], ["x"]).startswith("y is not finite because of div")
    assert origin(step, ["y"], [x / 2], ["x"]) == ""
