"""What users bring: models of any library, losses, data; with public names only.

Each test is a small program as a user would write it, and what it should come to.
"""

import ast
import functools
from pathlib import Path

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

import dlworkshop
from dlworkshop import data, fit, load_run, losses, metrics, models, observers, sweep

pytestmark = pytest.mark.usefixtures("unreported")

LONGEST = 25  # lines of code, without the lines that ask whether it is right
RATE = {"learning_rate": 0.01}
fit = functools.partial(fit, batch_size=16, quiet=True)
sweep = functools.partial(sweep, batch_size=16, quiet=True)


def scores(run, name="accuracy"):
    """A metric of each member [P] on the test split."""
    return np.array([row["test"][name] for row in run.summary["population"]])


def member(run, index=0):
    """The parameters of one member."""
    return jax.tree.map(lambda leaf: leaf[index], run.params)


def pixels(split):
    """Images as a model sees them."""
    return np.asarray(split.inputs) / np.float32(255)


def assert_equal(a, b):
    """The same bits."""
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_close(a, b, rtol=1e-4, atol=1e-5):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol), a, b
    )


@pytest.mark.slow
def test_residual_cnn_with_group_norm(quadrants):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):  # [B, H, W, C]
            x = nn.Conv(8, (3, 3))(x)
            for _ in range(2):
                x += nn.Conv(8, (3, 3))(nn.relu(nn.GroupNorm(4)(x)))
            return nn.Dense(4)(x.reshape((x.shape[0], -1)))

    model = models.from_linen(Net(), batched=True)
    run = fit(model, quadrants, hparams=RATE, seeds=2, num_epochs=2)

    assert scores(run).min() > 0.5
    alone = Net().apply({"params": member(run, 1)}, pixels(quadrants.test))
    assert_close(run.predict(quadrants.test.inputs)[1], alone)


@pytest.mark.slow
def test_residual_cnn_with_batch_norm(quadrants):
    norm = functools.partial(nn.BatchNorm, momentum=0.8, axis_name=models.BATCH_AXES)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train):  # [H, W, C]
            x = nn.Conv(8, (3, 3))(x)
            for _ in range(2):
                x += nn.Conv(8, (3, 3))(nn.relu(norm(not train)(x)))
            return nn.Dense(4)(x.ravel())

    model = models.from_linen(Net())
    run = fit(model, quadrants, hparams=RATE, seeds=2, num_epochs=3)

    assert scores(run).min() > 0.5
    statistics = jax.tree.map(lambda leaf: leaf[1], run.state)
    assert np.abs(statistics["batch_stats"]["BatchNorm_0"]["mean"]).max() > 0
    variables = {"params": member(run, 1), **statistics}
    alone = [Net().apply(variables, x, False) for x in pixels(quadrants.test)[:4]]
    assert_close(run.predict(quadrants.test.inputs[:4])[1], np.stack(alone))


def test_nnx(quadrants):
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(64, 32, rngs=rngs)
            self.dropout = nnx.Dropout(0.1, rngs=rngs)
            self.last = nnx.Linear(32, 4, rngs=rngs)

        def __call__(self, image):
            return self.last(self.dropout(nnx.relu(self.first(image.ravel()))))

    run = fit(models.from_nnx(Net), quadrants, hparams=RATE, seeds=2, num_epochs=3)

    assert scores(run).min() > 0.5
    first, last = member(run)["first"], member(run)["last"]
    hidden = pixels(quadrants.test).reshape(-1, 64) @ first["kernel"] + first["bias"]
    alone = np.maximum(hidden, 0) @ last["kernel"] + last["bias"]  # without dropout
    assert_close(run.predict(quadrants.test.inputs)[0], alone)


