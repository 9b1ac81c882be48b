"""A wrong call of a public function is answered in one sentence; nothing runs."""

import equinox as eqx
import flax.linen as nn
import jax
import numpy as np
import optuna
import pytest
from flax import nnx

from dlworkshop import (
    autofit,
    data,
    load_run,
    losses,
    metrics,
    models,
    observers,
    optimizers,
    schedules,
    sweep,
)
from dlworkshop.errors import UserError
from dlworkshop.learn.metrics import calibration_error
from dlworkshop.models import Augment
from dlworkshop.serve.export import export
from dlworkshop.serve.features import features
from dlworkshop.verify import check_gradients, claims

X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
DATA = data.from_arrays(X, X[:, 0] > 0)
MODEL = models.logistic(2)
PARAMS = MODEL.init(jax.random.key(0), X[0])
WHOLE, NUMBER = "give a whole number of at least 1", "give a number in"


class Net(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.width)(x)


def swept(sentence, model=MODEL, hparams=(("learning_rate", 0.1),), **options):
    """A sweep that is refused."""
    how = {"batch_size": 8} if "batch_size" not in dict(hparams) else {}
    return (
        lambda: sweep(model, DATA, hparams=dict(hparams), **how | options),
        sentence,
    )


def wide(width):
    return models.mlp((width,), num_classes=2)


def broad(batch_size):
    return models.mlp((batch_size,), num_classes=2)


