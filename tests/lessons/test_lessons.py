"""Every lesson: its claims hold at a fast setting, and each fails where it is false.

Beside this file, NAME.py says for the lesson NAME what its FAST setting is, and what is
PLANTED: names in the experiment -> a function of the original that returns a wrong one,
and the beginnings of the statements that must then fail. Some are COMPUTING for longer
than their programs are compiled; some take so long even then that they are SLOW.
"""

import dataclasses
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from dlworkshop.errors import UserError
from dlworkshop.workshop.script import perform

HERE = Path(__file__).parent
EXPERIMENTS = HERE.parent.parent / "experiments"
LESSONS = sorted(p.stem for p in HERE.glob("*.py") if not p.stem.startswith("test_"))


def load(path: Path, name: str):
    spec = importlib.util.spec_from_file_location(name, path)
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found  # dataclasses and perform look modules up there
    spec.loader.exec_module(found)
    return found


def planted(name):
    return load(HERE / f"{name}.py", f"planted_{name}")


def marks(name):
    said = planted(name)
    known = {"COMPUTING": pytest.mark.computing, "SLOW": pytest.mark.slow}
    return [mark for word, mark in known.items() if getattr(said, word, False)]


def run(name, workdir, changes):
    """The lesson at its fast setting, of a fresh module: nothing is traced yet."""
    script = load(EXPERIMENTS / f"{name}.py", name)
    for part, wrong in changes.items():
        setattr(script, part, wrong(getattr(script, part)))
    config = script.Config(workdir=workdir, **planted(name).FAST)
    return perform(script.main, config)


def claims_of(lesson):
    asked = [e.claim for e in lesson.exercises if e.claim]
    return [*lesson.claims, *asked]


def check_page(text, figures):
    """All figures stand where the text wants them, and all links lead somewhere."""
    assert "What to look for</h2>" in text and "More figures" not in text
    shown = re.findall('<figure[^>]* id="figure-([^"]*)"', text)
    assert sorted(shown) == sorted(Path(f["file"]).stem for f in figures)
    ids = set(re.findall(r'\bid="([^"]*)"', text))
    assert set(re.findall(r'href="#([^"]*)"', text)) <= ids
    assert len(text.encode()) < 3_000_000


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=marks(name)) for name in LESSONS]
)
def test_its_claims_hold_and_it_leaves_a_run_folder(name, tmp_path):
    lesson = run(name, tmp_path, {})
    assert lesson.failed == []
    assert len(lesson.figures) >= 2 and lesson.exercises
    for file in ("config.json", "summary.json", "report.html"):
        assert (tmp_path / file).stat().st_size > 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["experiment"] == name and summary["seconds"]["total"] > 0
    assert summary["device"] and summary["versions"]["jax"]
    assert [c["statement"] for c in summary["claims"]]
    for figure in summary["figures"]:
        assert (tmp_path / figure["file"]).read_text().startswith("<svg xmlns")
    check_page((tmp_path / "report.html").read_text(), summary["figures"])
    statements = [claim.statement for claim in claims_of(lesson)]
    seen_to_fail = [s for _, starts in planted(name).PLANTED for s in starts]
    for statement in statements:
        assert statement.startswith(tuple(seen_to_fail)), f"never false: {statement}"
    assert len(set(statements)) == len(statements)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "plant"),
    [
        pytest.param(name, i, marks=marks(name))
        for name in LESSONS
        for i in range(len(planted(name).PLANTED))
    ],
)
def test_a_planted_error_is_seen(name, plant):
    changes, fail = planted(name).PLANTED[plant]
    with np.errstate(all="ignore"):
        lesson = run(name, None, changes)
    for start in fail:
        found = [c for c in claims_of(lesson) if c.statement.startswith(start)]
        assert found and all(claim.verdict == "fails" for claim in found), found


