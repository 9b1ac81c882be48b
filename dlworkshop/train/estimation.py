"""Estimates of the memory and time of a run, measured on its plan and a few steps.

Only the caches are written, of compiled programs and of the autotuner's choices; the
run itself uses them.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dlworkshop.report import words
from dlworkshop.train import memory, processes
from dlworkshop.train.arguments import Arguments
from dlworkshop.train.evaluation import evaluate_split
from dlworkshop.train.loop import Loop
from dlworkshop.train.machine import device
from dlworkshop.train.memory import Needs
from dlworkshop.train.plan import Plan
from dlworkshop.train.planning import make_plan

SECONDS = 2.0  # of timed steps, after they are compiled
# Shorter evaluations are timed, in seconds. For others, an example is assumed to cost
# a third of an update; see `flops.update_flops`.
EVALUATION = 10.0


class Estimate(NamedTuple):
    """Memory and time of a run; `str` is a table."""

    experiment: str
    device: str
    mesh: dict[str, int]  # devices along the axes "member" and "batch"
    members: int
    members_at_once: int
    batch_size: int
    steps: int  # of each member
    memory: Needs  # bytes on each device
    free: float  # bytes on each device; infinite if it does not report it
    steps_per_second: float  # of all members
    seconds: dict[str, float]  # setup, compile, train, evaluate, and their total
    at_most: bool  # members may stop before the last step

    @property
    def examples_per_second(self) -> float:
        """Of all members together."""
        return self.steps_per_second * self.members * self.batch_size

    def __str__(self) -> str:
        need, waits, free = self.memory, "", ""
        shape = " x ".join(map(str, self.mesh.values()))
        if self.members_at_once < self.members:
            waits = f" ({self.members_at_once} at once)"
        if np.isfinite(self.free):
            free = f" of {memory.in_words(self.free)} that are free"
        rows = [
            ("memory of a device", memory.in_words(sum(need)) + free),
            ("  parameters", memory.in_words(need.parameters)),
            ("  optimizer", memory.in_words(need.optimizer)),
            ("  data", memory.in_words(need.data)),
            ("  activations", memory.in_words(need.activations)),
        ]
        if need.copies:
            rows.append(("  copies on the host", memory.in_words(need.copies)))
        each, limit = self.seconds, "at most " if self.at_most else ""
        rows += [
            ("steps/s", f"{self.steps_per_second:,.4g}"),
            ("examples/s", f"{self.examples_per_second:,.0f}"),
            ("time", limit + words.duration(each["total"])),
            ("  setting up", words.duration(each["setup"])),
            ("  compilation", words.duration(each["compile"])),
            ("  training", limit + words.duration(each["train"])),
            ("  evaluation", words.duration(each["evaluate"])),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(
            [
                f"{self.experiment}: {words.count(self.members, 'member')}{waits}, "
                f"{words.count(self.steps, 'step')} of {self.batch_size} examples, "
                f"{self.device}, mesh {shape} (member x batch)",
                *(f"{name:<{width}}  {value}" for name, value in rows),
            ]
        )


def of_fit(asked: Arguments) -> Estimate:
    """The estimate of a call of `fit`, as an action instead of training.

    Some steps of its plan are trained.
    """
    plan, saved = make_plan(asked), asked.workdir is not None
    programs, size = plan.programs, plan.groups.sizes[0]
    setup = programs.clock() - plan.started
    needs = memory.needs(plan, saved, size)
    free = memory.free(list(plan.mesh.devices.flat))
    loop, seconds_per_step = _timed_steps(plan)
    epochs = plan.num_steps // plan.order.steps_per_epoch
    update = seconds_per_step / (len(plan.seeds) * plan.order.batch_size)

    def seconds_of(split: str, evaluate: Callable[[], Any]) -> float:
        examples = getattr(plan.dataset, split).num_examples
        counted = update / 3 * examples * len(plan.seeds)
        if counted > EVALUATION:
            return counted
        started = programs.clock()
        evaluate()
        return programs.clock() - started

    def read_test() -> None:  # the scores are discarded
        judged, groups = programs.judged(loop.population), loop.running()
        evaluate_split(loop.plan, judged, "test", groups, with_outputs=saved)

    # the time of whole epochs includes their evaluations; one more is at the end
    validations = 1 if plan.by_epochs else epochs + 1
    evaluate = validations * seconds_of("validation", loop.evaluate)
    if plan.asked.read_test:
        evaluate += seconds_of("test", read_test)
    seconds = {
        "setup": setup,
        "compile": programs.compile_seconds,
        "train": seconds_per_step * plan.num_steps,
        "evaluate": evaluate,
    }
    return Estimate(
        experiment=plan.settings["experiment"],
        device=device(plan.mesh.devices.ravel()),
        mesh=dict(plan.mesh.shape),
        members=len(plan.seeds),
        members_at_once=min(size, len(plan.seeds)),
        batch_size=plan.order.batch_size,
        steps=plan.num_steps,
        memory=needs,
        free=free,
        steps_per_second=1 / seconds_per_step,
        seconds=seconds | {"total": sum(seconds.values())},
        at_most=plan.asked.patience is not None or bool(plan.observers),
    )


def _timed_steps(plan: Plan) -> tuple[Loop, float]:
    """A loop that has trained some steps, and the seconds of one of all members."""
    every = plan.order.steps_per_epoch
    unit = min(every if plan.by_epochs else plan.chunk, plan.num_steps)
    if rest := min(every, plan.num_steps) % unit:
        _trained(plan, rest)  # compiles the program of the last chunk of an epoch
    first = _seconds_of_a_step(_trained(plan, unit))  # compiles
    units = max(1, round(SECONDS / (first * unit)))
    loop = _trained(plan, min(units * unit, plan.num_steps))
    return loop, _seconds_of_a_step(loop)


def _trained(plan: Plan, steps: int) -> Loop:
    """A loop that has trained `steps` steps, without observers."""
    few = dataclasses.replace(plan, num_steps=steps, observers=(), quiet=True)
    loop = Loop(few, None).run()
    if loop.interrupted:
        raise KeyboardInterrupt
    return loop


def _seconds_of_a_step(loop: Loop) -> float:
    # the clock of one process, so that all get the same number
    seconds = processes.broadcast_json(loop.train_seconds)
    return max(seconds, 1e-9) / loop.step
