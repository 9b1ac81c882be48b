"""What is seen of a run while it trains, and what observers change."""

import builtins
import errno
import gc
import io
import json
import logging
import os
import random
import signal
import struct
import threading
import time
import warnings
from types import SimpleNamespace

import jax
import matplotlib as mpl
import numpy as np
import optax
import pytest

from dlworkshop import data, fit, models, observers
from dlworkshop.errors import UserError
from dlworkshop.report.terminal import messages
from dlworkshop.train import loop
from dlworkshop.train.history import History
from dlworkshop.train.observers.event_files import events

pytestmark = pytest.mark.usefixtures("unreported")

CHUNKS = 6  # of three steps, in three epochs


def train(dataset, workdir=None, **changes):
    settings = {
        "hparams": {"learning_rate": [0.05, 1e30]},
        "seeds": 1,
        "num_epochs": 3,
        "batch_size": 16,
        "steps_per_chunk": 3,
        "devices": jax.devices()[:1],
        "quiet": True,
    }
    model = models.mlp((8,), num_classes=4)
    return fit(model, dataset, optax.sgd, workdir=workdir, **settings | changes)


def send(signum, step):
    """An observer that stops the process at a step, once."""
    sent = []

    def observer(snapshot):
        if snapshot.step == step and not sent:
            sent.append(step)
            os.kill(os.getpid(), signum)

    return observer


def assert_same_history(one: History, two: History):
    assert one.names == two.names and one.members == two.members
    assert one.step.tolist() == two.step.tolist()
    assert one.epoch.tolist() == two.epoch.tolist()
    for name in one.names:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


# --- history ---


@pytest.fixture(scope="module")
def whole(quadrants):
    return train(quadrants)


@pytest.mark.slow
@pytest.mark.parametrize(
    "step",
    [3, 6],  # within an epoch, and at its end
)
def test_the_history_of_a_resumed_run_is_that_of_a_whole_one(
    quadrants, tmp_path, step, whole
):
    with pytest.raises(SystemExit):
        train(quadrants, tmp_path, observe=[send(signal.SIGTERM, step)])
    resumed = train(quadrants, tmp_path)
    assert len(whole.history) == CHUNKS
    assert_same_history(whole.history, resumed.history)
    assert_same_history(whole.history, train(quadrants, tmp_path).history)  # read back


def test_sigusr1_saves_and_the_run_continues(quadrants, tmp_path, caplog):
    there = {}

    def look(snapshot):
        there[snapshot.step] = sorted(tmp_path.glob("checkpoints/*/commit_success.txt"))

    asked = [send(signal.SIGUSR1, 9), look]
    settings = {"save_every_seconds": None, "quiet": False}
    run = train(quadrants, tmp_path, observe=asked, **settings)
    assert run.summary["steps"] == 18
    assert there[9] == [] and [path.parent.name for path in there[12]] == ["9"]
    assert "SIGUSR1: saved at step 9; the run continues" in caplog.text
    assert_same_history(run.history, train(quadrants).history)


def test_what_is_not_finite_is_the_same_in_memory_and_read_back():
    line = {"step": 1, "epoch": 1.0, "train": {"loss": np.array([np.inf, 2.0])}}
    read = {"step": 1, "epoch": 1.0, "train": {"loss": [None, 2.0]}}
    assert_same_history(History([line]), History([read]))


def interrupt(snapshot):
    if snapshot.step == 9:
        raise KeyboardInterrupt


@pytest.mark.parametrize("observer", [send(signal.SIGINT, 9), interrupt])
def test_ctrl_c_without_a_folder_returns_the_run_so_far(quadrants, caplog, observer):
    before = signal.getsignal(signal.SIGINT)
    run = train(quadrants, observe=[observer], quiet=False)
    assert run.summary["interrupted"] and run.summary["steps"] == 9
    assert "test" not in run.summary and "validation" in run.summary
    assert run.history.step.tolist() == [3, 6, 9]
    assert run.predict(quadrants.test.inputs).shape == (2, 33, 4)
    assert "stopped by SIGINT at step 9 of 18; the run so far" in caplog.text
    assert signal.getsignal(signal.SIGINT) is before
    who, how_well, how = repr(run).splitlines()
    assert who == "Run of 2 x mlp on quadrants (2 settings), 9 steps"
    assert how_well.startswith("validation accuracy ")
    assert how == (
        "1 interrupted (at step 9 of 18), 1 quarantined (the loss was not finite at "
        "step 2 of 18); in memory"
    )


def test_a_history_in_one_line(quadrants):
    assert repr(train(quadrants).history) == (
        "History of 6 entries, steps 3 to 18 (3 epochs), 2 members: train/accuracy, "
        "train/loss, validation/loss, validation/accuracy"
    )
    assert repr(History()) == "History of 0 entries"


