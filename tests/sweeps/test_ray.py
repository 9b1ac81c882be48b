"""Buckets as tasks of a real cluster of two nodes, of which one is killed."""

import threading
import time

import numpy as np
import pytest

from dlworkshop.errors import UserError
from dlworkshop.sweeps.sweep import sweep
from tests.conftest import ROOT, SOON_THERE
from tests.sweeps.one_of_several import network, points

ray = pytest.importorskip(
    "ray", reason="Ray is not installed: pip install 'dlworkshop[ray]'"
)
pytestmark = pytest.mark.slow

SPACE = {"width": [4, 8, 16, 32], "learning_rate": [0.001, 0.05]}
HOW = {"seeds": 2, "num_epochs": 40, "batch_size": 16, "quiet": True}
HOW |= {"steps_per_chunk": 4, "save_every_steps": 4}


@pytest.fixture
def cluster(monkeypatch):
    """A cluster of two nodes with one CPU each, to which this process is connected."""
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    for name, value in SOON_THERE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    made = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    made.add_node(num_cpus=1)
    ray.init(made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def slowly(snapshot):
    time.sleep(0.05)  # long enough to be killed in


def test_a_node_that_is_killed_costs_no_result(cluster, tmp_path):
    (node,) = cluster.worker_nodes
    found = []

    def kill():
        while len(list(tmp_path.glob("sweep/*/checkpoints/*"))) < 2:  # both nodes work
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)
        found.append(len(list(tmp_path.glob("sweep/*/summary.json"))))

    killing = threading.Thread(target=kill)
    killing.start()
    on_ray = sweep(
        network,
        points(),
        hparams=SPACE,
        engine="ray",
        workdir=tmp_path,
        observe=[slowly],
        **HOW,
    )
    killing.join()
    assert found[0] < 4  # it was killed while they trained
    assert len([node for node in ray.nodes() if node["Alive"]]) == 1
    here = sweep(network, points(), hparams=SPACE, **HOW)
    assert [row["trial"] for row in on_ray.trials] == [
        row["trial"] for row in here.trials
    ]
    for one, other in zip(on_ray.trials, here.trials, strict=True):
        np.testing.assert_allclose(
            one["validation"]["loss"]["mean"],
            other["validation"]["loss"]["mean"],
            rtol=1e-3,
        )


def test_mistakes_on_a_worker_are_one_sentence(cluster):
    def broken(outputs, targets):
        return outputs  # no scalar

    with pytest.raises(UserError, match="the loss") as refused:
        sweep(network, points(), hparams=SPACE, engine="ray", loss=broken, **HOW)
    assert "\n" not in str(refused.value)
    lock = threading.Lock()
    with pytest.raises(UserError, match="cannot be sent to the workers of Ray"):
        sweep(
            network,
            points(),
            hparams=SPACE,
            engine="ray",
            observe=[lambda snapshot: lock],
            **HOW,
        )
    with pytest.raises(UserError, match="Ray does not accept these ray_options"):
        sweep(
            network,
            points(),
            hparams=SPACE,
            engine="ray",
            ray_options={"cpus": 1},
            **HOW,
        )
