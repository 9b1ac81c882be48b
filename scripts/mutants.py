"""Does a test fail when one thing in the code is changed?

    python scripts/mutants.py --number 150 --seed 0

The script finds all places where a comparison, an operator, a number, a condition, a
result or a call can be changed, and draws some of them by the seed. It makes each
change alone, in a copy of the code, and runs the tests that cover the changed lines,
the quickest first, until one fails. The copy, the coverage of the tests and a line of
JSON for each change are kept in --workdir: a second call continues there; delete the
folder to begin anew. The script prints the share of changes that made a test fail, and
exits with status 1 if it is below 85 %.
"""

import argparse
import ast
import collections
import contextlib
import copy
import difflib
import functools
import importlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
CHANGED = (
    "dlworkshop/learn/",
    "dlworkshop/data/order.py",
    "dlworkshop/train/orders.py",
    "dlworkshop/train/checkpoints.py",
    "dlworkshop/train/disk.py",
    "dlworkshop/run_files/",
    "dlworkshop/verify/",
)
NOTICES = (  # besides the doctests of what is changed
    "dlworkshop/__init__.py",
    "tests/learn",
    "tests/data/test_order.py",
    "tests/data/test_feed.py",
    "tests/train/test_epochs.py",
    "tests/train/test_checkpoints.py",
    "tests/train/test_resume.py",
    "tests/train/test_bad_input.py",
    "tests/faults/test_disk.py",
    "tests/faults/test_run_folder.py",
    "tests/faults/test_readers.py",
    "tests/verify",
)
# Imported once, before each change has a process of its own: a short test's time.
LIBRARIES = (
    "PIL.Image", "equinox", "flax.linen", "flax.nnx", "grain.python", "haiku", "jax",
    "matplotlib.pyplot", "msgspec", "numpy", "optax", "orbax.checkpoint", "pandas",
    "pyarrow.csv", "pytest", "rich.console", "safetensors.numpy", "scipy.stats",
    "sklearn.metrics", "tensorflow_datasets", "tyro",
)  # fmt: skip
OTHER: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Add: ast.Sub, ast.Sub: ast.Add,
    ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
HOUR, KEPT = 3600, ".kept"
APART = "annotation", "returns", "decorator_list", "type_params"  # not the working


class Mutant(NamedTuple):
    """A file with one change, and the lines that run together with the change."""

    path: str
    source: str
    lines: range


def nodes(node: ast.AST, lines: range) -> Iterator[tuple[ast.AST, range]]:
    """Nodes that compute, and the lines of their statement; messages are skipped."""
    if isinstance(node, ast.FunctionDef):  # its defaults are used wherever it runs
        lines = range(node.lineno, node.end_lineno + 1)  # type: ignore[operator]
    elif isinstance(node, ast.stmt) and lines.start:
        body = getattr(node, "body", None)
        end = body[0].lineno if body else node.end_lineno + 1  # type: ignore[operator]
        lines = range(node.lineno, max(end, node.lineno + 1))
    yield node, lines
    for name, value in ast.iter_fields(node):
        if name in APART or isinstance(node, (ast.Raise, ast.JoinedStr)):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from nodes(child, lines)


def others(node: ast.AST) -> Iterator[ast.AST]:
    """Replacements for a node."""
    new = copy.deepcopy(node)
    match new:
        case ast.Compare() if type(new.ops[0]) in OTHER:
            new.ops[0] = OTHER[type(new.ops[0])]()
            yield new
        case ast.BinOp() | ast.BoolOp() | ast.AugAssign() if type(new.op) in OTHER:
            new.op = OTHER[type(new.op)]()
            yield new
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield new.operand
        case ast.Constant(value=bool()):
            yield ast.Constant(not new.value)
        case ast.Constant(value=(int() | float()) as number):
            yield ast.Constant(number + 1)
        case ast.If() | ast.IfExp() | ast.While():
            yield ast.UnaryOp(ast.Not(), new.test)
        case ast.Return(value=ast.AST()) if not isinstance(new.value, ast.Constant):
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()):
            yield ast.Pass()
        case ast.Continue():
            yield ast.Break()