def test_equinox(quadrants):
    make = functools.partial(eqx.nn.MLP, 64, 4, 32, 1)
    model = models.from_equinox(make, call=lambda mlp, image: mlp(image.ravel()))
    run = fit(model, quadrants, optax.adamw, hparams=RATE, seeds=2, num_epochs=3)

    assert scores(run).min() > 0.5
    first, last = member(run, 1)["layers"]["0"], member(run, 1)["layers"]["1"]
    hidden = pixels(quadrants.test).reshape(-1, 64) @ first["weight"].T + first["bias"]
    alone = np.maximum(hidden, 0) @ last["weight"].T + last["bias"]
    assert_close(run.predict(quadrants.test.inputs)[1], alone)


def test_haiku(quadrants):
    net = hk.transform(lambda image: hk.nets.MLP([32, 4])(image.ravel()))
    run = fit(models.from_haiku(net), quadrants, hparams=RATE, seeds=2, num_epochs=3)

    assert scores(run).min() > 0.5
    image = pixels(quadrants.test)[:4]
    alone = [net.apply(member(run), None, each) for each in image]
    assert_close(run.predict(quadrants.test.inputs[:4])[0], np.stack(alone))


def test_bare_functions(quadrants):
    model = models.Model(
        lambda key, image: jnp.zeros((image.size, 4)),
        lambda params, image, *, key=None: image.ravel() @ params,
    )
    size, rate = quadrants.train.num_examples, {"learning_rate": 0.5}
    run = fit(model, quadrants, optax.sgd, hparams=rate, batch_size=size)

    x = pixels(quadrants.train).reshape(size, -1)  # one step from zero, by hand
    wanted = 0.5 * x.T @ (np.eye(4)[quadrants.train.targets] - 0.25) / size
    assert_close(run.params[0], wanted)


@pytest.mark.slow
def test_own_hyper_parameter_in_a_sweep(quadrants):
    def focal(outputs, targets, *, gamma):
        likely = jax.nn.log_softmax(outputs)[targets]
        return -((1 - jnp.exp(likely)) ** gamma) * likely

    hparams = {**RATE, "gamma": [0.0, 2.0]}
    found = sweep(
        models.mlp((16,), num_classes=4), quadrants, loss=focal, hparams=hparams
    )
    plain = fit(models.mlp((16,), num_classes=4), quadrants, hparams=RATE)
    both = fit(models.mlp((16,), num_classes=4), quadrants, loss=focal, hparams=hparams)

    assert [row["hparams"]["gamma"] for row in found.trials] == [2, 0]  # less loss
    assert_close(member(both), member(plain), rtol=1e-3, atol=1e-4)
    assert scores(both, "loss")[1] < scores(both, "loss")[0]


def test_own_hyper_parameter_of_the_model(quadrants):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, image, *, temperature):  # without a default
            return nn.Dense(4)(image.ravel()) / temperature

    hparams = {**RATE, "temperature": [1.0, 4.0]}
    run = fit(models.from_linen(Net()), quadrants, hparams=hparams, num_epochs=2)

    kernel, bias = run.params["Dense_0"]["kernel"], run.params["Dense_0"]["bias"]
    flat = pixels(quadrants.test).reshape(-1, 64)
    alone = (flat @ kernel + bias[:, None]) / np.array([1.0, 4.0])[:, None, None]
    assert_close(run.predict(quadrants.test.inputs), alone)


def test_auxiliary_loss(quadrants):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, image):
            hidden = nn.relu(nn.Dense(16)(image.ravel()))
            return {"logits": nn.Dense(4)(hidden), "hidden": hidden}

    def sparse(model, params, state, inputs, targets, *, key=None, weight):
        outputs, state = model.apply(params, state, inputs, key=key)
        loss = losses.cross_entropy(outputs["logits"], targets)
        return loss + weight * jnp.abs(outputs["hidden"]).mean(), (outputs, state)

    def right(outputs, label):
        return outputs["logits"].argmax() == label

    options = {"objective": sparse, "metrics": {"accuracy": right}, "num_epochs": 3}
    hparams = {**RATE, "weight": [0.0, 5.0]}
    run = fit(models.from_linen(Net()), quadrants, hparams=hparams, **options)

    test = quadrants.test
    outputs = run.predict(test.inputs)
    size = np.abs(outputs["hidden"]).mean((1, 2))
    assert size[1] < 0.8 * size[0]
    likely = np.asarray(jax.nn.log_softmax(outputs["logits"]))
    likely = likely[:, np.arange(test.num_examples), test.targets].mean(1)
    assert_close(scores(run, "loss"), -likely + np.array([0, 5]) * size)
    assert_close(scores(run), (outputs["logits"].argmax(-1) == test.targets).mean(1))


