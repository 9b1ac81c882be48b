"""Constants before and behind a network: right, kept in the config, and exported."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlworkshop import models
from dlworkshop.errors import UserError
from dlworkshop.models.rebuild import from_config
from dlworkshop.models.scaling import fitted_edges, fitted_scale
from dlworkshop.serve import onnx

RNG = np.random.default_rng(0)
X = RNG.normal(3, 5, (40, 3)).astype(np.float32)
IMAGES = RNG.integers(0, 256, (5, 8, 8, 3), np.uint8)


def answers(model, inputs, params):
    return models.predict(model, params, inputs)


def wrapped():
    edges = fitted_edges(X, 4)
    rgb, dense = IMAGES.repeat(1, 0), models.mlp((4,), num_classes=2)
    grey = models.standardized(models.resnet((4, 8), num_classes=2), [0.4], [0.3])
    yield "standardized", models.standardized(dense, *fitted_scale(X)), X
    yield "bins", models.piecewise_linear(dense, edges), X
    yield "rescaled", models.rescaled(dense, [5.0, 6.0], [2.0, 3.0]), X
    yield "channels", models.standardized(models.resnet((4,)), *fitted_scale(rgb)), rgb
    yield "grey", models.on_first_channel(grey), rgb
    yield "coarser", models.coarser(models.logistic(2), 3), rgb


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "inputs"),
    [each[1:] for each in wrapped()],
    ids=[n for n, *_ in wrapped()],
)
def test_a_config_and_an_onnx_file_answer_the_same(model, inputs):
    runtime = pytest.importorskip("onnxruntime")
    params = model.init(jax.random.key(0), jnp.asarray(inputs[0], float))
    said = answers(model, inputs, params)
    config = json.loads(json.dumps(model.config))
    np.testing.assert_array_equal(answers(from_config(config), inputs, params), said)
    example = jax.ShapeDtypeStruct(inputs.shape[1:], inputs.dtype)
    made = onnx.build(lambda x: answers(model, x, params), example, "value", {})
    session = runtime.InferenceSession(made)
    found = session.run(None, {session.get_inputs()[0].name: inputs})[0]
    np.testing.assert_allclose(found, said, rtol=2e-5, atol=2e-5)


def test_wrappers_come_back_in_the_order_in_which_they_were_applied():
    scale = {"mean": [0.5, 0.2, 0.3], "deviation": [0.3, 0.2, 0.1]}
    first = models.on_first_channel(models.logistic(2))
    binned = models.piecewise_linear(models.logistic(2), [[0.0, 1.0]] * 3)
    for model, inputs in (
        (models.standardized(first, **scale), IMAGES),
        (models.standardized(binned, **scale), X),
    ):
        params = model.init(jax.random.key(0), jnp.asarray(inputs[0], float))
        again = from_config(json.loads(json.dumps(model.config)))
        said = answers(model, inputs, params)
        np.testing.assert_array_equal(answers(again, inputs, params), said)


def test_a_wrapper_that_the_config_cannot_hold_twice_is_refused():
    net = models.resnet((4,))
    for wrap in (
        lambda model: models.coarser(model, 2),
        lambda model: models.standardized(model, [1.0], [2.0]),
        lambda model: models.rescaled(model, 1.0, 2.0),
        models.on_first_channel,
    ):
        with pytest.raises(UserError, match="already: combine both in one"):
            wrap(wrap(net))


@pytest.mark.parametrize(
    ("model", "example", "message"),
    [
        (
            models.piecewise_linear(models.logistic(2), [[0.0, 1.0]] * 2),
            X[0],
            r"an input has shape \[3\], and there are edges of 2 columns",
        ),
        (
            models.standardized(models.logistic(2), [0.0, 1.0], [1.0, 1.0]),
            X[0],
            r"an input has shape \[3\], and the constants of its scale \[2\]",
        ),
        (
            models.standardized(models.logistic(2), [0.0] * 3, [1.0] * 3),
            IMAGES[0, ..., :1],
            r"an input has shape \[8, 8, 1\], and the constants of its scale \[3\]",
        ),
        (
            models.rescaled(models.logistic(1), [0.0, 1.0], [1.0, 1.0]),
            X[0],
            r"an output has shape \[1\], and the constants of its scale \[2\]",
        ),
        (
            models.on_first_channel(models.logistic(2)),
            X[0],
            r"one example must be an image \[H, W, C\], got shape \(3,\)",
        ),
        (
            models.coarser(models.logistic(2), 9),
            IMAGES[0],
            "an image of 8x8 has no square of 9x9 pixels",
        ),
    ],
)
def test_constants_of_other_sizes_are_refused(model, example, message):
    def answer(example):
        return model.apply(model.init(jax.random.key(0), example), example)

    with pytest.raises(ValueError, match=message):
        jax.eval_shape(answer, jnp.asarray(example, float))


def test_bins_are_those_of_the_paper():
    edges = [[0.0, 1.0, 3.0], [-1.0, 1.0]]
    encoded = models.scaling.encode(edges)
    for x in (-2.0, 0.5, 2.0, 9.0):
        first = x if x < 1 else 1.0  # the first bin has no lower end
        second = max(0.0, (x - 1) / 2)  # the last one no upper end
        assert encoded(jnp.array([x, x])).tolist() == [first, second, (x + 1) / 2]


def test_squares_are_averaged_and_what_is_left_over_is_cut_off():
    image = jnp.asarray(IMAGES[0] / 255)  # [8, 8, 3]
    small = jnp.stack(
        [image[i : i + 3, j : j + 3].mean((0, 1)) for i in (0, 3) for j in (0, 3)]
    ).reshape(2, 2, 3)
    plain = models.logistic(2)
    params = plain.init(jax.random.key(0), small)
    found = models.coarser(plain, 3).apply(params, IMAGES[0])
    np.testing.assert_allclose(found, plain.apply(params, small), rtol=1e-5, atol=1e-6)


def test_quantiles_are_of_each_column():
    edges = fitted_edges(X, 4)
    wanted = np.quantile(X.astype(float), np.linspace(0, 1, 5), axis=0)
    np.testing.assert_allclose(np.array(edges).T, wanted)


def test_scales_are_of_channels_and_of_columns_that_are_no_marks():
    mean, deviation = fitted_scale(IMAGES)
    np.testing.assert_allclose(mean, (IMAGES / 255).mean((0, 1, 2)))
    np.testing.assert_allclose(deviation, (IMAGES / 255).std((0, 1, 2)))
    columns = np.stack([X[:, 0] + 1e4, X[:, 0] > 3, np.full(40, 7.0)], 1)
    mean, deviation = fitted_scale(columns.astype(np.float32))
    assert mean[1:].tolist() == [0.0, 7.0] and deviation[1:].tolist() == [1.0, 1.0]
    np.testing.assert_allclose(deviation[0], columns[:, 0].std(), rtol=1e-3)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda m: models.standardized(m, [0.0], [0.0]),
        lambda m: models.standardized(m, [0.0, 1.0], [1.0]),
        lambda m: models.piecewise_linear(m, [[0.0, 0.0]]),
        lambda m: models.rescaled(m, np.nan, 1.0),
        lambda m: models.rescaled(m, 1.0, 0.0),
        lambda m: models.coarser(m, 0),
        lambda m: models.coarser(m, 1.5),
    ],
)
def test_constants_that_cannot_be_are_refused(wrap):
    with pytest.raises(UserError):
        wrap(models.logistic(2))
