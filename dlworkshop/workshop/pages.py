"""The page of a lesson, `experiments/pages/NAME.md`, filled in with what the run says.

It is Markdown with LaTeX between `$` or `$$`. Four things are filled in, so that the
text cannot differ from the code and the run:

- a fence of the language `code` names functions, values and assignments, one on a line,
  and gets their lines: `loss` of the experiment, `forward.z` what is assigned to z in
  `forward`, `forward.return`, or `dlworkshop.data.toy.tent` of the library;
- `![what to look for](figure:NAME)` is a figure, `[text](figure:NAME)` a link to it;
- `[text](claim:BEGINNING)` is a link to the claim whose statement begins so;
- `{{seeds}}` is a setting of the run, `{{claim:BEGINNING}}` what a claim measured.
"""

import ast
import importlib.util
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlworkshop.errors import UserError, check_known
from dlworkshop.report.words import compact, plain
from dlworkshop.types import Claim


def filled(
    text: str,
    script: Path,
    figures: Sequence[str],
    claims: Sequence[Claim],
    settings: Mapping[str, Any],
) -> str:
    """The text of a page with code, links and numbers filled in.

    Args:
        text: of the page.
        script: the experiment.
        figures: their names.
        claims: in the order in which the report numbers them.
        settings: of the run, by name.

    Raises:
        UserError: if it names something that is not there.
    """

    def number(beginning: str) -> int:
        beginning = " ".join(beginning.split())  # it may continue in another line
        found = [
            i for i, c in enumerate(claims, 1) if c.statement.startswith(beginning)
        ]
        if not found:
            raise UserError(
                f"the page of {script.name} speaks of the claim '{beginning}', which "
                "the lesson does not make: give the beginning of one of its statements"
            )
        return found[0]

    def code(found: re.Match) -> str:
        return _fence(script, found[1].split())

    def link(found: re.Match) -> str:
        kind, name = found.groups()
        if kind == "claim":
            return f"](#claim-{number(name)})"
        check_known(f"figure on the page of {script.name}", name, figures)
        return f"](#figure-{name})"

    def value(found: re.Match) -> str:
        name = found[1].strip()
        if name.startswith("claim:"):
            return compact(claims[number(name.removeprefix("claim:")) - 1].value)
        if name not in settings:
            raise UserError(
                f"the page of {script.name} asks for the setting '{name}': it has "
                f"{', '.join(settings)}"
            )
        setting = settings[name]
        return plain(list(setting) if isinstance(setting, tuple) else setting)

    text = re.sub(r"\{\{(.+?)\}\}", value, text)
    text = re.sub(r"^```code\n(.+?)\n```$", code, text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\]\(<?(claim|figure):([^)>]+)>?\)", link, text)
    shown = r"(^!\[.*?\])\(#figure-([^)]+)\)"
    return re.sub(shown, r"\1(figures/\2.svg)", text, flags=re.DOTALL | re.MULTILINE)


def excerpt(script: Path, name: str) -> tuple[str, str]:
    '''Lines of code, and the place they come from.

    Args:
        script: the experiment, where the name is looked up.
        name: of a function or value at the top, or with dots of what is inside;
            "return" is a function's answer. A module of the library may come first.

    Raises:
        UserError: if it is not there.

    >>> script = Path(importlib.util.find_spec("dlworkshop.data.toy").origin)
    >>> excerpt(script, "tent.x")
    ('x = 1 - np.abs(2 * x - 1)', 'toy.py, line ...')
    >>> print(excerpt(script, "dlworkshop.data.toy.wave")[0])
    def wave(x):
        """Two periods of a sine, between -1 and 1."""
        return np.sin(4 * np.pi * x)
    '''
    path, parts = _module(script, name.split("."))
    source = path.read_text(encoding="utf-8")
    found: list[ast.AST] = [ast.parse(source)]
    for part in parts:
        inside = [n for parent in found for n in _inside(parent, part == "return")]
        found = [node for node in inside if part in _names(node)]
        if not found:
            raise UserError(
                f"the page of {script.name} shows the code '{name}': there is no "
                f"'{part}' in {path.name}"
            )
    lines: list[str | None] = [*source.splitlines()]
    for node in found:
        _shorten_docstring(node, lines)
    spans = sorted({_span(node) for node in found})
    outer = [
        span
        for span in spans
        if not any(o != span and o[0] <= span[0] and span[1] <= o[1] for o in spans)
    ]
    text = "\n".join(
        textwrap.dedent(
            "\n".join(line for line in lines[first - 1 : last] if line is not None)
        )
        for first, last in outer
    )
    return text, f"{path.name}, line {outer[0][0]}"


def _module(script: Path, parts: list[str]) -> tuple[Path, list[str]]:
    """The file of the longest module that the name begins with, and the rest of it."""
    if parts[0] != "dlworkshop":
        return script, parts
    for size in range(len(parts) - 1, 0, -1):
        try:
            spec = importlib.util.find_spec(".".join(parts[:size]))
        except ModuleNotFoundError:
            continue
        if spec is not None and spec.origin is not None:
            return Path(spec.origin), parts[size:]
    return script, parts


def _inside(parent: ast.AST, own: bool) -> Iterator[ast.AST]:
    """All nodes below one; with `own` without those of functions inside it."""
    for child in ast.iter_child_nodes(parent):
        yield child
        if not (own and isinstance(child, ast.FunctionDef)):
            yield from _inside(child, own)


def _shorten_docstring(node: ast.AST, lines: list[str | None]) -> None:
    """Of a docstring leave the first line."""
    if not isinstance(node, ast.FunctionDef) or ast.get_docstring(node) is None:
        return
    docstring = node.body[0]
    first, last = docstring.lineno - 1, docstring.end_lineno or docstring.lineno
    if last - first > 1:
        lines[first] = f'{lines[first]}"""'
        lines[first + 1 : last] = [None] * (last - first - 1)


def _names(node: ast.AST) -> set[str]:
    """What a statement defines or assigns to."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Return):
        return {"return"}
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    inside = [each for target in targets for each in ast.walk(target)]
    stored = [n for n in inside if isinstance(n, ast.Name)]
    return {n.id for n in stored if isinstance(n.ctx, ast.Store)} | {
        n.value.id
        for n in inside
        if isinstance(n, ast.Subscript) and isinstance(n.value, ast.Name)
    }


def _span(node: Any) -> tuple[int, int]:
    decorators = getattr(node, "decorator_list", [])
    return min(n.lineno for n in [node, *decorators]), node.end_lineno


def _fence(script: Path, names: Sequence[str]) -> str:
    pieces, places = zip(*(excerpt(script, name) for name in names), strict=True)
    apart = "\n\n" if any("\n" in piece for piece in pieces) else "\n"
    files: dict[str, list[str]] = {}
    for place in places:
        file, _, line = place.partition(", line ")
        files.setdefault(file, []).append(line)
    said = ", ".join(
        f"{file}, line{'s' * (len(lines) > 1)} {', '.join(lines)}"
        for file, lines in files.items()
    )
    return f"```python {said}\n{apart.join(pieces)}\n```"