def test_three_metrics_and_auc(quadrants):
    def surest(outputs, label):
        return jax.nn.softmax(outputs).max()

    measured = {
        "accuracy": metrics.accuracy,
        "top_2": metrics.top_k(2),
        "confidence": metrics.Metric(surest, better="higher"),
        "auc": metrics.roc_auc,
    }
    options = {"metrics": measured, "monitor": "auc", "patience": 2, "num_epochs": 4}
    run = fit(models.mlp((16,), num_classes=4), quadrants, hparams=RATE, **options)

    chance = np.asarray(jax.nn.softmax(run.predict(quadrants.test.inputs)[0]))
    label = quadrants.test.targets
    assert_close(scores(run, "auc")[0], roc_auc_score(label, chance, multi_class="ovr"))
    assert_close(scores(run, "confidence")[0], chance.max(1).mean())
    two = (np.argsort(-chance)[:, :2] == label[:, None]).any(1).mean()
    assert_close(scores(run, "top_2")[0], two)
    best = np.nanmax(run.history["validation/auc"])
    assert_close(run.summary["population"][0]["best_validation_auc"], best)
    assert run.summary["validation"]["auc"]["mean"] == pytest.approx(best)


@pytest.mark.slow
def test_mixup(quadrants):
    def mixup(key, batch, *, share):
        order = jax.random.permutation(key, batch.num_examples)
        batch = batch._replace(targets=jax.nn.one_hot(batch.targets, 4))
        return jax.tree.map(lambda a: share * a + (1 - share) * a[order], batch)

    model, hparams = models.mlp((16,), num_classes=4), {**RATE, "share": [1.0, 0.7]}
    plain = fit(model, quadrants, hparams=RATE, num_epochs=4)
    run = fit(model, quadrants, batch_transform=mixup, hparams=hparams, num_epochs=4)

    assert_close(member(run), member(plain), rtol=1e-3, atol=1e-4)  # nothing mixed
    train = run.history["train/loss"][-1]
    assert train[1] > train[0] + 0.1  # no model gets mixed targets right
    assert scores(run).min() > 0.5


@pytest.mark.slow
def test_adversarial_training():
    def step_up(model, params, state, inputs, targets, epsilon):
        def loss(inputs):
            return losses.cross_entropy(model.apply(params, state, inputs)[0], targets)

        return inputs + epsilon * jnp.sign(jax.grad(loss)(inputs))

    def adversarial(model, params, state, inputs, targets, *, key=None, epsilon):
        if key is not None:
            inputs = step_up(model, params, state, inputs, targets, epsilon)
        outputs, state = model.apply(params, state, inputs, key=key)
        return losses.cross_entropy(outputs, targets), (outputs, state)

    digits, model = data.load("digits"), models.mlp((32,))
    hparams = {**RATE, "epsilon": [0.0, 0.1]}
    options = {"objective": adversarial, "outputs": "logits", "batch_size": 64}
    run = fit(model, digits, hparams=hparams, num_epochs=3, **options)
    plain = fit(model, digits, hparams=RATE, num_epochs=3, batch_size=64)

    def robust(params):  # accuracy on attacked images
        attack = functools.partial(step_up, models.stateful(model), params, ())
        attacked = jax.vmap(functools.partial(attack, epsilon=0.1))
        worse = attacked(pixels(digits.test), digits.test.targets)
        said = models.predict(model, params, worse).argmax(-1)
        return (said == digits.test.targets).mean()

    assert_close(scores(run, "loss")[0], scores(plain, "loss")[0], 1e-3)  # no attack
    assert robust(member(run, 1)) > robust(member(run, 0)) + 0.1


