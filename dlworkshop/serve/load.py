"""A run folder -> the run again: its members as they were at the end."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlworkshop.errors import UserError
from dlworkshop.models.model import Model, StatefulModel, shapes
from dlworkshop.models.rebuild import from_config
from dlworkshop.train.cache import use_compilation_cache
from dlworkshop.train.history import History
from dlworkshop.train.params_file import FILE, STATE, parameter_name, read_params
from dlworkshop.train.predictions import fitted_target
from dlworkshop.train.result import Run, example_of
from dlworkshop.train.run_folder import digests_of, read_json


def load(workdir: str | Path, model: Model | StatefulModel | None = None) -> Run:
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
    wanted = summary.get("sha256", {}).get(FILE)
    if wanted is not None and digests_of(workdir).get(FILE) != wanted:
        raise UserError(
            f"{workdir / FILE} is not as it was written: run the same experiment again "
            "with this folder, which makes it anew from the last checkpoint"
        )
    config, named = read_params(workdir / FILE)
    return _run(config, named, summary, workdir, model)


def _run(config, named, summary, workdir, model) -> Run:
    model = from_config(config["model"]) if model is None else model
    params, state = shapes(model, example_of(config["dataset"]["example"]))

    def leaf(prefix, key, wanted):
        name = prefix + parameter_name(key)
        found = named.get(name)
        is_key = jax.dtypes.issubdtype(wanted.dtype, jax.dtypes.prng_key)
        if found is not None and is_key:
            return jax.random.wrap_key_data(jnp.asarray(found))
        if found is None or found.shape[1:] != wanted.shape:
            there = "nothing" if found is None else f"{found.shape[1:]}"
            raise UserError(
                f"{workdir} has {there} for the parameter {name}, the model wants "
                f"{wanted.shape}: give the model that the run was made with"
            )
        return jnp.asarray(found)

    members = {name: np.asarray(v) for name, v in config["hparams"].items()}
    return Run(
        model,
        jax.tree.map_with_path(functools.partial(leaf, ""), params),
        summary,
        workdir,
        jax.tree.map_with_path(functools.partial(leaf, STATE), state),
        _history(workdir),
        members,
        config["model_hparams"],
        target=_target(workdir),
    )


def _target(workdir: Path) -> dict[str, Any] | None:
    file = workdir / "preprocessing.json"
    if not file.is_file():
        return None
    return fitted_target(read_json(file)["preprocessing"])


def _history(workdir: Path) -> History:
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return History(map(json.loads, lines))
