"""Lift 5: one device -> all devices; members first, then the batch."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import (
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    Sharding,
    SingleDeviceSharding,
)

from dlworkshop.errors import UserError
from dlworkshop.models.model import BATCH
from dlworkshop.train import processes

MEMBER = "member"


def make_mesh(
    members: int, batch_size: int, devices: Sequence[jax.Device], split: bool = True
) -> Mesh:
    """The mesh [member, batch] that spreads members over devices, then batches.

    Members need no communication, so they are spread over devices first, over as few as
    train them in the fewest turns; if they do not divide evenly, some places are empty.
    The other devices split the batch, evenly, unless `split` is False.

    >>> mesh = make_mesh(members=8, batch_size=64, devices=jax.devices()[:1])
    >>> dict(mesh.shape)
    {'member': 1, 'batch': 1}
    """
    count = len(devices)
    turns = -(-members // min(members, count))
    member = -(-members // turns)
    most = count // member if split else 1
    batch = max(b for b in range(1, most + 1) if batch_size % b == 0)
    used = np.asarray(devices[: member * batch]).reshape(member, batch)
    return Mesh(used, (MEMBER, BATCH), axis_types=(AxisType.Auto, AxisType.Auto))


def shard(mesh: Mesh, tree, *axes):
    """Shard the arrays of `tree`, with first dimensions split over `axes`."""
    return processes.put(tree, NamedSharding(mesh, PartitionSpec(*axes)))


def shape_structs(mesh: Mesh, tree, *axes):
    """The result of `shard` as shape structs."""
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        jax.eval_shape(lambda leaves: leaves, tree),
    )


def row_structs(tree, *shape: int):
    """Arrays of N examples [N, ...] as shape structs [*shape, ...].

    >>> row_structs(np.zeros((9, 3)), 2).shape
    (2, 3)
    """
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((*shape, *leaf.shape[1:]), leaf.dtype), tree
    )


def population_sharding(mesh: Mesh, *, fits: bool) -> Sharding:
    """The sharding of the whole population: on the mesh if it fits, else on the host.

    A population that does not divide evenly over the devices does not fit.
    """
    if fits:
        return NamedSharding(mesh, PartitionSpec(MEMBER))
    try:
        return SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        raise UserError(
            "not all members fit on the devices, or they do not divide evenly, and "
            "JAX_PLATFORMS leaves out the CPU, where they could wait: add it, for "
            "example JAX_PLATFORMS=cuda,cpu"
        ) from None
