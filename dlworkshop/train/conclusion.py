"""The conclusion of a run: its scores, its predictions, and the files in its folder."""

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlworkshop import report
from dlworkshop.learn import population as pop
from dlworkshop.train import params_file, processes, run_folder
from dlworkshop.train.diagnosis import explain_failure
from dlworkshop.train.evaluation import BalancedAccuracy, evaluate_split
from dlworkshop.train.finite import NotFinite
from dlworkshop.train.loop import Loop
from dlworkshop.train.plan import Plan
from dlworkshop.train.predictions import (
    PredictionRecorder,
    fitted_target,
    labels,
    predictions_of,
)
from dlworkshop.train.progress import log_level
from dlworkshop.train.result import Run
from dlworkshop.train.settings import ranked
from dlworkshop.train.summary import Scores, population_table, summarise
from dlworkshop.types import PyTree

log = logging.getLogger(__name__)


def conclude(loop: Loop) -> Run:
    """Read the test split once, and write the results of a loop that has run.

    A run that was finished before is returned as it was, unless some of its files are
    lost, or its test split has not been read so far and now may be.
    """
    plan, population, workdir = loop.plan, loop.population, loop.workdir
    seconds = loop.seconds_so_far()
    final = final_params(plan, population)
    level = log_level(plan.quiet, logging.WARNING)
    if (before := loop.finished) is not None and (
        run_folder.is_intact(workdir, before)
        and ("test" in before or not plan.asked.read_test)
    ):
        if "test" in before and not plan.asked.read_test:
            log.log(level, "%s has test scores, in spite of read_test=False", workdir)
        return _run(loop, final, before)
    counted = processes.fetch(population.status) < pop.QUARANTINED
    means, not_finite = _evaluated(plan, final, "validation", counted)
    scores, found = {"validation": means}, [not_finite]
    predictions: PredictionRecorder | None = None
    if plan.asked.read_test and not loop.interrupted:
        if workdir is not None:
            predictions = _recorder(plan, population, scores, counted)
        means, not_finite = _evaluated(plan, final, "test", counted, predictions)
        scores["test"] = means
        found.append(not_finite)
    summary = summarise(plan, population, scores, seconds, loop.interrupted)
    for each in found:
        each.report(summary["population"], level)
    # in a single process, whose devices have everything of a member
    explains = processes.count() == 1 and not loop.interrupted
    if explains and (failure := explain_failure(plan, population)) is not None:
        member, why = failure
        row = summary["population"][member]
        row["note"] += f": {why}"
        log.log(level, "member %d is quarantined: %s", member, row["note"])
        others = [
            str(each["member"])
            for each in summary["population"]
            if each["status"] == "quarantined" and each is not row
        ]
        if workdir is not None and others:
            words = "dlworkshop replay %s --member N SCRIPT explains the others: %s"
            log.log(level, words, workdir, ", ".join(others))
    if processes.count() > 1:  # every process returns the whole run
        final = processes.fetch(final)
    if workdir is not None:
        if processes.is_first():
            run_folder.remove_old_answers(workdir, loop.finished)
        write = functools.partial(_write, workdir, plan, final, summary, predictions)
        summary = processes.on_first_process(write)
    return _run(loop, final, summary)


def final_params(plan: Plan, population: pop.Population) -> tuple[PyTree, PyTree]:
    """Params and state [P, ...] at the end; with `patience` the best by validation."""
    last = plan.programs.judged(population)
    if plan.asked.patience is None:
        return last
    known = jnp.isfinite(population.best_score)
    return jax.vmap(pop.select)(known, population.best, last)


def _evaluated(
    plan: Plan,
    final: tuple[PyTree, PyTree],
    split: str,
    counted: np.ndarray,
    predictions: PredictionRecorder | None = None,
) -> tuple[dict[str, np.ndarray], NotFinite]:
    """The scores of all members on a split, and its examples that are not finite."""
    batch = getattr(plan.dataset, split)
    held_out = plan.held_out if split == "validation" else None
    not_finite = NotFinite(plan.dataset, split, counted, held_out)
    watchers: list[Any] = [not_finite]
    label, balanced = labels(batch.targets), None
    if plan.dataset.classes and label is not None and "accuracy" in plan.spec.metrics:
        size = len(plan.seeds)
        balanced = BalancedAccuracy(size, label, batch.weights, held_out)
        watchers.append(balanced)
    if predictions is not None:
        watchers.append(predictions)
    everyone = plan.groups.partition(range(len(plan.seeds)))
    means = evaluate_split(
        plan, final, split, everyone, watchers, predictions is not None
    )
    if balanced is not None:
        means.setdefault("balanced_accuracy", balanced.values())
    return means, not_finite


def _recorder(
    plan: Plan,
    population: pop.Population,
    scores: Mapping[str, Scores],
    counted: np.ndarray,
) -> PredictionRecorder | None:
    """Records predictions; the finite members of the best setting are the ensemble."""
    rows = population_table(plan, population, scores)
    best = ranked(rows, plan.asked.monitor, plan.better)[0]["members"]
    chosen = counted & np.isin(np.arange(len(rows)), best)
    return predictions_of(plan.dataset, plan.outputs, chosen)


def _write(
    workdir: Path,
    plan: Plan,
    final: tuple[PyTree, PyTree],
    summary: dict[str, Any],
    predictions: PredictionRecorder | None,
) -> dict[str, Any]:
    """Write predictions, parameters, summary and report; the summary as written."""
    if predictions is not None:
        predictions.write(workdir / "predictions.npz")
    params_file.write_params(workdir / params_file.FILE, *final, plan.settings)
    written = run_folder.write_summary(workdir, summary)
    if report.is_wanted():
        report.write(workdir)
    return written


def _run(loop: Loop, final: tuple[PyTree, PyTree], summary: dict[str, Any]) -> Run:
    plan, opt_state = loop.plan, loop.population.train.opt_state
    if processes.count() > 1:
        opt_state = processes.fetch(opt_state)
    params, state = final
    return Run(
        plan.asked.model,
        params,
        summary,
        loop.workdir,
        state,
        loop.history,
        plan.hparams,
        plan.spec.routes.model,
        opt_state,
        fitted_target(plan.dataset.preprocessing),
        plan.dataset.classes,
        dict(plan.asked.metrics or {}),
    )