@pytest.mark.slow
def test_distillation(quadrants):
    teacher = fit(
        models.mlp((32,), num_classes=4), quadrants, hparams=RATE, num_epochs=4
    )
    taught = member(teacher)

    def follow(model, params, state, inputs, targets, *, key=None, temperature):
        outputs, state = model.apply(params, state, inputs, key=key)
        soft = jax.nn.softmax(teacher.model.apply(taught, inputs) / temperature)
        return losses.cross_entropy(outputs / temperature, soft), (outputs, state)

    hparams = {"learning_rate": 0.02, "temperature": [1.0, 4.0]}
    options = {"objective": follow, "outputs": "logits", "num_epochs": 6}
    run = fit(models.logistic(4), quadrants, hparams=hparams, **options)

    says = teacher.predict(quadrants.test.inputs)[0]
    agree = run.predict(quadrants.test.inputs).argmax(-1) == says.argmax(-1)
    assert agree.mean(1).min() > 0.6
    own = run.predict(quadrants.test.inputs)[1] / 4
    crossed = -(jax.nn.softmax(says / 4) * jax.nn.log_softmax(own)).sum(1).mean()
    assert_close(scores(run, "loss")[1], crossed)


def test_moving_average_of_parameters(quadrants):
    def averaged(learning_rate, decay):
        sgd = optax.sgd(learning_rate)

        def update(grads, state, params):
            updates, inner = sgd.update(grads, state[0], params)
            new = optax.apply_updates(params, updates)
            return updates, (inner, optax.incremental_update(new, state[1], 1 - decay))

        return optax.GradientTransformation(lambda p: (sgd.init(p), p), update)

    seen = []
    model, hparams = models.logistic(4), {"learning_rate": 0.1, "decay": 0.5}
    begun = model.init(jax.random.key(7), quadrants.train.inputs[0])

    def watch(now):
        seen.append(jax.device_get(now.population.train.params))

    options = {"eval_params": lambda state, params: state[1], "observe": [watch]}
    options |= {"start": begun, "steps_per_chunk": 1}
    run = fit(model, quadrants, averaged, hparams=hparams, **options)

    average = begun  # of six updates, by hand
    for params in seen:
        average = jax.tree.map(lambda a, p: 0.5 * a + 0.5 * p[0], average, params)
    assert len(seen) == 6
    assert_close(member(run), average)
    assert np.abs(seen[-1]["Dense_0"]["kernel"] - run.params["Dense_0"]["kernel"]).max()


def test_hook(quadrants):
    seen = []

    def hook(now):
        seen.append((now.step, now.train["loss"].copy(), now.validation))
        if now.validation is not None:
            return now.validation["loss"] > 0.9 * np.log(4)  # those that learn nothing

    rates = {"learning_rate": [0.02, 0.0]}
    run = fit(
        models.mlp((16,), num_classes=4),
        quadrants,
        hparams=rates,
        num_epochs=3,
        observe=hook,
    )

    assert [step for step, *_ in seen] == run.history.step.tolist()
    assert_equal(np.stack([loss for _, loss, _ in seen]), run.history["train/loss"])
    assert [row["steps"] for row in run.summary["population"]] == [18, 6]
    assert run.summary["population"][1]["status"] == "stopped early"


def test_tensorboard(quadrants, tmp_path):
    pytest.importorskip("tensorboardX")
    log = observers.tensorboard(tmp_path / "logs")
    fit(models.logistic(4), quadrants, seeds=2, num_epochs=2, observe=[log])

    files = list((tmp_path / "logs").rglob("*tfevents*"))
    assert files and all(file.stat().st_size > 100 for file in files)


