"""What a sampler draws depends on the trials, not on how often it was started."""

import pytest

from dlworkshop.errors import UserError
from dlworkshop.sweeps.space import space_of
from dlworkshop.sweeps.study import JOURNAL, Asked

optuna = pytest.importorskip("optuna")

SPACE = space_of(
    {
        "width": [8, 16],
        "learning_rate": optuna.distributions.FloatDistribution(1e-4, 1.0, log=True),
        "fixed": "x",
    }
)


def study(folder, sampler=optuna.samplers.TPESampler, num_trials=14, at_once=4):
    return Asked(SPACE, ["width"], sampler, num_trials, at_once, folder)


def told(found, after=lambda study: study):
    """The trials of a study when all are told how good they were."""
    while found.ask():
        for trial in found.trials():
            found.tell(trial.number, trial.setting["learning_rate"])
        found = after(found)
    return found.trials()


def test_starting_again_draws_the_same(tmp_path):
    whole = told(study(None))
    parts = told(study(tmp_path), after=lambda _: study(tmp_path))
    assert whole == parts and len(whole) == 14
    assert len({trial.setting["learning_rate"] for trial in whole}) == 14
    assert {trial.setting["fixed"] for trial in whole} == {"x"}
    for trial in whole:
        first = whole[trial.bucket]
        assert first.setting["width"] == trial.setting["width"]
        assert trial.number - trial.bucket < 4  # asked together


def test_what_a_killed_process_asked_for_is_asked_for_again(tmp_path):
    whole = told(study(None, optuna.samplers.RandomSampler))
    half = study(tmp_path, optuna.samplers.RandomSampler)
    half._study.ask()  # and no more
    found = told(study(tmp_path, optuna.samplers.RandomSampler))
    settings = [trial.setting for trial in found]
    assert settings == [trial.setting for trial in whole]
    assert [trial.number for trial in found] == list(range(1, 15))


def test_the_file_is_a_study_of_optunas(tmp_path):
    done = told(study(tmp_path))
    done[0:0] = []
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / JOURNAL))
    found = optuna.load_study(
        study_name="sweep", storage=optuna.storages.JournalStorage(backend)
    )
    assert len(found.trials) == 14
    rates = [trial.setting["learning_rate"] for trial in done]
    assert found.best_value == min(rates)


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_a_journal_that_is_a_link_is_not_written(link, tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("precious")
    (tmp_path / "sweep").mkdir()
    getattr(tmp_path / "sweep" / JOURNAL, link)(mine)
    with pytest.raises(UserError, match="cannot be written"):
        study(tmp_path / "sweep")
    assert mine.read_text() == "precious"


def test_a_damaged_journal_is_one_sentence(tmp_path):
    told(study(tmp_path))
    lines = (tmp_path / JOURNAL).read_text().splitlines(keepends=True)
    (tmp_path / JOURNAL).write_text("".join([lines[0][:-9] + "\n", *lines[1:]]))
    with pytest.raises(UserError, match="cannot be read, so restore a copy"):
        study(tmp_path)


def test_what_is_not_finite_is_a_failed_trial():
    found = study(None, num_trials=1)
    found.ask()
    found.tell(0, None)
    assert found._study.trials[0].state.name == "FAIL"
    assert not found.ask() and len(found.trials()) == 1


def test_a_sampler_that_is_none_is_refused():
    with pytest.raises(UserError, match="the sampler made 3: give a constructor"):
        study(None, lambda seed: 3)
    with pytest.raises(UserError, match="cannot be made with a seed: TypeError"):
        study(None, lambda: 3)
    single = space_of({"width": 8})
    with pytest.raises(UserError, match="every hyper-parameter has one value"):
        Asked(single, [], optuna.samplers.TPESampler, 3, 1, None)


def test_a_sampler_that_fails_at_a_later_trial_is_one_sentence():
    class Lacking(optuna.samplers.RandomSampler):
        """As Optuna's CMA-ES, which imports another package at its second trial."""

        def sample_independent(self, study, trial, name, distribution):
            if trial.number:
                raise ModuleNotFoundError("No module named 'cmaes'", name="cmaes")
            return super().sample_independent(study, trial, name, distribution)

    found = study(None, Lacking, at_once=1)
    assert found.ask()
    with pytest.raises(UserError, match=r"the sampler draws no trial: .*'cmaes'"):
        found.ask()
