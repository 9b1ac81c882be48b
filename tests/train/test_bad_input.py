"""A user's mistake is one sentence that says what came, what was wanted, what to do."""

import errno
import fcntl
import functools
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlworkshop import (
    Start,
    data,
    fit,
    losses,
    metrics,
    models,
    observers,
    optimizers,
    schedules,
)
from dlworkshop.errors import UserError
from dlworkshop.train.checkpoints import DIGESTS, Checkpoints
from dlworkshop.train.run_folder import InUseError
from dlworkshop.types import Batch
from tests.conftest import SOON_THERE

pytestmark = pytest.mark.usefixtures("unreported")

ROOT = Path(__file__).parents[2]
MODEL = models.mlp((8,), num_classes=4)
PARAMS = MODEL.init(jax.random.key(0), jnp.zeros((8, 8, 1)))


def updating(change):
    """An optimizer of which each update is what `change` makes of a gradient."""
    return optax.stateless(lambda updates, _: jax.tree.map(change, updates))


def train(dataset, model=MODEL, **changes):
    settings = {"batch_size": 16, "devices": jax.devices()[:1]}
    return fit(model, dataset, **settings | changes)


def growing(learning_rate):
    """An optimizer whose state is another one after an update."""
    return optax.GradientTransformation(
        lambda params: (0.0 * learning_rate,),
        lambda updates, state, params: (updates, (jnp.zeros(2) + learning_rate,)),
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"experiment": "\udcff"}, "experiment is .* is no valid text"),
        ({"save_every_seconds": 10**400}, "save_every_seconds is 1000.* give a number"),
        ({"num_epochs": 10**9}, "num_epochs is 1000000000, of 6 steps, .* give few"),
        ({"batch_size": 97}, "batch_size is 97, but the train split .* has 96"),
        ({"batch_size": 0}, "batch_size is 0: give a whole number of at least 1"),
        ({"batch_size": True}, "batch_size is True: give a whole number"),
        ({"num_epochs": 0}, "num_epochs is 0: give a whole number of at least 1"),
        ({"patience": 0}, "patience is 0"),
        ({"seeds": 0}, "seeds is 0: train at least one"),
        ({"seeds": 20261201}, r"models, .* seeds=.20261201. for one of that seed"),
        ({"seeds": [1, 1]}, "each may come once only"),
        ({"seeds": [-1]}, "give one or more in 0"),
        ({"hparams": {"learning_rat": 1}}, "did you mean 'learning_rate'"),
        ({"hparams": {"b1": 0.9}}, "adam needs 'learning_rate': give it as hparams"),
        ({"hparams": {"learning_rate": "fast"}}, "give a number or a list"),
        pytest.param(
            {"hparams": {"learning_rate": 1j}},
            "is 1j: give a number or a list",
            marks=pytest.mark.filterwarnings("error"),
        ),
        ({"hparams": {"learning_rate": [0.1, np.nan]}}, "one or more finite numbers"),
        ({"hparams": {"learning_rate": 1e-50}}, "a run computes in float32, from 1.2e"),
        ({"hparams": {"learning_rate": [1, 1e39]}}, "is 1e.39, and a run computes in"),
        (
            {"hparams": {"learning_rate": [0.1, 0.1 + 1e-12]}},
            "the setting learning_rate=0.1 more than once, in float32",
        ),
        ({"hparams": {"learning_rate": True}}, "is True: give a number or a list"),
        ({"hparams": {"learning_rate": 1, "b1": 1.0}}, r"adam takes numbers in \[0, 1"),
        ({"hparams": {"optimizer.eps": 0, "learning_rate": 1}}, "adam takes numbers"),
        *[
            (
                {"optimizer": make, "hparams": {"learning_rate": 1, name: 1.5}},
                rf"'{name}' is 1.5: {make.__name__} takes numbers in \[0, 1\)",
            )
            for make, names in {
                optimizers.muon: ("beta", "adam_b1", "adam_b2"),
                optax.rmsprop: ("decay",),
            }.items()
            for name in names
        ],
        ({"hparams": {"dropout": 1, "learning_rate": 1}}, "Mlp takes numbers in"),
        (
            {"hparams": {"learning_rate": 1, "momentum": 0.9}},
            "'momentum' has no effect, because none of loss, model, optimizer",
        ),
        ({"model": models.mlp((8,), num_classes=3)}, "build it with num_classes=4"),
        (
            {"model": MODEL._replace(apply=lambda p, x, *, key=None: (x.sum(), x))},
            "returns 2 arrays, and logits are one: give a loss or an objective that",
        ),
        ({"model": models.cnn((4, 4, 4, 4))}, "cannot be halved 4 times"),
        ({"loss": lambda outputs, targets: targets}, "is int32: return a real number"),
        ({"loss": lambda o, t: o.argmax() == t}, "is bool: return a real number"),
        ({"loss": lambda o, t: jnp.exp(1.0 * t)}, "not depend on the parameters"),
        ({"devices": []}, "devices is empty"),
        ({"devices": 3}, "devices is 3: give a list"),
        ({"devices": 2 * jax.devices()[:1]}, "devices are .*: each may come once only"),
        ({"workdir": 3}, "workdir is 3: give a path"),
        ({"workdir": ""}, "workdir is empty: give a path, or '.'"),
        ({"workdir": "a\0b"}, "workdir is .* which no file can be called"),
        ({"workdir": "n" * 256}, "workdir is 'n.* is too long: a name has at most 255"),
        ({"workdir": "n/" * 2000}, "workdir is 'n/.* is too long: .* a path 3,840"),
        ({"workdir": "a/**"}, "workdir is .* where checkpoints cannot be written"),
        ({"workdir": os.fsdecode(b"\xff")}, "workdir is .*: choose a path in UTF-8"),
        ({"loss": None}, "loss is None: give a function"),
        ({"loss": lambda o, t: 0.0}, "the loss <lambda> does not depend on the param"),
        ({"loss": lambda o, t: None}, "the loss <lambda> is None for one example: ret"),
        ({"loss": lambda o, t: (o - t) ** 2}, r"the loss <lambda> has shape \(4,\) f"),
        ({"loss": lambda o, t, *, key=None: o[t]}, "takes 'key', but a loss is given"),
        ({"loss": lambda o, t, inputs: o[t]}, "takes 'inputs', .* give an objective"),
        ({"loss": lambda o: o.sum()}, "^the loss <lambda> does not take an exa.*: Typ"),
        ({"metrics": {"a": lambda o, t: "x"}}, "the metric 'a' is 'x' for one example"),
        (
            {"metrics": {"b": metrics.accuracy, "a": lambda o: o}},
            "^the metric 'a' does not take an example of .*: TypeError",
        ),
        (
            {"objective": lambda *a, key: (None, (0, ()))},
            "the objective <lambda> is No",
        ),
        (
            {"objective": lambda *a, key: (1.0, (0, ()))},
            "the objective <lambda> does no",
        ),
        (
            {"objective": lambda *a, key: (1.0, jnp.ones(2))},
            r"the objective <lambda> returns .*: return loss, \(outputs, state\)",
        ),
        ({"metrics": {"Loss": metrics.accuracy}}, "named 'Loss', like the minimised"),
        (
            {"objective": lambda model: 1.0},
            "^the objective <lambda> does not take an example of .*: TypeError",
        ),
        (
            {"optimizer": lambda learning_rate: optax.sgd(0.1)},
            "'learning_rate' has no effect, because the optimizer takes it but no",
        ),
        (
            {"batch_transform": lambda key, batch, *, share: batch}
            | {"hparams": {"learning_rate": 1, "share": [0, 1]}},
            "'share' has no effect, because the batch_transform takes it",
        ),
        (
            {"make_step": lambda step, *, rho: step}
            | {"hparams": {"learning_rate": 1, "rho": 1}},
            "'rho' has no effect, because the make_step takes it",
        ),
        (
            {"optimizer": lambda learning_rate: updating(lambda u: u.mean())},
            r"an update of shape \[\] for \['Dense_0'\]\['bias'\] of shape \[8\]: ret",
        ),
        (
            {"optimizer": lambda learning_rate: updating(lambda u: u[None])},
            r"an update of shape \[1, 8\] for \['Dense_0'\]",
        ),
        (
            {"optimizer": growing},
            r"a new state of shape \[2\] for \[0\] of shape \[\]: return the same",
        ),
        (
            {"optimizer": lambda: optax.lookahead(optax.sgd(0.1), 2, 0.5)}
            | {"hparams": {}},
            "looks ahead and keeps two sets of parameters, but a step has one",
        ),
        ({"optimizer": optax.lookahead}, "functools.partial if it is not a num"),
        (
            {"model": models.Model(lambda k, x: {"n": 0}, lambda p, x, key=None: x)},
            r"the model has int32 in params\['n'\], which has no gradient",
        ),
        ({"start": {"Dense_0": "a"}}, "start has parameters of another structure"),
        ({"start": jax.tree.map(lambda leaf: "a", PARAMS)}, "= 'a': give arrays"),
        (
            {"start": jax.tree.map(lambda leaf: leaf.astype(int), PARAMS)},
            r"\['bias'\] of int32, and the model wants float32: give that",
        ),
        (
            {"objective": lambda *a, key: 1.0},
            "the objective <lambda> returns 1.0: return lo",
        ),
        ({"eval_params": 3}, "eval_params is 3: give a function"),
        ({"eval_params": lambda s: s}, r"eval_params <lambda> does not take \(opt_st"),
        ({"eval_params": lambda s, p: 3}, "eval_params <lambda> returns other arrays"),
        (
            {"batch_transform": lambda k: k},
            "the batch_transform <lambda> does not take",
        ),
        (
            {"batch_transform": lambda k, b: b._replace(targets=b.targets + 4)},
            "returns have labels 0 ... 7 for 4 classes",
        ),
        (
            {
                "batch_transform": lambda k, b: b._replace(
                    targets=2 * jax.nn.one_hot(b.targets, 4)
                )
            },
            "returns are not probabilities of 4 classes, their sums go from 2 to 2",
        ),
        (
            {"batch_transform": lambda k, b: 3},
            r"returns an array int32\[\]: return batch",
        ),
        (
            {"batch_transform": lambda k, b: b._replace(targets=b.targets[:3])},
            r"returns \[3, 16\] examples in the arrays of a batch of 16",
        ),
        ({"probe": lambda g: {}}, "the probe <lambda> does not take .grads, updates"),
        ({"probe": lambda g, u, p: 3.0}, "the probe <lambda> returns no dict"),
        ({"probe": lambda g, u, p: {"a": p}}, "returns a, which is not a number"),
        ({"probe": lambda g, u, p: {"a": 1j}}, "returns a, which is complex: return r"),
        *[
            ({"schedule": each}, "takes '(init_)?value' first, and is given the number")
            for each in (
                optax.constant_schedule,
                functools.partial(optax.cosine_decay_schedule, decay_steps=9),
            )
        ],
        ({"schedule": lambda n: 1.0}, "the schedule <lambda> returns 1.0 for num_st"),
        ({"schedule": lambda: 1.0}, "the schedule <lambda> cannot be made from num_st"),
        ({"optimizer": optax.lbfgs, "hparams": {}}, "lbfgs has a line search, which"),
        ({"optimizer": lambda: None, "hparams": {}}, "constructor returns None: retur"),
        ({"save_every_seconds": -1}, r"save_every_seconds is -1: give a number in \[0"),
        ({"experiment": 3}, "experiment is 3: give text"),
        ({"hparams": {3: 1.0}}, "the name of a hyper-parameter is 3: give text"),
        ({"model": MODEL._replace(config=None)}, "config of the model is None: give"),
        (
            {"model": MODEL._replace(config={"a": print})},
            "config of the model cannot be",
        ),
        ({"model": models.Model(3, 4)}, "apply of the model is 4: give a function"),
        ({"model": models.Model(3, MODEL.apply)}, "init of the model is 3: give a fun"),
        ({"model": models.Model(MODEL.init, lambda p: p)}, r"takes \(p\): let it take"),
        ({"monitor": 3}, "unknown monitor '3'"),
        ({"outputs": "foo"}, "unknown outputs 'foo'"),
        ({"outputs": "probabilities"}, "the loss cross_entropy takes 'logits'"),
        ({"read_test": "no"}, "read_test is 'no': give True or False"),
        (
            {"metrics": {"error": lambda o, t: 1.0 * (o.argmax() != t)}}
            | {"monitor": "error"},
            "does not say which way is better",
        ),
    ],
)
def test_arguments_that_cannot_be(changes, sentence, quadrants):
    with pytest.raises(UserError, match=sentence) as refused:
        train(quadrants, **changes)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda train, metrics: train, "does not return .train, metrics. with a me"),
        (
            lambda train, metrics: (train._replace(step=0 * train.step), metrics),
            "count",
        ),
        (lambda train, metrics: (train, {"other": 1.0}), "with a metrics"),
        (
            lambda train, metrics: (train._replace(params={}), metrics),
            "with other arra",
        ),
        (lambda train, metrics: (train, metrics | {"w": train.params}), "not a numb"),
        (
            lambda train, metrics: train.nothing,
            "step of make_step cannot be taken: Att",
        ),
    ],
)
def test_a_step_of_the_users_own_that_cannot_be(change, sentence, quadrants):
    def make_step(step):
        return lambda train, batch, hparams: change(*step(train, batch, hparams))

    with pytest.raises(UserError, match=sentence):
        train(quadrants, make_step=make_step)


