"""How many programs a run compiles: counted, never timed."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jax
import optax
import pytest

from dlworkshop import fit, models
from dlworkshop.train import groups
from tests.conftest import SOON_THERE, make_dataset

# begin, a chunk, validation, test, and what early stopping makes of the validation
PROGRAMS = {"begin": 1, "population_chunk": 1, "evaluate": 2, "keep_best": 1}
# a smaller group: chunk and validation, and the ways there and back
SMALLER = {
    "population_chunk": 1,
    "evaluate": 1,
    "gather_members": 2,
    "scatter_members": 1,
}


def train(rate=0.1, **changes):
    """Four epochs of two members that learn and two that are stopped after two."""
    settings = {
        "seeds": 2,
        "num_epochs": 4,
        "batch_size": 16,
        "steps_per_chunk": 2,
        "patience": 1,
        "devices": jax.devices()[:1],
    }
    return fit(
        models.mlp((16,), num_classes=4),
        make_dataset((96, 40, 33)),
        optax.sgd,
        hparams={"learning_rate": [rate, 0.0]},
        **settings | changes,
    )


@pytest.fixture
def compiled(monkeypatch):
    """The programs that are compiled, by name."""
    names, compile_it = Counter(), jax.stages.Lowered.compile

    def counting(self, *args, **kwargs):
        name = self.as_text().split("module @jit_", 1)[1].split(" ", 1)[0]
        names[name] += 1
        return compile_it(self, *args, **kwargs)

    monkeypatch.setattr(jax.stages.Lowered, "compile", counting)
    return names


def test_a_run_of_many_chunks_compiles_each_program_once(compiled):
    run = train()
    assert run.summary["population"][1]["status"] == "finished"
    assert run.summary["population"][2]["status"] == "stopped early"
    assert compiled == PROGRAMS


def test_each_size_of_a_group_is_compiled_once(compiled, monkeypatch):
    monkeypatch.setattr(groups, "WORTH", 0.0)
    train()
    assert compiled == Counter(PROGRAMS) + Counter(SMALLER)


def test_groups_in_turn_share_their_programs(compiled):
    train(members_at_once=2)
    # in groups of two from the first step to the test split; they are taken to be
    # begun, to be trained and to be evaluated
    assert compiled == Counter(PROGRAMS) + Counter(
        {"gather_members": 3, "scatter_members": 1}
    )


SCRIPT = """
import collections, json, os, sys
import jax
from tests.train.test_compilations import train
os.environ["XDG_CACHE_HOME"] = sys.argv[3]  # a cache that nobody has filled
seen = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: seen.update([event]))
train(float(sys.argv[1]), seeds=[int(sys.argv[2]), 7])
names = ("compile_requests_use_cache", "cache_misses", "cache_hits")
print(json.dumps([seen["/jax/compilation_cache/" + name] for name in names]))
"""


@pytest.mark.slow
def test_a_warm_cache_leaves_nothing_to_compile(tmp_path):
    root = Path(__file__).parents[2]
    environment = {**os.environ, **SOON_THERE, "PYTHONPATH": str(root)}
    counts = []
    for rate, seed in (("0.1", "0"), ("0.2", "5")):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, rate, seed, str(tmp_path)],
            cwd=root,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        counts.append(json.loads(done.stdout.splitlines()[-1]))
    (asked, misses, hits), second = counts
    assert misses >= sum(PROGRAMS.values()) and misses + hits == asked
    assert second == [asked, 0, asked]
