"""A trained run -> one file that answers elsewhere, its preprocessing inside."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from dlworkshop.errors import UserError, unknown
from dlworkshop.files import atomic_write
from dlworkshop.learn.population import map_members
from dlworkshop.models.convolution import computed
from dlworkshop.models.model import predict
from dlworkshop.train import params_file
from dlworkshop.train.autotune import rule_of_thumb
from dlworkshop.train.result import Run
from dlworkshop.types import Array

PLATFORMS = ("cpu", "cuda", "tpu")


def export(run: Run, path: str | Path, format: str) -> Path:
    """Write a run that has a folder as one file.

    Args:
        run: from `fit` with a workdir, or `saved.load`.
        path: the file to be written.
        format: "stablehlo" and "onnx" answer images [B, H, W, C] uint8 (or features
            [B, D] float32), any B, with the mean over the members of their
            probabilities [B, K]; "safetensors" holds the parameters of all members.

    Returns:
        The path.

    Raises:
        UserError: if the format is unknown, or cannot hold this model.
    """
    formats = {"stablehlo": _stablehlo, "onnx": _onnx, "safetensors": _safetensors}
    if format not in formats:
        raise unknown("format", format, formats)
    path = Path(path)
    try:
        atomic_write(path, formats[format](run))
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror})") from error
    return path


def ensemble(run: Run) -> Callable[[Array], jax.Array]:
    """Images [B, ...] -> the mean over the members of their probabilities [B, K].

    Members that were quarantined do not count. A model without classes (regression)
    answers the mean of its outputs.
    """
    params = healthy(run)
    classes = run.left("config.json")["dataset"]["classes"]
    sequential = rule_of_thumb(params, 1).sequential

    def member(params, images):
        outputs = predict(run.model, params, images)  # [B, K]
        return jax.nn.softmax(outputs) if classes else outputs

    def answer(images):
        lifted = map_members(lambda p: member(p, images), sequential)
        return lifted(params).mean(0)  # [B, K]

    return answer


def healthy(run: Run):
    """The parameters [P', ...] of the members that were not quarantined."""
    alive = run.alive
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[alive]), run.params)


def _stablehlo(run: Run) -> bytes:
    """Read by `jax.export.deserialize(data).call(images)`."""
    about = run.left("config.json")["dataset"]
    (size,) = jax_export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((size, *about["shape"]), about["dtype"])
    with computed("lax"):
        made = jax_export.export(jax.jit(ensemble(run)), platforms=PLATFORMS)(shape)
    return bytes(made.serialize())


def _onnx(run: Run) -> bytes:
    from dlworkshop.serve import onnx  # noqa: PLC0415

    config = run.left("config.json")
    return onnx.build(config["model"], config["dataset"], healthy(run))


def _safetensors(run: Run) -> bytes:
    run.left("config.json")
    assert run.workdir is not None
    return (run.workdir / params_file.FILE).read_bytes()