@pytest.mark.slow
def test_regression_on_a_table_with_a_sweep(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal([0, 100, -5, 0.1], [1, 50, 3, 0.01], (200, 4))  # [N, D]
    z = (x - x.mean(0)) / x.std(0)
    y = 7 + 3 * z @ [1, -2, 0.5, 0] + rng.normal(0, 0.1, 200)
    table = data.from_arrays(z, (y - y.mean()) / y.std(), name="table")
    rates = {"learning_rate": [1e-5, 0.05]}
    options = {"loss": losses.squared_error, "monitor": "rmse", "num_epochs": 5}
    options |= {"seeds": 2, "workdir": tmp_path / "best"}
    found = sweep(models.mlp((16,), num_classes=1), table, hparams=rates, **options)
    again = load_run(tmp_path / "best")

    order = [row["validation"]["rmse"]["mean"] for row in found.trials]
    assert order == sorted(order)
    assert found.trials[0]["hparams"] == {"learning_rate": 0.05}
    predicted = again.predict(table.test.inputs)[..., 0]  # [P, N]
    rmse = np.sqrt(((predicted - table.test.targets) ** 2).mean(1))
    assert_close(scores(found.run, "rmse"), rmse)
    assert rmse.max() < 0.5  # the standard deviation is 1


def test_autoencoder(quadrants):
    image = quadrants.train.inputs
    dataset = data.from_arrays(image, image)

    class Linear(nn.Module):
        @nn.compact
        def __call__(self, image):
            return nn.Dense(64)(nn.Dense(4)(image.ravel())).reshape(image.shape)

    model, rate = models.from_linen(Linear()), {"learning_rate": 0.02}
    options = {"loss": losses.squared_error, "hparams": rate, "num_epochs": 30}
    run = fit(model, dataset, **options)

    train, test = (
        pixels(split).reshape(-1, 64) for split in (dataset.train, dataset.test)
    )
    error = ((run.predict(dataset.test.inputs)[0].reshape(-1, 64) - test) ** 2).mean()
    assert_close(scores(run, "loss")[0], error)
    best = PCA(4).fit(train)  # no linear code of four numbers is better in training
    fitted = (
        (run.predict(dataset.train.inputs)[0].reshape(-1, 64) - train) ** 2
    ).mean()
    bound = ((best.inverse_transform(best.transform(train)) - train) ** 2).mean()
    assert bound < fitted < train.var(0).mean()


def test_several_labels(quadrants):
    label = quadrants.train.targets
    both = np.stack([label >= 2, label % 2 == 1], 1)  # bottom, right
    dataset = data.from_arrays(quadrants.train.inputs, both)
    loss, model = losses.binary_cross_entropy, models.mlp((16,), num_classes=2)
    run = fit(model, dataset, loss=loss, hparams={"learning_rate": 0.02}, num_epochs=8)

    said = run.predict(dataset.test.inputs)[0] > 0
    right = said == (dataset.test.targets > 0.5)
    assert_close(scores(run)[0], right.mean())
    assert right.mean() > 0.7
    assert scores(run, "f1_macro")[0] > 0.6


@pytest.mark.slow
def test_small_transformer_on_tokens():
    class Transformer(nn.Module):
        @nn.compact
        def __call__(self, tokens):  # [T]
            x = nn.Embed(5, 16)(tokens) + nn.Embed(6, 16)(jnp.arange(6))  # [T, D]
            mask = nn.make_causal_mask(tokens)
            x += nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x), mask=mask)
            return nn.Dense(5)(x + nn.Dense(16)(nn.gelu(nn.Dense(32)(x))))

    def mean_over(f):
        return lambda logits, label: jax.vmap(f)(logits, label).mean()

    tokens = np.random.default_rng(0).integers(0, 5, (500, 6))
    dataset = data.from_arrays(tokens, np.repeat(tokens[:, :1], 6, 1))  # the first one
    options = {"loss": mean_over(losses.cross_entropy), "num_epochs": 2}
    options |= {"metrics": {"accuracy": mean_over(metrics.accuracy)}}
    model, rate = models.from_linen(Transformer()), {"learning_rate": 0.01}
    run = fit(model, dataset, hparams=rate, **options)

    assert scores(run)[0] > 0.5  # by chance 1/5, and 1/6 more of the first place
    said = run.predict(dataset.test.inputs)[0].argmax(-1)
    assert_close(scores(run)[0], (said == dataset.test.targets).mean())