def unlearnt(outputs, targets):
    return jax.lax.stop_gradient(losses.cross_entropy(outputs, targets))


def errors(outputs, targets):
    return 1.0 * (outputs.argmax() != targets)


def forgetful(model, params, state, inputs, targets, *, key):
    outputs, _ = model.apply(params, state, inputs, key=key)
    return losses.cross_entropy(outputs, targets), (outputs, None)


def shaped_in_training(model, params, state, inputs, targets, *, key):
    outputs, state = model.apply(params, state, inputs, key=key)
    loss = losses.cross_entropy(outputs, targets)
    return loss * (1.0 if key is None else jnp.ones(3)), (outputs, state)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"loss": unlearnt}, "gradient of the loss unlearnt is 0 for all parameters"),
        ({"loss": errors}, "gradient of the loss errors is 0 for all parameters"),
        ({"objective": forgetful}, "forgetful returns a state of another form than it"),
        (
            {"model": models.Model(lambda key, x: {}, lambda p, x, *, key=None: x[0])},
            "the model has no parameters, so nothing can be learnt: let init return",
        ),
        ({"objective": shaped_in_training}, r"has shape \(3,\) for one example"),
        (
            {"loss": lambda o, t: (o[t] - 1) ** 2, "outputs": "probabilities"},
            "said to be probabilities, but those of one example are",
        ),
        ({"metrics": {"a": metrics.mae}}, "'a' is for outputs that are values or prob"),
        (
            {"metrics": {"a": metrics.label_roc_auc}},
            "'a' is for outputs that are binary_logits, but those of this run are",
        ),
    ],
)
def test_what_has_no_slope_or_another_meaning(changes, sentence, quadrants):
    with pytest.raises(UserError, match=sentence):
        train(quadrants, **changes)


