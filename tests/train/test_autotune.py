"""How to compute is measured once, remembered, may be forced, and is resumed."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from dlworkshop import fit, models
from dlworkshop.errors import UserError
from dlworkshop.learn import losses
from dlworkshop.learn.step import spec_of
from dlworkshop.models import conv_impls, convolution
from dlworkshop.models.convolution import CONV_IMPLS
from dlworkshop.models.model import BATCH
from dlworkshop.train import autotune, workload
from dlworkshop.train import machine as this_machine
from dlworkshop.train.flops import update_flops
from dlworkshop.train.mesh import MEMBER, make_mesh, shard
from dlworkshop.train.programs import ExecutionConfig, Programs
from dlworkshop.types import Batch
from tests.train.test_resume import assert_close, stop_after

pytestmark = pytest.mark.usefixtures("unreported")

CNN = models.cnn((4,), (8,), num_classes=4)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(autotune, "LASTING", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def clock(cache, monkeypatch):
    """A pretended call says itself how many seconds it took."""
    monkeypatch.setattr(autotune, "_seconds", lambda call: call())
    return cache


def train(dataset, **changes):
    settings = {"seeds": 2, "batch_size": 16, "devices": jax.devices()[:1]}
    return fit(
        CNN,
        dataset,
        optax.sgd,
        hparams={"learning_rate": 0.1},
        **settings,
        **changes,
    )


def pretend(seconds, turns):
    """A `try_out` whose calls take the given seconds, 20 ms by default."""

    def try_out(choice):
        def call():
            turns.append(choice)
            return seconds.get(choice, 0.02)

        return call

    return try_out


START = ExecutionConfig("patches", False)
ASKED = {
    "convolution": ["patches", "shifts", "lax"],
    "micro_batch": [None, 8],
    "sequential": [True, False],
}


def test_the_fastest_is_taken_and_remembered(clock):
    best, turns, said = ExecutionConfig("shifts", True, 8), [], []
    seconds = {
        ExecutionConfig("shifts", False): 0.015,
        ExecutionConfig("shifts", False, 8): 0.01,
    }
    seconds[best] = 0.008
    for _ in range(2):
        found = autotune.autotune(
            pretend(seconds, turns), START, ASKED, {"a": 1}, said.append
        )
        assert found == best
    assert len(turns) == (3 + 2 + 2) * (1 + autotune.ROUNDS)  # in the first round only
    assert "shifts" in said[1] and "one by one" in said[1] and "8 at a time" in said[1]
    assert said[2].endswith("(measured before)")
    turns.clear()
    autotune.autotune(pretend({}, turns), START, {"micro_batch": [8]}, {}, said.append)
    assert turns  # something else: measured anew
    folder = clock / "dlworkshop" / "choices"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "\0\xff",
        '{"choice": null}',
        '{"choice": {"convolution": "patches", "sequential": true, "tile": 8}}',
        '{"choice": {"convolution": "patches", "sequential": true}}',
        '{"choice": {"convolution": "fft", "sequential": true, "micro_batch": 8}}',
        '{"choice": {"convolution": "shifts", "sequential": 1, "micro_batch": 8}}',
    ],
)
def test_what_is_damaged_or_of_another_version_is_measured_anew(clock, text):
    turns = []

    def run():
        turns.clear()
        return autotune.autotune(pretend({}, turns), START, ASKED, {}, lambda line: 0)

    found = run()
    (path,) = clock.rglob("*.json")
    path.write_text(text)
    assert run() == found and turns
    assert run() == found and not turns  # what was measured is there again


def test_a_cache_that_is_a_folder_is_done_without(clock):
    autotune.autotune(pretend({}, []), START, ASKED, {}, lambda line: 0)
    (path,) = clock.rglob("*.json")
    path.unlink()
    path.mkdir()
    turns = []
    autotune.autotune(pretend({}, turns), START, ASKED, {}, lambda line: 0)
    assert turns


def test_a_short_run_is_not_measured(clock):
    turns, said, asked = [], [], []

    def worth(seconds, cost):
        asked.append((seconds, cost))
        return False

    options = {"worth": worth, "lasting": 7.0}
    found = autotune.autotune(
        pretend({}, turns), START, ASKED, {}, said.append, **options
    )
    assert found == START and turns == [START]
    ((seconds, cost),) = asked
    assert seconds == 0.02 and 3 * 7.0 <= cost < 3 * 7.0 + 10
    assert "not measured: that would take 21 s" in said[0]
    assert not list(clock.rglob("*.json"))  # a longer run may ask again


@pytest.mark.slow
@pytest.mark.parametrize("saved, fastest", [(1e9, True), (1e-9, False)])
def test_what_measuring_costs_is_held_against_the_training(
    saved, fastest, quadrants, cache, monkeypatch, caplog
):
    caplog.set_level("INFO", "dlworkshop")
    monkeypatch.setattr(autotune, "WORTH", {"cpu": 0.0})
    monkeypatch.setattr(autotune, "SAVED", saved)
    two = {"convolution": ["patches", "shifts"]}  # each has to be compiled
    monkeypatch.setattr(autotune, "search_space", lambda *_: two)
    train(quadrants)
    assert ("the fastest of" in caplog.text) == fastest
    assert ("not measured" in caplog.text) != fastest


def test_machines_are_told_apart(tmp_path):
    def machine(model="AMD EPYC 9654", quota="max 100000"):
        for name, text in {
            "proc/cpuinfo": f"processor\t: 0\nmodel name\t: {model}\nmodel\t\t: 17\n",
            "proc/self/cgroup": "0::/job\n",
            "sys/fs/cgroup/cgroup.controllers": "cpu",
            "sys/fs/cgroup/job/cpu.max": quota,
        }.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return this_machine.properties(tmp_path)

    known = machine()
    assert known == machine() and json.loads(json.dumps(known)) == known
    assert known["processor"].startswith("AMD EPYC 9654")
    assert known["cores"] == len(os.sched_getaffinity(0))
    assert machine("AMD EPYC 7763") != known
    assert machine(quota="50000 100000")["cores"] == 0.5
    assert {"jax", "jaxlib", "dlworkshop"} <= set(known)


@pytest.mark.parametrize("quota, cores", [(-1, None), (25_000, 0.25)])
def test_quotas_of_version_1_count(tmp_path, quota, cores):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("3:cpu,cpuacct:/job/step\n")
    job = tmp_path / "sys/fs/cgroup/cpu/job"
    job.mkdir(parents=True)
    (job / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (job / "cpu.cfs_period_us").write_text("100000\n")
    assert this_machine.cores(tmp_path) == (cores or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize("time, taken", [(0.0198, "patches"), (0.018, "shifts")])
def test_what_is_hardly_faster_is_not_taken(clock, time, taken):
    seconds = {ExecutionConfig("shifts", False): time}
    asked = {"convolution": ["shifts", "patches"]}
    found = autotune.autotune(pretend(seconds, []), START, asked, {}, print)
    assert found.convolution == taken


def test_what_is_hopeless_is_tried_once(clock):
    slow, turns = ExecutionConfig("shifts", False), []
    asked = {"convolution": ["shifts", "patches"]}
    autotune.autotune(pretend({slow: 0.05}, turns), START, asked, {}, print)
    assert turns.count(slow) == 1
    assert turns.count(START) == 1 + autotune.ROUNDS


def test_a_question_lasts_longer_than_a_slow_second(clock, monkeypatch):
    monkeypatch.setattr(autotune, "LASTING", 3.0)
    asked, turns = {"convolution": ["shifts", "patches"]}, []

    def try_out(choice):
        def call():
            turns.append(choice)
            slow = 2.0 if len(turns) < 50 and choice.convolution == "shifts" else 1.0
            return slow * {"shifts": 0.018, "patches": 0.02}[choice.convolution]

        return call

    assert autotune.autotune(try_out, START, asked, {}, print).convolution == "shifts"
    assert len(turns) > 2 * (1 + autotune.ROUNDS)


def test_the_least_time_of_all_questions_is_kept(clock):
    times = iter([0.02, 0.03] + [0.02, 0.03] * autotune.ROUNDS)
    asked = {"convolution": ["patches", "shifts"], "micro_batch": [None, 8]}
    found = autotune.autotune(
        lambda choice: lambda: next(times, 0.5), START, asked, {"b": 1}, print
    )
    kept = [json.loads(path.read_text()) for path in clock.rglob("*.json")]
    assert found == START
    assert kept[0]["seconds"][str(START)] == 0.02


@pytest.mark.parametrize(
    "batch, flops, size", [(128, 28e6, 32), (120, 28e6, 30), (256, 1.2e6, None)]
)
def test_what_fits_the_cache_is_taken_at_a_time(batch, flops, size):
    choice = autotune.rule_of_thumb(batch, flops, convolutions=True, platform="cpu")
    assert choice.micro_batch == size


@pytest.mark.parametrize("flops, sequential", [(4e3, False), (6e5, True)])
def test_small_updates_stand_side_by_side(flops, sequential):
    choice = autotune.rule_of_thumb(16, flops, convolutions=False, platform="cpu")
    assert choice.sequential == sequential


@pytest.mark.parametrize(
    "platform, members, convolutions, how",
    [
        ("gpu", 16, True, "blocks"),  # twice as fast as cuDNN's grouped convolutions
        ("gpu", 1, True, None),
        ("gpu", 16, False, None),
        ("tpu", 16, True, None),
    ],
)
def test_an_accelerator_trains_side_by_side(platform, members, convolutions, how):
    choice = autotune.rule_of_thumb(
        128, 28e6, members, convolutions=convolutions, platform=platform
    )
    assert choice == ExecutionConfig(how, sequential=False)


def test_members_do_not_matter_on_a_cpu():
    alone, many = (
        autotune.rule_of_thumb(128, 28e6, m, convolutions=True, platform="cpu")
        for m in (1, 16)
    )
    assert alone == many == ExecutionConfig("lax", True, 32)


@pytest.mark.parametrize("strides, how", [((2, 2), "patches"), ((2, 1), "lax")])
def test_a_short_run_has_patches_where_all_convolutions_have_strides(
    strides, how, quadrants, tmp_path
):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            for stride in strides:
                x = nn.relu(nn.Conv(4, (3, 3), stride)(x))
            return nn.Dense(4)(x.mean((0, 1)))

    model = models.from_linen(Net())
    fit(model, quadrants, num_epochs=1, batch_size=16, quiet=True, workdir=tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["derived"]["execution"]["convolution"] == how


@pytest.mark.parametrize("at_once, how", [(4, "blocks"), (1, None)])
def test_the_rule_goes_by_the_mesh_and_who_trains_at_once(
    quadrants, monkeypatch, at_once, how
):
    monkeypatch.setattr(workload.Workload, "platform", "gpu")
    spec = spec_of(CNN, optax.sgd, losses.cross_entropy)
    mesh = make_mesh(4, 16, jax.devices()[:1])
    image = quadrants.train.inputs[0]
    work = workload.Workload(spec, image, 16, 4, at_once, 6, mesh)
    found = work.execution(None, {}, lambda: pytest.fail("too short to be measured"))
    assert found == ExecutionConfig(how, sequential=False)


def test_it_begins_with_the_rule_of_thumb_by_its_name(quadrants, cache, monkeypatch):
    monkeypatch.setattr(autotune, "WORTH", {"cpu": 0.0})
    monkeypatch.setattr(autotune, "SAVED", np.inf)
    begun = []
    monkeypatch.setattr(
        autotune,
        "autotune",
        lambda _, start, *more, **options: begun.append(start) or start,
    )
    train(quadrants)
    assert begun[0].convolution == "lax" and begun[0].sequential


def test_what_is_tried_depends_on_the_platform():
    asked = autotune.search_space(4, batch=100, flops=4e7, platform="cpu")
    assert set(CONV_IMPLS) - set(asked["convolution"]) == {"blocks"}
    assert asked["micro_batch"] == [10, 25, 50, None]
    assert asked["sequential"] == [True, False]
    alone = autotune.search_space(1, batch=100, flops=4e7, platform="cpu")
    assert alone["sequential"] == [False]
    elsewhere = autotune.search_space(4, batch=100, flops=4e7, platform="gpu")
    assert set(elsewhere["convolution"]) == {"lax", "blocks"}
    assert elsewhere["micro_batch"] == [None]
    unknown = autotune.search_space(4, batch=100, flops=4e7, platform="tpu")
    assert {"lax", "patches", "shifts"} < set(unknown["convolution"])


@pytest.mark.slow  # each is compared by itself in models/test_conv_impls.py
def test_every_way_trains_the_same(quadrants, monkeypatch):
    monkeypatch.setattr(conv_impls, "WIDE", 0)  # by Winograd's products too
    runs = {how: train(quadrants, convolution=how) for how in CONV_IMPLS}
    for how, run in runs.items():
        # six updates in float32, sums in another order
        assert_close({how: run.params}, {how: runs["lax"].params}, atol=1e-5)


def test_an_unknown_way_names_the_nearest(quadrants):
    with pytest.raises(UserError, match="did you mean 'patches'"):
        train(quadrants, convolution="patch")


def test_a_way_for_a_model_without_a_convolution_is_refused(quadrants):
    model = models.mlp((4,), num_classes=4)
    with pytest.raises(UserError, match="'shifts', but the model has no convolution"):
        fit(model, quadrants, batch_size=16, convolution="shifts")


@pytest.mark.slow
def test_a_long_run_is_measured_and_says_so(
    quadrants, cache, monkeypatch, caplog, tmp_path
):
    caplog.set_level("INFO", "dlworkshop")
    train(quadrants, workdir=tmp_path / "short")
    assert "fastest" not in caplog.text
    monkeypatch.setattr(autotune, "WORTH", {"cpu": 0.0})
    monkeypatch.setattr(autotune, "SAVED", np.inf)
    train(quadrants, workdir=tmp_path / "long")
    assert "convolutions by" in caplog.text
    config = json.loads((tmp_path / "long" / "config.json").read_text())
    assert config["derived"]["execution"]["convolution"] in CONV_IMPLS


@pytest.mark.slow
def test_a_resumed_run_computes_as_it_did(quadrants, tmp_path):
    with pytest.raises(SystemExit):
        train(
            quadrants,
            workdir=tmp_path,
            convolution="shifts",
            num_epochs=2,
            steps_per_chunk=3,
            observe=stop_after(1),
        )
    run = train(quadrants, workdir=tmp_path, num_epochs=2, steps_per_chunk=3)
    assert run.summary["steps"] == 12
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["derived"]["execution"]["convolution"] == "shifts"


def test_a_run_is_refused_whose_way_of_computing_convolutions_was_removed(
    quadrants, tmp_path
):
    with pytest.raises(SystemExit):
        train(quadrants, workdir=tmp_path, num_epochs=2, observe=stop_after(1))
    config = json.loads((tmp_path / "config.json").read_text())
    config["derived"]["execution"]["convolution"] = "lax+patches"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"by lax\+patches, which this version"):
        train(quadrants, workdir=tmp_path, num_epochs=2)


@pytest.mark.parametrize("how", ["lax", "patches", "shifts", "winograd"])
def test_operations_are_counted_where_the_platform_does_not_tell(how, monkeypatch):
    # as on CUDA; 784 * 128 + 128 * 10, and 28 * 28 * 9 * 32 + 14 * 14 * 9 * 32 * 64 +
    # 3136 * 256 + 256 * 10 products, twice for their sums, in three passes
    monkeypatch.setattr(jax.stages.Lowered, "cost_analysis", lambda self: None)
    image = np.zeros((28, 28, 1), np.uint8)
    assert update_flops(models.mlp(), image) == 6 * 101_632
    cnn = convolution.computed_by(models.cnn(), how)
    assert update_flops(cnn, image) == 6 * 4_643_840


def test_operations_in_a_loop_count_as_often_as_it_runs():
    def apply(params, x, *, key=None):
        return jax.lax.scan(lambda x, _: (params @ x, None), x, None, length=50)[0]

    model = models.Model(lambda key, x: jnp.eye(8), apply)
    assert update_flops(model, np.zeros(8, np.float32)) >= 3 * 50 * 2 * 64


def test_xlas_convolution_is_fast_in_the_loop_of_a_chunk():
    """In another layout it would take 20 times as long as patches."""
    model = models.cnn((8, 16), (16,))
    spec = spec_of(model, optax.sgd, losses.cross_entropy)
    mesh = make_mesh(1, 32, jax.devices()[:1])
    images = np.random.default_rng(0).random((64, 28, 28, 1), np.float32)
    data = shard(mesh, Batch(images, np.arange(64) % 10))
    rates = shard(mesh, {"learning_rate": np.array([0.1], np.float32)}, MEMBER)
    seeds = shard(mesh, np.zeros(1, np.uint32), MEMBER)
    order = np.arange(10 * 32, dtype=np.int32).reshape(10, 1, 32) % 64
    feed, seconds = shard(mesh, order, None, MEMBER, BATCH), {}
    for how in ("patches", "lax"):
        programs = Programs(spec, mesh, execution=ExecutionConfig(how, True))
        population = programs.begin(seeds, rates, images[0])
        times = []
        for _ in range(4):  # the first one compiles
            started = programs.clock()
            population, _ = programs.chunk(population, rates, data, feed)
            jax.block_until_ready(population)
            times.append(programs.clock() - started)
        seconds[how] = min(times)
    assert seconds["lax"] < 5 * seconds["patches"]
