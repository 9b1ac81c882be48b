"""Members that stopped cost no time, and those that do not fit wait their turn."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlworkshop import fit, losses, metrics, models
from dlworkshop.errors import UserError
from dlworkshop.train import groups, memory, mesh
from dlworkshop.train.groups import Groups, group_sizes
from tests.train.test_resume import (
    assert_close,
    assert_same_run,
    lines,
    record,
    stop_after,
)

pytestmark = pytest.mark.usefixtures("unreported")

MODELS = {  # the MLP trains side by side, the CNN one by one on a CPU
    "mlp": models.mlp((16,), dropout=0.2, num_classes=4),
    "cnn": models.cnn((4,), (8,), num_classes=4),
}
MEMBERS = 12


def train(dataset, model="mlp", devices=1, **changes):
    """Four members go on to the end, four diverge, and four never get better."""
    settings = {
        "hparams": {"learning_rate": [0.1, 1e30, 0.0]},
        "seeds": 4,
        "num_epochs": 4,
        "batch_size": 16,
        "steps_per_chunk": 3,
        "patience": 1,
        "devices": jax.devices()[:devices],
    }
    return fit(MODELS[model], dataset, optax.adam, **settings | changes)


@pytest.fixture(scope="module")
def together(quadrants, tmp_path_factory):
    """The MLPs all at once on one device."""
    return train(quadrants, workdir=tmp_path_factory.mktemp("groups") / "together")


def assert_alike(one, two):
    # 24 updates of at most 0.1 in float32, whose sums may be taken in another order
    assert_close(one, two, rtol=1e-5, atol=1e-5)


def statuses(run):
    return [(row["status"], row["steps"]) for row in run.summary["population"]]


def test_a_group_has_the_smallest_size_that_holds_it():
    cut = Groups(10, group_sizes(10, axis=2, chunks=np.inf))
    assert cut.sizes == (10, 6, 4, 2)
    for count in range(11):
        chosen = list(range(0, 10))[10 - count :]
        (group,) = cut.partition(chosen) or [()]
        assert len(group) in (*cut.sizes, 0) and len(group) - count <= 3
        assert set(chosen) <= set(group)
    assert cut.partition(range(7)) == [tuple(range(10))]  # all stay in their places


def test_groups_hold_everyone_once():
    cut = Groups(11, group_sizes(4, axis=1, chunks=np.inf))
    for chosen in (range(11), [1, 2, 3, 5, 8], [10]):
        named = [
            member for group in cut.partition(chosen) for member in group if member < 11
        ]
        assert named == list(chosen)


def test_another_size_must_pay():
    assert group_sizes(16, axis=1, chunks=groups.WORTH / 4) == (16, 8, 4)
    assert group_sizes(16, axis=1, chunks=0.0) == (16,)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "devices"), [("mlp", 1), ("cnn", 4)])
def test_what_stopped_costs_nothing(model, devices, quadrants, sizes, monkeypatch):
    whole = train(quadrants, model, devices)
    assert set(sizes) == {MEMBERS}
    sizes.clear()
    monkeypatch.setattr(groups, "WORTH", 0.0)
    run = train(quadrants, model, devices)
    assert_alike(whole.params, run.params)
    assert statuses(whole) == statuses(run)
    for chunk, size in enumerate(sizes):
        running = [
            steps > 3 * chunk or (status == "quarantined" and steps == 3 * chunk)
            for status, steps in statuses(run)
        ]
        allowed = (12, 8, 4) if devices == 4 else (12, 6, 3, 2, 1)
        assert size == min(s for s in allowed if s >= sum(running))
    assert sizes[-1] < MEMBERS / 2 + 1 and len(sizes) == 8


# every pair of model, devices and feed; the groups of the MLP become smaller, too
@pytest.mark.parametrize(
    ("model", "devices", "streamed"),
    [
        ("mlp", 1, False),
        pytest.param("mlp", 4, True, marks=pytest.mark.slow),
        pytest.param("cnn", 1, True, marks=pytest.mark.slow),
        pytest.param("cnn", 4, False, marks=pytest.mark.slow),
    ],
)
def test_groups_give_what_all_at_once_give(
    model, devices, streamed, quadrants, together, sizes, tmp_path, monkeypatch
):
    if model == "mlp":
        monkeypatch.setattr(groups, "WORTH", 0.0)
        whole = together
    else:
        one = {"streamed": streamed, "workdir": tmp_path / "whole"}
        whole = train(quadrants, model, devices, **one)
    sizes.clear()
    run = train(
        quadrants,
        model,
        devices,
        workdir=tmp_path / "run",
        members_at_once=5,
        streamed=streamed,
    )
    assert max(sizes) == run.summary["members_at_once"] == 4
    assert_alike(record(whole.workdir), record(tmp_path / "run"))
    assert statuses(whole) == statuses(run)
    for split in ("validation", "test"):
        one, two = (r.summary[split]["loss"]["mean"] for r in (whole, run))
        assert one == pytest.approx(two, rel=1e-5)
    images = quadrants.test.inputs
    np.testing.assert_allclose(run.predict(images), whole.predict(images), atol=1e-5)
    if model == "cnn":  # computed one by one: what is beside a member is nothing
        assert lines(whole.workdir) == lines(tmp_path / "run")


# in the middle of an epoch, and at its end
@pytest.mark.slow
@pytest.mark.parametrize(
    ("at_once", "chunks"),
    [(None, 3), (8, 4)],
)
def test_a_stopped_run_goes_on_with_the_same_bits(
    at_once, chunks, quadrants, tmp_path, monkeypatch
):
    monkeypatch.setattr(groups, "WORTH", 0.0)
    train(quadrants, workdir=tmp_path / "whole", members_at_once=at_once)
    workdir = tmp_path / "run"
    stopped = {"members_at_once": at_once, "observe": stop_after(chunks)}
    with pytest.raises(SystemExit):
        train(quadrants, workdir=workdir, **stopped)
    train(quadrants, workdir=workdir)
    assert_same_run(workdir, tmp_path / "whole")


@pytest.mark.slow
def test_a_record_is_of_everyone_whatever_ran(
    quadrants, together, tmp_path, monkeypatch
):
    for first, second in ((0.0, np.inf), (np.inf, 0.0)):
        workdir = tmp_path / str(first)
        monkeypatch.setattr(groups, "WORTH", first)
        with pytest.raises(SystemExit):
            train(quadrants, workdir=workdir, observe=stop_after(5))
        monkeypatch.setattr(groups, "WORTH", second)
        assert_alike(together.params, train(quadrants, workdir=workdir).params)


def free(monkeypatch, count):
    monkeypatch.setattr(memory, "free", lambda devices: count)


@pytest.fixture
def predicted(monkeypatch):
    """The bytes that are predicted for each number of members at once."""
    found, fitting = {}, memory.fitting

    def spy(size, axis, predicted, *args):
        found.update({count: predicted(count) for count in (size, max(1, size // 4))})
        return fitting(size, axis, predicted, *args)

    monkeypatch.setattr(memory, "fitting", spy)
    return found


@pytest.mark.slow
def test_what_does_not_fit_trains_in_groups(
    quadrants, tmp_path, sizes, predicted, monkeypatch, caplog
):
    settings = {"hparams": {"learning_rate": 0.1}, "seeds": 8, "batch_size": 32}
    caplog.set_level("INFO", "dlworkshop")
    whole = train(quadrants, workdir=tmp_path / "whole", **settings)
    assert "at once" not in caplog.text
    assert predicted[2] < 0.9 * predicted[8]
    sizes.clear()
    free(monkeypatch, 1 + memory.MARGIN["cpu"] * predicted[2])
    settings |= {"streamed": False, "workdir": tmp_path / "run"}
    with pytest.raises(SystemExit):
        train(quadrants, **settings, observe=stop_after(3))
    assert "8 members may take" in caplog.text
    assert "are free: 2 train at once" in caplog.text
    free(monkeypatch, np.inf)  # now all would fit, but the bits would be others
    run = train(quadrants, **settings)
    assert set(sizes) == {2} and run.summary["members_at_once"] == 2
    assert_alike(whole.params, run.params)


@pytest.mark.slow
def test_not_even_one_fits(quadrants, monkeypatch):
    free(monkeypatch, 1000)
    with pytest.raises(UserError, match=r"1 member may take .* KiB .* 1000 bytes"):
        train(quadrants, streamed=False, seeds=1)
    # who insists is not hindered
    run = train(quadrants, members_at_once=3, seeds=1)
    assert run.summary["members_at_once"] == 3


@pytest.mark.slow
def test_the_prediction_counts_state_data_and_work(quadrants, monkeypatch):
    plans = []

    def spy(size, axis, predicted, *args):
        plans.append(predicted.args[0])
        return size

    monkeypatch.setattr(memory, "fitting", spy)
    run = train(quadrants, model="cnn", streamed=False)
    params = sum(leaf.nbytes for leaf in jax.tree.leaves(run.params))
    data = sum(array.nbytes for array in jax.tree.leaves(quadrants[:3]))
    (plan,) = plans
    together = memory.predict(plan, False, 12)
    # parameters, the best ones, two moments; then the gradient of one member at least
    assert together > data + 4 * params + params / 12
    # a record is a copy of everyone, and so are those who wait on a CPU for their turn
    copy = memory.predict(plan, True, 12) - together
    three = dataclasses.replace(plan, seeds=plan.seeds[:3])
    waiting = memory.predict(plan, False, 3) - memory.predict(three, False, 3)
    assert waiting == pytest.approx(4 * params, rel=0.05)
    # of which predictions are made that are kept with it
    outputs = plan.found_bytes("test", 12, True)
    assert waiting <= copy <= waiting + outputs


def test_the_prediction_counts_what_an_evaluation_brings(quadrants, monkeypatch):
    wide = 4000  # outputs of an example, most of which nobody looks at

    def apply(params, image, *, key=None):
        return jnp.concatenate([image.reshape(-1) @ params, jnp.zeros(wide)])

    model = models.Model(lambda key, image: jnp.zeros((64, 4)), apply)
    plans, found = [], {}

    def spy(size, axis, predicted, *args):
        plans.append(predicted.args[0])
        return size

    monkeypatch.setattr(memory, "fitting", spy)

    def loss(outputs, label):
        return losses.cross_entropy(outputs[:4], label)

    options = {"loss": loss, "quiet": True, "streamed": False}
    large = quadrants.test.rows(np.arange(300) % 33)
    split = {"last": metrics.Metric(lambda outputs, *_: 0.0, split=True)}
    for name, data, scores, saved in (
        ("nothing", quadrants, {}, False),
        ("of a split", quadrants, split, False),
        ("predictions", quadrants, {}, True),
        ("of a larger test split", quadrants._replace(test=large), split, False),
    ):
        fit(model, data, optax.sgd, batch_size=1, metrics=scores, **options)
        found[name] = memory.predict(plans.pop(), saved, 1)
    each = 128 * 4 * wide  # examples at a time, bytes
    assert found["of a split"] > found["nothing"] + 1e5
    assert found["predictions"] > found["nothing"] + 1e5
    more = found["of a larger test split"] - found["of a split"]
    assert more == pytest.approx(2 * each, rel=0.05)


def test_the_cpu_must_be_there_for_those_who_wait(monkeypatch):
    def no_cpu(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", no_cpu)
    with pytest.raises(UserError, match="JAX_PLATFORMS leaves out the CPU"):
        mesh.population_sharding(mesh.make_mesh(1, 1, jax.devices()), fits=False)


def test_a_finished_run_comes_back_whatever_its_groups_were(quadrants, tmp_path):
    one = train(quadrants, workdir=tmp_path, members_at_once=4, num_epochs=1)
    two = train(quadrants, workdir=tmp_path, members_at_once=6, num_epochs=1)
    assert two.summary == one.summary
