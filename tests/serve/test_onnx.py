"""Models of any library, and tables, answer from an ONNX file what `Run` predicts."""

import json
from pathlib import Path

import equinox as eqx
import haiku as hk
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import linen as nn
from flax import nnx

from dlworkshop import models
from dlworkshop.data import readers
from dlworkshop.errors import UserError
from dlworkshop.models import BATCH_AXES, Model
from dlworkshop.models.model import as_float, stateful
from dlworkshop.serve import onnx
from dlworkshop.serve.export import export
from dlworkshop.serve.load import load
from dlworkshop.train.result import Run, describe_example

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 8, 6, 3), np.uint8)
IMAGES = RNG.normal(size=(5, 8, 6, 3)).astype(np.float32)
TOKENS = RNG.integers(0, 11, (5, 7), np.int32)
# float32, sums of some hundred terms of size 1: rounding of some 1e-6
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def run_of(model, inputs, folder: Path, outputs="values", hparams=None) -> Run:
    """Two members that nobody trained, with statistics as if somebody had."""
    model, example = stateful(model), jax.tree.map(lambda x: x[0], inputs)
    made = jax.jit(model.init)(jax.random.key(0), as_float(example))
    rng = np.random.default_rng(1)

    def members(low):
        def moved(leaf):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                return jnp.stack([leaf, leaf])
            scale = rng.uniform(0.5, 1.5, (2, *leaf.shape))
            shift = rng.uniform(low, 0.3, (2, *leaf.shape))
            return jnp.asarray(leaf * scale + shift, leaf.dtype)

        return moved

    params, state = (
        jax.tree.map(members(low), part)
        for low, part in zip((-0.3, 0.1), made, strict=True)  # no variance is below 0
    )
    summary = {
        "example": describe_example(example),
        "outputs": outputs,
        "population": [{"status": "finished"}] * 2,
    }
    config = {"model": {"name": "own"}, "dataset": {"classes": ["a", "b"]}}
    (folder / "config.json").write_text(json.dumps(config))
    routes = {name: name for name in hparams or {}}
    return Run(
        model,
        params,
        summary,
        folder,
        state,
        hparams=hparams or {},
        model_routes=routes,
    )


def session(run: Run, folder: Path):
    path = export(run, folder / "model.onnx", "onnx")
    return runtime.InferenceSession(path, providers=["CPUExecutionProvider"])


def assert_answers(run, inputs, folder):
    """Of one row and of all, by names, from a file with a free batch axis."""
    expected = run.predict(inputs).mean(0)
    found = session(run, folder)
    given = inputs if isinstance(inputs, dict) else {found.get_inputs()[0].name: inputs}
    for rows in (slice(0, 1), slice(None)):
        feed = {name: array[rows] for name, array in given.items()}
        (answered,) = found.run(["value"], feed)
        np.testing.assert_allclose(answered, expected[rows], **CLOSE)
    assert {each.shape[0] for each in found.get_inputs()} == {"batch"}
    return expected


# ----- functions of one's own -----


def own_activation(x):
    return jnp.where(x > 0, x, jnp.expm1(x) * 0.3)


def own_init(key, inputs):
    size = inputs["image"].size + inputs["size"].size
    return {"w": jax.random.normal(key, (size, 4)) / 5, "table": jnp.eye(6, 4)}


def own_apply(params, inputs, *, key=None, gain):
    x = jnp.concatenate([inputs["image"].ravel(), inputs["size"]])
    x = own_activation(gain * (x @ params["w"]))
    return x + params["table"][inputs["kind"]]


def test_functions_of_several_inputs(tmp_path):
    inputs = {
        "image": PIXELS,
        "size": RNG.normal(size=(5, 2)).astype(np.float32),
        "kind": np.array([0, 5, 2, 3, 1]),  # int64
    }
    gains = {"gain": np.array([0.5, 2], np.float32)}
    run = run_of(Model(own_init, own_apply), inputs, tmp_path, hparams=gains)
    assert_answers(run, inputs, tmp_path)
    types = {each.name: each.type for each in session(run, tmp_path).get_inputs()}
    assert types == {
        "image": "tensor(uint8)",
        "size": "tensor(float)",
        "kind": "tensor(int64)",
    }