def test_dict_inputs(quadrants):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            hidden = nn.relu(nn.Dense(16)(inputs["image"].ravel()))
            return nn.Dense(2)(jnp.concatenate([hidden, inputs["side"]]))

    label = quadrants.train.targets
    side = np.stack([label % 2, 1 - label % 2], 1).astype(np.float32)  # [N, 2]
    inputs = {"image": quadrants.train.inputs, "side": side}
    dataset = data.from_arrays(inputs, label % 2, classes=("left", "right"))
    rate = {"learning_rate": 0.02}
    run = fit(models.from_linen(Net()), dataset, hparams=rate, seeds=2, num_epochs=4)

    assert scores(run).min() > 0.9
    swapped = {
        "image": dataset.test.inputs["image"],
        "side": 1 - dataset.test.inputs["side"],
    }
    assert (run.predict(dataset.test.inputs) != run.predict(swapped)).any()


@pytest.mark.slow
def test_more_epochs_of_a_finished_run(quadrants, tmp_path):
    train = functools.partial(
        fit, models.mlp((8,), num_classes=4), quadrants, hparams=RATE, seeds=2
    )
    train(num_epochs=1, workdir=tmp_path)
    longer = train(num_epochs=3, workdir=tmp_path)
    at_once = train(num_epochs=3)

    assert_equal(longer.params, at_once.params)
    assert_equal(longer.history["train/loss"], at_once.history["train/loss"])
    assert longer.summary["test"] == at_once.summary["test"]


@pytest.mark.slow
def test_warm_start(quadrants, tmp_path):
    model = models.mlp((8,), num_classes=4)
    fit(model, quadrants, hparams=RATE, num_epochs=2, workdir=tmp_path)
    begun = load_run(tmp_path, model)
    rates = {"learning_rate": [0.0, 0.01]}
    run = fit(model, quadrants, hparams=rates, start=begun)

    assert_equal(member(run), member(begun))
    assert scores(run, "loss")[1] != scores(run, "loss")[0] == scores(begun, "loss")[0]

    whole = dlworkshop.Start(begun.params, begun.state, begun.opt_state)
    with pytest.raises(
        dlworkshop.UserError, match="load_run returned, which does not read it"
    ):
        fit(model, quadrants, hparams=RATE, start=whole)
    again = fit(model, quadrants, hparams=RATE, num_epochs=2, workdir=tmp_path)
    whole = dlworkshop.Start(again.params, again.state, again.opt_state)
    steps = fit(model, quadrants, hparams=RATE, start=whole).opt_state[0].count
    assert steps.tolist() == [3 * run.summary["steps"]]


def test_freeze(quadrants):
    def last_only(learning_rate):
        rules = {"learn": optax.adam(learning_rate), "freeze": optax.set_to_zero()}
        labels = {"Dense_0": "freeze", "Dense_1": "learn"}  # a prefix of the parameters
        return optax.partition(rules, labels)

    model = models.mlp((8,), num_classes=4)
    begun = fit(model, quadrants, hparams=RATE, seeds=2)
    run = fit(model, quadrants, last_only, hparams=RATE, seeds=2, start=begun)

    assert_equal(run.params["Dense_0"], begun.params["Dense_0"])
    assert (run.params["Dense_1"]["bias"] != begun.params["Dense_1"]["bias"]).all()


