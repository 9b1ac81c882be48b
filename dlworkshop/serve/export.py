"""Export of a trained run to one file, with its preprocessing."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from dlworkshop.data import readers
from dlworkshop.data.units import scale
from dlworkshop.errors import UserError, check_known, check_path
from dlworkshop.files import atomic_write
from dlworkshop.learn import losses
from dlworkshop.learn.hparams import given
from dlworkshop.learn.population import map_members
from dlworkshop.models.convolution import computed_by, has_convolutions
from dlworkshop.models.model import StatefulModel, input_struct, predict, stateful
from dlworkshop.train import params_file
from dlworkshop.train.autotune import rule_of_thumb
from dlworkshop.train.result import Run, check_run, example_of
from dlworkshop.types import Array, PyTree

PLATFORMS = ("cpu", "cuda", "tpu")
UNSCALED: dict = {"several": False, "columns": [{}]}  # targets without scaling


def export(run: Run, path: str | Path, format: str) -> Path:
    """Write a run that has a folder as one file.

    Args:
        run: from `fit` with a workdir, or `load_run`.
        path: the file to be written.
        format: "stablehlo" and "onnx" map inputs [B, ...], with the dtypes of the data
            set and any B, to the mean over the members of their probabilities [B, K],
            or of their values in units of the target; an ONNX file of a table takes
            each column [B] by name. "safetensors" has the parameters of all members.

    Returns:
        The path.

    Raises:
        UserError: if the format is unknown, or does not support this model.
    """
    formats = {"stablehlo": _stablehlo, "onnx": _onnx, "safetensors": _safetensors}
    check_known("format", format, formats)
    check_run(run)
    check_path("path", path)
    path = Path(path)
    try:
        atomic_write(path, formats[format](run))
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}): give another path"
        ) from error
    return path


def ensemble(run: Run) -> Callable[[PyTree], jax.Array]:
    """A function: inputs [B, ...] -> the mean of the members' outputs [B, ...].

    Logits of any kind become probabilities, and values are in the units of the table.
    Only the `chosen` members count. The model is in inference mode, with its own
    hyper-parameters and running statistics.

    Raises:
        UserError: for several members, if the meaning of the outputs is unknown.
    """
    model = computed_by(stateful(run.model), "lax")  # supported by all platforms
    members, member = chosen_members(run), _member(run, model)
    example = input_struct(example_of(run.summary["example"]))
    params, state, numbers = jax.eval_shape(
        lambda tree: jax.tree.map(lambda leaf: leaf[0], tree), members
    )
    convolutions = has_convolutions(model.apply, params, state, example, **numbers)
    # one file serves all platforms; the choice matters most on a CPU
    by_rule = rule_of_thumb(convolutions=convolutions, platform="cpu")

    def answer(inputs):
        lifted = map_members(functools.partial(member, inputs), by_rule.sequential)
        return jax.tree.map(lambda leaf: leaf.mean(0), lifted(*members))

    return answer


def _member(run: Run, model: StatefulModel) -> Callable[..., PyTree]:
    """(inputs [B, ...], params, state, hparams) of one member -> its outputs."""
    kind = meaning(run)
    mean, deviation = scale(run.target or UNSCALED)

    def member(inputs, params, state, numbers):
        outputs = predict(model, params, inputs, state, **numbers)
        if kind is None:
            return outputs
        if kind == "values":
            return outputs * deviation + mean
        return losses.probabilities(kind, outputs)

    return member


def meaning(run: Run) -> str | None:
    """The meaning of the outputs, a key of `losses.OUTPUTS`; None if unknown.

    Raises:
        UserError: if unknown for several members, whose mean may be meaningless.
    """
    kind = run.summary["outputs"]
    if kind is None and run.chosen.sum() > 1:
        raise UserError(
            "it is not known what the outputs of this run mean, so the mean over its "
            'members may be meaningless: give fit(..., outputs="values") or another '
            "kind, or use the format safetensors"
        )
    return kind


def chosen_members(run: Run) -> tuple[PyTree, PyTree, dict[str, Array]]:
    """Params, state and the model's hyper-parameters of the `chosen` members."""
    whole = run.params, run.state, given(run.model_routes, run.hparams)
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf)[np.flatnonzero(run.chosen)], whole
    )


def _stablehlo(run: Run) -> bytes:
    """Serialised StableHLO, read by `jax.export.deserialize(data).call(images)`."""
    (size,) = jax_export.symbolic_shape("b")
    batch = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype),
        example_of(run.summary["example"]),
    )
    made = jax_export.export(jax.jit(ensemble(run)), platforms=PLATFORMS)(batch)
    return bytes(made.serialize())


def _onnx(run: Run) -> bytes:
    """ONNX with the members one after the other, without grouped convolutions."""
    from dlworkshop.serve import onnx  # noqa: PLC0415

    config = run.read_artifact("config.json")
    whole, member = chosen_members(run), _member(run, stateful(run.model))
    members = [
        jax.tree.map(lambda leaf, i=i: leaf[i], whole) for i in range(run.chosen.sum())
    ]

    def answer(inputs):
        each = [member(inputs, *one) for one in members]
        return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *each)

    about = {"classes": config["dataset"]["classes"], "model": config["model"]}
    if run.target is not None:
        about["target"] = run.target
    kind = meaning(run)
    name = {None: "outputs", "values": "value"}.get(kind, "probability")
    example = example_of(run.summary["example"])
    return onnx.build(answer, example, name, about, _columns(run, example))


def _columns(run: Run, example: PyTree) -> list[dict[str, Any]] | None:
    """The columns of the table that the run was trained on.

    None if the data were no table, or the user made other arrays from it.
    """
    assert run.workdir is not None
    if not (run.workdir / "preprocessing.json").is_file():
        return None
    about = run.read_artifact("preprocessing.json")["preprocessing"] or {}
    if about.get("kind") != "table" or not hasattr(example, "shape"):
        return None
    same = list(example.shape) == readers.shape_of(about)
    return about["columns"] if same else None


def _safetensors(run: Run) -> bytes:
    run.read_artifact("config.json")
    assert run.workdir is not None
    return (run.workdir / params_file.FILE).read_bytes()
