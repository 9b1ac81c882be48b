"""Lift 5: one device -> all devices; members first, the batch with what is left."""

from collections.abc import Sequence

import jax
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

MEMBER = "member"


def make_mesh(
    members: int, batch_size: int, devices: Sequence[jax.Device], split: bool = True
) -> Mesh:
    """The mesh [member, batch] that employs most devices, members before batch.

    Members need no communication, so they are spread first; what they leave unused
    splits the batch, unless `split` is False. Both axes divide evenly: no member and
    no example is padded.

    >>> mesh = make_mesh(members=8, batch_size=64, devices=jax.devices()[:1])
    >>> dict(mesh.shape)
    {'member': 1, 'batch': 1}
    """
    count = len(devices)
    shapes = [
        (m, b)
        for m in range(1, min(members, count) + 1)
        for b in range(1, (count // m if split else 1) + 1)
        if members % m == 0 and batch_size % b == 0
    ]
    member, batch = max(shapes, key=lambda shape: (shape[0] * shape[1], shape[0]))
    return jax.make_mesh(
        (member, batch),
        (MEMBER, BATCH),
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=devices[: member * batch],
    )


def shard(mesh: Mesh, tree, *axes):
    """Put the arrays of `tree` on the mesh, first dimensions split over `axes`."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*axes)))


def shape_structs(mesh: Mesh, tree, *axes):
    """What `shard` would make of the arrays of `tree`: shapes without numbers."""
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        jax.eval_shape(lambda leaves: leaves, tree),
    )


def population_sharding(mesh: Mesh, *, fits: bool) -> Sharding:
    """Where the whole population lives: on the mesh, or in the memory of the host."""
    if fits:
        return NamedSharding(mesh, PartitionSpec(MEMBER))
    try:
        return SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        raise UserError(
            "not all members fit on the devices, and JAX_PLATFORMS leaves out the CPU, "
            "where they could wait: add it, as in JAX_PLATFORMS=cuda,cpu"
        ) from None
