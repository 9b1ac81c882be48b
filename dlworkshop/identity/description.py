"""A canonical JSON description of an object, the same in every process."""

import copyreg
import dataclasses
import functools
import hashlib
import importlib.machinery
import json
import logging
import math
from collections import OrderedDict
from collections.abc import Mapping
from enum import Enum
from types import (
    BuiltinFunctionType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

import jax
import numpy as np

from dlworkshop.identity import code, kinds, reads

JSON = Any
MARK = "@"  # first character of the keys that name the kind of a description
SHOWN = 8  # size up to which an array is described by its values
DEEPEST = 120  # nesting, far below Python's recursion limit
NUMBERS = "biuf"  # kinds of dtypes that JSON can store
IN_PLACE = NUMBERS + "cSUMmV"  # kinds whose content is in the bytes of the array
METHODS = (FunctionType, staticmethod, classmethod, property)
# attributes that Python adds to a class
NOT_MEMBERS = (MemberDescriptorType, GetSetDescriptorType)


def describe(thing: Any) -> JSON:
    """Describe `thing` as JSON, so that equal things have equal descriptions.

    Numbers, strings, containers and arrays are described by content, objects by their
    type and fields, functions by their code and everything it reads: defaults, closure,
    and definitions in the user's own modules. Code is described by its syntax tree, so
    comments, layout and the version of Python do not matter. Objects of an installed
    library are described by name and the library's version.

    As for Python's ==, the order of a dict does not matter; a list and a tuple are
    equal, because JSON has only lists. Mutable objects are described in their current
    state.

    Returns:
        A description for `difference`. An object whose content cannot be inspected,
        such as an open file, is {"@opaque": its type}; `opaque` finds those.

    >>> describe({"rate": 0.5, "widths": (4, 8), "table": np.arange(2)})
    {'rate': 0.5, 'table': {'@array': 'int64[2]', 'values': [0, 1]}, 'widths': [4, 8]}
    >>> describe(math.sqrt)
    {'@function': 'math.sqrt', 'package': 'python 3...'}
    """
    return _Describing().of(thing)


def checksum(description: JSON) -> str:
    """24 hex digits of a description, including library versions.

    >>> checksum(describe(1)) == checksum(describe(1.0))
    False
    """
    text = as_text(description).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()[:24]


def digest(thing: Any) -> str:
    """24 hex digits that differ if things differ; see `opaque` for the limits.

    >>> digest([1, 2]) == digest((1, 2)), digest([1, 2]) == digest([2, 1])
    (True, False)
    """
    return checksum(describe(thing))


def bare(description: JSON) -> JSON:
    """A description without library versions."""
    if isinstance(description, list):
        return [bare(item) for item in description]
    if not isinstance(description, dict):
        return description
    library = any(key.startswith("@") for key in description)
    return {
        key: bare(part)
        for key, part in description.items()
        if not (library and key == "package")
    }


class _Describing:
    """One traversal; repeated objects are referred to by checksum."""

    def __init__(self) -> None:
        self._done: dict[int, JSON] = {}
        self._done_in_passing: dict[int, JSON] = {}  # see `_members`
        self._open: list[int] = []
        self._alive: list[Any] = []  # keeps things alive, so that ids stay unique
        self._in_passing = False
        self._left_out = 0  # files that did not count, in passing

    def of(self, thing: Any) -> JSON:  # noqa: PLR0911 (one per kind)
        """Describe anything."""
        if thing is None or type(thing) in (bool, int, str):
            return thing
        if type(thing) is float:
            return thing if math.isfinite(thing) else {"@float": repr(thing)}
        if type(thing) is complex:
            return {"@complex": [self.of(thing.real), self.of(thing.imag)]}
        if type(thing) in (bytes, bytearray):
            return {"@bytes": hashlib.sha256(thing).hexdigest()[:24]}
        if (dtype := kinds.dtype_of(thing)) is not None:
            return {"@dtype": dtype}
        if isinstance(thing, jax.core.Tracer):
            return {"@opaque": "jax.core.Tracer"}
        if isinstance(thing, (np.generic, jax.Array)) or (
            type(thing) in (np.ndarray, np.memmap)
        ):
            return self._array(thing)
        return self._once(thing)

    def _once(self, thing: Any) -> JSON:
        """Describe a thing that may be large or refer to itself."""
        identity = id(thing)
        if identity in self._open:
            above = len(self._open) - self._open.index(identity)
            return {"@again": above}
        done = self._done
        if self._in_passing and identity in self._done_in_passing:
            done = self._done_in_passing
        if identity in done:
            known = done[identity]
            if known.keys() <= {"@function", "@class", "@object", "package"}:
                return known  # as short as a reference
            # without library versions, which the first description has, so that the
            # digest does not depend on them
            return {"@same": title(known), "digest": checksum(bare(known))}
        if len(self._open) >= DEEPEST:
            return {"@opaque": f"{kinds.name_of(type(thing))}, which lies too deep"}
        self._open.append(identity)
        self._alive.append(thing)
        left_out = self._left_out
        try:
            known = self._compound(thing)
        finally:
            self._open.pop()
        done = self._done if self._left_out == left_out else self._done_in_passing
        if isinstance(known, dict) and not isinstance(thing, (dict, MappingProxyType)):
            done[identity] = known
        return known

    def _compound(self, thing: Any) -> JSON:  # noqa: PLR0911, PLR0912 (one per kind)
        if isinstance(thing, reads.Hidden):
            return self._hidden(thing.what)
        if (what := reads.hidden(thing)) is not None:
            return self._hidden(what)
        if isinstance(thing, reads.Imported):
            return {"@module": thing.module, "package": thing.package}
        if type(thing) in (list, tuple):
            return [self.of(item) for item in thing]
        if type(thing) in (dict, MappingProxyType):
            return self._dict(thing)
        if type(thing) is OrderedDict:
            return {"@ordered": [[self.of(k), self.of(v)] for k, v in thing.items()]}
        if type(thing) in (set, frozenset):
            return {"@set": sorted(map(self.of, thing), key=as_text)}
        if isinstance(thing, ModuleType):
            return self._module(thing)
        if isinstance(thing, Enum):
            return {"@enum": f"{kinds.name_of(type(thing))}.{thing.name}"} | (
                {} if kinds.package_of(type(thing)) else {"value": self.of(thing.value)}
            )
        if (found := kinds.in_library(thing)) is not None:
            kind = "@class" if isinstance(thing, type) else "@function"
            return {kind: found[0], "package": found[1]}
        if isinstance(thing, type):
            return self._class(thing)
        if isinstance(thing, FunctionType):
            return self._function(thing)
        if isinstance(thing, MethodType):
            own = self.of(thing.__self__)
            return {"@method": thing.__name__, "self": own} | self._parts(
                function=thing.__func__
            )
        if isinstance(thing, BuiltinFunctionType):
            return {"@method": thing.__name__, "self": self.of(thing.__self__)}
        if isinstance(thing, functools.partial):
            return {"@partial": self.of(thing.func)} | self._parts(
                args=thing.args, keywords=thing.keywords
            )
        if isinstance(thing, (staticmethod, classmethod)):
            return {f"@{type(thing).__name__}": self.of(thing.__func__)}
        if isinstance(thing, property):
            return {"@property": self.of(thing.fget)}
        if isinstance(thing, functools.cached_property):
            return {"@property": self.of(thing.func)}
        if isinstance(thing, logging.Logger):
            return {"@object": "logging.Logger", "name": thing.name}
        if isinstance(thing, jax.Device):
            return {"@object": "jax.Device", "platform": thing.platform}
        if isinstance(thing, jax.ShapeDtypeStruct):
            return {"@shape": list(thing.shape), "dtype": str(thing.dtype)}
        if isinstance(thing, jax.tree_util.PyTreeDef):
            return {"@tree": str(thing)}
        if callable(thing) and kinds.is_compiled_wrapper(thing):
            inner = self.of(thing.__wrapped__)  # by jax.jit or functools.cache
            return {"@wrapper": kinds.name_of(type(thing)), "of": inner}
        try:
            return self._object(thing)
        except Exception:  # reading the fields of an object may raise anything
            return {"@opaque": kinds.name_of(type(thing))}

    def _parts(self, **parts: Any) -> dict[str, JSON]:
        """The descriptions of the parts that are not empty."""
        described = {name: self.of(part) for name, part in parts.items()}
        return {name: part for name, part in described.items() if part not in ([], {})}

    def _array(self, array: Any) -> JSON:
        kind: dict[str, JSON] = {}
        if isinstance(array, jax.Array):
            if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
                numbers = self.of(jax.random.key_data(array))
                return {"@key": str(jax.random.key_impl(array)), "data": numbers}
            if array.weak_type:
                kind = {"weak": True}
            try:
                array = np.asarray(array)
            except RuntimeError:  # donated, or distributed over several hosts
                return {"@opaque": "jax.Array"}
        array = np.asarray(array)
        kind["@array"] = f"{array.dtype}{list(array.shape)}"
        if array.dtype.hasobject or array.dtype.kind not in IN_PLACE:
            return kind | {"values": [self.of(item) for item in array.ravel()]}
        if array.size <= SHOWN and array.dtype.kind in NUMBERS:
            return kind | {"values": self.of(array.tolist())}
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        sha = hashlib.sha256(
            np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        )
        return kind | {"sha256": sha.hexdigest()[:24]}

    def _dict(self, thing: Mapping) -> JSON:
        if all(type(key) is str and not key.startswith(MARK) for key in thing):
            # A shared part is described at its first path, and `model.module.widths`
            # is clearer than `model.apply.module.widths`: functions come last.
            names = sorted(
                thing, key=lambda name: (isinstance(thing[name], FunctionType), name)
            )
            return {name: self.of(thing[name]) for name in names}
        pairs = [[self.of(key), self.of(value)] for key, value in thing.items()]
        return {"@dict": sorted(pairs, key=as_text)}

    def _module(self, module: ModuleType) -> JSON:
        file = getattr(module, "__file__", None)
        library = code.package(module.__name__, file)
        if library is not None:
            return {"@module": module.__name__, "package": library}
        if (file or "").endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES)):
            return {"@opaque": f"module {module.__name__}"}
        members = {
            name: part for name, part in vars(module).items() if name[:2] != "__"
        }
        return {"@module": module.__name__, "members": self._members(members)}

    def _members(self, members: dict[str, Any]) -> JSON:
        """Describe the members of a class or module, of which not all are used.

        So files that they read do not count: many models have a method that loads them.
        """
        before, self._in_passing = self._in_passing, True
        try:
            return self.of(members)
        finally:
            self._in_passing = before

    def _hidden(self, what: str) -> JSON:
        if what == reads.FILE and self._in_passing:
            self._left_out += 1
            return {"@object": what}
        return {"@opaque": what}

    def _function(self, function: FunctionType) -> JSON:
        library = code.package_of(function)
        name = function.__code__.co_qualname
        if name.startswith(kinds.GENERATED):  # from fields, which are described
            return {"@function": name}
        # functools.wraps copies the attributes of the wrapped function
        wrapped = getattr(function, "__wrapped__", None)
        attributes = {
            key: value
            for key, value in vars(function).items()
            if not key.startswith("__") and getattr(wrapped, key, None) is not value
        }
        if library is not None:
            closed = reads.closure(function)
            where = function.__globals__.get("__name__")
            about: dict[str, JSON] = {"@function": f"{kinds.public(where)}.{name}"}
            outside: dict[str, Any] = {}
            about["package"] = library
        else:
            outside, closed = reads.reads(function)
            about = {"@function": name, "code": code.code(function)}
        return about | self._parts(
            defaults=function.__defaults__ or (),
            keywords=function.__kwdefaults__ or {},
            attributes=attributes,
            closure=closed,
            globals=outside,
        )

    def _class(self, cls: type) -> JSON:
        library = kinds.package_of(cls)
        if library is not None:
            return {"@class": kinds.name_of(cls), "package": library}
        members = {}
        for name, value in sorted(vars(cls).items()):
            if isinstance(value, NOT_MEMBERS) or kinds.is_generated(cls, name, value):
                continue
            if isinstance(value, METHODS) or not kinds.is_progress(cls, name):
                members[name] = value
        fields: Any = []
        if dataclasses.is_dataclass(cls):
            # the position of a module in its parent
            left_out = {"parent", "name"} if kinds.is_linen(cls) else set[str]()
            fields = [
                [field.name, kinds.default_of(field)]
                for field in dataclasses.fields(cls)
                if field.name not in left_out
            ]
        elif issubclass(cls, tuple):
            fields = getattr(cls, "_fields", ())
        elif issubclass(cls, Enum):
            fields = [[item.name, item.value] for item in cls]
        bases = [base for base in cls.__bases__ if base is not object]
        about = {"@class": cls.__qualname__} | self._parts(bases=bases, fields=fields)
        called = self._parts(__call__=members.pop("__call__", []))
        described = called | self._members(members)
        return about | ({"members": described} if described else {})

    def _object(self, thing: Any) -> JSON:
        cls = type(thing)
        about: dict[str, JSON] = {"@object": kinds.name_of(cls)}
        library = kinds.package_of(cls)
        if library is not None:
            about["package"] = library
        else:
            about["class"] = self.of(cls)
        if isinstance(thing, tuple) and hasattr(thing, "_fields"):
            fields = {name: getattr(thing, name) for name in thing._fields}
            return about | self._parts(fields=fields)
        if kinds.is_linen(cls):
            return about | self._parts(fields=kinds.linen_fields(thing))
        if dataclasses.is_dataclass(thing):
            fields = {
                f.name: getattr(thing, f.name, None) for f in dataclasses.fields(thing)
            }
            fields |= getattr(thing, "__dict__", {})
            return about | self._parts(fields=kinds.lasting(cls, fields))
        return self._reduced(thing, about)

    def _reduced(self, thing: Any, about: dict[str, JSON]) -> JSON:
        """Describe an object by its reduction for `pickle`, which is complete."""
        cls = type(thing)
        reduce = copyreg.dispatch_table.get(cls)
        reduced = thing.__reduce_ex__(4) if reduce is None else reduce(thing)
        if isinstance(reduced, str):
            return about | {"name": reduced}
        make, args, state, items, pairs = (*reduced, None, None, None)[:5]
        if make is copyreg.__newobj__ and args[0] is cls:  # type: ignore[attr-defined]
            make, args = None, args[1:]
        fields: dict[str, Any] = {}
        if isinstance(state, dict) and all(type(key) is str for key in state):
            fields, state = state, None
        elif kinds.is_with_slots(state):
            fields, state = {**(state[0] or {}), **state[1]}, None
        more = {"make": make, "state": state}
        return about | self._parts(
            args=args,
            fields=kinds.lasting(cls, fields),
            items=list(items or ()),
            pairs=dict(pairs or ()),
            **{name: part for name, part in more.items() if part is not None},
        )


TITLES = {
    "@function": "the function `{}`",
    "@class": "the class `{}`",
    "@method": "the method `{}`",
    "@object": "a `{}`",
    "@enum": "`{}`",
    "@dtype": "{}",
    "@module": "the module `{}`",
    "@array": "an array {}",
    "@opaque": "a `{}`",
    "@same": "{}",
    "@float": "{}",
}


def title(description: JSON) -> str:
    """A description in a few words.

    >>> title(describe(math.sqrt)), title(describe(np.zeros((2, 9))))
    ('the function `math.sqrt`', 'an array float64[2, 9]')
    """
    if isinstance(description, dict):
        if "@array" in description and "values" in description:
            return _short(description["values"])
        for mark, words in TITLES.items():
            if mark in description:
                return words.format(description[mark])
        if "@partial" in description:
            return f"a partial of {title(description['@partial'])}"
        if "@wrapper" in description:
            return title(description["of"])
    return _short(description)


def _short(value: JSON) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def as_text(description: JSON) -> str:
    """Canonical JSON, in which 1, 1.0 and true are different."""
    return json.dumps(description, sort_keys=True)