REFUSED = [
    ("activations", {"depth": 1}),
    ("activations", {"gain": -1.0}),
    ("backpropagation", {"seeds": 0}),
    ("batch_forwarding", {"batch_sizes": (1024, 1)}),
    ("batch_forwarding", {"batch_sizes": (0, 1)}),
    ("cnn_features", {"seeds": 4}),
    ("compiling", {"members": (4, 16)}),
    ("components", {"num_steps": 0}),
    ("convolution", {"seeds": 0}),
    ("data_size", {"sizes": (64, 16)}),
    ("data_size", {"num_epochs": 1, "sizes": (8, 16)}),
    ("feedforward", {"depth": 1}),
    ("gradient_cost", {"widths": (4,)}),
    ("halving", {"num_epochs": 3}),
    ("halving", {"factor": 1}),
    ("jax_in_ten_minutes", {"seeds": 0}),
    ("learning_depth", {"learning_rate": (0.1, 0.01, 0.001)}),
    ("learning_rate_finder", {"seeds": 8}),
    ("learning_rate_finder", {"num_rates": 4}),
    ("learning_rate_finder", {"num_steps": (60, 20)}),
    ("learning_rate_limit", {"num_rates": 5}),
    ("learning_rate_limit", {"num_steps": 1}),
    ("logistic_regression", {"penalty": 0.0}),
    ("logistic_regression", {"seeds": 1}),
    ("pooling", {"seeds": 4}),
    ("seeds", {"learning_rate": (0.003, 0.003)}),
    ("softmax", {"num_epochs": (2,)}),
    ("universal_approximation", {"widths": ()}),
    ("vgg16", {"seeds": 0}),
    ("vmap_vs_loop", {"members": (4, 64)}),
    ("why_convolution", {"sizes": (150, 1200)}),
    ("why_convolution", {"sizes": (1500, 3000)}),
    ("why_convolution", {"learning_rates": ()}),
    ("why_depth", {"folds": 0}),
    ("why_depth", {"folds": 30}),
    ("xor", {"num_steps": 0}),
]


@pytest.mark.parametrize(("name", "settings"), REFUSED)
def test_settings_that_cannot_be_right_are_refused_before_the_work(name, settings):
    script = load(EXPERIMENTS / f"{name}.py", name)
    with pytest.raises(UserError) as raised:
        script.main(script.Config(**settings))
    assert re.search(": (give|begin)", str(raised.value))


@pytest.mark.parametrize("name", LESSONS)
def test_its_settings_are_frozen(name):
    config = load(EXPERIMENTS / f"{name}.py", name).Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seeds = 1


def test_a_diverged_learning_rate_is_not_the_best_one():
    script = load(EXPERIMENTS / "learning_depth.py", "learning_depth")

    def learn(config, widths, rate, key):
        error = jnp.where(rate > 0.05, jnp.nan, 1 - rate)
        return error, jnp.zeros(len(script.POINTS)), jnp.ones(len(script.MIDDLES))

    script.learn = learn
    lesson = script.main(script.Config(seeds=5))
    (tuning,) = (figure for figure in lesson.figures if figure.name == "tuning")
    assert tuning.title.endswith("are 0.03, 0.03, 0.03, 0.03")


def test_a_rate_at_the_end_of_the_grid_is_not_better_than_ten_times_itself():
    script = load(EXPERIMENTS / "learning_rate_finder.py", "learning_rate_finder")
    script.learn = lambda steps, rate, *_: (
        1 / rate * jnp.ones(3),
        1 / rate,
        rate[None],
    )
    (claim,) = (
        claim
        for claim in claims_of(script.main(script.Config()))
        if "half the loss of ten times" in claim.statement
    )
    assert claim.verdict == "fails"


@pytest.mark.parametrize(
    ("edge", "said"), [(0.2, "0.202 is the first to diverge"), (9, "none diverges")]
)
def test_a_rate_diverges_if_its_loss_grows_or_is_not_finite(edge, said):
    script = load(EXPERIMENTS / "learning_rate_limit.py", "learning_rate_limit")

    def descend(w, rate, xs, ys, num_steps):
        lost = jnp.array([2.0, jnp.inf, jnp.inf])
        return w, jnp.where(rate > edge, lost, jnp.array([2.0, 2.0, 1.0]))

    script.descend = descend
    assert said in script.main(script.Config(num_rates=20)).finding


def test_the_sign_of_a_difference_is_said_as_it_is():
    script = load(EXPERIMENTS / "seeds.py", "seeds")
    noise = np.random.default_rng(0).normal(0, 0.002, (2, 40))
    a_and_b = noise + np.array([[0.90], [0.95]])  # B is better
    script.fit = lambda *_, **__: SimpleNamespace(test_metric=a_and_b.ravel())
    lesson = script.main(script.Config())
    assert lesson.finding.startswith("A - B is -5.")
    assert "A is not ahead in 100% of cases" in lesson.finding
    agrees = [c for c in lesson.claims if c.statement.startswith("A permutation")]
    assert [claim.verdict for claim in agrees] == ["fails"]  # B is better, not A


def test_the_time_of_a_batch_is_compared_with_the_smallest_batch():
    load(EXPERIMENTS / "batch_forwarding.py", "batch_forwarding")  # brings slides
    from slides.batch_forwarding import latency  # noqa: PLC0415

    sizes, rate = np.array([4, 64]), np.array([[40.0, 320.0]])  # 0.1 s and 0.2 s
    title = latency(sizes, rate).title
    assert title == "64 examples together take 2.0 times as long as 4"
    title = latency(np.array([1, 16]), rate).title
    assert title == "16 examples together take 2.0 times as long as one alone"
