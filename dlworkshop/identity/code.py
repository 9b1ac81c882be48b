"""Identity of a function's code: its syntax tree if the source is available.

The tree does not contain comments, docstrings, annotations and layout, and is the same
in every version of Python. Bytecode, which depends on all of them, is used only if
there is no source: in a shell, or if the file was changed since it was imported.
"""

import ast
import builtins
import contextlib
import dis
import functools
import hashlib
import importlib.metadata
import importlib.util
import linecache
import os
import site
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

ROOT = Path(__file__).parents[1]  # of the library itself
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
TYPED_IN = ("<doctest", "<ipython", "<stdin", "<python-input")  # code without a module
MISSING = object()
COMPUTED = (property, functools.cached_property)
Node = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
FILE = "file"
# Through these a function reads what its code does not name: id -> what that is.
HIDDEN = {
    **{id(each): FILE for each in (open, np.load, np.loadtxt, np.fromfile)},
    **{id(each): FILE for each in (np.genfromtxt, jnp.load)},
    **{id(each): "variable of the process" for each in (os.environ, os.getenv)},
    **{id(each): "text that is executed" for each in (eval, exec)},
    **{id(each): "module by name" for each in (__import__, sys.modules)},
    id(importlib.import_module): "module by name",
    id(globals): "variable by name",
}
READS_FILE = {"read_text", "read_bytes", "read_csv", "read_parquet"}  # methods


class Hidden(NamedTuple):
    """Something that a function reads and that cannot be looked at."""

    what: str


class Imported(NamedTuple):
    """A module of a library that a function imports."""

    module: str
    package: str


def hidden(thing: Any) -> str | None:
    """What a function reads through `thing` without naming it; None for nothing."""
    return HIDDEN.get(id(thing))


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
    for code in _within(compile(tree, "<identity>", "exec", dont_inherit=True)):
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


