"""A run folder -> the run again: its members as they were at the end."""

from pathlib import Path

import jax
import jax.numpy as jnp

from dlworkshop.errors import UserError
from dlworkshop.models.model import Model
from dlworkshop.models.rebuild import from_config
from dlworkshop.train.cache import use_compilation_cache
from dlworkshop.train.params_file import FILE, parameter_name, read_params
from dlworkshop.train.result import Run
from dlworkshop.train.run_folder import read_json


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


def _run(config, named, summary, workdir, model) -> Run:
    model = from_config(config["model"]) if model is None else model
    shape, dtype = config["dataset"]["shape"], config["dataset"]["dtype"]
    like = jax.eval_shape(
        model.init, jax.random.key(0), jax.ShapeDtypeStruct(tuple(shape), dtype)
    )

    def leaf(key, wanted):
        found = named.get(parameter_name(key))
        if found is None or found.shape[1:] != wanted.shape:
            there = "nothing" if found is None else f"{found.shape[1:]}"
            raise UserError(
                f"{workdir} has {there} for the parameter {parameter_name(key)}, the "
                f"model wants {wanted.shape}: give the model that the run was made with"
            )
        return jnp.asarray(found)

    return Run(model, jax.tree.map_with_path(leaf, like), summary, workdir)
