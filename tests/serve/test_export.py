"""A run comes back from its folder, and answers the same from one exported file."""

import dataclasses
import functools
import json
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import linen as nn

from dlworkshop import data, fit, models, run_files
from dlworkshop.cli import main
from dlworkshop.errors import UserError
from dlworkshop.models.rebuild import from_config
from dlworkshop.serve import onnx
from dlworkshop.serve.export import ensemble, export
from dlworkshop.serve.load import load
from dlworkshop.train import params_file

pytestmark = pytest.mark.usefixtures("unreported")

MODELS = {
    "logistic": models.logistic(4),
    "mlp": models.mlp((9,), nn.gelu, 0.1, num_classes=4),
    "cnn": models.cnn((3, 5), (7,), nn.silu, models.max_pool, num_classes=4),
    "cnn average": models.cnn((3,), (), nn.tanh, num_classes=4),
}


@pytest.fixture(scope="module")
def trained(quadrants, tmp_path_factory):
    """trained(name of a model) -> its run, trained once."""

    @functools.cache
    def train(name):
        workdir = tmp_path_factory.mktemp("run")
        return fit(MODELS[name], quadrants, seeds=2, batch_size=32, workdir=workdir)

    return train


@pytest.fixture(params=MODELS, ids=lambda name: name.replace(" ", "-"))
def run(request, trained):
    return trained(request.param)


def odds(run, images):
    """Mean over the members of the softmax of their logits."""
    logits = np.float64(run.predict(images))  # [P, N, K]
    return scipy.special.softmax(logits, -1).mean(0)


