"""Loading of a finished run from its folder."""

import functools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlworkshop import identity, run_files
from dlworkshop.data.leaves import place_of
from dlworkshop.errors import UserError, check_path, one_sentence
from dlworkshop.learn import losses, metrics
from dlworkshop.learn.losses import outputs_of
from dlworkshop.learn.metrics import Metric, as_metrics, default_metrics, fitted
from dlworkshop.models.model import Model, StatefulModel, check_model, shapes
from dlworkshop.models.rebuild import from_config
from dlworkshop.train.cache import use_compilation_cache
from dlworkshop.train.history import History
from dlworkshop.train.params_file import FILE, STATE, read_params
from dlworkshop.train.predictions import fitted_target
from dlworkshop.train.processes import from_numbers, is_key
from dlworkshop.train.result import Run, example_of
from dlworkshop.train.run_folder import digests_of, to_jsonable

log = logging.getLogger(__name__)

TOP = 10  # the largest k of a `metrics.top_k` that is recognised


def load(workdir: str | Path, model: Model | StatefulModel | None = None) -> Run:
    """Load a finished run: its trained members and its summary.

    The optimizer's state is not read: `fit` with the same arguments and `workdir`
    returns the run with it.

    Args:
        workdir: of a finished run.
        model: with which the run was made; None builds it from its config. A warning is
            logged if its code or settings differ.

    Raises:
        UserError: if the folder is not that of a finished run or is damaged, or the
            model cannot be built from its config.
    """
    check_path("workdir", workdir)
    if model is not None:
        check_model(model)
    use_compilation_cache()
    workdir = Path(workdir)
    for file in ("summary.json", FILE):
        if not (workdir / file).is_file():
            raise UserError(
                f"{workdir} has no {file}: give the folder of a run that has finished "
                "training"
            )
    summary = run_files.read(workdir, "summary.json")
    wanted = summary.get("sha256", {}).get(FILE)
    if wanted is not None and digests_of(workdir).get(FILE) != wanted:
        raise UserError(f"{workdir / FILE} is not as it was written: {run_files.MEND}")
    config, named = read_params(workdir / FILE)
    run_files.conforms(summary, run_files.schema.Answering, workdir / "summary.json")
    _check_same(config, summary, workdir)
    return _run(config, named, summary, workdir, model)


def _warn_of_another(
    model: Model | StatefulModel, config: dict[str, Any], workdir: Path
) -> None:
    """Log a warning if the given model is not the one that the run was made with."""
    then = (config.get("identity") or {}).get("model")
    now = json.loads(json.dumps(to_jsonable(identity.describe({"model": model}))))
    differ = identity.difference({"model": then}, now) if then is not None else []
    if differ:
        log.warning(
            "the given model differs from the one that the run in %s was made with "
            "(%s): its predictions may differ",
            workdir,
            "; ".join(differ),
        )


def _run(
    config: dict[str, Any],
    named: dict[str, np.ndarray],
    summary: dict[str, Any],
    workdir: Path,
    given: Model | StatefulModel | None,
) -> Run:
    if given is not None:
        _warn_of_another(given, config, workdir)
    model = _rebuilt(config, workdir) if given is None else given
    params, state = shapes(model, example_of(config["dataset"]["example"]))

    def leaf(prefix, key, wanted):
        name = prefix + place_of(key)
        found = named.get(name)
        if found is not None and is_key(wanted):
            with one_sentence(f"the keys {name} in {workdir} are not of the model"):
                return from_numbers(jnp.asarray(found), wanted)
        if found is None or found.shape[1:] != wanted.shape:
            there = "nothing" if found is None else f"{found.shape[1:]}"
            raise UserError(
                f"{workdir} has {there} for the parameter {name}, the model needs "
                f"{wanted.shape}: give the model that the run was made with"
            )
        return jnp.asarray(found)

    members = _hparams(config, summary, workdir)
    target = _target(workdir, summary)
    arrays = [*named.values(), *members.values()]
    sizes = {len(array) if array.ndim else 0 for array in arrays}
    run_files.check_members(workdir / FILE, sizes, summary)
    return Run(
        model,
        jax.tree.map_with_path(functools.partial(leaf, ""), params),
        summary,
        workdir,
        jax.tree.map_with_path(functools.partial(leaf, STATE), state),
        # predictions do not need it
        History(functools.partial(run_files.read_log, workdir, summary)),
        members,
        config["model_hparams"],
        target=target,
        classes=config["dataset"]["classes"],
        metrics=_metrics(config, summary["outputs"], target),
    )


