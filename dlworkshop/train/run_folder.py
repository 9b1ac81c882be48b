"""The run folder: config, metrics and summary, written atomically under a lock."""

import contextlib
import fcntl
import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dlworkshop import identity, report, run_files
from dlworkshop.data.checksums import sha256
from dlworkshop.errors import UserError
from dlworkshop.files import atomic_write, open_for_update, remove_left_over
from dlworkshop.train.disk import disk_errors

log = logging.getLogger(__name__)


def to_jsonable(value: Any) -> Any:
    """`value` as JSON: arrays as lists, non-finite numbers as null.

    >>> to_jsonable({"loss": np.array([0.5, np.nan])})
    {'loss': [0.5, None]}
    """
    if isinstance(value, dict):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_jsonable(item) for item in value]
    if hasattr(value, "tolist"):
        return to_jsonable(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON into a run folder, atomically.

    Raises:
        UserError: if the disk is full, or fails otherwise.
    """
    text = json.dumps(to_jsonable(value), indent=2) + "\n"
    with disk_errors(path.parent):
        atomic_write(path, text)


def write_summary(folder: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """Write `summary.json` with the digests of the other files.

    Returns:
        The summary as written. If it has digests of RESULTS already, they are kept.
    """
    known = {n: d for n, d in summary.get("sha256", {}).items() if n in RESULTS}
    known = known or digests_of(folder)
    for name in run_files.DIGESTED:
        if (folder / name).is_file():
            known[name] = run_files.digest(name, run_files.read(folder, name))
    log = folder / run_files.LOG
    if log.is_file():
        known[run_files.LOG] = sha256(log)
        summary = {**summary, "log_bytes": log.stat().st_size}
    return write_digested(folder / "summary.json", {**summary, "sha256": known})


def write_digested(path: Path, value: dict[str, Any]) -> dict[str, Any]:
    """Write one of `run_files.DIGESTED_INSIDE` with its digest; return it."""
    value = to_jsonable(value)
    own = run_files.digest(path.name, json.loads(json.dumps(value)))
    value = {**value, "sha256": {**value.get("sha256", {}), path.name: own}}
    write_json(path, value)
    return value


class Log:
    """`metrics.jsonl`: one object per line, in the order of steps, append-only.

    A resumed run truncates it to its position in the checkpoint.
    """

    def __init__(self, path: Path):
        try:
            self._path, self._file = path, open_for_update(path)
        except OSError as error:
            raise UserError(
                f"{path} cannot be written ({error.strerror}): use another run folder"
            ) from error
        self._sha256 = hashlib.sha256()  # of the lines so far

    def resume(self, position: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Check that the log is that of a checkpoint, then truncate it to its position.

        Args:
            position: of the checkpoint, see `run_files.schema.Position`.

        Returns:
            The lines so far.

        Raises:
            UserError: if the log is not that of the checkpoint; it is not changed.
        """
        content = self._file.read(position["log"])
        if len(content) < position["log"]:
            raise UserError(
                f"{self._path} is shorter than at its checkpoint, so the run folder is "
                "damaged: remove the checkpoints to train anew, or use another run "
                "folder"
            )
        self._sha256.update(content)
        own = self._sha256.hexdigest()
        is_own = position.get("log_sha256", own) == own and content[-1:] in b"\n"
        lines = run_files.log_lines(content, self._path) if is_own else []
        if not is_own or (lines[-1]["step"] if lines else 0) != position["step"]:
            raise UserError(
                f"{self._path} is not the log of the checkpoint {position['step']}, "
                "one of which is damaged or of another run: remove the checkpoints to "
                "train anew, or use another run folder"
            )
        self._file.truncate(position["log"])
        self._file.seek(position["log"])
        return lines

    def write(self, line: dict[str, Any]) -> None:
        """Append a line."""
        content = (json.dumps(to_jsonable(line)) + "\n").encode()
        self._sha256.update(content)
        self._file.write(content)
        self._file.flush()

    def position(self) -> dict[str, Any]:
        """The number of bytes synced to disk, and their digest.

        Raises:
            UserError: if the folder was moved or removed in the meantime.
        """
        os.fsync(self._file.fileno())
        if not (
            self._path.exists() and os.path.samefile(self._file.fileno(), self._path)
        ):
            raise UserError(
                f"{self._path.parent} was moved or removed while the run wrote to it: "
                "put it back, and run the same command again to resume"
            )
        return {"log": self._file.tell(), "log_sha256": self._sha256.hexdigest()}

    def close(self) -> None:
        self._file.close()


class InUseError(UserError):
    """Another process has locked the folder."""


@contextlib.contextmanager
def lock_run_dir(folder: Path) -> Iterator[None]:
    """Create the run folder and lock it against other processes."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open_for_update(folder / ".lock")
    except OSError as error:
        raise UserError(
            f"the run folder {folder} cannot be written ({error.strerror}): "
            "choose another workdir (--workdir)"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InUseError(
                f"the run folder {folder} is in use by another process: wait for it "
                "or choose another workdir (--workdir)"
            ) from error
        except OSError as error:  # whoever waits for the other process would for ever
            raise UserError(
                f"the run folder {folder} cannot be locked ({error.strerror}): choose "
                "a workdir (--workdir) on a disk with locks"
            ) from error
        with contextlib.suppress(OSError):
            remove_left_over(folder)
        yield


def read_config(folder: str | Path | None) -> dict[str, Any]:
    """The config of the run in `folder`; empty if there is none."""
    if folder is None or not (Path(folder) / "config.json").exists():
        return {}
    return run_files.read(Path(folder), "config.json")


def is_finished(folder: str | Path | None, num_epochs: int) -> bool:
    """Whether the run in `folder` is finished and no more epochs are requested."""
    if folder is None or not (Path(folder) / "summary.json").is_file():
        return False
    return read_config(folder).get("num_epochs") == num_epochs


def remove_old_answers(folder: Path, finished: dict[str, Any] | None) -> None:
    """Remove `answers.json` unless it belongs to the finished run and is intact."""
    path = folder / run_files.ANSWERS
    if not path.exists():
        return
    with contextlib.suppress(UserError):
        if finished is not None:
            run_files.read(folder, path.name, finished)
            return
    path.unlink()
    log.warning("%s is not of these parameters, or damaged, and is removed", path)


RESULTS = "params.safetensors", "predictions.npz"  # the report is made from them


def digests_of(folder: Path) -> dict[str, str]:
    """SHA-256 of each of RESULTS in a run folder, by name."""
    paths = (folder / name for name in RESULTS)
    return {path.name: sha256(path) for path in paths if path.is_file()}


def finished_summary(folder: Path, log: int | None = None) -> dict[str, Any] | None:
    """The summary of a finished run; None if it is missing or damaged.

    Args:
        folder: of the run.
        log: bytes of the log at the last checkpoint. A summary of fewer is that of the
            run before it was continued for more epochs, and does not count.
    """
    try:
        summary = run_files.read(folder, "summary.json")
    except UserError:
        return None
    return summary if log in (None, summary.get("log_bytes", log)) else None


def is_intact(folder: Path | None, summary: dict[str, Any]) -> bool:
    """Whether all files of a finished run are present and intact."""
    if folder is None:
        return True
    known = summary.get("sha256", {})
    try:
        for name in run_files.DIGESTED:
            if name in known:
                run_files.read(folder, name, summary)
        run_files.read_log(folder, summary)
    except UserError:
        return False
    results = {name: known[name] for name in RESULTS if name in known}
    is_drawn = report.is_whole(folder) or not report.is_wanted()
    return is_drawn and digests_of(folder) == results


# Derived choices may differ, and `identity.difference` compares the identity.
UNCOMPARED = ("derived.", "identity.", "identity")


def check_config(
    folder: Path, settings: dict[str, Any], derived: dict[str, Any]
) -> None:
    """Compare the config with that of a run in the folder, if any, and write it.

    Requested settings must be the same, except that more epochs are allowed; derived
    choices may differ.

    Raises:
        UserError: names each setting that differs.
    """
    path = folder / "config.json"
    derived = {"format": run_files.FORMAT, **derived}
    if path.exists():
        epochs, asked = read_config(folder).get("num_epochs"), settings
        if (epochs or 0) < settings.get("num_epochs", 0):
            asked = {**settings, "num_epochs": epochs}
        if differ := differences(folder, asked):
            raise UserError(
                f"{folder} holds a run with another config ({differ}): "
                "use the same settings or choose another workdir (--workdir)"
            )
    else:
        _check_unwritten(folder)
    write_json(path, {**settings, "derived": derived})


def _check_unwritten(folder: Path) -> None:
    """Refuse a folder with files of others, which a new run would overwrite.

    A run writes its config first. A run that lost its config has checkpoints, whose
    settings are compared.
    """
    written = [run_files.LOG, "summary.json", *RESULTS, report.FILE]
    written += [name for name in run_files.DIGESTED if name != "config.json"]
    there = [folder / n for n in written if (folder / n).exists()]
    there = [path for path in there if not path.is_symlink()]  # links are replaced
    if there and not (folder / "checkpoints").is_dir():
        raise UserError(
            f"{there[0]} is not of a run, as there is no config.json beside it, and a "
            "run would overwrite it: choose another workdir (--workdir), or move it"
        )


def differences(folder: Path, settings: dict[str, Any]) -> str:
    """How settings differ from those of the run in a folder; "" if they do not."""
    before = run_files.read(folder, "config.json")
    config = json.loads(json.dumps(to_jsonable(settings)))
    changed = identity.difference(before.get("identity"), config.get("identity"))
    return "; ".join(changed + changes(_compared(before), _compared(config)))


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A sentence for each name with another value.

    >>> changes({"seeds": 1, "folds": 2}, {"seeds": 1, "folds": 3})
    ['folds was 2 and is now 3']
    """
    return [
        f"{name} was {then.get(name)!r} and is now {now.get(name)!r}"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]


def _compared(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that a resumed run must share, by dotted names."""
    return {
        name: value
        for name, value in flatten(config).items()
        if value is not None and not name.startswith(UNCOMPARED)
    }


def settings_digest(folder: Path) -> str:
    """SHA-256 of the config in a run folder, except what a resumed run may change."""
    settings = _compared(run_files.read(folder, "config.json"))
    settings.pop("num_epochs", None)
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Nested fields by dotted names.

    >>> flatten({"model": {"name": "mlp"}, "seeds": [0, 1]})
    {'model.name': 'mlp', 'seeds': [0, 1]}
    """
    if not isinstance(config, dict):
        return {prefix: config}
    return {
        name: value
        for key, item in config.items()
        for name, value in flatten(item, f"{prefix}.{key}" if prefix else key).items()
    }
