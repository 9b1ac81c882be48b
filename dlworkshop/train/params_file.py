"""The parameters of a finished run in one safetensors file.

`params.safetensors` holds the parameters of all members, by the names of their layers,
and the run's config as metadata: all that is needed to predict, and no code.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from dlworkshop import run_files
from dlworkshop.data.leaves import by_place
from dlworkshop.errors import UserError
from dlworkshop.files import atomic_write, open_own
from dlworkshop.train import processes
from dlworkshop.train.run_folder import to_jsonable
from dlworkshop.types import PyTree

FILE = "params.safetensors"
STATE = "state/"


def write_params(
    path: Path, params: PyTree, state: PyTree, config: dict[str, Any]
) -> None:
    """Write parameters and state [P, ...] and the config, atomically.

    Arrays are named by their path, such as "Dense_0/kernel"; those of the state have
    the prefix STATE.
    """
    from safetensors.numpy import save  # noqa: PLC0415

    named = {
        prefix + place: np.ascontiguousarray(processes.as_numbers(leaf))
        for prefix, tree in (("", params), (STATE, state))
        for place, leaf in by_place(tree).items()
    }
    atomic_write(path, save(named, {"config": json.dumps(to_jsonable(config))}))


def read_params(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read the config and the named parameters [P, ...] of `write_params`.

    Raises:
        UserError: if it is missing or damaged.
    """
    import safetensors  # noqa: PLC0415

    try:
        with open_own(path), safetensors.safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {})["config"]
            named = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # damaged files raise exceptions of any type
        said = f"no {error}" if isinstance(error, KeyError) else error
        raise UserError(
            f"{path} is missing or damaged ({said}): run the experiment to its end"
        ) from error
    config = run_files.parsed(
        text.encode("utf-8", "surrogatepass"), path, run_files.schema.Config
    )
    run_files.conforms(config, run_files.schema.Trained, path)
    return config, named