def test_outputs_of_no_known_meaning_stay_as_they_are(tmp_path):
    def apply(params, x, *, key=None):
        return {"mean": x.mean() * params, "parts": (x, x.shape[0] * jnp.ones(2))}

    run = run_of(Model(lambda key, x: jnp.ones(()), apply), IMAGES, tmp_path, None)
    with pytest.raises(UserError, match="not known what the outputs"):
        export(run, tmp_path / "model.onnx", "onnx")
    rows = [{"status": "finished"}, {"status": "quarantined"}]
    run.summary["population"] = rows
    expected = jax.tree.leaves(run.predict(IMAGES))
    found = session(run, tmp_path)
    names = [each.name for each in found.get_outputs()]
    assert names == ["mean", "parts/0", "parts/1"]
    for answered, wanted in zip(
        found.run(None, {"image": IMAGES}), expected, strict=True
    ):
        np.testing.assert_allclose(answered, wanted[0], **CLOSE)


def test_half_precision_is_computed_in_single(tmp_path):
    class Half(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(4, dtype=jnp.bfloat16)(x.ravel())
            return x.astype(jnp.float32)

    run = run_of(models.from_linen(Half()), IMAGES, tmp_path)
    expected = run.predict(IMAGES).mean(0)
    (answered,) = session(run, tmp_path).run(None, {"image": IMAGES})
    np.testing.assert_allclose(answered, expected, atol=0.05)  # 8 bits, of size 5


# ----- running statistics, convolutions and pooling, in four libraries -----


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(4, (3, 3), strides=(2, 1))(x)
        x = nn.BatchNorm(not train, axis_name=BATCH_AXES)(x)
        x = nn.max_pool(nn.relu(x), (2, 2), (1, 1), "SAME")
        x = nn.Conv(4, (3, 3), feature_group_count=2, kernel_dilation=2)(x)
        x = nn.avg_pool(nn.GroupNorm(2)(x), (2, 2), (2, 2))
        x = nn.ConvTranspose(3, (2, 2), (2, 2))(x)
        return nn.Dense(4)(nn.LayerNorm()(x.ravel()))


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, axis_name=BATCH_AXES, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.gelu(self.norm(self.conv(x))), (2, 2), (2, 2))
        return self.head(self.dropout(x).mean((0, 1)))


class EquinoxNet(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    pools: list
    groups: eqx.nn.GroupNorm
    head: eqx.nn.Linear

    def __init__(self, key):
        a, b = jax.random.split(key)
        self.conv = eqx.nn.Conv2d(3, 4, 3, padding=1, key=a)
        self.norm = eqx.nn.BatchNorm(4, BATCH_AXES, mode="batch")
        self.pools = [eqx.nn.MaxPool2d(2, 2), eqx.nn.AdaptiveAvgPool2d((2, 1))]
        self.groups = eqx.nn.GroupNorm(2, 4)
        self.head = eqx.nn.Linear(8, 3, key=b)

    def __call__(self, x, state):
        x, state = self.norm(self.conv(jnp.moveaxis(x, -1, 0)), state)
        x = self.groups(self.pools[0](jax.nn.silu(x)))
        return self.head(self.pools[1](x).ravel()), state


LATER = "equinox", "haiku"  # other modules, and the same few operations


def haiku_net(x, is_training):
    x = hk.Conv2D(4, 3, padding="VALID")(x)
    x = hk.BatchNorm(True, True, 0.9, cross_replica_axis=BATCH_AXES)(x, is_training)
    x = hk.MaxPool((2, 2, 1), (2, 2, 1), "SAME")(jax.nn.elu(x))
    return hk.Linear(3)(hk.AvgPool((3, 2, 1), (1, 1, 1), "VALID")(x).ravel())


NETS = {
    "linen": lambda: models.from_linen(LinenNet()),
    "nnx": lambda: models.from_nnx(NnxNet),
    "equinox": lambda: models.from_equinox(eqx.nn.make_with_state(EquinoxNet)),
    "haiku": lambda: models.from_haiku(hk.transform_with_state(haiku_net)),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "library",
    ["linen", "nnx", *LATER],
)
def test_running_statistics_and_pixels(library, tmp_path):
    run = run_of(NETS[library](), PIXELS, tmp_path)
    assert jax.tree.leaves(run.state)
    expected = assert_answers(run, PIXELS, tmp_path)
    assert np.ptp(expected, 0).max() > 0.1  # the images are told apart
    path = export(run, tmp_path / "model.stablehlo", "stablehlo")
    call = jax.export.deserialize(bytearray(path.read_bytes())).call
    np.testing.assert_allclose(call(PIXELS), expected, **CLOSE)


# ----- tokens -----


class Attentive(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        where = self.param("where", nn.initializers.normal(), (7, 8))
        x = nn.Embed(11, 8)(tokens) + where
        mask = nn.make_causal_mask(tokens)
        x += nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x), mask=mask)
        x += nn.Dense(8)(nn.gelu(nn.Dense(16)(nn.RMSNorm()(x))))
        return nn.Dense(3)(x[-1])


