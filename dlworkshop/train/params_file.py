"""The parameters of a finished run in one file, and the run again from it.

`params.safetensors` holds those of all members, by the names of their layers, and the
run's config as metadata: all that is needed to answer, and no code.
"""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dlworkshop.errors import UserError
from dlworkshop.files import atomic_write
from dlworkshop.train.run_folder import plain
from dlworkshop.types import PyTree

FILE = "params.safetensors"


def write_params(path: Path, params: PyTree, config: dict[str, Any]) -> None:
    """Write the parameters [P, ...] and the config, all or nothing."""
    from safetensors.numpy import save  # noqa: PLC0415

    named = {
        parameter_name(key): np.ascontiguousarray(leaf)
        for key, leaf in jax.tree.leaves_with_path(params)
    }
    atomic_write(path, save(named, {"config": json.dumps(plain(config))}))


def read_params(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The config and the named parameters [P, ...] of a file of `write_params`."""
    import safetensors  # noqa: PLC0415

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            config = json.loads((file.metadata() or {})["config"])
            return config, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{path} is missing or damaged ({error}): run the experiment to its end"
        ) from error


def parameter_name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