# --- members that stop ---


def rows(run):
    return [(row["status"], row.get("note")) for row in run.summary["population"]]


@pytest.mark.slow
@pytest.mark.parametrize("resumed", [False, True])
def test_a_member_says_who_stopped_it(quadrants, tmp_path, resumed):
    """Of four members one learns, one is stopped, two of them do not get better."""
    settings = {
        "hparams": {"learning_rate": [0.1, 0.0], "momentum": [0.0, 0.1]},
        "patience": 2,
        "num_epochs": 4,
    }

    def observer(snapshot):
        return (np.arange(4) == 1) | (np.arange(4) == 3) if snapshot.step == 9 else None

    if resumed:
        with pytest.raises(SystemExit):
            stop = send(signal.SIGTERM, 9)
            train(quadrants, tmp_path, observe=[observer, stop], **settings)
    run = train(quadrants, tmp_path, observe=[observer], **settings)
    by_observer = "stopped early", "an observer stopped it at step 9"
    by_patience = "stopped early", "no better since step 6"
    assert rows(run) == [("finished", None), by_observer, by_patience, by_observer]


# --- TensorBoard ---


def written(folder):
    """(tag, step) -> values, of all event files."""
    found = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for _, event in events(path.read_bytes()):
            for value in event.summary.value:
                found.setdefault((value.tag, event.step), []).append(value.simple_value)
    return found


@pytest.mark.parametrize("alike", [False, True])
def test_tensorboard_has_the_history(alike, quadrants, tmp_path):
    same = {"hparams": {"learning_rate": 0.05}, "seeds": 2} if alike else {}
    run = train(quadrants, observe=[observers.tensorboard(tmp_path)], **same)
    found = written(tmp_path)
    assert all(len(values) == 1 for values in found.values())
    expected = {}
    for name in run.history.names:
        split, _, metric = name.partition("/")
        for step, values in zip(run.history.step, run.history[name], strict=True):
            finite = values[np.isfinite(values)]
            for member in np.flatnonzero(np.isfinite(values)):
                expected[f"{metric}/{split}/member_{member}", step] = values[member]
            if finite.size and alike:
                expected[f"{metric}/{split}/mean", step] = finite.mean()
    assert found.keys() == expected.keys()
    for key, (value,) in found.items():
        assert value == pytest.approx(expected[key], rel=1e-6), key  # float32 there
    # the diverging member took one step, in the first chunk
    steps = [step for tag, step in found if tag == "loss/train/member_1"]
    assert (steps == [3]) != alike


@pytest.mark.slow
@pytest.mark.parametrize(
    "torn",
    [0, 7],
    ids=["whole", "torn"],
)
def test_a_resumed_run_writes_no_step_twice(quadrants, tmp_path, torn, monkeypatch):
    from tensorboardX import event_file_writer  # noqa: PLC0415

    # it names files by the second: parts that begin in one must not share a file
    clock = SimpleNamespace(time=lambda: 1.0e9)
    monkeypatch.setattr(event_file_writer, "time", clock)
    train(quadrants, observe=[observers.tensorboard(tmp_path / "whole")])
    board, run = tmp_path / "board", tmp_path / "run"

    class KilledError(Exception):
        pass

    def kill(snapshot):
        if snapshot.step == 15:  # nothing was saved since step 9
            raise KilledError

    with pytest.raises(SystemExit):
        stop = send(signal.SIGTERM, 9)
        train(quadrants, run, observe=[observers.tensorboard(board), stop])
    (first,) = board.iterdir()
    with pytest.raises(KilledError):
        train(quadrants, run, observe=[observers.tensorboard(board), kill])
    (second,) = set(board.iterdir()) - {first}
    if torn:
        second.write_bytes(second.read_bytes()[:-torn])
    other = board / "events.out.tfevents.1.other"
    other.write_bytes(b"of another program")
    train(quadrants, run, observe=[observers.tensorboard(board)])
    assert other.read_bytes() == b"of another program"
    other.unlink()
    assert written(board) == written(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["flipped", "link", "pipe"])
def test_a_damaged_event_file_is_one_sentence(damage, quadrants, tmp_path):
    (tmp_path / "board").mkdir()
    file = tmp_path / "board" / "events.out.tfevents.1.dlworkshop"
    event = struct.pack("<Q", 5) + bytes(4) + b"\xff" * 5 + bytes(4)
    if damage == "flipped":
        file.write_bytes(event)
    elif damage == "link":
        (tmp_path / "mine").write_text("")
        file.symlink_to(tmp_path / "mine")
    else:
        os.mkfifo(file)
    with pytest.raises(UserError, match=r"dlworkshop cannot be read .*: remove it"):
        train(quadrants, observe=[observers.tensorboard(tmp_path / "board")])


