"""A run comes back from its folder, and answers the same from one exported file."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dlworkshop import fit, models
from dlworkshop.errors import UserError
from dlworkshop.models.rebuild import from_config
from dlworkshop.run import onnx as onnx_room
from dlworkshop.run import record, saved
from dlworkshop.run.export import ensemble, export

MODELS = {
    "logistic": models.logistic(4),
    "mlp": models.mlp((9,), nn.gelu, 0.1, num_classes=4),
    "cnn": models.cnn((3, 5), (7,), nn.silu, models.max_pool, num_classes=4),
    "cnn average": models.cnn((3,), (), nn.tanh, num_classes=4),
}


@pytest.fixture(scope="module", params=MODELS, ids=lambda name: name.replace(" ", "-"))
def run(request, quadrants, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    model = MODELS[request.param]
    return fit(model, quadrants, seeds=2, batch_size=32, workdir=workdir)


@pytest.fixture(scope="module")
def expected(run, quadrants):
    """Mean over the members of the softmax of their logits."""
    logits = np.float64(run.predict(quadrants.test.image))  # [P, N, K]
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return (odds / odds.sum(-1, keepdims=True)).mean(0)


def test_a_run_comes_back_from_its_folder(run, quadrants):
    again = saved.load(run.workdir)
    for ours, theirs in zip(
        jax.tree.leaves(again.params), jax.tree.leaves(run.params), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert again.model.config == run.model.config
    assert again.summary == record.read_json(run.workdir / "summary.json")
    np.testing.assert_allclose(
        again.predict(quadrants.test.image),
        run.predict(quadrants.test.image),
        atol=1e-6,
    )


def test_stablehlo_answers_where_there_is_only_jax(run, quadrants, expected, tmp_path):
    path = export(saved.load(run.workdir), tmp_path / "model.stablehlo", "stablehlo")
    np.save(tmp_path / "images.npy", quadrants.test.image)
    code = f"""
import json, sys
import numpy as np
from jax import export
model = export.deserialize(bytearray(open({str(path)!r}, "rb").read()))
images = np.load({str(tmp_path / "images.npy")!r})
assert "dlworkshop" not in sys.modules and "flax" not in sys.modules
assert model.platforms == ("cpu", "cuda", "tpu")
answers = [model.call(images[:1]).tolist(), model.call(images).tolist()]
print(json.dumps(answers))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    one, all_of_them = map(np.array, json.loads(done.stdout))
    np.testing.assert_allclose(all_of_them, expected, atol=1e-5)
    np.testing.assert_allclose(one, expected[:1], atol=1e-5)


def answer(data: bytes, images):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(["probability"], {"image": images})[0], session.get_modelmeta()


def test_onnx_answers_the_same_probabilities(run, quadrants, expected, tmp_path):
    pytest.importorskip("onnx")
    path = export(saved.load(run.workdir), tmp_path / "model.onnx", "onnx")
    images = np.asarray(quadrants.test.image)
    probabilities, about = answer(path.read_bytes(), images)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    one, _ = answer(path.read_bytes(), images[:1])
    np.testing.assert_allclose(one, expected[:1], atol=1e-5)
    assert json.loads(about.custom_metadata_map["classes"]) == list("abcd")


@pytest.mark.parametrize(
    "settings",
    [
        {"include_top": True, "num_classes": 3, "preprocessing": "torch"},
        {"pooling": "avg"},
        {"pooling": "max"},
    ],
)
def test_vgg16_as_onnx(settings):
    pytest.importorskip("onnx")
    model = models.vgg16(**settings)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 35, 3), np.uint8)
    params = jax.jit(model.init)(jax.random.key(0), images[0])
    about = {"shape": images.shape[1:], "dtype": "uint8", "classes": []}
    members = jax.tree.map(lambda leaf: leaf[None], params)
    data = onnx_room.build(dict(model.config), about, members)
    expected = np.asarray(models.predict(model, params, images))
    outputs, _ = answer(data, images)
    assert np.abs(outputs - expected).max() <= 1e-5 * np.abs(expected).max()


def test_safetensors_hold_all_members_and_the_config(run, tmp_path):
    path = export(run, tmp_path / "model.safetensors", "safetensors")
    config, named = saved.read_params(path)
    assert config == record.read_json(run.workdir / "config.json")
    assert {len(array) for array in named.values()} == {2}
    assert sum(array.size for array in named.values()) == models.num_params(run.params)


def test_a_quarantined_member_has_no_vote(quadrants, tmp_path):
    run = fit(
        models.logistic(4),
        quadrants,
        hparams={"learning_rate": [1e-3, 1e38]},
        batch_size=32,
        workdir=tmp_path,
    )
    status = [row["status"] for row in run.summary["population"]]
    row = {**run.summary["population"][1], "status": "quarantined"}
    summary = {**run.summary, "population": [run.summary["population"][0], row]}
    assert status[0] == "finished"
    images = quadrants.test.image
    alone = jax.nn.softmax(jnp.asarray(run.predict(images)[0]))
    ours = ensemble(run._replace(summary=summary))(images)
    np.testing.assert_allclose(ours, alone, atol=1e-6)


def test_a_model_of_ones_own_is_given_back(quadrants, tmp_path):
    plain = models.logistic(4)
    own = plain._replace(config={"name": "my own"})
    run = fit(own, quadrants, batch_size=32, workdir=tmp_path)
    with pytest.raises(UserError, match="'my own' is none of"):
        saved.load(tmp_path)
    again = saved.load(tmp_path, own)
    np.testing.assert_array_equal(
        again.params["Dense_0"]["bias"], run.params["Dense_0"]["bias"]
    )
    with pytest.raises(UserError, match="use the format stablehlo"):
        export(again, tmp_path / "model.onnx", "onnx")
    export(again, tmp_path / "model.stablehlo", "stablehlo")
    with pytest.raises(UserError, match="has nothing for the parameter Dense_1/"):
        saved.load(tmp_path, models.mlp((4,), num_classes=4))
    with pytest.raises(UserError, match=r"has \(4,\) for .*Dense_0/bias"):
        saved.load(tmp_path, models.logistic(5))


def test_what_cannot_be_is_refused(quadrants, tmp_path):
    run = fit(models.logistic(4), quadrants, batch_size=32)
    with pytest.raises(UserError, match="has no folder"):
        export(run, tmp_path / "x", "stablehlo")
    with pytest.raises(UserError, match="did you mean 'onnx'"):
        export(run, tmp_path / "x", "onx")
    with pytest.raises(UserError, match=r"has no summary\.json: give"):
        saved.load(tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="'<lambda>' of the model is not one of"):
        from_config(models.mlp((3,), lambda x: x).config)