def test_labels_that_an_own_loss_uses_as_indices(quadrants):
    def loss(outputs, targets):
        return -jax.nn.log_softmax(outputs)[targets]

    def masked(outputs, targets):
        return jnp.where(targets < 3, loss(outputs, targets), 0.0)

    three = models.mlp((8,), num_classes=3)
    with pytest.raises(UserError, match="has the target 3, which the loss loss uses"):
        train(quadrants, three, loss=loss)
    assert train(quadrants, three, loss=masked, quiet=True).summary["test"]


def kept_rate(learning_rate):
    """The rate is the one of step 0."""
    return optax.inject_hyperparams(optax.sgd)(learning_rate=learning_rate)


def test_a_number_that_only_the_state_of_step_0_has(quadrants):
    begun = train(quadrants, optimizer=kept_rate, quiet=True)
    start = Start(begun.params, begun.state, begun.opt_state)
    explored = observers.population_based_training(
        {"learning_rate": (1e-4, 1.0)}, share=0.5
    )
    rates = {"learning_rate": [1e-3, 1e-2]}
    for options in ({"start": start}, {"observe": [explored], "num_epochs": 2}):
        with pytest.raises(UserError, match="'learning_rate' has no effect after step"):
            train(quadrants, optimizer=kept_rate, hparams=rates, **options)