@pytest.mark.slow
def test_one_observer_serves_two_parts_of_a_run(quadrants, tmp_path):
    train(quadrants, observe=[observers.tensorboard(tmp_path / "whole")])
    board = observers.tensorboard(tmp_path / "board")
    with pytest.raises(SystemExit):
        stop = send(signal.SIGTERM, 9)
        train(quadrants, tmp_path / "run", observe=[board, stop])
    train(quadrants, tmp_path / "run", observe=[board])
    assert written(tmp_path / "board") == written(tmp_path / "whole")
    train(quadrants, observe=[board])  # anew
    assert written(tmp_path / "board") == written(tmp_path / "whole")


def test_tensorboard_reads_the_files(quadrants, tmp_path):
    """The framing is that of TFRecords: lengths and masked checksums."""
    from tensorboardX.record_writer import masked_crc32c  # noqa: PLC0415

    train(quadrants, observe=[observers.tensorboard(tmp_path)])
    content, position = next(tmp_path.iterdir()).read_bytes(), 0
    for end, event in events(content):
        header = content[position : position + 8]
        checksum = struct.unpack_from("<I", content, position + 8)[0]
        assert checksum == masked_crc32c(header)
        assert (position > 0) or event.file_version == "brain.Event:2"
        position = end
    assert position == len(content)


def test_without_tensorboardx_it_says_what_to_install(tmp_path, monkeypatch):
    original = builtins.__import__

    def missing(name, *args):
        if name == "tensorboardX":
            raise ImportError(name)
        return original(name, *args)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match=r"pip install 'dlworkshop\[tensorboard\]'"):
        observers.tensorboard(tmp_path)


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        observers.tensorboard(tmp_path / "file")


# --- what is shown ---


def test_quiet_shows_nothing(quadrants, tmp_path, capfd, caplog):
    caplog.set_level("INFO", "dlworkshop")
    train(quadrants, observe=[send(signal.SIGINT, 9)])
    with pytest.raises(SystemExit):
        train(quadrants, tmp_path, observe=[send(signal.SIGTERM, 9)])
    train(quadrants, tmp_path)
    train(quadrants, devices=jax.devices(), batch_size=15)  # only two of them are used
    assert capfd.readouterr() == ("", "") and caplog.text == ""


def test_else_the_introduction_and_the_progress_are_shown(quadrants, capsys):
    train(quadrants, quiet=False)
    out, err = capsys.readouterr()
    first, *_, last = err.splitlines()
    assert out == "" and first.startswith("fit begins: 2 members, 18 steps of 16")
    assert last.startswith("step 18/18, 0 s left, ")


def test_a_run_that_ends_before_its_time_shows_its_last_line(quadrants, capsys):
    train(quadrants, observe=[lambda s: np.ones(2, bool)], quiet=False)
    assert capsys.readouterr().err.splitlines()[-1].startswith("step 3/18, ")


@pytest.mark.parametrize("is_terminal", [True, False])
@pytest.mark.parametrize("number", [errno.EIO, errno.EPIPE, errno.ENOSPC])
def test_a_terminal_that_is_gone_ends_no_run(
    number, is_terminal, quadrants, tmp_path, monkeypatch
):
    """As after a logout, or of `2>&1 | head`."""

    class Gone(io.StringIO):
        def isatty(self):
            return is_terminal

        def write(self, _):
            raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", Gone())
        run = train(quadrants, tmp_path, quiet=False)
    assert run.summary["steps"] == 18


@pytest.mark.parametrize("streamed", [True, False])
def test_as_many_epochs_as_it_takes(streamed, quadrants):
    """An observer ends the run; the other epochs take neither memory nor time."""
    began = time.process_time()
    run = train(
        quadrants,
        num_epochs=10**8,
        patience=2**40,
        streamed=streamed,
        observe=[lambda s: np.full(2, s.step > 6)],
    )
    assert run.summary["steps"] == 9
    assert time.process_time() - began < 30


def test_steps_are_fed_part_by_part(quadrants, monkeypatch):
    """To the same bits, also where members have stopped."""
    how = {"patience": 1, "num_epochs": 5}
    whole = train(quadrants, **how)
    monkeypatch.setattr(loop, "FED", 12)  # of two epochs
    assert_same_history(train(quadrants, **how).history, whole.history)


