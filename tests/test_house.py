"""The house: data flows through the rooms in one direction, and the door is quick."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dlworkshop

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "dlworkshop"
# A room imports from those before it. The report knows the files of a run folder and
# nothing of how they came about, so that a run can end by writing it.
ROOMS = [
    "errors",
    "types",
    "jaxprs",
    "identity",
    "files",
    "run_files",
    "data",
    "models",
    "learn",
    "report",
    "train",
    "sweeps",
    "answers",
    "search",
    "serve",
    "verify",
    "workshop",
    "lab",
    "commands",
    "cli",
]
DOORS = "__init__", "__main__"  # the map names every room


def imports(path: Path):
    """The rooms that a file imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "dlworkshop" and len(parts) > 1:
                yield parts[1]


@pytest.mark.parametrize(
    "path",
    sorted(PACKAGE.rglob("*.py")),
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_imports_point_up_the_list(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room in DOORS:
        return
    allowed = ROOMS[: ROOMS.index(room) + 1]
    assert set(imports(path)) <= set(allowed), path


def calls_print(path: Path) -> bool:
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
        for node in ast.walk(ast.parse(path.read_text()))
    )


def test_only_commands_scripts_and_the_terminal_print():
    may = {PACKAGE / "commands.py", PACKAGE / "report/terminal.py"}
    files = set(PACKAGE.rglob("*.py")) - may - set(PACKAGE.glob("workshop/*.py"))
    assert len(files) > 50 and any(map(calls_print, may))
    assert [path for path in sorted(files) if calls_print(path)] == []


def in_fresh_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout


def test_importing_the_package_loads_nothing_heavy():
    heavy = "tensorflow_datasets", "orbax", "matplotlib", "grain", "sklearn", "flax"
    loaded = f"print([m for m in {heavy} if m in sys.modules])"
    code = f"import sys, dlworkshop; {loaded}; import dlworkshop.report; {loaded}"
    package, report = in_fresh_python(code).splitlines()
    assert package == "[]" and "matplotlib" not in report


def test_importing_costs_little_more_than_jax():
    # processor time, which another process on the machine does not lengthen much
    code = """
import time
import jax, jax.numpy
jax_alone = time.process_time()
import dlworkshop
package = time.process_time() - jax_alone
dlworkshop.fit, dlworkshop.data, dlworkshop.models
print(package, time.process_time() - jax_alone, jax_alone)
"""
    for _ in range(3):  # once is enough
        package, everything, jax_alone = map(float, in_fresh_python(code).split())
        if package < 0.05 and everything < jax_alone + 0.5:
            return
    pytest.fail(f"{package} and {everything} s beside {jax_alone} s of JAX")


def test_every_public_name_is_there():
    for name in dlworkshop.__all__:
        assert getattr(dlworkshop, name) is not None
    assert set(dlworkshop.__all__) <= set(dir(dlworkshop))
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = dlworkshop.fitt
