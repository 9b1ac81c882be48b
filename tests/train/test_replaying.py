"""Any quarantined member is repeated alone from its folder, which is left as it is."""

import runpy
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlworkshop import UserError, cli, fit, load_run, models, observers, replay
from dlworkshop.learn.population import LOSS
from dlworkshop.train import instead, replaying
from dlworkshop.train.checkpoints import read_newest

pytestmark = pytest.mark.usefixtures("unreported")

MODEL = models.logistic(num_classes=4)
# the first fails at once by its shift, the second later by its learning rate
RATES, SHIFTS = [0.01, 1e9, 0.01], [-1.0, 1.0, 1.0]
MEMBERS = [
    {"learning_rate": rate, "shift": shift}
    for rate, shift in zip(RATES, SHIFTS, strict=True)
]


def loss(outputs, target, *, shift):
    return outputs.sum() ** 2 + jnp.log(shift)


OPTIONS = {"loss": loss, "metrics": {}, "batch_size": 16, "hparams": MEMBERS}
OPTIONS |= {"quiet": True, "seeds": [7], "num_epochs": 2}


def snapshot(folder):
    """Every file with its content and when it was written."""
    return {
        path: (path.lstat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in [folder, *folder.rglob("*")]
    }


@pytest.fixture(scope="module")
def trained(quadrants, tmp_path_factory):
    """A folder of a run that was resumed after two of its members had failed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    once = OPTIONS | {"workdir": folder, "num_epochs": 1}
    fit(MODEL, quadrants, optax.sgd, **once)
    run = fit(MODEL, quadrants, optax.sgd, **once | {"num_epochs": 2})
    return folder, run.summary["population"]


def test_each_quarantined_member_names_its_own_operation(quadrants, trained):
    folder, rows = trained
    before = snapshot(folder)
    for member, cause in enumerate(("log", "integer_pow")):
        options = OPTIONS | {"workdir": folder}
        found = replay(member, MODEL, quadrants, optax.sgd, **options)
        assert f"because of {cause} at " in found.why
        assert "test_replaying.py" in found.why and found.repeated
        assert rows[member]["note"].startswith(found.note)
        assert (found.seed, found.hparams) == (7, MEMBERS[member])
        assert not np.isfinite(found.steps[-1].loss)
        assert found.steps[-1].step == rows[member]["steps"] + 1
        assert np.isfinite(found.steps[-1].before)
        lines = str(found).splitlines()
        about = f"seed 7, learning_rate {RATES[member]:g}, shift {SHIFTS[member]:g}"
        assert lines[0] == f"member {member} ({about}): {found.note}"
        assert lines[-1] == found.why
    assert [step for step, _ in found.logged] == [6]  # the chunk in which it failed
    assert found.steps[-1].step > 1  # so the second is not the first again
    assert snapshot(folder) == before


def bounded(outputs, target):
    return jnp.tanh(outputs.sum() / 1e30)


def growing(learning_rate):
    """Multiplies the parameters until they overflow, whatever the gradient."""

    def update(grads, state, params):
        grow = lambda g, p: 0 * g + learning_rate * p  # noqa: E731
        return jax.tree.map(grow, grads, params), state

    return optax.GradientTransformation(lambda params: (), update)


def own_step(step):
    def train_step(train, batch, hparams):
        return step(train, batch, hparams)

    return train_step


@pytest.mark.parametrize(
    ("changes", "numbers"),
    [({}, [1, 2, 3, 4]), ({"make_step": own_step}, [4])],
)
def test_parameters_that_overflow_are_followed_from_the_last_finite_ones(
    quadrants, tmp_path, changes, numbers
):
    """From the start of their chunk, unless the step is the user's own."""
    options = OPTIONS | {"workdir": tmp_path / "run", "loss": bounded}
    options |= {"hparams": {"learning_rate": 1e10}, "steps_per_chunk": 6} | changes
    run = fit(MODEL, quadrants, growing, **options)
    first = numbers[0] - 1
    note = run.summary["population"][0]["note"]
    assert note.startswith(f"the parameters were not finite after step {first} of 12")
    found = replay(0, MODEL, quadrants, growing, **options)
    assert [step.step for step in found.steps] == numbers
    before = [step.before for step in found.steps]
    assert before[1:] == [step.after for step in found.steps[:-1]]
    assert not np.isfinite(found.steps[-1].after)
    assert (found.steps[-1].gradient is None) == bool(changes)
    assert found.why.startswith("the parameters['")
    assert "because of mul at " in found.why


@pytest.mark.slow
def test_hyper_parameters_that_changed_are_those_of_the_end(quadrants, tmp_path):
    """A copy in the place of a failed member fails, too, by a rate that was drawn."""
    scheduler = observers.population_based_training(
        {"learning_rate": (1e-3, 1e12)}, factor=1e13
    )
    rates = {"learning_rate": [0.01, 0.02, 0.03, 0.04, 1e9], "shift": 1.0}
    options = OPTIONS | {"hparams": rates, "workdir": tmp_path / "run"}
    options |= {"observe": [scheduler]}
    run = fit(MODEL, quadrants, optax.sgd, **options)
    assert run.summary["population"][4]["status"] == "quarantined"
    found = replay(4, MODEL, quadrants, optax.sgd, **options)
    assert found.hparams["learning_rate"] == run.hparams["learning_rate"][4] != 1e9
    assert "because of integer_pow at " in found.why


def test_the_end_of_a_run_says_how_to_explain_the_others(quadrants, tmp_path, caplog):
    options = OPTIONS | {"quiet": False}
    fit(MODEL, quadrants, optax.sgd, **options)
    assert "dlworkshop replay" not in caplog.text  # there is no folder to replay from
    fit(MODEL, quadrants, optax.sgd, **options, workdir=tmp_path / "run")
    command = f"dlworkshop replay {tmp_path / 'run'} --member N SCRIPT"
    assert f"{command} explains the others: 1" in caplog.text


def test_the_state_of_an_optimizer_that_overflowed_is_named(quadrants, tmp_path):
    """Its steps are not repeated: what was before the overflow is not kept."""

    def steep(outputs, target, *, slope):
        return slope * outputs.sum()

    hparams = {"learning_rate": 1e-3, "slope": [1.0, 1e25]}
    options = OPTIONS | {"loss": steep, "hparams": hparams, "workdir": tmp_path / "run"}
    fit(MODEL, quadrants, optax.adam, **options)
    found = replay(1, MODEL, quadrants, optax.adam, **options)
    assert found.repeated and not found.steps
    assert str(found).splitlines()[0].startswith("member 1 (seed 7, ")
    assert found.note.startswith("the optimizer's state was not finite after step ")
    assert found.why.startswith("opt_state[0].nu") and found.why in str(found)
    assert "|gradient|" not in str(found)


def test_a_state_may_hold_keys_of_any_kind(quadrants, tmp_path):
    def init(key, image):
        return MODEL.init(key, image), jax.random.key(0, impl="rbg")

    def apply(params, state, image, *, key=None):
        return MODEL.apply(params, image), state

    model, options = models.StatefulModel(init, apply), OPTIONS | {"workdir": tmp_path}
    run = fit(model, quadrants, optax.sgd, **options)
    assert replay(0, model, quadrants, optax.sgd, **options).repeated
    assert (load_run(tmp_path, model).state == run.state).all()


def test_a_damaged_checkpoint_is_skipped_and_stays_where_it_is(
    quadrants, trained, tmp_path
):
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    names = sorted(each.name for each in (folder / "checkpoints").iterdir())
    assert names == ["12", "6"]
    (folder / "checkpoints/12/_CHECKPOINT_METADATA").write_text("{}")
    before = snapshot(folder)
    options = OPTIONS | {"workdir": folder}
    with pytest.raises(UserError, match="until its checkpoint at step 6"):
        replay(2, MODEL, quadrants, optax.sgd, **options)
    assert replay(1, MODEL, quadrants, optax.sgd, **options).steps[-1].step > 1
    assert snapshot(folder) == before
    (folder / "checkpoints/6/_CHECKPOINT_METADATA").write_text("{}")
    with pytest.raises(UserError, match=r"no intact checkpoint \(12 \(_CHECKPOINT_"):
        replay(1, MODEL, quadrants, optax.sgd, **options)


def test_a_member_that_stays_finite_alone_is_not_accused(
    quadrants, trained, monkeypatch
):
    def all_failed_at_once(folder, like):
        population, position = read_newest(folder, like)
        step = np.zeros_like(population.train.step)
        train = population.train._replace(step=step)
        status = np.full_like(population.status, LOSS)
        return population._replace(train=train, status=status), position

    monkeypatch.setattr("dlworkshop.train.replaying.read_newest", all_failed_at_once)
    options = OPTIONS | {"workdir": trained[0]}
    found = replay(2, MODEL, quadrants, optax.sgd, **options)
    assert not found.repeated
    assert found.why.startswith("alone, the member is finite up to step 1: it rounds")


def other_loss(outputs, target, *, shift):
    return outputs.sum() ** 2 + jnp.log(shift) + 1


@pytest.mark.parametrize(
    ("member", "changes", "said"),
    [
        (2, {}, r"member 2 .* was not quarantined .* \(quarantined: 0, 1\)"),
        (3, {}, "has 3 members: give a number from 0 to 2"),
        (-1, {}, "member is -1: give a whole number of at least 0"),
        (0, {"workdir": None}, "workdir is None: give the folder"),
        (0, {"workdir": 5}, "workdir is 5: give a path"),
        (0, {"loss": other_loss}, "this is not the run in .*other_loss"),
        (0, {"num_epochs": 3}, "num_epochs was 2 and is now 3"),
        (0, {"seeds": [8]}, r"seeds was .7, 7, 7. and is now"),
    ],
)
def test_what_cannot_be_replayed(quadrants, trained, member, changes, said):
    options = OPTIONS | {"workdir": trained[0]} | changes
    with pytest.raises(UserError, match=said):
        replay(member, MODEL, quadrants, optax.sgd, **options)


def test_a_folder_without_a_run_or_a_checkpoint(quadrants, trained, tmp_path):
    options = OPTIONS | {"workdir": tmp_path / "run"}
    with pytest.raises(UserError, match=r"config\.json is missing"):
        replay(0, MODEL, quadrants, optax.sgd, **options)
    assert not (tmp_path / "run").exists()
    shutil.copytree(trained[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints")
    with pytest.raises(UserError, match="run has no checkpoint"):
        replay(0, MODEL, quadrants, optax.sgd, **options)


def test_other_calls_of_fit_give_what_the_script_needs(quadrants, trained, tmp_path):
    """Those in memory train, finished ones return; none begins in a folder."""
    options = OPTIONS | {"hparams": MEMBERS[2:]}
    with instead.of_training(replaying.action(tmp_path / "run", 0), ""):
        run = fit(MODEL, quadrants, optax.sgd, **options)
        assert run.summary["steps"] == 12
        fit(MODEL, quadrants, optax.sgd, **OPTIONS, workdir=trained[0])
        with pytest.raises(UserError, match="fit is called with the run folder"):
            fit(MODEL, quadrants, optax.sgd, **options, workdir=tmp_path / "other")
        with pytest.raises(UserError, match="which no file can be called"):
            fit(MODEL, quadrants, optax.sgd, **options, workdir="a\0b")
    assert list(tmp_path.iterdir()) == []


# --- the command ---

SCRIPT = """
import sys
import jax.numpy as jnp, numpy as np, optax
from dlworkshop import data, fit, models

x = np.linspace(-1, 1, 60, dtype=np.float32)[:, None]
y = (x[:, 0] > 0).astype(int)
held = {"validation": (x, y), "test": (x, y), "classes": ("no", "yes")}
dataset = data.from_arrays(x, y, **held)

def loss(outputs, target, *, shift):
    return outputs.sum() ** 2 + jnp.log(shift)

options = {"hparams": {"shift": [-1.0, 1.0], "learning_rate": [0.01, 1e12]}}
options |= {"loss": loss, "metrics": {}, "batch_size": 20, "num_epochs": 4}
model = models.logistic(num_classes=2)
fit(model, dataset, optax.sgd, **options, quiet=True, workdir=sys.argv[1])
print("trained")
"""


def call(capsys, *args):
    try:
        code = cli.main(["replay", *map(str, args)])
    except SystemExit as left:  # the script says it, and leaves
        code = left.code
    return code, *capsys.readouterr()


def test_the_command_runs_the_script_of_the_user(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(SCRIPT)
    monkeypatch.setattr(sys, "argv", ["own.py", "run"])
    runpy.run_path("own.py", run_name="__main__")
    assert capsys.readouterr().out == "trained\n"
    before = snapshot(tmp_path / "run")
    code, out, _ = call(capsys, "run", "--member", 3, "own.py", "run")
    assert code == 0 and "trained" not in out
    lines = out.splitlines()
    about = "member 3 (seed 0, shift 1, learning_rate 1e+12): the loss was not finite"
    assert lines[0].startswith(about)
    assert "because of integer_pow at own.py:12" in lines[-1]
    code, out, _ = call(capsys, "run", "--member=0", "--", "own.py", "run")
    assert code == 0 and "because of log at own.py:12" in out
    assert snapshot(tmp_path / "run") == before

    (tmp_path / "changed.py").write_text(SCRIPT.replace("outputs.sum()", "outputs[0]"))
    (tmp_path / "idle.py").write_text("print(1)")
    for args, said in [
        ("run --member 2 own.py run", "member 2 of run was not quarantined"),
        ("run --member 9 own.py run", "give a number from 0 to 3"),
        ("run --member 3 own.py elsewhere", "fit is called with the run folder elsewh"),
        (
            "run --member 3 changed.py run",
            "this is not the run in run (the code of loss",
        ),
        ("run --member 3 idle.py", "idle.py ended without calling fit with the run fo"),
        ("run --member 3 none.py", "none.py cannot be read"),
        ("run --member 3", "add the script of the run with its flags"),
        ("run own.py run", "--member"),
        ("nowhere --member 3 own.py run", "config.json is missing"),
    ]:
        code, _, err = call(capsys, *args.split())
        assert code == 2 and said in err, (args, err)
        assert err.startswith("error: ") and err.count("\n") == 1, err
    assert snapshot(tmp_path / "run") == before
    assert not (tmp_path / "elsewhere").exists()