def test_history_to_pandas(quadrants):
    pd = pytest.importorskip("pandas")
    run = fit(models.logistic(4), quadrants, hparams=RATE, seeds=3, num_epochs=2)
    frame = pd.DataFrame(run.history.table())
    last = frame[frame.step == frame.step.max()].set_index("member")

    assert len(frame) == 3 * len(run.history)
    assert_equal(last["train/loss"].to_numpy(), run.history["train/loss"][-1])
    validation = [row["validation"]["loss"] for row in run.summary["population"]]
    assert_close(last["validation/loss"].to_numpy(), validation)


@pytest.mark.slow
def test_architectures_with_optuna(quadrants):
    optuna = pytest.importorskip("optuna")
    study = optuna.create_study(direction="maximize")
    for width in (1, 16):
        study.enqueue_trial({"width": width})
    for _ in range(2):
        trial = study.ask()
        model = models.mlp((trial.suggest_int("width", 1, 16),), num_classes=4)
        options = {"seeds": 2, "num_epochs": 4, "read_test": False}
        run = fit(model, quadrants, hparams=RATE, **options)
        study.tell(trial, run.summary["validation"]["accuracy"]["mean"])

    assert study.best_params == {"width": 16} and study.best_value > 0.5
    assert "test" not in run.summary


def test_weights_of_examples(quadrants):
    image, label = quadrants.train.inputs, quadrants.train.targets
    chosen = np.arange(len(label)) % 3 > 0
    splits = {"validation": quadrants.validation[:2], "test": quadrants.test[:2]}
    wrong = np.where(chosen, label, 3 - label)
    weighted = data.from_arrays(image, wrong, weights=1.0 * chosen, **splits)
    fewer = data.from_arrays(image[chosen], label[chosen], **splits)
    a, b = (
        fit(models.logistic(4), each, hparams=RATE, batch_size=each.train.num_examples)
        for each in (weighted, fewer)
    )

    assert_close(a.params, b.params, rtol=1e-3)
    assert_close(a.history["train/loss"], b.history["train/loss"])


@pytest.mark.slow
def test_saliency_and_hidden_features_of_a_member(quadrants):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, image):
            hidden = nn.relu(nn.Dense(16, name="hidden")(image.ravel()))
            return nn.Dense(4, name="last")(hidden)

    run = fit(models.from_linen(Net()), quadrants, hparams=RATE, seeds=2)
    params, image = member(run, 1), pixels(quadrants.test)[0]
    saliency = jax.grad(lambda x: run.model.apply(params, x)[2])(image)
    _, noted = Net().apply({"params": params}, image, capture_intermediates=True)
    (hidden,) = noted["intermediates"]["hidden"]["__call__"]

    first, last = params["hidden"], params["last"]
    assert_close(hidden, image.ravel() @ first["kernel"] + first["bias"])
    on = np.where(hidden > 0, last["kernel"][:, 2], 0)
    assert_close(saliency.ravel(), first["kernel"] @ on)
    logits = np.maximum(hidden, 0) @ last["kernel"] + last["bias"]
    assert_close(run.predict(quadrants.test.inputs[:1])[1, 0], logits)


def test_bfloat16(quadrants):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, image):
            dense = functools.partial(
                nn.Dense, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16
            )
            hidden = nn.relu(dense(32)(image.ravel()))
            return dense(4)(hidden)

    run = fit(models.from_linen(Net()), quadrants, hparams=RATE, num_epochs=4)

    assert {leaf.dtype for leaf in jax.tree.leaves(run.params)} == {
        jnp.dtype(jnp.bfloat16)
    }
    assert run.predict(quadrants.test.inputs).dtype == jnp.bfloat16
    assert scores(run)[0] > 0.5
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), member(run))
    hidden = pixels(quadrants.test).reshape(-1, 64) @ exact["Dense_0"]["kernel"]
    hidden = np.maximum(hidden + exact["Dense_0"]["bias"], 0)
    logits = hidden @ exact["Dense_1"]["kernel"] + exact["Dense_1"]["bias"]
    assert_close(
        run.predict(quadrants.test.inputs)[0].astype(float), logits, 0.03, 0.03
    )


