"""The log and the checkpoints of a run that trains, in its folder."""

import contextlib
import time
from pathlib import Path
from typing import Any

from dlworkshop import run_files
from dlworkshop.errors import UserError
from dlworkshop.learn.population import Population
from dlworkshop.train import processes, run_folder
from dlworkshop.train.arguments import Arguments
from dlworkshop.train.checkpoints import Checkpoints, check_arrays


class Journal:
    """Restores a run and its log, and records what happens; `stack` closes both."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack):
        self.folder, self.stack = folder, stack
        self.checkpoints = Checkpoints(folder / "checkpoints")
        stack.callback(self.checkpoints.close)
        self.log: run_folder.Log  # in the first process
        self.settings: str  # their digest, in the first process
        self.saved_at, self.saved_step = time.perf_counter(), 0

    def restore(
        self, population: Population
    ) -> tuple[Population, dict[str, Any], list[dict[str, Any]]]:
        """Restore the newest checkpoint, if any, and open the log at its position.

        Returns:
            The population, where the run stands, and its lines so far.
        """
        check_arrays(population)
        position: dict[str, Any] = {"step": 0, "log": 0}
        if self.checkpoints.latest() is not None:
            population, position = self.checkpoints.restore(population)
            where = self.checkpoints.folder
            run_files.conforms(position, run_files.schema.Position, where)
        self.saved_step = position["step"]

        def open_log() -> list[dict[str, Any]]:
            self.settings = run_folder.settings_digest(self.folder)
            if position.get("settings", self.settings) != self.settings:
                raise UserError(
                    f"the checkpoint {position['step']} in {self.checkpoints.folder} "
                    "is of a run with other settings: remove the checkpoints to train "
                    "anew, or use another run folder"
                )
            self.log = run_folder.Log(self.folder / run_files.LOG)
            self.stack.callback(self.log.close)
            return self.log.resume(position)

        return population, position, processes.on_first_process(open_log)

    def record(self, line: dict[str, Any]) -> None:
        """Append a line to the log."""
        if processes.is_first():
            self.log.write(line)

    def is_due(self, step: int, asked: Arguments) -> bool:
        """Whether it is time to save a checkpoint."""
        steps, seconds = asked.save_every_steps, asked.save_every_seconds
        return (steps is not None and step - self.saved_step >= steps) or (
            seconds is not None and time.perf_counter() - self.saved_at >= seconds
        )

    def save(self, population: Population, position: dict[str, Any]) -> None:
        """Save a checkpoint of the population and where the run stands."""
        # only the first process has a log
        known = processes.on_first_process(
            lambda: {"settings": self.settings, **self.log.position()}
        )
        step = position["step"]
        self.checkpoints.save(step, population, {**position, **known})
        self.saved_at, self.saved_step = time.perf_counter(), step
