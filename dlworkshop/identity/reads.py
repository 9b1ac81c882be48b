"""What a function reads: variables of its module and closure, and its imports.

They are found in its bytecode, and followed through the user's own modules.
"""

import builtins
import contextlib
import dis
import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dlworkshop.identity.code import package, within

MISSING = object()
COMPUTED = (property, functools.cached_property)
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
    for inner in within(code):
        for name, found in _imports(inner):
            imports.setdefault(name, []).append(found)
    chains: list[list] = []
    for inner in within(code):
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
