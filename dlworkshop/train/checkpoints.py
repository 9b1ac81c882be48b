"""Checkpoints with orbax: save, latest, restore, close.

One of them holds everything that a run needs to go on: the population and a small JSON
object (position, log position, seconds). Keys are stored as the numbers they are. A
digest of every file is stored with it, so that damage is noticed before it is trained
on; the checkpoint before a damaged one is taken instead.
"""

import concurrent.futures
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dlworkshop.data.checksums import digests
from dlworkshop.errors import UserError
from dlworkshop.files import atomic_write
from dlworkshop.train import processes
from dlworkshop.types import PyTree

log = logging.getLogger(__name__)

DIGESTS = "sha256.json"  # in each checkpoint: the name of a file in it -> its digest


class Checkpoints:
    """The checkpoints of one run; the last two are kept.

    Raises:
        UserError: if there are some and all are damaged, or the folder is a link.
    """

    def __init__(self, folder: Path):
        from orbax.checkpoint import v1 as ocp  # noqa: PLC0415 (0.1 s, used by runs only)

        keep = ocp.training.preservation_policies
        folder = folder.absolute()  # orbax takes no other
        self.folder = folder
        if folder.is_symlink():  # what is deleted through it would not be the run's own
            raise UserError(
                f"{folder} is a link: put the folder itself there, or take another run "
                "folder"
            )
        processes.on_first_process(lambda: _set_damaged_aside(folder))
        # or else threads wait for minutes for a folder that could not be made
        context = ocp.Context()
        context.asynchronous.create_directories_asynchronously = False
        self._checkpointer = ocp.training.Checkpointer(
            folder,
            context=context,
            preservation_policy=keep.LatestN(2),
            cleanup_tmp_directories=True,  # this folder is the run's own
        )
        self._writer = concurrent.futures.ThreadPoolExecutor(1)
        self._saving: concurrent.futures.Future | None = None

    def save(self, step: int, state: PyTree, position: dict[str, Any]) -> None:
        """Start writing a checkpoint in the background.

        The arrays are copied before this returns, so they may be given up after it.
        """
        if (latest := self.latest()) is not None and latest >= step:
            return
        self.wait()  # raises what went wrong with the one before
        response = self._checkpointer.save_checkpointables_async(
            step,
            {"state": jax.tree.map(_saved, state), "position": position},
            force=True,
        )
        self._saving = self._writer.submit(self._finish, step, response)

    def _finish(self, step: int, response: Any) -> None:
        response.result()  # which also gives back its thread
        if processes.is_first():
            _write_digests(self.folder / str(step))

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint."""
        newest = self._checkpointer.latest
        return None if newest is None else newest.step

    def restore(self, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """Restore the newest checkpoint, sharded like the arrays of `like`."""
        target = jax.tree.map(_saved, like)
        try:
            found = self._checkpointer.load_checkpointables(
                None, {"state": jax.tree.map(_abstract, target), "position": None}
            )
        except jax.errors.JaxRuntimeError:  # of a device, as its memory
            raise
        except Exception as error:  # what reads damaged files raises what it likes
            raise UserError(
                f"the checkpoint {self.latest()} in {self.folder} does not fit this "
                f"run or is damaged ({_first_line(error):.200}): remove it "
                "or take another folder"
            ) from error
        state = jax.tree.map(_like, like, found["state"])
        if processes.count() > 1:
            where = jax.tree.map(lambda leaf: leaf.sharding, like)
            state = jax.tree.map(processes.put, state, where)
        return state, found["position"]

    def wait(self) -> None:
        """Wait until a save that was started is on disk."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def close(self) -> None:
        """Wait for a save, and release the folder."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()
            self._checkpointer.close()


def _set_damaged_aside(folder: Path) -> None:
    """Rename damaged checkpoints, newest first, until one is intact."""
    steps = [each for each in folder.glob("*") if each.name.isdecimal()]
    damaged = []
    for step in sorted(steps, key=lambda each: int(each.name), reverse=True):
        if (why := damage(step) or _unfinished(step, steps)) is None:
            break
        damaged.append(f"{step.name} ({why})")
    if damaged and len(damaged) == len(steps):
        raise UserError(
            f"all checkpoints in {folder} are damaged: {', '.join(damaged)}: take "
            "another run folder, or remove that one to begin anew"
        )
    for each in damaged:
        name = each.partition(" ")[0]
        aside = folder / f"damaged-{name}"
        shutil.rmtree(aside, ignore_errors=True)  # of an earlier time
        (folder / name).rename(aside)
        log.warning(
            "checkpoint %s of %s is damaged and is now %s: the one before it is taken",
            each,
            folder,
            aside.name,
        )


def damage(checkpoint: Path) -> str | None:
    """The first file of a checkpoint that differs from its digest; None where intact.

    Of one without digests nothing is known; see `_unfinished`.
    """
    try:
        wanted = json.loads((checkpoint / DIGESTS).read_bytes())
        for name, digest in wanted.items():
            path = checkpoint / name
            if not path.is_file():
                return f"{name} is missing"
            if digests([path])[path] != digest:
                return f"{name} has changed"
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        return f"{DIGESTS} cannot be read: {error}"
    return None


def _unfinished(checkpoint: Path, steps: list[Path]) -> str | None:
    """Whether a checkpoint has no digests while another has: it may be incomplete."""
    has = {step for step in steps if (step / DIGESTS).exists()}
    return "it was not finished" if has and checkpoint not in has else None


def _write_digests(checkpoint: Path) -> None:
    """Sync all files of a checkpoint to disk, then write their digests.

    So, after the power failed, one that has digests is whole or is seen not to be.
    """
    for path in (*checkpoint.rglob("*"), checkpoint, checkpoint.parent):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file()]
    found = {
        str(path.relative_to(checkpoint)): digest
        for path, digest in digests(files).items()
    }
    atomic_write(checkpoint / DIGESTS, json.dumps(found, indent=1))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _saved(leaf):
    """The arrays that this process saves; replicated ones are saved by the first."""
    data = jax.random.key_data(leaf) if processes.is_key(leaf) else leaf
    whole = processes.count() > 1 and data.is_fully_addressable
    return np.asarray(data) if whole else data


def _like(leaf, data):
    if processes.is_key(leaf):
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return data


def _abstract(leaf):
    if isinstance(leaf, np.ndarray):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