class EquinoxAttentive(eqx.Module):
    embed: eqx.nn.Embedding
    attention: eqx.nn.MultiheadAttention
    head: eqx.nn.Linear

    def __init__(self, key):
        a, b, c = jax.random.split(key, 3)
        self.embed = eqx.nn.Embedding(11, 8, key=a)
        self.attention = eqx.nn.MultiheadAttention(2, 8, key=b)
        self.head = eqx.nn.Linear(8, 3, key=c)

    def __call__(self, tokens):
        x = jax.vmap(self.embed)(tokens)
        return self.head(self.attention(x, x, x).max(0))


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        return nn.Dense(3)(nn.RNN(nn.GRUCell(6))(nn.Embed(11, 5)(tokens))[-1])


READERS = {
    "linen": lambda: models.from_linen(Attentive()),
    "equinox": lambda: models.from_equinox(EquinoxAttentive),
    "recurrent": lambda: models.from_linen(Recurrent()),
}


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_tokens(reader, tmp_path):
    run = run_of(READERS[reader](), TOKENS, tmp_path)
    assert_answers(run, TOKENS, tmp_path)
    if reader == "linen":  # a token that there is not is no other token
        found = session(run, tmp_path)
        (answered,) = found.run(None, {"inputs": TOKENS + 4})
        assert np.isnan(answered).any(1).tolist() == (TOKENS > 6).any(1).tolist()


# ----- tables -----


TABLES = {"table_run": "kind", "price_run": "price", "labels_run": "large"}


@pytest.mark.parametrize("fixture", TABLES)
def test_a_table_is_given_by_its_columns(fixture, request, tmp_path):
    run = load(request.getfixturevalue(fixture))
    about = run.read_artifact("preprocessing.json")["preprocessing"]
    words = ["", " south ", "never seen", "n/A", "\u2014", "#BEZUG!", "#black"]
    words = np.array(words, object)
    numbers = np.array([25.5, np.nan, 1e9 + 1, -3, 1, 2, 3])  # float32 has no such 1e9
    columns = {c["name"]: words if "values" in c else numbers for c in about["columns"]}
    rows = [
        dict(zip(columns, row, strict=True))
        for row in zip(*columns.values(), strict=True)
    ]
    examples = np.stack([readers.to_example(row, about) for row in rows])
    outputs, name = np.float64(run.predict(examples)), "probability"
    target = about["target"]["columns"][0]
    if fixture == "price_run":
        name, values = "value", outputs * target["deviation"] + target["mean"]
    elif fixture == "labels_run":
        values = scipy.special.expit(outputs)
    else:
        values = scipy.special.softmax(outputs, -1)
    expected, found = values.mean(0), session(run, tmp_path)
    for some in (slice(0, 1), slice(None)):
        feed = {column: cells[some] for column, cells in columns.items()}
        (answered,) = found.run([name], feed)
        np.testing.assert_allclose(answered, expected[some], rtol=1e-5, atol=1e-6)
    said = found.get_modelmeta().custom_metadata_map
    kinds = {each.pop("name"): each for each in json.loads(said["columns"])}
    assert list(kinds) == list(columns)
    for column, cells in columns.items():
        kind = kinds[column]
        if cells is words:
            assert kind == {"type": "category", "categories": ["north", "south"]}
        else:
            assert (kind["type"], kind["unit"]) == ("number", "as in the table")
    assert json.loads(said["target"])["columns"][0]["name"] == TABLES[fixture]


# ----- what is refused -----


def test_what_has_no_onnx_form_is_named(tmp_path):
    def apply(params, x, *, key=None):
        return jnp.linalg.cholesky(jnp.eye(3) + params * x.mean())[0]

    run = run_of(Model(lambda key, x: jnp.ones(()), apply), IMAGES, tmp_path)
    with pytest.raises(
        UserError, match=r"primitive 'cholesky' .* format stablehlo"
    ) as raised:
        export(run, tmp_path / "model.onnx", "onnx")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "model.onnx").exists()


def test_what_is_too_large_for_a_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "LARGEST", 1000)
    run = run_of(READERS["recurrent"](), TOKENS, tmp_path)
    with pytest.raises(UserError, match="an ONNX file holds"):
        export(run, tmp_path / "model.onnx", "onnx")
