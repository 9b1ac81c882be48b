"""Does a test notice when one thing in the code is another?

    python scripts/mutants.py --number 150 --seed 0

Of all places where a comparison, an operator, a number, a condition, a result or a call
can be another, some are drawn by the seed. Each is changed alone, in a copy, and the
tests of its room are run until one fails. Prints what survived, and the share that did
not. Give --only for the room of one file, as dlworkshop/verify.
"""

import argparse
import ast
import contextlib
import copy
import difflib
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = {  # a room, or a file of one -> what has to notice, the quickest first
    "dlworkshop/learn": ["tests/learn", "tests/train/test_epochs.py"],
    "dlworkshop/data/order.py": ["tests/data/test_order.py", "tests/data/test_feed.py"],
    "dlworkshop/train/orders.py": [
        "tests/data/test_order.py",
        "tests/train/test_epochs.py",
    ],
    "dlworkshop/train/checkpoints.py": [
        "tests/train/test_checkpoints.py",
        "tests/train/test_resume.py",
        "tests/faults/test_disk.py",
    ],
    "dlworkshop/train/disk.py": [
        "tests/train/test_bad_input.py",
        "tests/faults/test_disk.py",
    ],
    "dlworkshop/run_files": [
        "tests/faults/test_run_folder.py",
        "tests/faults/test_readers.py",
        "tests/train/test_bad_input.py",
    ],
    "dlworkshop/verify": ["tests/verify"],
}
OTHER: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Add: ast.Sub, ast.Sub: ast.Add,
    ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
APART = "annotation", "returns", "decorator_list", "type_params"  # not the working


def nodes(node: ast.AST) -> Iterator[ast.AST]:
    """What computes; what a message says is not looked at."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in APART or isinstance(node, (ast.Raise, ast.JoinedStr)):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from nodes(child)


def others(node: ast.AST) -> Iterator[ast.AST]:
    """What could stand in its place."""
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


def mutants(source: str) -> list[str]:
    """The source with one thing changed, in each way that there is."""
    lines = source.encode().splitlines(keepends=True)
    found = []
    for node in nodes(ast.parse(source)):
        place = node.test if isinstance(node, (ast.If, ast.IfExp, ast.While)) else node
        for other in others(node):
            text = ast.unparse(ast.fix_missing_locations(other))
            if isinstance(other, ast.expr):
                text = f"({text})"
            first, last = place.lineno - 1, place.end_lineno - 1  # type: ignore[attr-defined]
            before = lines[first][: place.col_offset]  # type: ignore[attr-defined]
            after = lines[last][place.end_col_offset :]  # type: ignore[attr-defined]
            changed = [before + text.encode() + after]
            found.append(b"".join(lines[:first] + changed + lines[last + 1 :]).decode())
    return found


def noticed(folder: Path, path: str, limit: float) -> str:
    """What the tests say of a change: "" where they say nothing."""
    room = max((room for room in TESTS if path.startswith(room)), key=len)
    own = [path]  # its doctests, and the tests that have its name
    for tests in TESTS[room]:
        own += [str(f) for f in (ROOT / tests).rglob(f"test_{Path(path).name}")]
    own = [os.path.relpath(each, ROOT) if os.path.isabs(each) else each for each in own]
    command = ["sh", "-c", 'ulimit -t "$0" && exec "$@"', f"{limit:.0f}"]
    command += [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "--no-header"]
    command += ["-p", "no:cacheprovider", "-m", "not slow", *own, *TESTS[room]]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            timeout=20 * limit,  # of the clock, for what waits
            text=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "it hangs"
    if done.returncode == 0:
        return ""
    said = [
        each for each in done.stdout.splitlines() if each.startswith(("FAI", "ERR"))
    ]
    return (said or [f"left with {done.returncode}"])[-1]


def main() -> None:
    """Draw, change, test; leaves with 1 where less than 85 % is noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--limit", type=float, default=600.0, help="CPU seconds of each"
    )
    parser.add_argument("--only", default="", help="how the paths begin")
    args = parser.parse_args()
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    files = [f for f in done.stdout.splitlines() if (ROOT / f).is_file()]
    wanted = [f for f in files if f.endswith(".py") and f.startswith(tuple(TESTS))]
    drawn = [
        (file, mutant)
        for file in wanted
        if file.startswith(args.only)
        for mutant in mutants((ROOT / file).read_text())
    ]
    print(f"{len(drawn):,} mutants, of which {args.number} are tried", flush=True)
    drawn = random.Random(args.seed).sample(drawn, min(args.number, len(drawn)))
    killed = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        for file in files:
            (Path(scratch) / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, Path(scratch) / file)
        with contextlib.suppress(FileNotFoundError):  # what is compiled already
            shutil.copytree(ROOT / ".pytest_cache", Path(scratch) / ".pytest_cache")
        for number, (file, mutant) in enumerate(drawn, 1):
            source, path = (ROOT / file).read_text(), Path(scratch) / file
            spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            path.write_text(mutant)
            said = noticed(Path(scratch), file, args.limit)
            path.write_text(source)
            spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - spent
            killed += bool(said)
            parts = source.splitlines(), mutant.splitlines()
            changed = difflib.unified_diff(*parts, file, file, n=0, lineterm="")
            print(f"{number}: {said or 'SURVIVED'} ({spent:.0f} s of CPU)", flush=True)
            print("\n".join(f"    {line}" for line in list(changed)[2:]), flush=True)
    print(f"killed {killed} of {len(drawn)}: {killed / max(len(drawn), 1):.0%}")
    raise SystemExit(int(killed < 0.85 * len(drawn)))


if __name__ == "__main__":
    main()
