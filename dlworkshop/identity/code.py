"""Identity of a function's code: its syntax tree if the source is available.

The tree does not contain comments, docstrings, annotations and layout, and is the same
in every version of Python. Bytecode, which depends on all of them, is used only if
there is no source: in a shell, or if the file was changed since it was imported.
"""

import ast
import functools
import hashlib
import importlib.metadata
import linecache
import site
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

ROOT = Path(__file__).parents[1]  # of the library itself
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
TYPED_IN = ("<doctest", "<ipython", "<stdin", "<python-input")  # code without a module
Node = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def package(name: str | None, file: str | None) -> str | None:
    """The library and version that a module belongs to; None for the user's own code.

    `file` is None for builtin modules and interactive code.

    >>> import json
    >>> package("json", json.__file__)[:9], package("__main__", "train.py")
    ('python 3.', None)
    """
    top = (name or "").partition(".")[0]
    if file is None and top != "__main__":  # such as a part of a library in C
        file = getattr(sys.modules.get(top), "__file__", None)
    if file is None:
        known = top in sys.stdlib_module_names and top != "__main__"
        return f"python {PYTHON}" if known else None
    return _package(top, file)


@functools.lru_cache(4096)
def _package(top: str, file: str) -> str | None:
    path = Path(file)
    if path.is_relative_to(ROOT):
        return f"dlworkshop {_own_version()}"
    if any(path.is_relative_to(folder) for folder in _installed()):
        return f"{top} {_version(top)}".strip()
    standard = sysconfig.get_paths()["stdlib"], sysconfig.get_paths()["platstdlib"]
    if any(path.is_relative_to(folder) for folder in standard):
        return f"python {PYTHON}"
    return None


@functools.cache
def _installed() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = {paths["purelib"], paths["platlib"], *site.getsitepackages()}
    folders |= {site.getusersitepackages()}
    folders |= {
        p for p in sys.path if Path(p).name in {"site-packages", "dist-packages"}
    }
    return tuple(sorted(folders))


@functools.cache
def _version(top: str) -> str:
    version = getattr(sys.modules.get(top), "__version__", None)
    if isinstance(version, str):
        return version
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        return ""


@functools.cache
def _own_version() -> str:
    """The version of this library, with a content hash because it may be a checkout."""
    sha = hashlib.sha256()
    for path in sorted(ROOT.rglob("*.py")):
        sha.update(f"{path.relative_to(ROOT)}\0".encode())
        sha.update(path.read_bytes())
    return f"{_version('dlworkshop')}+{sha.hexdigest()[:8]}".lstrip("+")


def package_of(function: FunctionType) -> str | None:
    """The library that defines a function; None for the user's own code."""
    if function.__code__.co_filename.startswith(TYPED_IN):
        return None
    where = function.__globals__
    return package(where.get("__name__"), where.get("__file__"))


def code(function: FunctionType) -> str:
    """A digest of a function's source, or else of its bytecode.

    >>> def double(x):
    ...     return 2 * x
    >>> def twice(x):
    ...     return 2 * x  # only the name differs
    >>> code(double) == code(double), code(double) == code(twice)
    (True, False)
    """
    try:
        node = _node(function)
    except (OSError, SyntaxError, ValueError, RecursionError):
        node = None
    if node is None:
        return f"bytecode of Python {PYTHON} {_sha(_bytecode(function.__code__))}"
    return f"source {_sha(_tree(node))}"


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _node(function: FunctionType) -> Node | None:
    """The syntax node that defines the function.

    The file may have been changed since it was imported, so the node must compile to
    the bytecode of the function.
    """
    code = function.__code__
    linecache.checkcache(code.co_filename)
    lines = linecache.getlines(code.co_filename, function.__globals__)
    if not lines:
        return None
    same = _compiled("".join(lines)).get((code.co_qualname, _bytecode(code)), [])
    # of several equal nodes the one closest to the line of the function
    return min(
        (node for _, node in same),
        key=lambda node: abs(_first_line(node) - code.co_firstlineno),
        default=None,
    )


@functools.lru_cache(64)
def _compiled(text: str) -> dict[tuple[str, str], list[tuple[CodeType, Node]]]:
    """(qualified name, bytecode) -> the functions of a file that have them."""
    text = textwrap.dedent(text)
    tree = ast.parse(text)
    nodes: dict[tuple[str, int], list[Node]] = {}
    for node in ast.walk(tree):
        if isinstance(node, Node):
            name = getattr(node, "name", "<lambda>")
            nodes.setdefault((name, _first_line(node)), []).append(node)
    found: dict[tuple[str, str], list[tuple[CodeType, Node]]] = {}
    for code in within(compile(tree, "<identity>", "exec", dont_inherit=True)):
        places = nodes.get((code.co_name, code.co_firstlineno), [])
        if len(places) > 1:  # lambdas in one line
            places = [node for node in places if _covers(node, code)]
        if places:
            key = (code.co_qualname, _bytecode(code))
            found.setdefault(key, []).append((code, places[-1]))
    return found


def _first_line(node: Node) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _covers(node: Node, code: CodeType) -> bool:
    """Whether all instructions lie within the node (the innermost is last)."""
    if not isinstance(node, ast.Lambda):
        return False
    body = node.body
    begin = body.lineno, body.col_offset
    end = body.end_lineno or body.lineno, body.end_col_offset or body.col_offset
    for line, last_line, column, last_column in code.co_positions():
        if not (line and last_line and last_column):
            continue  # an instruction without a position
        if column is None or (line, column) < begin or (last_line, last_column) > end:
            return False
    return True


def within(code: CodeType) -> Iterator[CodeType]:
    """The code object and all nested ones."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from within(constant)


@functools.lru_cache(4096)
def _bytecode(code: CodeType) -> str:
    """The contents of a code object, without positions."""
    return repr(
        (
            code.co_code,
            [_constant(constant) for constant in code.co_consts],
            (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars),
            (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount),
            (code.co_flags, code.co_exceptiontable),
        )
    )


def _constant(constant: Any) -> str:
    if isinstance(constant, CodeType):
        return f"{constant.co_name}{_bytecode(constant)}"
    if isinstance(constant, tuple):
        return f"({','.join(map(_constant, constant))})"
    if isinstance(constant, frozenset):  # its order differs between processes
        return f"{{{','.join(sorted(map(_constant, constant)))}}}"
    return f"{type(constant).__name__}:{constant!r}"


def _tree(node: Any, top: bool = True) -> str:
    """A syntax tree as text, without docstrings and annotations.

    `ast.dump` is not used, because only some versions of Python write empty fields.
    """
    if isinstance(node, list):
        return f"[{','.join(_tree(item, False) for item in node)}]"
    if isinstance(node, ast.Constant):
        return _constant(node.value)
    if not isinstance(node, ast.AST):
        return repr(node)
    skipped = {"ctx", "kind", "type_comment", "returns", "type_ignores"}
    if isinstance(node, ast.arg):
        skipped.add("annotation")
    if top:  # decorators have been applied to the object already
        skipped.add("decorator_list")
    fields = []
    for name, value in ast.iter_fields(node):
        if name in skipped or value is None or value == []:
            continue
        part = _without_docstring(node, value) if name == "body" else value
        fields.append(f"{name}={_tree(part, False)}")
    return f"{type(node).__name__}({','.join(fields)})"


def _without_docstring(node: ast.AST, body: Any) -> Any:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    match body:
        case [ast.Expr(value=ast.Constant(value=str())), *rest] if isinstance(
            node, documented
        ):
            return rest
    return body