def own_update(step):
    def call(train, batch, hparams):
        grads, state, metrics = step.gradient(train, batch, hparams)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, train.params, grads)
        return train._replace(step=train.step + 1, params=params, state=state), metrics

    return call


def own_gradient(step):
    def call(train, batch, hparams):
        return train._replace(step=train.step + 1), {"loss": batch.inputs.mean()}

    return call


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"optimizer": kept_rate, "schedule": schedules.cosine},
            "the schedule .* has no effect, because kept_rate does not use",
        ),
        (
            {"optimizer": functools.partial(optax.sgd, 0.1), "hparams": {}}
            | {"make_step": own_update, "probe": lambda g, u, p: {"norm": g_norm(g)}},
            "own_update does not return 'norm' of the probe",
        ),
        (
            {"optimizer": functools.partial(optax.sgd, 0.1), "hparams": {}}
            | {"make_step": own_gradient, "batch_transform": lambda key, batch: batch},
            "own_gradient does not call step.gradient, which applies the batch_trans",
        ),
    ],
)
def test_what_has_no_effect_is_refused(changes, sentence, quadrants):
    with pytest.raises(UserError, match=sentence):
        train(quadrants, **changes)


def g_norm(grads):
    return optax.tree.norm(grads)


def test_a_batch_transform_keeps_the_weights(quadrants):
    weights = np.ones(quadrants.train.num_examples, np.float32)
    weighted = quadrants._replace(train=quadrants.train._replace(weights=weights))
    with pytest.raises(UserError, match="drops the weights of the examples"):
        train(weighted, batch_transform=lambda k, b: Batch(b.inputs, b.targets))


