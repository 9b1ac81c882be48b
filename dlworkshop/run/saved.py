"""The parameters of a finished run in one file, and the run again from it.

`params.safetensors` holds those of all members, by the names of their layers, and the
run's config as metadata: all that is needed to answer, and no code.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlworkshop.errors import UserError
from dlworkshop.models.model import Model
from dlworkshop.models.rebuild import from_config
from dlworkshop.run.cache import use_compilation_cache
from dlworkshop.run.record import plain, read_json
from dlworkshop.run.result import Run
from dlworkshop.types import PyTree

FILE = "params.safetensors"


def write_params(path: Path, params: PyTree, config: dict[str, Any]) -> None:
    """Write the parameters [P, ...] and the config, all or nothing."""
    from safetensors.numpy import save  # noqa: PLC0415

    named = {
        _name(key): np.ascontiguousarray(leaf)
        for key, leaf in jax.tree.leaves_with_path(params)
    }
    beside = path.with_name(path.name + ".tmp")
    beside.write_bytes(save(named, {"config": json.dumps(plain(config))}))
    beside.replace(path)


def load(workdir: str | Path, model: Model | None = None) -> Run:
    """The run in a folder: its members as they were at the end, and its summary.

    Args:
        workdir: of a finished run.
        model: what it was made with; None builds it anew by its config.

    Raises:
        UserError: if the folder is not that of a finished run, is damaged, or its
            model cannot be built by its config.
    """
    use_compilation_cache()
    workdir = Path(workdir)
    for file in ("summary.json", FILE):
        if not (workdir / file).is_file():
            raise UserError(
                f"{workdir} has no {file}: give the folder of a run that trained a "
                "model to its end"
            )
    summary = read_json(workdir / "summary.json")
    config, named = read_params(workdir / FILE)
    return _run(config, named, summary, workdir, model)


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


def _run(config, named, summary, workdir, model) -> Run:
    model = from_config(config["model"]) if model is None else model
    shape, dtype = config["dataset"]["shape"], config["dataset"]["dtype"]
    like = jax.eval_shape(
        model.init, jax.random.key(0), jax.ShapeDtypeStruct(tuple(shape), dtype)
    )

    def leaf(key, wanted):
        found = named.get(_name(key))
        if found is None or found.shape[1:] != wanted.shape:
            there = "nothing" if found is None else f"{found.shape[1:]}"
            raise UserError(
                f"{workdir} has {there} for the parameter {_name(key)}, the model "
                f"wants {wanted.shape}: give the model that the run was made with"
            )
        return jnp.asarray(found)

    return Run(model, jax.tree.map_with_path(leaf, like), summary, workdir)


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
