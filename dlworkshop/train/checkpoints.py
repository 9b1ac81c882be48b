"""Checkpoints by orbax behind four verbs: save, latest, restore, close.

One of them holds everything that a run needs to go on: the population and a small JSON
object (position, log position, seconds). Keys are stored as the numbers they are.
"""

from pathlib import Path
from typing import Any

import jax

from dlworkshop.errors import UserError
from dlworkshop.types import PyTree


class Checkpoints:
    """The checkpoints of one run; the last two are kept."""

    def __init__(self, folder: Path):
        from orbax.checkpoint import v1 as ocp  # noqa: PLC0415 (0.1 s, used by runs only)

        keep = ocp.training.preservation_policies
        folder = folder.absolute()  # orbax takes no other
        self.folder = folder
        self._checkpointer = ocp.training.Checkpointer(
            folder,
            preservation_policy=keep.LatestN(2),
            cleanup_tmp_directories=True,  # this folder is the run's own
        )

    def save(self, step: int, state: PyTree, position: dict[str, Any]) -> None:
        """Begin to write a checkpoint in the background.

        The arrays are copied before this returns, so they may be given up after it.
        """
        if (latest := self.latest()) is not None and latest >= step:
            return
        self.wait()  # raises what went wrong with the one before
        self._checkpointer.save_checkpointables_async(
            step,
            {"state": jax.tree.map(_as_data, state), "position": position},
            force=True,
        )

    def latest(self) -> int | None:
        """The step of the newest whole one."""
        newest = self._checkpointer.latest
        return None if newest is None else newest.step

    def restore(self, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """The newest one, laid out over devices as the arrays of `like` are."""
        target = jax.tree.map(_as_data, like)
        try:
            found = self._checkpointer.load_checkpointables(
                None, {"state": jax.tree.map(_abstract, target), "position": None}
            )
        except (ValueError, KeyError, FileNotFoundError, TypeError) as error:
            raise UserError(
                f"the checkpoint {self.latest()} in {self.folder} does not fit this "
                f"run or is damaged ({str(error).splitlines()[0]:.200}): remove it "
                "or take another folder"
            ) from error
        state = jax.tree.map(_like, like, found["state"])
        return state, found["position"]

    def wait(self) -> None:
        """Until what was begun is on disk."""
        self._checkpointer.wait()

    def close(self) -> None:
        """Wait, and let go of the folder."""
        self._checkpointer.close()


def _is_key(leaf) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _as_data(leaf):
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _like(leaf, data):
    if _is_key(leaf):
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return data


def _abstract(leaf):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