RATE = {"learning_rate": 0.1}
LISTS = {"width": [4, 8], "learning_rate": [0.1, 0.2]}
SWEEPS = {
    "sweep option": swept("unknown argument of a sweep 'epochs': did you m", epochs=3),
    "sweep halving": swept(
        "successive halving works within one program",
        observe=[observers.successive_halving(1)],
    ),
    "sweep read_test": swept("leave read_test out", read_test=True),
    "sweep engine": swept("unknown engine 'slurm'", engine="slurm"),
    "sweep model": swept("the model is 3: give a models.Model", model=3),
    "sweep no model": swept(r"wide\(\) makes no model: TypeError", model=wide),
    "sweep bad model": swept(
        r"widths\[0\] is -1: give a whole number",
        model=wide,
        hparams={"width": [4, -1], **RATE},
    ),
    "sweep name": swept(
        "unknown hyper-parameter 'widht': did you mean 'width'",
        model=wide,
        hparams={"widht": [4, 8], **RATE, "width": 3},
    ),
    "sweep both": swept(
        "'batch_size' is an argument of both broad and fit",
        broad,
        {"batch_size": [4, 8]},
    ),
    "sweep twice": swept(
        "batch_size is given twice", hparams={"batch_size": [4, 8]}, batch_size=4
    ),
    "sweep seeds": swept(
        "contains 'seeds', which must be the same for all", hparams={"seeds": [1, 2]}
    ),
    "sweep batch": swept(
        "batch_size is 100, but the train split", hparams={"batch_size": [4, 100]}
    ),
    "sweep number": swept("batch_size is 0.5: give", hparams={"batch_size": 0.5}),
    "sweep losses": swept(
        "values of different losses cannot be compared",
        hparams={"loss": [losses.cross_entropy, losses.squared_error]},
    ),
    "sweep value twice": swept(
        "has the value 0.1 more than once", hparams={"learning_rate": [0.1, 0.1]}
    ),
    "sweep no value": swept("has no value", hparams={"learning_rate": []}),
    "sweep text": swept("'learning_rate' is 'a'", hparams={"learning_rate": ["a"]}),
    "sweep final seeds": swept(
        "final_seeds contains 1, which is a seed of", seeds=2, final_seeds=[1]
    ),
    "sweep no final seeds": swept("final_seeds: seeds is 0", final_seeds=0),
    "sweep ray options": swept("no effect without engine='ray'", ray_options={}),
    "sweep trials": swept("num_trials has no effect without", num_trials=3),
    "sweep at once": swept("trials_at_once has no effect without", trials_at_once=16),
    "sweep sampler": swept("sampler is 'tpe': give a constructor", sampler="tpe"),
    "sweep number of trials": swept("num_trials is None: give a whole", sampler=dict),
    "sweep trials at once": swept(
        "trials_at_once is 0", sampler=dict, num_trials=3, trials_at_once=0
    ),
    "sweep listed": (
        lambda: sweep(MODEL, DATA, hparams=[RATE], sampler=dict, num_trials=3),
        "hparams is a list of settings, so there is nothing to sample",
    ),
    "sweep range": swept(
        "is a distribution, but without a sampler every value is tried",
        hparams={"learning_rate": optuna.distributions.FloatDistribution(0.1, 1.0)},
    ),
}
CALLS = {
    # models
    "mlp(32)": (lambda: models.mlp(32), "widths is 32: give a tuple of integers"),
    "mlp(-3)": (lambda: models.mlp((-3,)), rf"widths\[0\] is -3: {WHOLE}"),
    "mlp('a')": (lambda: models.mlp("a"), "widths is 'a': give a tuple"),
    "no classes": (lambda: models.mlp(num_classes=0), f"num_classes is 0: {WHOLE}"),
    "mlp dropout": (
        lambda: models.mlp(dropout=2.0),
        r"dropout is 2.0: give a number in \[0, 1\)",
    ),
    "mlp dtype": (lambda: models.mlp(dtype=int), "dtype is the class int: give a flo"),
    "mlp dtype text": (lambda: models.mlp(dtype="foo"), "dtype is 'foo': give"),
    "activation": (lambda: models.mlp(activation=3), "got 3 instead of a fun"),
    "cnn": (lambda: models.cnn((8, 0)), rf"features\[1\] is 0: {WHOLE}"),
    "cnn dense": (lambda: models.cnn(dense=8), "dense is 8: give a tuple"),
    "resnet": (lambda: models.resnet((True,)), rf"features\[0\] is True: {WHOLE}"),
    "resnet norm": (
        lambda: models.resnet(norm="layer"),
        "norm is 'layer': give one of group, batch",
    ),
    "resnet block": (
        lambda: models.resnet(block="heavy"),
        "block is 'heavy': give one of basic, light",
    ),
    "logistic": (lambda: models.logistic("a"), f"num_classes is 'a': {WHOLE}"),
    "vgg16": (lambda: models.vgg16(num_classes=-1), f"num_classes is -1: {WHOLE}"),
    "vgg16 top": (lambda: models.vgg16("no"), "include_top is 'no': give True or"),
    "vgg16 weights": (lambda: models.vgg16(weights=3), "weights is 3: give a path"),
    "vgg16 pooling": (lambda: models.vgg16(pooling=3), "unknown pooling '3'"),
    "vgg16 top with pooling": (
        lambda: models.vgg16(include_top=True, pooling="avg"),
        "pooling has no effect with include_top=True: leave one out",
    ),
    "vgg16 classes": (
        lambda: models.vgg16(num_classes=10),
        "num_classes has no effect without include_top=True: add it",
    ),
    "linen": (lambda: models.from_linen(3), "from_linen got 3, wanted a Linen module"),
    "linen class": (lambda: models.from_linen(Net), "from_linen got the class Net"),
    "linen call": (lambda: models.from_linen(Net(2), call=3), "call is 3: give a func"),
    "linen config": (lambda: models.from_linen(Net(2), 3), "config is 3: give a dict"),
    "batched": (lambda: models.from_linen(Net(2), batched=3), "batched is 3: give Tru"),
    "nnx": (lambda: models.from_nnx(3), "from_nnx cannot make a module of 3"),
    "nnx class": (
        lambda: models.from_nnx(nnx.Linear),
        "cannot make a module of the class Linear .*: give the module, or a function",
    ),
    "nnx function": (
        lambda: models.from_nnx(lambda rngs: 3),
        r"got an array int32\[\], wanted an",
    ),
    "equinox": (lambda: models.from_equinox(3), "from_equinox cannot make a module of"),
    "equinox class": (
        lambda: models.from_equinox(eqx.nn.Linear),
        "from_equinox cannot make a module of the class Linear",
    ),
    "haiku": (lambda: models.from_haiku(3), "from_haiku got 3, wanted a transformed"),
    "predict shape": (
        lambda: models.predict(MODEL, PARAMS, X[:, :2]),
        r"the model cannot process the inputs float32\[60, 2\]: ScopeParam",
    ),
    "num_params": (lambda: models.num_params(3), "the parameters have 3: give a tree"),
    "predict": (lambda: models.predict(3, {}, X), "the model is 3: give a models.Mod"),
    "augment": (lambda: Augment(shift=-1), "shift is -1: give a whole number of at l"),
    "augmented": (lambda: models.augmented(MODEL, 3), "augment is 3: give a function"),
    "standardized": (
        lambda: models.standardized(MODEL, "a", 1.0),
        "mean is 'a': give numbers",
    ),
    "rescaled": (lambda: models.rescaled(3, 0.0, 1.0), "the model is 3: give a models"),
    "edges": (
        lambda: models.piecewise_linear(MODEL, 3),
        "edges is 3: give at least two",
    ),
    # data
    "first": (lambda: DATA.first("a"), f"num_examples is 'a': {WHOLE}"),
    "load": (lambda: data.load(3), "the name of a data set is 3: give a path"),
    "load data_dir": (lambda: data.load("digits", 3), "data_dir is 3: give a path"),
    "load_run": (lambda: load_run(3), "workdir is 3: give a path"),
    # training
    "autofit": (
        lambda: autofit("abc"),
        "the dataset is 'abc': give the result of data.load",
    ),
    "autofit minutes": (
        lambda: autofit(DATA, minutes="a"),
        f"minutes is 'a': {NUMBER}",
    ),
    "autofit seeds": (lambda: autofit(DATA, seeds=0), f"seeds is 0: {WHOLE}"),
    "autofit model": (lambda: autofit(DATA, model=3), "the model is 3: give a models"),
    "autofit NaN": (
        lambda: autofit(data.from_arrays(np.where(X > 1, np.nan, X), X[:, 0] > 0)),
        "the train split of 'data' has NaN",
    ),
    "sweep": (lambda: sweep(MODEL, DATA, hparams=3), "hparams is 3: give a dict of na"),
    "sweep workdir": (
        lambda: sweep(MODEL, DATA, hparams={"learning_rate": 0.1}, workdir=3),
        "workdir is 3: give a path",
    ),
    **SWEEPS,
    # pieces
    "weighted": (lambda: losses.weighted(3, [1.0]), "loss is 3: give a function"),
    "weights": (
        lambda: losses.weighted(losses.cross_entropy, "a"),
        "weights is 'a': give an array",
    ),
    "class_weights": (
        lambda: losses.class_weights(X[:, 0], 2),
        r"the labels are float32 \(60,\): give whole numbers",
    ),
    "top_k": (lambda: metrics.top_k("a"), f"k is 'a': {WHOLE}"),
    "bins": (lambda: calibration_error([0.5], [1], 0), f"num_bins is 0: {WHOLE}"),
    "clipped": (lambda: optimizers.clipped(3), "the optimizer to be clipped is 3"),
    "cosine": (lambda: schedules.cosine(100, 2), rf"warmup is 2: {NUMBER} \[0, 1\)"),
    "one_cycle": (lambda: schedules.one_cycle("a"), f"num_steps is 'a': {WHOLE}"),
    "tensorboard": (lambda: observers.tensorboard(3), "folder is 3: give a path"),
    "claim": (lambda: claims.less("it", "abc", 1, why=""), "'it' is about 'abc'"),
    "trend": (lambda: claims.rises("it", range(9), why=""), r"has values \(9,\): give"),
    "check_gradients": (lambda: check_gradients(3, {}), "3"),
    "export": (lambda: export(3, "a", "onnx"), "the run is 3: give what fit or load"),
    "features": (
        lambda: features(MODEL, {}, 3),
        "the dataset is 3: give the result of data.l",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_one_sentence_says_what_came_and_what_was_wanted(name):
    call, sentence = CALLS[name]
    with pytest.raises(UserError, match=sentence) as refused:
        call()
    assert "\n" not in str(refused.value)