def with_a_default(learning_rate=0.3):
    return optax.sgd(learning_rate)


@pytest.mark.parametrize(
    "optimizer", [functools.partial(optax.sgd, learning_rate=0.3), with_a_default]
)
def test_a_bound_learning_rate_is_not_replaced(optimizer, quadrants):
    bound = train(quadrants, optimizer=optimizer, quiet=True)
    given = train(
        quadrants, optimizer=optax.sgd, hparams={"learning_rate": 0.3}, quiet=True
    )
    assert bound.hparams == {}
    assert bound.summary["test"]["loss"] == given.summary["test"]["loss"]


def test_an_optimizer_gets_a_seed_of_the_member(quadrants):
    def noisy(learning_rate, seed):
        noise = optax.add_noise(0.1, 0.5, jax.random.key(seed))
        return optax.chain(noise, optax.sgd(learning_rate))

    zeros = jax.tree.map(lambda leaf: 0 * leaf, PARAMS)
    run = train(
        quadrants, optimizer=noisy, seeds=2, start=zeros, num_epochs=1, quiet=True
    )
    bias = np.asarray(run.params["Dense_1"]["bias"])
    assert abs(bias[0] - bias[1]).max() > 1e-6


@pytest.mark.parametrize(
    "augment", [models.Augment(brightness=0.1), models.Augment(cut_out=2)]
)
def test_pixels_that_an_augmentation_would_spoil(augment, quadrants):
    model = models.augmented(MODEL, augment)
    train(quadrants, model, quiet=True)  # uint8
    whole = quadrants.each_split(lambda s: s._replace(inputs=1.0 * s.inputs))
    with pytest.raises(UserError, match=r"images go from 0 to .*for pixels in \[0, 1"):
        train(whole, model)
    train(whole, models.augmented(MODEL, models.Augment(flip=True)), quiet=True)


def test_an_augmentation_of_pixels_is_the_outermost_wrapper():
    spoilt = models.augmented(MODEL, models.Augment(brightness=0.1))
    with pytest.raises(UserError, match="wrap first, and augment the result"):
        models.standardized(spoilt, [0.5], [0.3])
    models.rescaled(spoilt, 0.0, 2.0)


def test_a_bound_key_is_not_replaced(quadrants):
    """All members have it, so those of the same batches end alike."""
    noisy = functools.partial(optax.noisy_sgd, key=3)
    for make in (noisy, optimizers.clipped(noisy)):
        more = {} if make is noisy else {"clip_norm": 9.0}
        size = quadrants.train.num_examples
        run = train(
            quadrants,
            optimizer=make,
            hparams={"learning_rate": 0.1, **more},
            seeds=2,
            batch_size=size,
            start=PARAMS,
            quiet=True,
        )
        bias = np.asarray(run.params["Dense_1"]["bias"])
        np.testing.assert_allclose(bias[0], bias[1], atol=1e-6)


def test_ranges_are_of_the_functions_of_optax_and_of_the_library(quadrants):
    """What a function of the user's makes of a number called eps is its own affair."""

    def loss(outputs, targets, *, eps=0.1):
        return losses.cross_entropy(outputs, targets) + eps

    numbers = {"learning_rate": 0.1, "loss.eps": 0.0, "optimizer.eps": 1e-8}
    run = train(quadrants, loss=loss, hparams=numbers, outputs="logits", quiet=True)
    assert run.summary["population"][0]["hparams"]["loss.eps"] == 0


def test_the_nearest_name_is_said_first(quadrants):
    with pytest.raises(UserError) as refused:
        train(quadrants, hparams={"learning_rat": 1})
    said = str(refused.value)
    assert said.index("did you mean 'learning_rate'?") < said.index("leave it out")


def test_labels_out_of_range(quadrants):
    label = quadrants.train.targets.copy()
    label[3] = 4
    bad = quadrants._replace(train=Batch(quadrants.train.inputs, label))
    with pytest.raises(UserError, match=r"labels 0 ... 4 for 4 classes"):
        train(bad)