@pytest.mark.parametrize("in_folder", [True, False])
def test_a_file_of_an_observer_is_not_taken_for_one_of_the_run(
    in_folder, quadrants, tmp_path
):
    def note(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    workdir = tmp_path if in_folder else None
    with pytest.raises(UserError, match=r"the observer .*note failed .*No space left"):
        train(quadrants, workdir, observe=[note])


def test_scripts_and_commands_show_messages_as_lines(capsys):
    library = logging.getLogger("dlworkshop")
    before = library.level, library.propagate, list(library.handlers)
    with messages():
        logging.getLogger("dlworkshop.train.memory").info("%d train at once", 2)
        logging.getLogger("dlworkshop.train.memory").debug("of a quiet run")
    logging.getLogger("dlworkshop.train.memory").info("nobody asked")
    assert capsys.readouterr() == ("", "2 train at once\n")
    assert (library.level, library.propagate, library.handlers) == before


# --- the process is left as it was ---


def process():
    """What `fit` might change for others in this process."""
    names = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP", "SIGALRM")
    loggers = [logging.getLogger(name) for name in (None, "absl", "jax", "dlworkshop")]
    return {
        "jax": dict(jax.config.values),
        "freeze count": gc.get_freeze_count(),
        "collector": (gc.isenabled(), gc.get_threshold(), gc.get_debug()),
        "signals": [signal.getsignal(getattr(signal, name)) for name in names],
        "logging": [(each.level, list(each.handlers)) for each in loggers],
        "warnings": list(warnings.filters),
        "matplotlib": dict(mpl.rcParams),
        "random": random.getstate(),
        "numpy": json.dumps(np.random.get_state(), default=str),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "threads": {t for t in threading.enumerate() if not t.daemon},
    }


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(how, marks=[pytest.mark.slow] * (how not in ("whole", "refused")))
        for how in ("whole", "in memory", "stopped", "refused", "raised")
    ],
)
def test_fit_leaves_the_process_as_it_was(
    quadrants, tmp_path, monkeypatch, reported, how
):
    # no handler, as in a program that never thought of logging
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    train(quadrants, tmp_path / "first")  # what is imported is imported
    assert logging.getLogger().handlers == []  # as absl would have it otherwise

    def fail(snapshot):
        raise RuntimeError("of the observer")

    before = process()
    if how == "stopped":
        with pytest.raises(SystemExit):
            train(quadrants, tmp_path / how, observe=[send(signal.SIGTERM, 9)])
    elif how == "refused":
        with pytest.raises(UserError):
            train(quadrants, tmp_path / how, batch_size=10**6)
    elif how == "raised":
        with pytest.raises(RuntimeError, match="of the observer"):
            train(quadrants, tmp_path / how, observe=[fail])
    else:
        train(quadrants, None if how == "in memory" else tmp_path / how)
    for _ in range(50):  # a thread that has done its work takes a moment to end
        if (after := process())["threads"] == before["threads"]:
            break
        time.sleep(0.1)
    if how == "stopped":  # a thread of orbax may log after its checkpointer is closed,
        before["logging"][0] = after["logging"][0]  # and absl then gives a handler
    for name, value in before.items():
        assert after[name] == value, name


def test_what_the_user_froze_stays_frozen(quadrants):
    gc.freeze()
    try:
        before = gc.get_freeze_count()
        train(quadrants)
        # what nobody refers to any longer dies, frozen or not
        assert 0.99 * before < gc.get_freeze_count() <= before
    finally:
        gc.unfreeze()


def test_observers_are_a_public_name():
    assert data and observers.tensorboard.__module__.startswith(
        "dlworkshop.train.observers"
    )


def test_what_an_observer_writes_changes_nothing(quadrants, tmp_path):
    def careless(snapshot):
        for named in (snapshot.train, snapshot.validation or {}, snapshot.hparams):
            for values in named.values():
                values[:] = -5
        if snapshot.score is not None:
            snapshot.score[:] = -5
        snapshot.seeds[:] = [9]

    rates = {"learning_rate": [0.05, 0.1]}
    runs = [
        train(quadrants, tmp_path / name, hparams=rates, observe=observe)
        for name, observe in (("one", [careless, careless]), ("two", []))
    ]
    assert_same_history(*(run.history for run in runs))
    np.testing.assert_array_equal(*(run.hparams["learning_rate"] for run in runs))
    for key in ("validation", "population"):
        assert runs[0].summary[key] == runs[1].summary[key]


@pytest.mark.parametrize("observer", [lambda: None, lambda one, two: None])
def test_an_observer_that_takes_no_snapshot_is_refused_before_training(
    quadrants, observer
):
    with pytest.raises(
        UserError, match=r"observe\[0\] \(<lambda>\) is called with one"
    ):
        train(quadrants, observe=[observer])
