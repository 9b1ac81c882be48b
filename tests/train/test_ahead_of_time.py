"""What XLA makes of the programs for an H200, compiled where there is none.

    make test-aot TARGET=h200.txtpb

It wants `jax-cuda13-plugin`, which has a compiler for CUDA, and a description of the
card: an xla `GpuTargetConfigProto` as text. Without them these tests are skipped.
"""

import os
import re
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from dlworkshop import losses, metrics, models
from dlworkshop.data.order import Order
from dlworkshop.learn.epochs import EvalSplit
from dlworkshop.learn.step import spec_of
from dlworkshop.models.model import BATCH
from dlworkshop.train.mesh import MEMBER, make_mesh, shape_structs
from dlworkshop.train.programs import ExecutionConfig, Programs
from dlworkshop.types import Batch

TARGET = os.environ.get("AOT_TARGET", "")
pytestmark = [
    pytest.mark.skipif(not TARGET, reason="AOT_TARGET names no card"),
    pytest.mark.optimized,
]
SIZE, HELD, STEPS, BATCH_SIZE = 1280, 256, 4, 64
WORK = {  # a model, its optimizer, how its convolutions are computed
    "mlp": (models.mlp(), optax.adam, None),
    "cnn": (models.cnn(), optax.sgd, "patches"),
}


@pytest.fixture(scope="module")
def devices():
    from jax.experimental import topologies  # noqa: PLC0415

    config = Path(TARGET).read_text()
    found = topologies.get_topology_desc(
        platform="cuda", topology_name="", topology="1x1x1", target_config=config
    )
    return found.devices


def shaped(mesh, *axes, **leaves):
    """Arrays of such shapes and dtypes on the mesh: name -> shape."""
    structs = {k: jax.ShapeDtypeStruct(*leaf) for k, leaf in leaves.items()}
    return shape_structs(mesh, structs, *axes)


def compiled(devices, name, members, program):
    """The bytes of the population, and a program compiled for it."""
    model, optimizer, how = WORK[name]
    rates = {"learning_rate": ((members,), np.float32)}
    scores = {"accuracy": metrics.accuracy}
    spec = spec_of(model, optimizer, losses.cross_entropy, rates, scores)
    mesh = make_mesh(members, BATCH_SIZE, devices)
    order = Order(list(range(members)), SIZE, BATCH_SIZE)
    execution = ExecutionConfig(how if members > 1 else None, sequential=False)
    programs = Programs(spec, mesh, execution=execution, order=order)
    hparams = shaped(mesh, MEMBER, **rates)
    seeds = shaped(mesh, MEMBER, seeds=((members,), np.uint32))["seeds"]
    example = jax.ShapeDtypeStruct((28, 28, 1), np.uint8)
    population = programs._begun(seeds, hparams, example, None)
    population = shape_structs(mesh, population, MEMBER)
    leaves = jax.tree.leaves(population)

    def split(size):
        images, label = ((size, 28, 28, 1), np.uint8), ((size,), np.int32)
        return Batch(**shaped(mesh, inputs=images, targets=label))

    fed = shaped(mesh, None, MEMBER, BATCH, i=((STEPS, members, BATCH_SIZE), np.int32))
    shape = 2, HELD // 2
    piece = shaped(mesh, None, BATCH, feed=(shape, np.int32), share=(shape, np.float32))
    number = np.int32(0)
    args = {
        "chunk": (programs._chunk, split(SIZE), fed["i"]),
        "epochs": (
            programs._epochs,
            seeds,
            split(SIZE),
            EvalSplit(split(HELD), **piece),
            *(number,) * 3,
        ),
    }[program]
    lowered = args[0].lower(population, hparams, *args[1:])
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves), lowered.compile()


@pytest.mark.parametrize("program", ["chunk", "epochs"])
@pytest.mark.parametrize("members", [1, 64])
@pytest.mark.parametrize("name", WORK)
def test_what_matters_on_an_accelerator(name, members, program, devices):
    size, found = compiled(devices, name, members, program)
    text = found.as_text()
    assert "conditional(" not in text  # the host would wait in each step
    assert "f64[" not in text
    # the old population is given up: the new one takes its place
    assert found.memory_analysis().alias_size_in_bytes >= size
    # the loop over steps is of known length: the host need not ask the device
    assert f'"known_trip_count":{{"n":"{STEPS if program == "chunk" else 20}"}}' in text
    # grouped convolutions whose windows are whole images, where patches were chosen
    windows = re.findall(r"window=\{size=(\d+)x(\d+)", text)
    assert members == 1 or not windows
