"""Initial parameters from another run, or given directly."""

import jax
import jax.numpy as jnp

from dlworkshop.errors import UserError, repr_of
from dlworkshop.train.result import Run
from dlworkshop.types import NotLoaded, PyTree, Start, TrainState


def stacked_start(
    start: Run | Start | PyTree | None, like: TrainState, members: int
) -> Start | None:
    """The initial values of the members [P, ...], from a run or parameters.

    Args:
        start: as of `fit`.
        like: the state of one member at step 0, as shapes.
        members: their number.
    """
    if start is None:
        return None
    if isinstance(start, Run):
        start = Start(start.params, start.state)
    elif not isinstance(start, Start):
        start = Start(start)
    if isinstance(start.opt_state, NotLoaded):
        raise UserError(
            "start has the optimizer's state of a run that load_run returned, which "
            "does not read it: leave it out for a new one, or call fit again with the "
            "arguments and the workdir of that run, which returns it with its state"
        )
    if jax.tree.leaves(like.state) and not jax.tree.leaves(start.state):
        raise UserError(
            "start has parameters only, but the model has a state, too: start from a "
            "Run, or from Start(params, state)"
        )
    found = [
        _stacked(start.params, like.params, members, "parameters"),
        _stacked(start.state, like.state, members, "a state"),
    ]
    if start.opt_state is not None:
        what = "an optimizer's state"
        found.append(_stacked(start.opt_state, like.opt_state, members, what))
    return Start(*found)


def _stacked(tree: PyTree, like: PyTree, members: int, what: str) -> PyTree:
    """`tree` [P, ...], from the tree of one model, of one member, or of all members."""
    given, wanted = jax.tree.structure(tree), jax.tree.structure(like)
    if str(given) != str(wanted):
        raise UserError(
            f"start has {what} of another structure than this run: start from a run of "
            "the same model and optimizer"
        )

    def leaf(path, found, wanted):
        where = f"start has {jax.tree_util.keystr(path)}"
        if not hasattr(found, "dtype"):
            raise UserError(f"{where} = {repr_of(found)}: give arrays")
        floats = [jnp.issubdtype(each.dtype, jnp.inexact) for each in (found, wanted)]
        if floats[0] != floats[1]:
            raise UserError(
                f"{where} of {found.dtype}, and the model wants {wanted.dtype}: give "
                f"that, by .astype('{wanted.dtype}')"
            )
        shape = tuple(found.shape)
        if shape in (wanted.shape, (1, *wanted.shape)):
            return jnp.broadcast_to(jnp.asarray(found), (members, *wanted.shape))
        if shape == (members, *wanted.shape):
            return jnp.asarray(found)
        raise UserError(
            f"{where} of shape {list(shape)}, and the model wants {list(wanted.shape)} "
            f"for each of {members} members: give one model, or as many members"
        )

    return jax.tree.map_with_path(leaf, tree, like)