@pytest.mark.parametrize("optimizer", [optax.sgd, optax.adam])
def test_complex_parameters(optimizer):
    def apply(params, x, *, key=None):
        turned = params * jax.lax.complex(x[0], x[1])
        return jnp.stack([turned.real, turned.imag])

    z = np.random.default_rng(0).normal(size=(120, 2)) @ [1, 1j]
    x, y = (np.stack([a.real, a.imag], 1) for a in (z, (1.5 - 2j) * z))
    model = models.Model(lambda key, x: jnp.zeros((), jnp.complex64), apply)
    options = {"loss": losses.squared_error, "hparams": {"learning_rate": 0.1}}
    run = fit(model, data.from_arrays(x, y), optimizer, num_epochs=40, **options)

    assert_close(run.params, [1.5 - 2j], rtol=1e-2)


def test_numbers_of_python_as_parameters_and_states(quadrants):
    def counted(learning_rate):
        sgd = optax.sgd(learning_rate)

        def update(grads, state, params):
            updates, inner = sgd.update(grads, state[0], params)
            return updates, (inner, state[1] + 1, 3.0)

        return optax.GradientTransformation(lambda p: (sgd.init(p), 0, 0.0), update)

    model = models.Model(
        lambda key, image: {"slope": 0.0, "bias": jnp.zeros(4)},
        lambda params, x, *, key=None: params["slope"] * x[0, :4, 0] + params["bias"],
    )
    run = fit(model, quadrants, counted, hparams={"learning_rate": 0.1})

    assert run.opt_state[1].tolist() == [run.summary["steps"]]
    assert run.opt_state[2].tolist() == [3.0]
    assert run.params["slope"][0] != 0


def test_float64():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3))
    with jax.enable_x64(True):
        dataset = data.from_arrays(x, x @ [1.0, 2.0, -3.0])
        model = models.Model(
            lambda key, x: jnp.zeros(3), lambda params, x, *, key=None: x @ params
        )
        options = {"loss": losses.squared_error, "hparams": {"learning_rate": 0.1}}
        run = fit(model, dataset, optax.sgd, num_epochs=30, **options)
        params = np.asarray(run.params)

    assert params.dtype == np.float64
    np.testing.assert_allclose(params[0], [1, 2, -3], atol=1e-9)  # float32 ends at 1e-7


@pytest.mark.parametrize("kind", ["jax", "list", "pandas", "torch"])
def test_arrays_of_any_kind(kind):
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    label = (x[:, 0] > 0).astype(np.int32)
    wanted = data.from_arrays(x, label)
    if kind == "jax":
        x, label = jnp.asarray(x), jnp.asarray(label)
    elif kind == "list":
        x, label = x.tolist(), label.tolist()
    elif kind == "pandas":
        pd = pytest.importorskip("pandas")
        x, label = pd.DataFrame(x), pd.Series(label)
    elif kind == "torch":
        torch = pytest.importorskip("torch")
        x, label = torch.from_numpy(x), torch.from_numpy(label)
    found = data.from_arrays(x, label)

    assert found.classes == wanted.classes
    assert_equal(found[:3], wanted[:3])


def test_only_public_names_and_few_lines():
    text = Path(__file__).read_text()
    tree, lines = ast.parse(text), text.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and "dlworkshop" in (node.module or ""):
            assert node.module == "dlworkshop"
            assert {name.name for name in node.names} <= set(dlworkshop.__all__)
    tests = [n for n in tree.body if getattr(n, "name", "").startswith("test_")]
    for test in tests[:-1]:
        asked = [
            node.lineno
            for node in test.body
            if isinstance(node, ast.Assert) or "assert" in ast.unparse(node)
        ]
        code = lines[test.lineno : min(asked) - 1]
        assert sum(bool(line.strip()) for line in code) <= LONGEST, test.name
