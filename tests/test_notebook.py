"""A real notebook: one live line, the curves, and nothing on stderr."""

import os
from pathlib import Path

import pytest

from tests.conftest import SOON_THERE

pytestmark = pytest.mark.slow  # a kernel, and nbconvert

reason = "a notebook is executed by nbformat, nbclient, nbconvert and ipykernel"
nbformat = pytest.importorskip("nbformat", reason=reason)
nbclient = pytest.importorskip("nbclient", reason=reason)
nbconvert = pytest.importorskip("nbconvert", reason=reason)
pytest.importorskip("ipykernel", reason=reason)

ROOT = Path(__file__).parent.parent
CELLS = """
import warnings
from dlworkshop import data, fit, models
digits = data.load("digits")

rates = {"learning_rate": [0.01, 0.1]}
run = fit(models.logistic(), digits, hparams=rates, seeds=2, num_epochs=10,
          batch_size=32, steps_per_chunk=2)

run

import matplotlib.pyplot as plt
history = run.history
figure, axes = plt.subplots()
for name in ("train/loss", "validation/loss"):
    table = history[name]
    axes.plot(history.epoch, table, label=name)
figure

still = fit(models.logistic(), digits, quiet=True)
"""


@pytest.fixture(scope="module")
def cells():
    """The cells of the notebook, executed."""
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(text) for text in CELLS.strip().split("\n\n")]
    )
    with pytest.MonkeyPatch.context() as patch:
        # of the working tree, whatever is installed
        path = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
        patch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
        for name, value in SOON_THERE.items():
            patch.setenv(name, value)
        nbclient.NotebookClient(book, timeout=300, kernel_name="python3").execute()
    return book


def outputs(cell, kind):
    return [output for output in cell.outputs if output.output_type == kind]


def test_there_is_no_stderr(cells):
    for cell in cells.cells:
        assert outputs(cell, "stream") == [], cell.source


def test_training_shows_two_displays_one_of_which_changes(cells):
    fitted = cells.cells[1].outputs
    introduction, line = (output.data["text/plain"] for output in fitted)
    assert introduction.startswith("fit begins: 4 members, ")
    steps = digits_steps(introduction)
    assert line.startswith(f"step {steps}/{steps}, 0 s left")  # the last of hundreds
    assert "\n" not in line and "validation loss" in line


def digits_steps(introduction):
    return int(introduction.partition(" steps of")[0].rpartition(" ")[2])


def test_a_run_is_shown_with_its_curves(cells):
    (result,) = outputs(cells.cells[2], "execute_result")
    html = result.data["text/html"]
    assert html.count("<svg") == 2 and ">loss</title>" in html
    assert ">accuracy</title>" in html
    assert "(2 settings x 2 seeds)" in html and "4 finished; in memory" in html
    assert len(html) < 300_000
    assert result.data["text/plain"].startswith("Run of 4 x logistic on digits")


def test_the_history_is_plotted(cells):
    assert any("image/png" in output.data for output in cells.cells[3].outputs)


def test_quiet_is_quiet(cells):
    assert cells.cells[4].outputs == []


def test_the_page_that_nbconvert_makes_has_the_curves(cells):
    page, _ = nbconvert.HTMLExporter().from_notebook_node(cells)
    assert page.count(">loss</title>") == page.count(">accuracy</title>") == 1
    assert page.count(" s left, ") == 1