def test_splits_that_do_not_fit_together(quadrants):
    short = quadrants._replace(
        test=Batch(quadrants.test.inputs[:-1], quadrants.test.targets)
    )
    with pytest.raises(
        UserError, match=r"has 32 examples in inputs and 33 in targets: give"
    ):
        train(short)
    other = quadrants._replace(
        test=Batch(np.zeros((33, 9, 8, 1), np.uint8), quadrants.test.targets)
    )
    with pytest.raises(UserError, match="make them equal"):
        train(other)


def test_a_folder_below_a_file_cannot_be_written(quadrants, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written .* workdir \(--workdir\)"):
        train(quadrants, workdir=tmp_path / "file" / "run")


def test_a_folder_in_use_by_another(quadrants, tmp_path):
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="in use by another process"):
            train(quadrants, workdir=tmp_path)
    train(quadrants, workdir=tmp_path)  # and free again


def test_a_folder_on_a_disk_without_locks(quadrants, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match=r"cannot be locked .No locks") as refused:
        train(quadrants, workdir=tmp_path)
    assert not isinstance(refused.value, InUseError)  # for which a sweep waits


@pytest.fixture(scope="module")
def trained(quadrants, tmp_path_factory):
    """The folder of a finished run, to be copied."""
    workdir = tmp_path_factory.mktemp("trained")
    train(quadrants, workdir=workdir)
    return workdir


@pytest.mark.parametrize("damage", ["missing", "cut", "foreign"])
def test_a_file_that_is_no_checkpoint(damage, quadrants, trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (tmp_path / "summary.json").unlink()
    newest = max((tmp_path / "checkpoints").iterdir(), key=lambda p: int(p.name))
    (newest / DIGESTS).unlink()  # as of an earlier version
    for path in newest.rglob("*"):
        if not path.is_file() or path.name == "commit_success.txt":
            continue
        if damage == "missing" and path.name == "_METADATA":
            path.unlink()
        elif damage == "cut" and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[:10])
        elif damage == "foreign" and path.name == "_METADATA":
            path.write_text("this is no checkpoint")
    with pytest.raises(
        UserError, match="does not fit this run or is damaged"
    ) as refused:
        train(quadrants, workdir=tmp_path)
    assert "\n" not in str(refused.value)


def test_a_damaged_config(quadrants, tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json. is not JSON"):
        train(quadrants, workdir=tmp_path)


def test_a_log_that_is_shorter_than_the_record(quadrants, trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="shorter than at its checkpoint"):
        train(quadrants, workdir=tmp_path)


LINE = b'{"step": 1, "epoch": 1, "train": {}}\n'


@pytest.mark.parametrize(
    ("other", "has_digest"),
    [(LINE * 99, True), (LINE * 99, False), (b"x" * 9999, False)],
)
def test_a_log_of_another_run_is_refused_and_kept(
    other, has_digest, quadrants, trained, tmp_path, monkeypatch
):
    if not has_digest:
        _leave_out_digests(monkeypatch)
        train(quadrants, workdir=tmp_path)
    else:
        shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (tmp_path / "metrics.jsonl").write_bytes(other)
    with pytest.raises(UserError, match=r"metrics.jsonl is not the log of the check"):
        train(quadrants, workdir=tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == other


def _leave_out_digests(monkeypatch):
    """As in checkpoints of earlier versions."""
    save = Checkpoints.save

    def saved(self, step, state, position):
        known = {k: v for k, v in position.items() if k in ("step", "log", "seconds")}
        save(self, step, state, known)

    monkeypatch.setattr(Checkpoints, "save", saved)


@pytest.mark.parametrize("is_finished", [True, False])
def test_checkpoints_of_other_settings_are_refused(
    is_finished, quadrants, trained, tmp_path
):
    other, own = tmp_path / "other", tmp_path / "own"
    train(quadrants, workdir=other, hparams={"learning_rate": 0.002})
    shutil.copytree(trained, own)
    shutil.rmtree(own / "checkpoints")
    shutil.copytree(other / "checkpoints", own / "checkpoints")
    (own / ("report.html" if is_finished else "summary.json")).unlink(missing_ok=True)
    before = {p.name: p.read_bytes() for p in own.iterdir() if p.is_file()}
    with pytest.raises(
        UserError, match=r"checkpoint 6 .* of a run with other settings"
    ):
        train(quadrants, workdir=own)
    assert before == {p.name: p.read_bytes() for p in own.iterdir() if p.is_file()}


def test_a_run_without_its_config_is_not_taken_for_a_shorter_one(quadrants, tmp_path):
    train(quadrants, workdir=tmp_path, num_epochs=2)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match="has 12 steps, more than the 6 asked for"):
        train(quadrants, workdir=tmp_path, num_epochs=1)
    assert train(quadrants, workdir=tmp_path, num_epochs=2).summary["steps"] == 12


def test_an_earlier_version_is_continued(quadrants, tmp_path, monkeypatch):
    with monkeypatch.context() as earlier:
        _leave_out_digests(earlier)
        train(quadrants, workdir=tmp_path)
    train(quadrants, workdir=tmp_path, num_epochs=2)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_full_disk_keeps_the_last_record(quadrants, tmp_path):
    """No file may grow beyond a few KB: what a full disk does to a writer."""
    jax.config.update("jax_enable_compilation_cache", False)  # it is not the point
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    options = {"model": models.mlp((512,), num_classes=4), "steps_per_chunk": 1}
    options |= {"workdir": tmp_path / "run", "save_every_steps": 1}

    def fill(snapshot):
        if snapshot.step == 3:  # of 6; the second is saved, or will be
            resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))

    try:
        with pytest.raises(UserError, match="make room or choose another") as refused:
            train(quadrants, **options, observe=[fill])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        jax.config.update("jax_enable_compilation_cache", True)
    assert "\n" not in str(refused.value)
    seen = []
    observe = [lambda snapshot: seen.append(snapshot.step)]
    run = train(quadrants, **options, observe=observe)  # with room, it goes on
    assert run.summary["steps"] == 6 and 1 < seen[0] <= 4


