"""Checkpoints with orbax: save, latest, restore, close.

A checkpoint holds everything that a run needs to continue: the population and a small
JSON object (position, log position, seconds). Random keys are stored as their numbers.
A digest of every file is stored with it, so that a damaged checkpoint is detected
before training continues; the checkpoint before it is used instead.
"""

import concurrent.futures
import contextlib
import errno
import glob
import json
import logging
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dlworkshop.data.checksums import sha256
from dlworkshop.errors import UserError
from dlworkshop.files import atomic_write, read_own, refuse_link
from dlworkshop.train import processes
from dlworkshop.types import PyTree

log = logging.getLogger(__name__)

DIGESTS = "sha256.json"  # in each checkpoint: the name of a file in it -> its digest
MOST_DIGESTS = 1 << 24  # bytes of that file


def check_arrays(state: PyTree) -> None:
    """Check that every array has something to be saved, and a name of its own.

    orbax names arrays by their path with dots, and `params.safetensors` with slashes.

    Raises:
        UserError: names the array.

    >>> check_arrays({"a.b": np.ones(1), "a": {"b": np.ones(1)}})
    Traceback (most recent call last):
    dlworkshop.errors.UserError: two arrays of the run are called 'a.b', so one would be
    lost in its folder: rename one of them
    """
    arrays = jax.tree.leaves_with_path(state)
    for separator in (".", "/"):
        known = set()
        for path, leaf in arrays:
            name = jax.tree_util.keystr(path, simple=True, separator=separator)
            if name in known:
                raise UserError(
                    f"two arrays of the run are called '{name}', so one would be lost "
                    "in its folder: rename one of them"
                )
            if not leaf.size:
                raise UserError(
                    f"'{name}' of the run has shape {list(leaf.shape)}, and empty "
                    "arrays cannot be saved: leave it out of the model"
                )
            known.add(name)


def read_newest(folder: Path, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
    """The newest intact checkpoint in host memory; the folder is left as it is.

    Args:
        folder: of the checkpoints.
        like: the tree that was saved, of arrays or of their shapes.

    Returns:
        The tree, and the small JSON object.

    Raises:
        UserError: if no checkpoint is intact, or it does not fit `like`.
    """
    from orbax.checkpoint import v1 as ocp  # noqa: PLC0415 (as in Checkpoints)

    refuse_link(folder)
    intact, damaged = _newest_intact(folder)
    if intact is None:
        found = ", ".join(damaged) or "none was saved"
        raise UserError(
            f"{folder} has no intact checkpoint ({found}): give a run folder that has "
            "one"
        )
    shapes = jax.eval_shape(lambda tree: jax.tree.map(_saved, tree), like)
    target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)
    with _restoring(folder, intact.name):
        found = ocp.load_checkpointables(
            intact.absolute(), {"state": target, "position": None}
        )
    state = jax.tree.map(processes.from_numbers, found["state"], like)
    return state, found["position"]


class Checkpoints:
    """The checkpoints of one run; the last two are kept.

    Raises:
        UserError: if all checkpoints are damaged, or the folder is a link.
    """

    def __init__(self, folder: Path):
        from orbax.checkpoint import v1 as ocp  # noqa: PLC0415 (0.1 s, used by runs only)

        keep = ocp.training.preservation_policies
        folder = folder.absolute()  # orbax requires it
        self.folder = folder
        refuse_link(folder)  # deleting through it would remove files of others
        if folder.exists() and not folder.is_dir():
            raise UserError(
                f"{folder} is not a folder, so checkpoints cannot be written there: "
                "move it, or choose another workdir (--workdir)"
            )
        processes.on_first_process(lambda: _set_damaged_aside(folder))
        # otherwise threads wait for minutes for a folder that could not be created
        context = ocp.Context()
        context.asynchronous.create_directories_asynchronously = False
        # orbax takes [, ? and * in a path for a pattern when it merges files, so
        # there is nothing to merge there (fault of orbax 0.12.8)
        context.array.saving.use_ocdbt = glob.escape(str(folder)) == str(folder)
        self._checkpointer = ocp.training.Checkpointer(
            folder,
            context=context,
            preservation_policy=keep.LatestN(2),
            cleanup_tmp_directories=True,  # only this run writes here
        )
        self._opened = folder.stat()
        self._writer = concurrent.futures.ThreadPoolExecutor(1)
        self._saving: concurrent.futures.Future | None = None

    def save(self, step: int, state: PyTree, position: dict[str, Any]) -> None:
        """Start writing a checkpoint in the background.

        The arrays are copied before this returns, so they may be donated afterwards.
        """
        if (latest := self.latest()) is not None and latest >= step:
            return
        self.wait()  # raises errors of the previous save
        with self._folder_in_place():
            response = self._checkpointer.save_checkpointables_async(
                step,
                {"state": jax.tree.map(_saved, state), "position": position},
                force=True,
            )
        self._saving = self._writer.submit(self._finish, step, response)

    def _finish(self, step: int, response: Any) -> None:
        response.result()  # also releases its thread
        if processes.is_first():
            _write_digests(self.folder / str(step))

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint."""
        newest = self._checkpointer.latest
        return None if newest is None else newest.step

    def restore(self, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """Restore the newest checkpoint, sharded like the arrays of `like`."""
        target = jax.tree.map(_saved, like)
        with _restoring(self.folder, self.latest()):
            found = self._checkpointer.load_checkpointables(
                None, {"state": jax.tree.map(_abstract, target), "position": None}
            )
        state = jax.tree.map(processes.from_numbers, found["state"], like)
        if processes.count() > 1:
            where = jax.tree.map(lambda leaf: leaf.sharding, like)
            state = jax.tree.map(processes.put, state, where)
        return state, found["position"]

    def wait(self) -> None:
        """Wait until the last save is on disk.

        Raises:
            FileNotFoundError: if the save failed and the folder is gone.
        """
        saving, self._saving = self._saving, None
        if saving is not None:
            with self._folder_in_place():
                saving.result()

    def close(self) -> None:
        """Wait for the last save, and release the folder."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()
            with self._folder_in_place():
                self._checkpointer.close()

    @contextlib.contextmanager
    def _folder_in_place(self) -> Iterator[None]:
        """Name the cause of an error if the folder was moved, removed or replaced.

        What orbax raises then, and with which message, depends on the file that it was
        about to read or write.
        """
        try:
            yield
        except Exception as error:
            if _is_at(self.folder, self._opened):
                raise
            raise FileNotFoundError(
                errno.ENOENT, "moved or removed", str(self.folder)
            ) from error