def _metrics(
    config: dict[str, Any], outputs: str | None, target: dict[str, Any] | None
) -> dict[str, Metric | Callable | None]:
    """The metrics that the run was trained with; None for those not of this library.

    The default ones, which are among the usual scores, are left out.
    """
    classes = config["dataset"]["classes"]
    default = default_metrics(outputs, classes)
    known = [*default.values(), *_library(), *map(metrics.top_k, range(1, TOP + 1))]
    found: dict[str, Metric | Callable | None] = {}
    for name, then in ((config.get("identity") or {}).get("metrics") or {}).items():
        same = (m for m in known if _is_metric(m, then, outputs, target))
        metric = next(same, None)
        if metric is None or metric != default.get(name):
            found[name] = metric
    return found


def _library() -> list[Metric | Callable]:
    """The metrics and losses of this library."""
    named = [getattr(room, name) for room in (metrics, losses) for name in room.__all__]
    return [
        m for m in named if isinstance(m, Metric) or hasattr(m, "fits") or outputs_of(m)
    ]


def _is_metric(
    metric: Metric | Callable,
    then: Any,
    outputs: str | None,
    target: dict[str, Any] | None,
) -> bool:
    """Whether a description is that of a metric, for such outputs and targets."""
    try:
        own = fitted(as_metrics({"own": metric}), outputs, target)["own"]
    except UserError:  # it is not for such outputs
        return False
    return not identity.difference(then, to_jsonable(identity.describe(own)))


def _hparams(
    config: dict[str, Any], summary: dict[str, Any], workdir: Path
) -> dict[str, np.ndarray]:
    """The final hyper-parameters, name -> [P]; the config has the initial ones."""
    first = {name: np.asarray(v, float) for name, v in config["hparams"].items()}
    rows = [row.get("hparams") for row in summary["population"]]
    if not any(rows):  # an older run, or one without hyper-parameters
        return first
    if any(set(row or ()) != set(first) for row in rows):
        raise UserError(
            f"{workdir / 'summary.json'} has other hyper-parameters than {FILE}: "
            f"{run_files.MEND}"
        )
    return {name: np.array([row[name] for row in rows], float) for name in first}


def _rebuilt(config: dict[str, Any], workdir: Path) -> Model:
    """The model built from its config."""
    try:
        model = from_config(config["model"])
        shapes(model, example_of(config["dataset"]["example"]))
    except UserError:
        raise
    except Exception as error:  # an invalid config may raise anything
        said = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"the model of the run in {workdir} cannot be built from its config "
            f"({said:.200}): give the model that the run was made with"
        ) from error
    return model


def _target(workdir: Path, summary: dict[str, Any]) -> dict[str, Any] | None:
    name = "preprocessing.json"
    if not (workdir / name).is_file():
        if summary["outputs"] == "values" and name in summary.get("sha256", {}):
            raise UserError(  # or values would be in other units
                f"{workdir / name} is missing: {run_files.MEND}"
            )
        return None
    found = run_files.read(workdir, name, summary)
    return fitted_target(found["preprocessing"])


def _check_same(
    trained: dict[str, Any], summary: dict[str, Any], workdir: Path
) -> None:
    """Check that parameters, config and summary belong to the same run."""
    config = run_files.read(workdir, "config.json", summary)
    pairs = [
        ("config.json", name, config.get(name), trained[name])
        for name in ("dataset", "model", "hparams", "model_hparams")
    ]
    example = trained["dataset"]["example"]
    pairs.append(("summary.json", "example", summary["example"], example))
    for file, name, there, wanted in pairs:
        if there != wanted:
            raise UserError(
                f"{workdir / FILE} was trained with another {name} than {file} has: "
                f"{run_files.MEND}"
            )
