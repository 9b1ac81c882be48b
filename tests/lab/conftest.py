"""The lab as a user starts it, in a process of its own, and a browser to look at it."""

import contextlib
import os
import re
import shutil
import subprocess
import sys

import pytest

from dlworkshop import data, fit, models
from tests.conftest import ROOT, reports

BROWSERS = "chromium", "chromium-browser", "google-chrome"


@contextlib.contextmanager
def served(*args):
    """The address that `dlworkshop lab ARGS` prints, while it is running."""
    pytest.importorskip(
        "marimo", reason="marimo is missing: pip install 'dlworkshop[lab]'"
    )
    command = [sys.executable, "-m", "dlworkshop", "lab", "--port", "0", "--no-browser"]
    lab = subprocess.Popen(
        [*command, *map(str, args)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    try:
        line = lab.stdout.readline()
        found = re.fullmatch(r"lab: (http://127\.0\.0\.1:\d+/\?token=\S+)\n", line)
        assert found, line
        yield found[1]
    finally:
        lab.terminate()
        assert lab.wait(60) in (0, 143)


@pytest.fixture(scope="session")
def browser():
    """A Chromium of the system."""
    sync_api = pytest.importorskip(
        "playwright.sync_api",
        reason="playwright is missing: pip install 'dlworkshop[lab-test]'",
    )
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as play:
        chromium = play.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """Four members of two settings, that have learnt the digits."""
    with reports():
        return fit(
            models.mlp((64,)),
            data.load("digits"),
            hparams={"learning_rate": [0.001, 0.01]},
            seeds=2,
            num_epochs=8,
            batch_size=32,
            workdir=tmp_path_factory.mktemp("run"),
            quiet=True,
        )