@contextlib.contextmanager
def _restoring(folder: Path, step: object) -> Iterator[None]:
    try:
        yield
    except jax.errors.JaxRuntimeError:  # of a device, such as too little memory
        raise
    except Exception as error:  # damaged files raise exceptions of any type
        raise UserError(
            f"the checkpoint {step} in {folder} does not fit this run or is damaged "
            f"({_first_line(error):.200}): remove it or use another folder"
        ) from error


def _is_at(path: Path, opened: os.stat_result) -> bool:
    """Whether a path still is the folder that was opened."""
    try:
        return os.path.samestat(path.stat(), opened)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _set_damaged_aside(folder: Path) -> None:
    """Rename damaged checkpoints, newest first, until one is intact."""
    intact, damaged = _newest_intact(folder)
    if damaged and intact is None:
        raise UserError(
            f"all checkpoints in {folder} are damaged: {', '.join(damaged)}; use "
            "another run folder, or remove this one to start again"
        )
    for each in damaged:
        name = each.partition(" ")[0]
        aside = folder / f"damaged-{name}"
        _remove(aside)  # left by an earlier run
        (folder / name).rename(aside)
        log.warning(
            "checkpoint %s of %s is damaged and is now %s: the one before it is used",
            each,
            folder,
            aside.name,
        )


def _newest_intact(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest intact checkpoint, if any, and what is wrong with newer ones."""
    steps = [each for each in folder.glob("*") if each.name.isdecimal()]
    damaged: list[str] = []
    for step in sorted(steps, key=lambda each: int(each.name), reverse=True):
        if (why := damage(step) or _unfinished(step, steps)) is None:
            return step, damaged
        damaged.append(f"{step.name} ({why})")
    return None, damaged


def _remove(path: Path) -> None:
    """Remove a folder, a file or a link, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def damage(checkpoint: Path) -> str | None:
    """What is wrong with the first damaged file of a checkpoint; None if intact.

    In a checkpoint without digests only the kinds of files are checked; see
    `_unfinished`.
    """
    try:
        for path in (checkpoint, *checkpoint.rglob("*")):
            kind = path.lstat().st_mode
            if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
                return f"{path.name} is neither a file nor a folder"
        wanted = json.loads(read_own(checkpoint / DIGESTS, MOST_DIGESTS))
        for name, digest in wanted.items():
            path = checkpoint / name
            if not path.is_file():
                return f"{name} is missing"
            if sha256(path) != digest:
                return f"{name} has changed"
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        return f"{DIGESTS} cannot be read: {error}"
    return None


def _unfinished(checkpoint: Path, steps: list[Path]) -> str | None:
    """What is wrong with a checkpoint that has no digests while another has them."""
    has = {step for step in steps if (step / DIGESTS).exists()}
    return "it was not finished" if has and checkpoint not in has else None


def _write_digests(checkpoint: Path) -> None:
    """Sync all files of a checkpoint to disk, then write their digests.

    So a checkpoint that has digests is complete, or detected as damaged, even after a
    power failure.
    """
    for path in (*checkpoint.rglob("*"), checkpoint, checkpoint.parent):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    for part in checkpoint.glob("*/ocdbt.process_*"):
        if not (part.parent / "manifest.ocdbt").exists():
            raise UserError(
                f"the checkpoint {checkpoint} has parts that were not merged, so it "
                "could not be restored: use another run folder"
            )
    found = {
        str(path.relative_to(checkpoint)): sha256(path)
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file()
    }
    atomic_write(checkpoint / DIGESTS, json.dumps(found, indent=1))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _saved(leaf):
    """The array to save: keys as numbers; replicated arrays as NumPy's, saved once."""
    data = processes.as_numbers(leaf)
    whole = processes.count() > 1 and data.is_fully_addressable
    return np.asarray(data) if whole else data


def _abstract(leaf):
    if isinstance(leaf, np.ndarray):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
