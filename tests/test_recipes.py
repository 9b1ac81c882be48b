"""The recipes of docs/recipes.md: each runs as it is printed, and does what it says."""

import importlib.util
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlworkshop import Batch, fit, losses, metrics
from dlworkshop.data import load

TEXT = (Path(__file__).parent.parent / "docs" / "recipes.md").read_text()
BLOCKS = dict(
    re.findall(r"^## ([^\n]*)\n(?:(?!^## ).)*?```python\n(.*?)```", TEXT, re.S | re.M)
)
TESTED = {}  # heading -> the function that tests its recipe
LONGEST = 20  # lines of code


def recipe(heading):
    """Decorate the test of a recipe, which is given the module that the block is."""

    def mark(check):
        TESTED[heading] = check
        return check

    return mark


@pytest.mark.slow
@pytest.mark.parametrize("heading", BLOCKS)
def test_recipe(heading, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "recipe.py"
    file.write_text(BLOCKS[heading])
    spec = importlib.util.spec_from_file_location("recipe", file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "recipe", module)  # where dataclasses look
    spec.loader.exec_module(module)
    TESTED[heading](module)


def test_every_recipe_is_one_short_block_with_public_names():
    headings = re.findall(r"^## (.*)", TEXT, re.M)
    assert headings == list(BLOCKS) == list(TESTED)
    assert TEXT.count("```python") == len(headings)
    for block in BLOCKS.values():
        assert sum(bool(line.strip()) for line in block.splitlines()) <= LONGEST
        assert "dlworkshop." not in block and "._" not in block.replace("._replace", "")


def member(run, index):
    """Parameters of one member."""
    return jax.tree.map(lambda leaf: np.asarray(leaf[index]), run.params)


def scores(run, metric="accuracy"):
    """A metric of each member [P] on the test split."""
    return np.array([row["test"][metric] for row in run.summary["population"]])


def distance(a, b):
    return float(optax.tree.norm(optax.tree.sub(a, b)))


@recipe("Auxiliary loss")
def auxiliary(module):
    logits = module.run.predict(load("digits").test.inputs)  # [P, N, K]
    size = (logits**2).mean((1, 2))
    assert size[1] < 0.5 * size[0]
    assert scores(module.run).min() > 0.5
    label = load("digits").test.targets
    chance = np.take_along_axis(jax.nn.log_softmax(logits), label[None, :, None], -1)
    loss = -chance.mean((1, 2))  # without the penalty
    np.testing.assert_allclose(scores(module.run, "loss"), loss, rtol=1e-4)


@recipe("Mixup")
def mixup(module):
    batch = module.digits.train.rows(slice(64))
    batch = batch._replace(inputs=batch.inputs / np.float32(255))
    mixed = module.mixup(jax.random.key(1), batch, alpha=1.0)
    np.testing.assert_allclose(mixed.targets.sum(1), 1, atol=1e-6)
    share = float(jnp.sort(mixed.targets.max(1))[0])  # of the larger one
    assert 0.5 <= share < 1
    # the training loss is that of mixed targets, which no model gets to zero
    assert scores(module.run).min() > 0.5
    train = module.run.history["train/loss"][-1]
    assert (train > module.run.history["validation/loss"][-1]).all()
    assert train[1] > train[0]  # its images are mixed more evenly


@recipe("Adversarial training (FGSM)")
def fgsm(module):
    test, model = module.digits.test, module.mlp

    def attacked(params, image, label):
        def loss(image):
            return losses.cross_entropy(model.apply(params, image), label)

        worse = image + 0.1 * jnp.sign(jax.grad(loss)(image))
        return jnp.argmax(model.apply(params, worse)) == label

    image = jnp.asarray(test.inputs) / 255
    plain, hardened = (
        float(
            jax.vmap(attacked, (None, 0, 0))(member(module.run, i), image, label).mean()
        )
        for i, label in [(0, test.targets), (1, test.targets)]
    )
    assert hardened > plain + 0.1
    assert scores(module.run)[0] > 0.7


@recipe("Knowledge distillation")
def distillation(module):
    image = module.digits.test.inputs
    teacher, student = (r.predict(image)[0] for r in (module.teacher, module.run))
    # one in ten agrees by chance
    assert (student.argmax(-1) == teacher.argmax(-1)).mean() > 0.5
    soft, likely = jax.nn.softmax(teacher / 2), jax.nn.log_softmax(student / 2)
    crossed = -4 * (soft * likely).sum(1).mean()
    np.testing.assert_allclose(scores(module.run, "loss")[0], crossed, rtol=1e-4)
    assert scores(module.run)[0] > 0.5


@recipe("Sharpness-aware minimisation (SAM)")
def sam(module):
    assert scores(module.run).min() > 0.7
    # two of the updates make one, so that other radii end elsewhere
    assert distance(member(module.run, 0), member(module.run, 1)) > 1e-3
    moved = module.run.opt_state
    np.testing.assert_array_equal(moved.steps_since_sync, 0)
    assert module.run.summary["steps"] % 2 == 0


@recipe("Gradient noise")
def noise(module):
    begun, one, other = (
        member(module.begun, 0),
        member(module.run, 0),
        member(module.run, 1),
    )
    assert distance(one, other) > 0
    for own in (one, other):  # one update: the common gradient and 0.1 * N(0, 0.01)
        assert distance(own, begun) > 0
    gap = np.concatenate(
        [leaf.ravel() for leaf in jax.tree.leaves(optax.tree.sub(one, other))]
    )
    np.testing.assert_allclose(gap.std(), 0.1 * np.sqrt(2 * 0.01), rtol=0.1)


@recipe("Loss of each token")
def tokens(module):
    assert scores(module.run)[0] > 0.5
    outputs = module.run.predict(module.dataset.test.inputs)[0]  # [N, T, K]
    right = (outputs.argmax(-1) == module.dataset.test.targets).mean()
    np.testing.assert_allclose(scores(module.run)[0], right, rtol=1e-4)
    chance = jax.nn.log_softmax(outputs)
    label = module.dataset.test.targets[..., None]
    loss = -np.take_along_axis(np.asarray(chance), label, -1).mean()
    np.testing.assert_allclose(scores(module.run, "loss")[0], loss, rtol=1e-3)


@recipe("Sequences of different lengths")
def lengths(module):
    test = module.dataset.test
    known = test.targets >= 0  # [N, T]
    outputs = module.run.predict(test.inputs)[0]  # [N, T, K]
    chance = np.asarray(jax.nn.log_softmax(outputs))
    label = np.maximum(test.targets, 0)[..., None]
    loss = -np.take_along_axis(chance, label, -1)[..., 0][known].mean()
    np.testing.assert_allclose(scores(module.run, "loss")[0], loss, rtol=1e-4)
    right = (outputs.argmax(-1) == test.targets)[known].mean()
    np.testing.assert_allclose(scores(module.run)[0], right, rtol=1e-5)
    assert right > 0.8


@recipe("Autoencoder")
def autoencoder(module):
    test = module.dataset.test
    image = np.asarray(test.inputs[:]) / 255
    made = module.run.predict(test.inputs)[0]
    np.testing.assert_allclose(
        scores(module.run, "loss")[0], ((made - image) ** 2).mean(), rtol=1e-4
    )
    assert ((made - image) ** 2).mean() < 0.7 * image.var(0).mean()


@recipe("Variational autoencoder")
def variational(module):
    image = module.image[:200]
    logits, mean, log_scale = module.run.predict(image)  # [P, N, ...]
    divergence = (mean**2 + np.exp(2 * log_scale) - 1) / 2 - log_scale
    size = divergence.sum(-1).mean(-1)
    assert size[1] < 0.5 * size[0]
    assert size[0] > 0.1
    # scored by the same loss, without noise: that of beta = 1
    found = module.run.evaluate(
        Batch(image, image), [0, 1], metrics={"elbo": metrics.Metric(module.elbo)}
    )
    wanted = jax.nn.softplus(logits) - logits * image.reshape(200, -1) / 255
    wanted = wanted.sum(-1).mean() + size.mean()
    np.testing.assert_allclose(found.scores["elbo"]["mean"], wanted, rtol=1e-4)


@recipe("Several labels for one example")
def labels(module):
    test = module.dataset.test
    said = module.run.predict(test.inputs)[0] > 0  # [N, K]
    accuracy = (said == (test.targets > 0.5)).mean()
    np.testing.assert_allclose(scores(module.run)[0], accuracy, rtol=1e-6)
    assert accuracy > 0.8
    assert scores(module.run, "f1_macro")[0] > 0.8


@recipe("Contrastive pairs")
def contrastive(module):
    left, right = np.moveaxis(module.run.predict(module.pairs)[0], 1, 0)  # [N, D] each
    apart = np.linalg.norm(left - right, axis=-1)
    same = module.same == 1
    assert np.median(apart[same]) < 0.6 * np.median(apart[~same])


@recipe("A loss over the batch")
def over_the_batch(module):
    left, right = np.moveaxis(module.run.predict(module.pairs)[0], 1, 0)  # [N, D] each
    others = np.roll(right, len(right) // 2, axis=0)  # of other classes
    near, far = (np.linalg.norm(left - to, axis=-1) for to in (right, others))
    assert np.median(near) < 0.6 * np.median(far)


@recipe("Weights of examples")
def weights(module):
    # half of the labels say 9 - digit, and none of that was learnt
    image, label = module.digits.inputs, module.digits.targets
    said = module.run.predict(image)[0].argmax(-1)
    assert (said == label).mean() > 0.8
    assert scores(module.run)[0] > 0.8


@recipe("Frozen layers, and learning rates of their own")
def frozen(module):
    before, after = member(module.begun, 0), member(module.run, 0)
    jax.tree.map(np.testing.assert_array_equal, before["Dense_0"], after["Dense_0"])
    moved = {
        layer: np.abs(after[layer]["kernel"] - before[layer]["kernel"]).mean()
        for layer in before
    }
    assert 0 < moved["Dense_1"] < 0.5 * moved["Dense_2"]


@recipe("Moving average of the parameters (EMA)")
def ema(module):
    # without memory the average is the last; with it, it is what is returned
    _, average = module.run.opt_state
    jax.tree.map(np.testing.assert_array_equal, average, module.run.params)
    assert distance(member(module.run, 0), member(module.run, 1)) > 1e-3
    assert scores(module.run).min() > 0.7


@recipe("Schedule-free learning")
def schedule_free(module):
    run = module.run
    assert scores(run).max() > 0.7
    # what is returned is the average, x = (y - (1 - b1) z) / b1, not z
    z = jax.tree.map(lambda leaf: np.asarray(leaf[1]), run.opt_state.z)
    assert distance(member(run, 1), z) > 1e-3


@recipe("A training step of your own")
def own_step(module):
    assert "train/gradient_norm" in module.run.history.names
    assert (module.run.history["train/gradient_norm"] > 0).all()
    plain = fit(module.mlp, load("digits"), hparams={"learning_rate": 0.01})
    flat, sharp = member(plain, 0), member(module.run, 1)
    assert distance(member(module.run, 0), flat) < 0.02 * distance(sharp, flat)
    assert scores(module.run).min() > 0.5


@recipe("A hyper-parameter that changes during training")
def changing(module):
    train = module.run.history["train/loss"]
    # without smoothing the loss goes to 0; with it, to its entropy or above
    entropy = -(0.73 * np.log(0.73) + 9 * 0.03 * np.log(0.03))
    assert train[-1, 1] > entropy > train[-1, 0] + 0.2
    assert scores(module.run).min() > 0.7