def mutants(path: str, source: str) -> Iterator[Mutant]:
    """The source with one change, for each possible change."""
    text = source.encode().splitlines(keepends=True)
    for node, lines in nodes(ast.parse(source), range(0, len(text) + 1)):
        place: Any = node
        if isinstance(node, (ast.If, ast.IfExp, ast.While)):
            place = node.test
        for other in others(node):
            new = ast.unparse(ast.fix_missing_locations(other))
            if isinstance(other, ast.expr):
                new = f"({new})"
            first, last = place.lineno - 1, place.end_lineno - 1
            before = text[first][: place.col_offset]
            after = text[last][place.end_col_offset :]
            changed = [*text[:first], before, new.encode(), after, *text[last + 1 :]]
            yield Mutant(path, b"".join(changed).decode(), lines)


class Watch:
    """A pytest plugin that records the time of each passing test and its lines."""

    def __init__(self, tree: Path, paths: list[str]):
        self.names = {str(tree / path): path for path in paths}
        self.tests: dict[str, dict] = {}

    def enter(self, frame, event, argument):
        """Trace the functions of our files; see `sys.settrace`."""
        return self.step if frame.f_code.co_filename in self.names else None

    def step(self, frame, event, argument):
        """Record a line of one of our functions."""
        self.seen.add((self.names[frame.f_code.co_filename], frame.f_lineno))
        return self.step

    def pytest_runtest_logstart(self, nodeid):
        """Start recording a test."""
        self.seen: set[tuple[str, int]] = set()
        self.began, self.passed = sum(os.times()[:4]), True
        threading.settrace(self.enter)
        sys.settrace(self.enter)

    def pytest_runtest_logreport(self, report):
        """Note whether set-up, call and tear-down pass."""
        self.passed &= report.passed

    def pytest_runtest_logfinish(self, nodeid):
        """Store the record of a test."""
        sys.settrace(None)
        seconds = sum(os.times()[:4]) - self.began
        if not self.passed:
            print(f"skipped: {nodeid} fails without any change")
            return
        lines: dict[str, list[int]] = {}
        for path, line in sorted(self.seen):
            lines.setdefault(path, []).append(line)
        self.tests[nodeid] = {"seconds": seconds, "lines": lines}


