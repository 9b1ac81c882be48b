"""The results of a finished run, as in summary.json."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dlworkshop.data.inputs_like import describe_inputs
from dlworkshop.learn.population import (
    FAULTS,
    OPTIMIZER,
    PARAMETERS,
    QUARANTINED,
    STOPPED,
    Population,
)
from dlworkshop.models.model import num_params
from dlworkshop.train import processes
from dlworkshop.train.machine import device, versions
from dlworkshop.train.plan import Plan
from dlworkshop.train.result import describe_example
from dlworkshop.train.run_folder import to_jsonable
from dlworkshop.train.settings import give_places, ranked

Scores = Mapping[str, np.ndarray]  # name -> [P]


def summarise(
    plan: Plan,
    population: Population,
    scores: Mapping[str, Scores],
    seconds: Mapping[str, float],
    interrupted: bool = False,
) -> dict[str, Any]:
    """The contents of summary.json.

    Scores are those of the finite members of one setting, the best by validation, so
    that settings are not mixed. If there are several, `settings` has the scores of each
    in the same form.

    Args:
        plan: of the run.
        population: at the end.
        scores: name of each split that was read -> means of the members.
        seconds: of compilation, of training, and in total.
        interrupted: whether training ended early.
    """
    members = len(plan.seeds)
    params, steps = population.train.params, processes.fetch(population.train.step)
    done = int(steps.sum(dtype=np.int64))  # updates of all members
    stopped = processes.fetch(population.status) == STOPPED
    saved = int((plan.num_steps - steps)[stopped].sum(dtype=np.int64))
    rows = population_table(plan, population, scores, interrupted)
    settings = ranked(rows, plan.asked.monitor, plan.better)
    scheduler: dict[str, Any] = {}
    if plan.asked.scheduler is not None:
        config = plan.asked.scheduler.config
        scheduler = {"scheduler": {**config, "rungs": plan.rungs}}
    return to_jsonable(
        {
            "experiment": plan.settings["experiment"],
            "dataset": plan.dataset.name,
            "model": plan.asked.model.config.get("name", "model"),
            "members": members,
            "steps": int(steps.max()),
            "model_steps": {"done": done, "saved": saved},
            **scheduler,
            "parameters": num_params(params) // members,
            "parameters_taken": _taken(plan, population),
            "folds": plan.folds,
            "monitor": plan.asked.monitor,
            "better": plan.better,
            "outputs": plan.outputs,
            "inputs": describe_inputs(plan.dataset.train.inputs, plan.dataset.columns),
            "example": describe_example(plan.example),
            **{split: settings[0][split] for split in scores},
            "seconds": dict(seconds),
            "examples_per_second": (
                done * plan.order.batch_size / max(seconds["train"], 1e-9)
            ),
            "device": device(plan.mesh.devices.ravel()),
            "mesh": dict(plan.mesh.shape),
            "feed": plan.feed.name,
            "members_at_once": plan.groups.sizes[0],
            "versions": versions(),
            "claims": [],
            "interrupted": interrupted,
            "population": rows,
            "settings": settings if len(settings) > 1 else [],
            "table": plan.table,
        }
    )


def _taken(plan: Plan, population: Population) -> str:
    best = processes.fetch(population.best_score)
    if plan.asked.patience is None or not np.isfinite(best).any():
        return "last"
    return f"best by validation {plan.asked.monitor}"


def population_table(
    plan: Plan,
    population: Population,
    scores: Mapping[str, Scores],
    interrupted: bool = False,
) -> list[dict[str, Any]]:
    """One row per member, as in summary.json."""
    state = processes.fetch(
        {
            "step": population.train.step,
            "status": population.status,
            "best_score": population.best_score,
            "best_step": population.best_step,
            "waited": population.epochs_without_improvement,
        }
    )
    rows: list[dict[str, Any]] = [
        {
            "member": member,
            "seed": seed,
            **({"fold": member % plan.folds} if plan.folds else {}),
            "hparams": {k: float(v[member]) for k, v in plan.hparams.items()},
            "status": "finished",
            "steps": int(state["step"][member]),
            f"best_validation_{plan.asked.monitor}": (
                float(state["best_score"][member]) * plan.sign
            ),
            **{
                split: {name: float(values[member]) for name, values in means.items()}
                for split, means in scores.items()
            },
            **_ending(plan, {k: v[member] for k, v in state.items()}, interrupted),
        }
        for member, seed in enumerate(plan.seeds)
    ]
    scheduler = plan.asked.scheduler
    if scheduler is not None and scheduler.limits and "validation" in scores:
        give_places(rows, plan.num_settings, plan.asked.monitor, plan.better)
    return rows


def _ending(plan: Plan, state: Mapping[str, Any], interrupted: bool) -> dict[str, str]:
    """The status and the note of a member, unless it finished without a problem."""
    steps, status, patience = int(state["step"]), state["status"], plan.asked.patience
    if status >= QUARANTINED:
        note = fault_in_words(int(status), steps, plan.num_steps)
        return {"status": "quarantined", "note": note}
    unknown = ""
    if patience is not None and state["waited"] and np.isinf(state["best_score"]):
        unknown = f"no validation {plan.asked.monitor} was finite"
    if status == STOPPED:
        # an observer only stops running members, which have waited less
        if patience is not None and state["waited"] >= patience:
            note = unknown or f"no better since step {int(state['best_step'])}"
        else:
            note = f"{_who(plan, steps)} stopped it at step {steps}"
        return {"status": "stopped early", "note": note}
    if interrupted:
        note = f"at step {steps} of {plan.num_steps}"
        return {"status": "interrupted", "note": note}
    return {"note": unknown} if unknown else {}


def fault_in_words(status: int, steps: int, num_steps: int) -> str:
    """What was not finite, of a member that was quarantined after some steps."""
    # what is checked once per chunk: it was reset, maybe by more than one step
    reset = status in (PARAMETERS, OPTIMIZER)
    at = f"after step {steps}" if reset else f"at step {steps + 1}"
    return f"{FAULTS[status]} not finite {at} of {num_steps}"


def _who(plan: Plan, steps: int) -> str:
    """The observer that stopped a member, in words."""
    epoch, within = divmod(steps, plan.order.steps_per_epoch)
    at_rung, scheduler = not within and epoch in plan.rungs, plan.asked.scheduler
    return scheduler.name if scheduler is not None and at_rung else "an observer"
