"""Pretrained weights: Keras' .h5 and torchvision's state dict as .safetensors.

Neither format can run code. PyTorch's own files are pickles, which can, so they must be
converted to .safetensors.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dlworkshop.errors import UserError
from dlworkshop.files import open_regular
from dlworkshop.models import keras_file
from dlworkshop.types import PyTree

Layers = dict[str, dict[str, np.ndarray]]  # layer -> kernel, bias

HDF5, ZIP, PICKLE = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"\x80"
_CONVERT = (
    "python -c 'import torch, safetensors.torch as s; s.save_file(torch.load("
    '"{0}", weights_only=True), "{1}")\''
)


def read(
    path: Path, layers: Sequence[str], torchvision: Mapping[str, str]
) -> tuple[Layers, str]:
    """The kernels and biases of `layers` from a file, and their preprocessing.

    Args:
        path: .h5 of Keras 2 or 3 (whole models too), or .safetensors of torchvision.
        layers: names of the layers, as in Keras; others in the file are ignored.
        torchvision: each layer's name in torchvision's state dict.

    Returns:
        Float32 kernels [h, w, C, F] or [D, F] and biases [F]; "caffe" or "torch".

    Raises:
        UserError: if the file is missing, damaged, in another format, or lacks a layer.
    """
    try:
        with open_regular(path) as file:
            start, size = file.read(9), path.stat().st_size
    except OSError as error:
        raise UserError(
            f"the weights {path} cannot be read ({error.strerror}): give a .h5 of "
            "Keras or a .safetensors file"
        ) from error
    if start.startswith(HDF5):
        return _pick(_read_keras(path, layers), layers, path), "caffe"
    if start.startswith((ZIP, PICKLE)) and not _begins_safetensors(start, size):
        command = _CONVERT.format(path, path.with_suffix(".safetensors"))
        raise UserError(
            f"{path} holds a Python pickle, which can run any code when opened, so it "
            f"is not read: convert it once, where PyTorch is installed, with {command}"
        )
    return _read_torchvision(path, layers, torchvision), "torch"


def _begins_safetensors(start: bytes, size: int) -> bool:
    """Whether 9 bytes are a plausible safetensors header length and its brace.

    >>> _begins_safetensors((128).to_bytes(8, "little") + b"{", 200)
    True
    """
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= size - 8


def check_shapes(params: Layers, path: Path, wanted: PyTree) -> None:
    """Reject weights whose shapes differ from those of the network."""
    for layer, arrays in params.items():
        for name, array in arrays.items():
            shape = wanted[layer][name].shape
            if array.shape != shape:
                raise UserError(
                    f"{path} has {layer}/{name} of shape {array.shape}, the network "
                    f"here wants {shape}: use the weights of this network, or give it "
                    "the image size and num_classes of its weights"
                )


def _pick(found: Layers, layers: Sequence[str], path: Path) -> Layers:
    """The requested layers, complete, in float32."""
    params: Layers = {}
    for layer in layers:
        if set(found.get(layer, {})) != {"kernel", "bias"}:
            there = ", ".join(sorted(found)) or "none with weights"
            raise UserError(
                f"{path} has no kernel and bias for {layer} (it has: {there}): use a "
                "file that has this layer (with the top for include_top=True)"
            )
        params[layer] = {}
        for name, array in found[layer].items():
            if not np.issubdtype(array.dtype, np.floating):
                raise UserError(
                    f"{path} has {layer}/{name} of {array.dtype}, wanted real numbers: "
                    "use another file"
                )
            params[layer][name] = np.asarray(array, np.float32)
    return params


def _read_keras(path: Path, layers: Sequence[str]) -> Layers:
    try:
        return keras_file.read(path, layers)
    except Exception as error:  # a damaged file may raise anything
        raise UserError(
            f"{path} is damaged or not a weights file of Keras ({error}): save the "
            "weights again, or fetch the file again"
        ) from error


def _read_torchvision(
    path: Path, layers: Sequence[str], names: Mapping[str, str]
) -> Layers:
    """The state dict's [F, C, h, w] and [F, D] as our [h, w, C, F] and [D, F].

    The first fully connected layer reads the maps as [C, h, w] there and as [h, w, C]
    here, so its rows are permuted.
    """
    import safetensors  # noqa: PLC0415

    found: Layers = {}
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            there = set(file.keys())
            for layer in layers:
                keys = {kind: f"{names[layer]}.{kind}" for kind in ("weight", "bias")}
                for key in keys.values():
                    if key not in there:
                        raise UserError(
                            f"{path} has no {key}, torchvision's name for {layer}: use "
                            "the state dict of torchvision's vgg16, with the "
                            "classifier for include_top=True"
                        )
                found[layer] = {
                    "kernel": file.get_tensor(keys["weight"]),
                    "bias": file.get_tensor(keys["bias"]),
                }
    except UserError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise UserError(
            f"{path} is neither HDF5 nor a whole .safetensors file ({error}): give a "
            ".h5 of Keras or torchvision's state dict as .safetensors"
        ) from error
    channels = 0
    for layer, arrays in found.items():
        kernel = arrays["kernel"]
        if kernel.ndim not in (2, 4):
            raise UserError(
                f"{path} has {layer}/kernel of shape {kernel.shape}, wanted [F, D] or "
                "[F, C, h, w]: use the state dict of torchvision's vgg16"
            )
        if kernel.ndim == 4:
            channels = len(kernel)
            arrays["kernel"] = kernel.transpose(2, 3, 1, 0)
        else:
            side = round((kernel.shape[-1] / channels) ** 0.5) if channels else 0
            if side and kernel.shape[-1] == side * side * channels:
                maps = kernel.reshape(-1, channels, side, side)
                kernel = maps.transpose(0, 2, 3, 1).reshape(kernel.shape)
            channels = 0  # the other fully connected layers read no maps
            arrays["kernel"] = kernel.T
    return _pick(found, layers, path)