@pytest.mark.slow
def test_a_run_comes_back_from_its_folder(run, quadrants):
    again = load(run.workdir)
    for ours, theirs in zip(
        jax.tree.leaves(again.params), jax.tree.leaves(run.params), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert again.model.config == run.model.config
    assert again.summary == run_files.read(run.workdir, "summary.json")
    np.testing.assert_allclose(
        again.predict(quadrants.test.inputs),
        run.predict(quadrants.test.inputs),
        atol=1e-6,
    )


@pytest.mark.slow
def test_stablehlo_answers_where_there_is_only_jax(trained, quadrants, tmp_path):
    for name in MODELS:
        export(load(trained(name).workdir), tmp_path / name, "stablehlo")
    np.save(tmp_path / "images.npy", quadrants.test.inputs)
    code = f"""
import json, sys
import numpy as np
from jax import export
images = np.load("images.npy")
answers = []
for name in {list(MODELS)}:
    model = export.deserialize(bytearray(open(name, "rb").read()))
    assert model.platforms == ("cpu", "cuda", "tpu")
    answers.append([model.call(images[:1]).tolist(), model.call(images).tolist()])
assert "dlworkshop" not in sys.modules and "flax" not in sys.modules
print(json.dumps(answers))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    for name, answers in zip(MODELS, json.loads(done.stdout), strict=True):
        expected = odds(trained(name), quadrants.test.inputs)
        for answer, wanted in zip(answers, (expected[:1], expected), strict=True):
            np.testing.assert_allclose(answer, wanted, atol=1e-5, err_msg=name)


def answer(made: bytes, images, name="probability"):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(made, providers=["CPUExecutionProvider"])
    return session.run([name], {"image": images})[0], session.get_modelmeta()


def test_onnx_answers_the_same_probabilities(run, quadrants, tmp_path):
    pytest.importorskip("onnx")
    path = export(load(run.workdir), tmp_path / "model.onnx", "onnx")
    images = np.asarray(quadrants.test.inputs)
    expected = odds(run, images)
    probabilities, about = answer(path.read_bytes(), images)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    one, _ = answer(path.read_bytes(), images[:1])
    np.testing.assert_allclose(one, expected[:1], atol=1e-5)
    assert json.loads(about.custom_metadata_map["classes"]) == list("abcd")


@pytest.mark.slow
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
    one = jax.ShapeDtypeStruct(images.shape[1:], images.dtype)
    made = onnx.build(lambda x: models.predict(model, params, x), one, "y", {})
    expected = np.asarray(models.predict(model, params, images))
    outputs, _ = answer(made, images, "y")
    assert np.abs(outputs - expected).max() <= 1e-5 * np.abs(expected).max()


def test_safetensors_hold_all_members_and_the_config(run, tmp_path):
    path = export(run, tmp_path / "model.safetensors", "safetensors")
    config, named = params_file.read_params(path)
    written = run_files.read(run.workdir, "config.json")
    del written["derived"]  # another machine derives its own
    assert config == written
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
    images = quadrants.test.inputs
    alone = jax.nn.softmax(jnp.asarray(run.predict(images)[0]))
    ours = ensemble(dataclasses.replace(run, summary=summary))(images)
    np.testing.assert_allclose(ours, alone, atol=1e-6)


def test_a_model_of_ones_own_is_given_back(quadrants, tmp_path, capsys, caplog):
    plain = models.logistic(4)
    own = plain._replace(config={"name": "my own"})
    run = fit(own, quadrants, batch_size=32, workdir=tmp_path, quiet=True)
    with pytest.raises(UserError, match="'my own' is none of"):
        load(tmp_path)
    assert main(["evaluate", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "give load_run(folder, model) in Python" in said and said.count("\n") == 1
    again = load(tmp_path, own)
    np.testing.assert_array_equal(
        again.params["Dense_0"]["bias"], run.params["Dense_0"]["bias"]
    )
    for format in ("onnx", "stablehlo"):
        export(again, tmp_path / f"model.{format}", format)
    assert "was made with" not in caplog.text

    def turned(params, inputs):
        return -plain.apply(params, inputs)

    load(tmp_path, own._replace(apply=turned))  # its parameters would do
    assert "was made with" in caplog.text
    with pytest.raises(UserError, match="has nothing for the parameter Dense_1/"):
        load(tmp_path, models.mlp((4,), num_classes=4))
    with pytest.raises(UserError, match=r"has \(4,\) for .*Dense_0/bias"):
        load(tmp_path, models.logistic(5))


def test_what_cannot_be_is_refused(quadrants, tmp_path):
    run = fit(models.logistic(4), quadrants, batch_size=32)
    with pytest.raises(UserError, match="has no folder"):
        export(run, tmp_path / "x", "onnx")
    with pytest.raises(UserError, match="did you mean 'onnx'"):
        export(run, tmp_path / "x", "onx")
    with pytest.raises(UserError, match=r"has no summary\.json: give"):
        load(tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="'<lambda>' of the model is not one of"):
        from_config(models.mlp((3,), lambda x: x).config)


@pytest.mark.slow
@pytest.mark.parametrize("fixture", ["price_run", "labels_run"])
def test_numbers_are_exported_by_what_they_mean(fixture, request, houses, tmp_path):
    run = load(request.getfixturevalue(fixture))
    target = {"price_run": "price", "labels_run": ["large", "dear"]}[fixture]
    examples = np.asarray(data.load(houses, target=target).test.inputs)
    outputs = np.float64(run.predict(examples))  # [P, N, K]
    expected = scipy.special.expit(outputs).mean(0)
    if fixture == "price_run":
        about = run.read_artifact("preprocessing.json")["preprocessing"]
        (column,) = about["target"]["columns"]
        expected = (outputs * column["deviation"] + column["mean"]).mean(0)
    path = export(run, tmp_path / "model.stablehlo", "stablehlo")
    answered = jax.export.deserialize(bytearray(path.read_bytes())).call(examples)
    np.testing.assert_allclose(answered, expected, rtol=1e-5)


def test_the_mean_of_nobody_knows_what_is_refused(trained, tmp_path):
    run = trained("logistic")
    unknown = {**run.summary, "outputs": None}
    run = dataclasses.replace(run, summary=unknown)
    for format in ("stablehlo", "onnx"):
        with pytest.raises(UserError, match="not known what the outputs") as raised:
            export(run, tmp_path / "x", format)
        assert "\n" not in str(raised.value)
    export(run, tmp_path / "x", "safetensors")