def apart(work: Callable[[], int], log: Path, limit: float) -> tuple[int, float]:
    """The exit status of `work` in its own process, and its CPU seconds.

    The status is negative, that of a signal, if the process took more than `limit` CPU
    seconds or did not end in an hour.
    """
    child = os.fork()
    if not child:
        status = 70
        try:
            os.setsid()
            signal.alarm(HOUR)
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 5))
            with log.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            status = work()
        finally:
            sys.stdout.flush()
            os._exit(status)
    _, status, usage = os.wait4(child, 0)
    with contextlib.suppress(ProcessLookupError):  # what it has started
        os.killpg(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime


def run_tests(workdir: Path, tests: list[str], *options: str, watch=None) -> int:
    """The exit status of pytest, run on the copy."""
    tree = workdir / "tree"
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    os.environ["PYTHONPATH"] = str(tree)
    importlib.invalidate_caches()
    pytest = importlib.import_module("pytest")
    common = ["-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not slow"]
    common += ["--no-header", f"--basetemp={workdir / 'tmp'}", *options]
    return int(pytest.main([*common, *tests], plugins=[watch] if watch else []))


def copied(workdir: Path) -> None:
    """Copy the files of the repository, and the compiled programs of its tests."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    tree = workdir / "tree"
    for file in done.stdout.splitlines():
        if (ROOT / file).is_file():
            (tree / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, tree / file)
    with contextlib.suppress(FileNotFoundError):
        shutil.copytree(ROOT / ".pytest_cache", tree / ".pytest_cache")


def watched(workdir: Path, paths: list[str]) -> dict[str, dict]:
    """Time and lines of each test on the unchanged code."""
    known = workdir / "tests.json"

    def work() -> int:
        watch = Watch(workdir / "tree", paths)
        status = run_tests(workdir, [*paths, *NOTICES], watch=watch)
        known.write_text(json.dumps(watch.tests))
        return status

    if not known.exists():
        _, seconds = apart(work, workdir / "tests.log", HOUR)
        print(f"coverage of the tests: measured in {seconds:.0f} CPU s", flush=True)
    return json.loads(known.read_text())


def noticing(mutant: Mutant, tests: dict[str, dict], limit: float) -> dict[str, float]:
    """The tests that run its lines, with their seconds: the quickest within `limit`.

    Code that runs on import runs before any test; for such lines, take the tests that
    run any line of the file. Tests of a file stay together, because they may share
    slow fixtures.
    """

    def running(lines: Container[int]) -> list[tuple[float, str]]:
        return sorted(
            (test["seconds"], name)
            for name, test in tests.items()
            if any(line in lines for line in test["lines"].get(mutant.path, ()))
        )

    able = running(mutant.lines) or running(range(sys.maxsize))
    spent = itertools.accumulate(seconds for seconds, _ in able)
    chosen = able[: max(1, sum(seconds <= limit for seconds in spent))]
    of_file: dict[str, float] = collections.defaultdict(float)
    for seconds, name in chosen:
        of_file[name.partition("::")[0]] += seconds
    chosen.sort(key=lambda test: of_file[test[1].partition("::")[0]])
    return {name: seconds for seconds, name in chosen}


def tried(workdir: Path, mutant: Mutant, tests: dict[str, float]) -> dict:
    """Run the tests on a change; returns the result."""
    path = workdir / "tree" / mutant.path
    diff = list(
        difflib.unified_diff(
            path.read_text().splitlines(), mutant.source.splitlines(), n=0, lineterm=""
        )
    )
    began, log, kept = time.time(), workdir / "log", path.with_suffix(KEPT)
    path.rename(kept)  # with its time, by which what is compiled is known
    path.write_text(mutant.source)
    sys.dont_write_bytecode = True
    work = functools.partial(run_tests, workdir, [*tests], "-x")
    # without a name pytest would run all that there is
    limit = 30 + 3 * sum(tests.values())
    status, seconds = apart(work if tests else int, log, limit)
    kept.rename(path)
    for file in (workdir / "tree" / ".pytest_cache").rglob("*"):
        if file.is_file() and file.stat().st_mtime > began:
            file.unlink()  # nothing of a change is left to the next
    said = [line for line in log.read_text().splitlines() if line[:3] in ("FAI", "ERR")]
    return {
        "path": mutant.path,
        "diff": diff[2:],
        "killed": status not in (0, -signal.SIGALRM),
        "by": said[-1] if said else f"exit status {status}" if status else "",
        "tests": len(tests),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Draw, change, test; exits with status 1 if less than 85 % is noticed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--number", type=int, default=150, help="number of changes")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw")
    parser.add_argument(
        "--workdir",
        type=Path,
        default=ROOT / "runs" / "mutants",
        help="folder of the copy and the results",
    )
    parser.add_argument(
        "--limit", type=float, default=60.0, help="CPU seconds of tests for each change"
    )
    args = parser.parse_args()
    workdir = args.workdir.absolute()
    tree, results = workdir / "tree", workdir / "results.jsonl"
    if not workdir.exists():
        copied(workdir)
    for kept in tree.rglob(f"*{KEPT}"):  # of a run that was killed
        kept.rename(kept.with_suffix(".py"))
    every = sorted(tree.glob("dlworkshop/**/*.py"))
    paths = [
        name for p in every if (name := str(p.relative_to(tree))).startswith(CHANGED)
    ]
    for library in LIBRARIES:
        importlib.import_module(library)
    tests = watched(workdir, paths)
    drawn = [m for path in paths for m in mutants(path, (tree / path).read_text())]
    print(f"{len(drawn):,} possible changes, {args.number} are tried", flush=True)
    random.Random(args.seed).shuffle(drawn)
    results.touch()
    done = {(r := json.loads(line))["number"]: r for line in results.open()}
    for number, mutant in enumerate(drawn[: args.number]):
        able = noticing(mutant, tests, args.limit)
        known = done.get(number, {"killed": False, "tests": -1})
        if not known["killed"] and known["tests"] < len(able):
            done[number] = {"number": number} | tried(workdir, mutant, able)
            with results.open("a") as file:
                file.write(json.dumps(done[number]) + "\n")
        if not done[number]["killed"]:
            print(f"{number}: {mutant.path}, not noticed by {len(able)} tests")
            print("\n".join(f"    {line}" for line in done[number]["diff"]), flush=True)
    killed = sum(result["killed"] for result in done.values())
    print(f"noticed {killed} of {len(done)}: {killed / max(len(done), 1):.0%}")
    raise SystemExit(int(killed < 0.85 * len(done)))


if __name__ == "__main__":
    main()