def test_a_disk_that_is_full_from_the_start(quadrants, tmp_path, full_disk):
    with full_disk(), pytest.raises(UserError, match="make room or choose another"):
        train(quadrants, workdir=tmp_path / "run")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--batch-size", "2000"], "batch_size is 2000, but the train split"),
        (["--num-epochs", "0"], "num_epochs is 0"),
        (["--learning-rate", "-1"], "hyper-parameter 'learning_rate' is"),
        (["--workdir", "README.md/run"], "cannot be written"),
        (["--workdir", ""], "an argument is empty"),
        (["--workdir="], "--workdir is empty"),
        (["--workdir", "n" * 256], "is too long"),
    ],
)
def test_a_script_leaves_with_2_and_no_traceback(
    flags, sentence, tmp_path, start, monkeypatch
):
    monkeypatch.chdir(ROOT)
    if not any(flag.startswith("--workdir") for flag in flags):
        flags = [*flags, "--workdir", tmp_path]
    code, _, err = start("experiments/digits.py", *flags)
    assert code == 2 and "Traceback" not in err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and sentence in errors[0]


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_without_a_traceback(tmp_path):
    code = f"""
import resource, sys
flags = "--num-epochs", "1", "--seeds", "1"
sys.argv = ["digits.py", "--workdir", {str(tmp_path)!r}, *flags]
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
import runpy
sys.path.insert(0, "experiments")  # as Python does for a script
runpy.run_path("experiments/digits.py", run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            **SOON_THERE,
            "JAX_ENABLE_COMPILATION_CACHE": "false",
        },
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "error: writing the run folder" in done.stderr


def test_an_unknown_flag_leaves_with_2(start):
    code, out, err = start(ROOT / "experiments/digits.py", "--epochs", "3")
    assert code == 2
    assert "--num-epochs" in err + out
    assert "Traceback" not in err


def test_what_is_not_finite_is_null_in_json(quadrants, tmp_path):
    train(
        quadrants,
        optimizer=optax.sgd,
        hparams={"learning_rate": 1e30},
        workdir=tmp_path,
    )
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
    summary = json.loads(
        (tmp_path / "summary.json").read_text(), parse_constant=pytest.fail
    )
    assert summary["population"][0]["status"] == "quarantined"
    assert summary["test"]["accuracy"]["mean"] is None
    assert jnp.isfinite(summary["examples_per_second"])


def test_with_patience_and_no_finite_validation_nothing_is_called_the_best(quadrants):
    def objective(model, params, state, inputs, targets, *, key):
        outputs, state = model.apply(params, state, inputs, key=key)
        loss = losses.cross_entropy(outputs, targets)
        return loss if key is not None else loss * jnp.nan, (outputs, state)

    run = train(quadrants, objective=objective, patience=2, num_epochs=3)
    assert run.summary["parameters_taken"] == "last"
    (row,) = run.summary["population"]
    assert row["status"] == "stopped early" and row["best_validation_loss"] is None
    assert row["note"].startswith("no validation loss was finite; validation has 33 ")


@pytest.mark.parametrize(
    "name",
    [
        "metrics.jsonl",
        "summary.json",
        "report.html",
        "predictions.npz",
        "data_card.json",
    ],
)
def test_files_that_no_run_wrote_are_kept(name, quadrants, tmp_path):
    (tmp_path / name).write_text("precious")
    with pytest.raises(UserError, match=f"{name} is not of a run, .* no config.json"):
        train(quadrants, workdir=tmp_path)
    assert (tmp_path / name).read_text() == "precious"
    assert {p.name for p in tmp_path.iterdir()} == {name, ".lock"}


@pytest.mark.parametrize("name", [".lock", "metrics.jsonl"])
@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_a_link_in_a_run_folder_is_not_written_through(link, name, quadrants, tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("precious")
    train(quadrants, workdir=tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    getattr(tmp_path / "run" / name, link)(mine)
    with pytest.raises(UserError, match=f"cannot be written .{name} is a .*link"):
        train(quadrants, workdir=tmp_path / "run")
    assert mine.read_text() == "precious"


def test_links_in_a_run_folder_are_replaced(quadrants, tmp_path, reported):
    names = ["config.json", "summary.json", "report.html", "predictions.npz"]
    names += ["params.safetensors", "data_card.json", "preprocessing.json"]
    (tmp_path / "run").mkdir()
    for name in names:
        (tmp_path / name).write_text("{}")
        if name != "config.json":
            (tmp_path / "run" / name).symlink_to(tmp_path / name)
    train(quadrants, workdir=tmp_path / "run")
    assert {(tmp_path / name).read_text() for name in names} == {"{}"}


@pytest.mark.parametrize("name", ["summary.json", "params.safetensors", "report.html"])
def test_a_folder_in_the_place_of_a_file(name, quadrants, trained, tmp_path, reported):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"{name} is not a regular file"):
        train(quadrants, workdir=tmp_path)


def test_a_file_in_the_place_of_the_checkpoints(quadrants, trained, tmp_path, caplog):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").write_text("mine")
    with pytest.raises(UserError, match="checkpoints is not a folder"):
        train(quadrants, workdir=tmp_path)
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("value", [jax.nn.relu, {1, 2}, 10**400, "\udcff", 1j, b"x"])
def test_a_config_that_is_no_json_is_refused_before_it_is_written(
    value, quadrants, tmp_path
):
    model = MODEL._replace(config={"name": "own", "activation": value})
    with pytest.raises(UserError, match="config of the model cannot be written as J"):
        train(quadrants, model, workdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_setting_is_listed_once(quadrants):
    for hparams in ({"learning_rate": [0.1, 0.1]}, [{"learning_rate": 0.1}] * 2):
        with pytest.raises(UserError, match=r"learning_rate=0\.1 more than once"):
            fit(models.logistic(4), quadrants, hparams=hparams, batch_size=16)


def test_a_metric_of_a_split_takes_weights_and_returns_a_number(quadrants):
    def short(outputs, targets):
        return 0.0

    def several(outputs, targets, weights):
        return outputs.mean(0)

    for function, sentence in ((short, "does not take"), (several, "one number")):
        own = {"own": metrics.Metric(function, split=True)}
        with pytest.raises(UserError, match=f"metric 'own' .*{sentence}"):
            fit(models.logistic(4), quadrants, metrics=own, batch_size=16)


@pytest.mark.parametrize("take", [lambda w, x: w[x], lambda w, x: jnp.take(w, x, 0)])
def test_tokens_are_in_the_table_that_they_index(take):
    tokens, label = np.arange(120).reshape(20, 6) % 10, np.arange(20) % 2
    model = models.Model(
        lambda key, x: jnp.ones((9, 2)), lambda w, x, *, key=None: take(w, x).mean(0)
    )
    said = r"example .* of the train split .* index 9 is out .* with size 9"
    with pytest.raises(UserError, match=said):
        fit(model, data.from_arrays(tokens, label), batch_size=4)
    few = data.from_arrays(tokens % 9, label)
    assert fit(model, few, batch_size=4, quiet=True).summary["test"]["loss"]["n"] == 1
