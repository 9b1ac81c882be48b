"""All devices are used, and the numbers do not depend on how many there are."""

import math

import jax
import numpy as np
import optax
import pytest

from dlworkshop import fit, models, optimizers
from dlworkshop.train.mesh import make_mesh
from tests.train.test_resume import assert_close

pytestmark = pytest.mark.usefixtures("unreported")

MODELS = {
    "mlp": models.mlp((16,), dropout=0.2, num_classes=4),
    "cnn": models.cnn((4,), (8,), num_classes=4),
}


@pytest.mark.parametrize(
    ("members", "batch_size", "shape"),
    [
        (8, 16, (4, 1)),
        (1, 16, (1, 4)),
        (3, 16, (3, 1)),  # nothing to be added up in each step
        (2, 16, (2, 2)),
        (6, 16, (3, 1)),
        (5, 16, (3, 1)),  # and one empty place
        (9, 16, (3, 1)),
        (3, 15, (3, 1)),
        (1, 7, (1, 1)),
    ],
)
def test_members_come_first_and_the_batch_takes_the_rest(members, batch_size, shape):
    mesh = make_mesh(members, batch_size, jax.devices())
    assert (mesh.shape["member"], mesh.shape["batch"]) == shape


# divided are the members, evenly and not, both, and the batch of one
@pytest.mark.parametrize(
    ("name", "members", "used"),
    [
        pytest.param("mlp", 8, 4, marks=pytest.mark.slow),
        ("mlp", 5, 3),
        pytest.param("cnn", 2, 4, marks=pytest.mark.slow),
        ("cnn", 1, 4),
    ],
)
def test_four_devices_give_what_one_gives(name, members, used, quadrants):
    assert len(jax.devices()) == 4
    one, four = (
        fit(
            MODELS[name],
            quadrants,
            optimizers.clipped(optax.adam),
            hparams={"learning_rate": 0.01, "clip_norm": 1.0},
            seeds=members,
            num_epochs=2,
            batch_size=16,
            devices=devices,
        )
        for devices in (jax.devices()[:1], jax.devices())
    )
    assert math.prod(four.summary["mesh"].values()) == used
    # 12 updates of size 0.01; Adam's direction is as exact as its gradient
    assert_close(one.params, four.params, atol=1e-4)
    assert one.summary["test"]["loss"]["mean"] == pytest.approx(
        four.summary["test"]["loss"]["mean"], abs=1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 3])
def test_odd_members_employ_all_devices(devices, quadrants, tmp_path):
    options = {"seeds": 5, "num_epochs": 2, "batch_size": 16, "patience": 1}
    alone, many = (
        fit(MODELS["mlp"], quadrants, **options, workdir=tmp_path / name, devices=some)
        for name, some in (
            ("alone", jax.devices()[:1]),
            ("many", jax.devices()[:devices]),
        )
    )
    assert dict(many.summary["mesh"]) == {"member": devices, "batch": 1}
    assert many.summary["members"] == 5
    for name in alone.history.names:
        np.testing.assert_allclose(
            many.history[name], alone.history[name], rtol=1e-4, err_msg=name
        )
