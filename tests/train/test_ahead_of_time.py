"""What XLA makes of the programs for accelerators that are not here.

    make test-aot TARGET=h200.txtpb

For a GPU it wants `jax-cuda13-plugin`, which has a compiler for CUDA, and a
description of the card: an xla `GpuTargetConfigProto` as text. For a TPU v5e it wants
`libtpu`. What is not there is skipped.
"""

import importlib.util
import os
import re
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn

from dlworkshop import losses, metrics, models
from dlworkshop.data.order import Order
from dlworkshop.learn.epochs import EvalSplit
from dlworkshop.learn.step import spec_of
from dlworkshop.models.convolution import has_convolutions
from dlworkshop.models.model import BATCH, input_struct, shapes, stand_ins, stateful
from dlworkshop.train.autotune import rule_of_thumb
from dlworkshop.train.mesh import MEMBER, make_mesh, shape_structs
from dlworkshop.train.programs import Programs
from dlworkshop.types import Batch

ROOT = Path(__file__).parent.parent.parent
TARGET = os.environ.get("AOT_TARGET", "")
pytestmark = [
    pytest.mark.skipif(
        "AOT_TARGET" not in os.environ, reason="only by `make test-aot`"
    ),
    pytest.mark.optimized,
]
SIZE, HELD, STEPS, BATCH_SIZE = 1280, 256, 4, 64
EXAMPLE = jax.ShapeDtypeStruct((28, 28, 1), np.uint8)


class OwnCnn(nn.Module):
    """As a user writes it."""

    @nn.compact
    def __call__(self, x):  # [H, W, C]
        for features in (16, 32):
            x = nn.relu(nn.Conv(features, (3, 3))(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(10)(x.reshape(-1))


def batch_norm_resnet():
    """The one of the documentation, smaller."""
    page = (ROOT / "docs" / "models.md").read_text()
    section = page.partition("## A ResNet with BatchNorm")[2]
    scope: dict = {}
    exec(re.search(r"```python\n(.*?)```", section, re.S)[1], scope)
    return models.from_linen(scope["ResNet"]((16, 32), 1))


WORK = {
    "mlp": (models.mlp, optax.adam),
    "cnn": (models.cnn, optax.sgd),
    "own cnn": (lambda: models.from_linen(OwnCnn()), optax.adam),
    "batch norm": (batch_norm_resnet, optax.adam),
}


@pytest.fixture(scope="module", params=["h200", "v5e"])
def devices(request):
    from jax.experimental import topologies  # noqa: PLC0415

    if request.param == "v5e":
        if importlib.util.find_spec("libtpu") is None:
            pytest.skip("libtpu is not installed")
        found = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
        return found.devices[:1]
    if not TARGET:
        pytest.skip("TARGET names no description of a card")
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
    """The population as shapes, and a program compiled for it."""
    make, optimizer = WORK[name]
    model = make()
    rates = {"learning_rate": ((members,), np.float32)}
    scores = {"accuracy": metrics.accuracy}
    spec = spec_of(model, optimizer, losses.cross_entropy, rates, scores)
    mesh = make_mesh(members, BATCH_SIZE, devices)
    order = Order(list(range(members)), SIZE, BATCH_SIZE)
    known = stateful(model)
    convolves = has_convolutions(
        known.apply, *shapes(known, EXAMPLE), input_struct(EXAMPLE), **stand_ins(known)
    )
    platform = devices[0].platform
    execution = rule_of_thumb(
        BATCH_SIZE, members=members, convolutions=convolves, platform=platform
    )
    programs = Programs(spec, mesh, execution=execution, order=order)
    hparams = shaped(mesh, MEMBER, **rates)
    seeds = shaped(mesh, MEMBER, seeds=((members,), np.uint32))["seeds"]
    population = programs._begun(seeds, hparams, EXAMPLE, None)
    population = shape_structs(mesh, population, MEMBER)

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
    return population, args[0].lower(population, hparams, *args[1:]).compile()


def size_of(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


ITEMSIZE = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "s32": 4, "u32": 4, "f32": 4}
NOTHING = "parameter", "get-tuple-element", "tuple", "bitcast", "constant", "while"


def bytes_of(shape):
    """Of a type in a program's text, as `(f32[2,3]{1,0}, pred[])`."""
    found = re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shape)
    return sum(
        ITEMSIZE.get(dtype, 0) * int(np.prod([int(n) for n in sizes.split(",") if n]))
        for dtype, sizes in found
    )


def bytes_of_a_step(text):
    """What the operations in the body of the longest loop read and write."""
    bodies: dict[str, list] = {}
    name = ""
    for line in text.splitlines():
        if found := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            name = found[1]
            bodies[name] = []
        operation = r"\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*?)\)(.*)"
        if found := re.match(operation, line):
            bodies[name].append(found.groups())
    loops = [
        re.search(r"body=%?([\w.\-]+)", rest)[1]
        for body in bodies.values()
        for _, _, kind, _, rest in body
        if kind == "while"
    ]
    body = max((bodies[loop] for loop in loops), key=len)
    shape_of = {name: shape for name, shape, *_ in body}
    return sum(
        bytes_of(shape)
        + sum(bytes_of(shape_of.get(n, "")) for n in re.findall(r"%([\w.\-]+)", args))
        for _, shape, kind, args, _ in body
        if kind not in NOTHING
    )


@pytest.mark.parametrize(
    ("members", "program"), [(1, "chunk"), (4, "chunk"), (64, "chunk"), (64, "epochs")]
)
@pytest.mark.parametrize("name", WORK)
def test_what_matters_on_an_accelerator(name, members, program, devices):
    population, found = compiled(devices, name, members, program)
    text = found.as_text()
    assert "conditional(" not in text  # the host would wait in each step
    assert "f64[" not in text
    # the old population is given up: the new one takes its place
    assert found.memory_analysis().alias_size_in_bytes >= size_of(population)
    if devices[0].platform == "tpu":
        return
    # the loop over steps is of known length: the host need not ask the device
    assert f'"known_trip_count":{{"n":"{STEPS if program == "chunk" else 20}"}}' in text
    # no grouped convolutions whose windows are whole images
    for line in text.splitlines():
        if "convolution(" in line or "__cudnn$conv" in line:
            sizes = re.findall(r"window=\{size=(\d+)x(\d+)", line)
            assert members == 1 or all(int(n) <= 7 for pair in sizes for n in pair)


# The update reads parameters, gradient and two moments, and writes all but the
# gradient; the gradient is written by a product, and parameters are read by one. Beside
# these nine there are the batch, and whether gradients are finite.
@pytest.mark.parametrize("members", [1, 64])
def test_a_step_moves_few_bytes(members, devices):
    population, found = compiled(devices, "mlp", members, "chunk")
    ideal = 9 * size_of(population.train.params)
    assert ideal / 2 < bytes_of_a_step(found.as_text()) < FACTOR[members] * ideal


FACTOR = {1: 2.6, 64: 1.5}  # one member's batch is half as large as its parameters
