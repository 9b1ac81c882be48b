"""Each row of docs/guarantees.md names tests that are there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "guarantees.md").read_text()


def test_each_row_names_a_test():
    rows = [line for line in TEXT.splitlines() if line.startswith("| ")]
    promises = [row for row in rows if not row.startswith("| promise")]
    assert len(promises) > 20
    for row in promises:
        tests = re.findall(r"`(tests/[^`]+)`", row)
        assert tests and row.endswith(f"`{tests[-1]}` |"), row
        for test in tests:
            file, _, name = test.partition("::")
            tree = ast.parse((ROOT / file).read_text())
            there = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
            assert not name or name in there, test