def _within(code: CodeType) -> Iterator[CodeType]:
    """The code object and all nested ones."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _within(constant)


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


def closure(function: FunctionType) -> dict[str, Any]:
    """The bound variables in the closure of a function: name -> value.

    `inspect.getclosurevars` raises if a variable is not bound yet.
    """
    found = {}
    cells = function.__closure__ or ()
    for name, cell in zip(function.__code__.co_freevars, cells, strict=True):
        with contextlib.suppress(ValueError):  # not bound yet
            found[name] = cell.cell_contents
    return found


def reads(function: FunctionType) -> tuple[dict[str, Any], dict[str, Any]]:
    """Dotted names -> values that a function reads from its module and closure.

    Attributes are followed through the user's own modules, also those that the function
    imports, and the fields of objects, so that only those flags of a script count that
    the function reads. Nested functions are included, builtins are not. What cannot be
    followed, such as files and `os.environ`, is `Hidden` or one of HIDDEN.

    >>> factor = 3
    >>> def triple(x):
    ...     return factor * len(x)
    >>> reads(triple)
    ({'factor': 3}, {})
    """
    free, where = closure(function), function.__globals__
    outside: dict[str, Any] = {}
    closed: dict[str, Any] = {}
    seen = set()
    for kind, root, *attributes in _chains(function.__code__):
        if kind == "import":
            outside |= _imported(root, attributes, where)
        elif kind == "file":
            outside[root] = Hidden(FILE)
        elif kind == "free" and root in free:
            seen.add(root)
            path, value = _follow(root, free[root], attributes)
            closed[path] = value
        elif kind == "global":
            builtin = getattr(builtins, root, MISSING)
            path, value = _follow(root, where.get(root, builtin), attributes)
            if value is not builtin or hidden(value) is not None:
                outside[path] = value
    closed |= {name: value for name, value in free.items() if name not in seen}
    return outside, closed


@functools.lru_cache(4096)
def _chains(code: CodeType) -> list[list]:
    """The reads of a function and of those in it: [kind, root, attribute, ...].

    The root of the kinds "global", "free" and "file" is a name, that of "import" what
    `_imports` finds.
    """
    imports: dict[str, list[tuple]] = {}
    for inner in _within(code):
        for name, found in _imports(inner):
            imports.setdefault(name, []).append(found)
    chains: list[list] = []
    for inner in _within(code):
        current: list[list] = []
        cells = {*inner.co_cellvars, *inner.co_freevars}
        for instruction in dis.get_instructions(inner):
            name, value = instruction.opname, instruction.argval
            if name in {"CACHE", "EXTENDED_ARG", "NOP", "PUSH_NULL"}:
                continue
            if name in {"LOAD_ATTR", "LOAD_METHOD"}:
                for chain in current:
                    chain.append(value)
                if value in READS_FILE:
                    chains.append(["file", value])
                continue
            current = []
            for kind, loaded in _loaded(name, value):
                if kind == "local" and loaded in cells:
                    continue  # passed to a function in it, which reads it
                current = [["import", found] for found in imports.get(loaded, ())]
                if kind != "local":
                    current.append([kind, loaded])
                chains += current
    return chains


def _loaded(opname: str, names: Any) -> list[tuple[str, str]]:
    """Kind and name of the variables that an instruction loads."""
    if opname in {"LOAD_GLOBAL", "LOAD_NAME"}:
        return [("global", names)]
    if "LOAD_FAST" in opname:  # since Python 3.13 two at a time, or after storing one
        pair = names if isinstance(names, tuple) else (names,)
        return [("local", each) for each in pair[opname.startswith("STORE_") :]]
    if opname.startswith("LOAD_") and "DEREF" in opname:
        return [("free", names)]
    return []


def _imports(code: CodeType) -> Iterator[tuple[str, tuple[int, str, str | None]]]:
    """The imports in a code object: variable, (level, module, name in the module).

    The name is None for the module itself, and "" for its topmost package.
    """
    constants: list[Any] = []
    module: Any = None
    bound: tuple[int, str, str | None] | None = None
    for instruction in dis.get_instructions(code):
        name, value = instruction.opname, instruction.argval
        if name in {"LOAD_CONST", "LOAD_SMALL_INT"}:
            constants.append(value)
        elif name == "IMPORT_NAME":
            level, names = constants[-2:]
            module, bound = value, (level, value, "")
        elif name == "IMPORT_FROM":  # also for `import a.b as c`, which names nothing
            bound = level, module, value if names else None
        elif name.startswith("STORE_") and bound is not None:
            yield value[0] if isinstance(value, tuple) else value, bound
            bound = None


def _imported(
    imported: tuple[int, str, str | None], attributes: list[str], where: dict[str, Any]
) -> dict[str, Any]:
    """What an import inside a function leads to, by its path; empty if not installed.

    The user's own modules are imported, as the function would do.
    """
    level, module, name = imported
    try:
        full = importlib.util.resolve_name(
            "." * level + module, where.get("__package__") or ""
        )
        top = full.partition(".")[0]
        if top not in sys.modules and importlib.util.find_spec(top) is None:
            return {}
        library = _library_of(full)
        if library is None or full in sys.modules:
            found: Any = importlib.import_module(full)
            if name == "":
                full, found = top, sys.modules[top]
            elif name is not None:
                found = _member(found, name)
    except ImportError:
        return {}
    except Exception:  # importing runs the module
        return {module: Hidden("module that cannot be imported")}
    path = name or full
    if library is None:
        path, found = _follow(path, found, attributes)
        return {} if found is MISSING else {path: found}
    if full in sys.modules:
        path, found = _follow(path, found, attributes)
        if hidden(found) is not None:
            return {path: found}
    return {name or full: Imported(full, library)}


def _library_of(full: str) -> str | None:
    """The library of a module, which need not have been imported; None for own ones."""
    top = full.partition(".")[0]
    if top in sys.modules:
        return package(full, getattr(sys.modules[top], "__file__", None))
    spec = importlib.util.find_spec(top)
    has_file = spec is not None and spec.has_location
    return package(full, spec.origin if spec is not None and has_file else None)


def _member(module: ModuleType, name: str) -> Any:
    """What `from module import name` gives; MISSING if there is no such thing."""
    if not hasattr(module, name) and importlib.util.find_spec(
        f"{module.__name__}.{name}"
    ):
        return importlib.import_module(f"{module.__name__}.{name}")
    return getattr(module, name, MISSING)


def _follow(path: str, value: Any, attributes: list[str]) -> tuple[str, Any]:
    """Resolve attributes as long as they are plain fields, not properties."""
    for place, attribute in enumerate(attributes):
        if hidden(value) is not None:
            break
        if isinstance(value, ModuleType):
            file = getattr(value, "__file__", None)
            if package(value.__name__, file) is not None:
                return _in_library(path, value, attributes[place:])
            inner = vars(value).get(attribute, MISSING)
        elif isinstance(value, (FunctionType, type)) or callable(value):
            break
        elif isinstance(value, tuple):
            fields = getattr(value, "_fields", ())
            inner = getattr(value, attribute) if attribute in fields else MISSING
        elif isinstance(getattr(type(value), attribute, None), COMPUTED):
            break
        else:
            inner = getattr(value, "__dict__", {}).get(attribute, MISSING)
        if inner is MISSING:
            break
        path, value = f"{path}.{attribute}", inner
    return path, value


def _in_library(
    path: str, module: ModuleType, attributes: list[str]
) -> tuple[str, Any]:
    """The module of a library, or the one of HIDDEN that the attributes lead to."""
    inner: Any = module
    for place, attribute in enumerate(attributes, 1):
        inner = getattr(inner, "__dict__", {}).get(attribute, MISSING)
        if hidden(inner) is not None:
            return ".".join([path, *attributes[:place]]), inner
    return path, module
