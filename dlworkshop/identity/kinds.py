"""What Python and the libraries make of a class or an object beside its content."""

import dataclasses
import functools
import sys
from collections.abc import Mapping
from enum import Enum
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import numpy as np

from dlworkshop.identity import code

GENERATED = "__create_fn__."  # begins what `dataclass` writes
# What Python and Flax keep of how far they have come with an object: not what it is.
PROGRESS = ("__", "_pytree__", "_object__")
FLAX_PROGRESS = ("_trace_state", "_state", "_parent_ref", "scope")


def dtype_of(thing: Any) -> str | None:
    if isinstance(thing, np.dtype):
        return str(thing)
    if isinstance(thing, type) and issubclass(thing, np.generic):
        return thing.__name__
    if type(thing).__name__ == "_ScalarMeta":  # jnp.float32
        return str(thing.dtype)
    return None


def public(module: str | None) -> str:
    """The name of a module without its private parts, which move more often.

    >>> public("optax._src.alias")
    'optax.alias'
    """
    parts = (module or "").split(".")
    return ".".join(part for part in parts if not part.startswith("_")) or parts[
        0
    ].strip("_")


def package_of(cls: type) -> str | None:
    module = sys.modules.get(cls.__module__)
    return code.package(cls.__module__, getattr(module, "__file__", None))


def name_of(cls: type) -> str:
    own = package_of(cls) is None
    return cls.__qualname__ if own else f"{public(cls.__module__)}.{cls.__qualname__}"


def in_library(thing: Any) -> tuple[str, str] | None:
    """Name and library of what a library has under that name."""
    if not callable(thing):
        return None
    try:
        module_name, path = thing.__module__, thing.__qualname__
    except Exception:
        module_name, path = None, None
    if module_name is None and isinstance(thing, BuiltinFunctionType):
        own = thing.__self__
        module_name = own.__name__ if isinstance(own, ModuleType) else None
    if not isinstance(module_name, str) or not isinstance(path, str):
        return None
    module = sys.modules.get(module_name)
    library = code.package(module_name, getattr(module, "__file__", None))
    if library is None:
        return None
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part, None)
    return (f"{public(module_name)}.{path}", library) if found is thing else None


def is_compiled_wrapper(thing: Any) -> bool:
    made_in_c = isinstance(thing, type(functools.lru_cache(len))) or (
        type(thing).__module__.partition(".")[0] == "jaxlib"
    )
    return made_in_c and callable(getattr(thing, "__wrapped__", None))


def is_named_tuple(thing: Any) -> bool:
    return isinstance(thing, tuple) and hasattr(thing, "_fields")


def is_with_slots(state: Any) -> bool:
    """Whether it is (fields, slots), as `object` makes it."""
    return (
        type(state) is tuple
        and len(state) == 2
        and isinstance(state[0], (dict, type(None)))
        and isinstance(state[1], dict)
    )


def is_linen(cls: type) -> bool:
    return any(
        base.__module__ == "flax.linen.module" and base.__name__ == "Module"
        for base in cls.__mro__
    )


def linen_fields(module: Any) -> dict[str, Any]:
    """Of a Flax module: not where it stands in another."""
    names = [field.name for field in dataclasses.fields(module)]
    fields = {name: getattr(module, name, None) for name in names if name != "parent"}
    if fields.get("name") is None:
        fields.pop("name", None)
    return fields


def lasting(cls: type, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Without what `cached_property` or a library left there on the way."""
    return {
        name: value
        for name, value in fields.items()
        if not is_progress(cls, name)
        and not isinstance(getattr(cls, name, None), functools.cached_property)
    }


def is_progress(cls: type, name: str) -> bool:
    if name.startswith(PROGRESS) or name == "_abc_impl":
        return True
    flax = any(base.__module__.startswith("flax.") for base in cls.__mro__)
    return flax and name in FLAX_PROGRESS


def is_generated(cls: type, name: str, value: Any) -> bool:
    """Whether a member was written by `dataclass`, `NamedTuple`, `Enum` or Flax."""
    if isinstance(value, (classmethod, staticmethod)):
        value = value.__func__
    if isinstance(value, FunctionType):
        if hasattr(value, "__wrapped__"):
            inner = getattr(value.__wrapped__, "__code__", None)
            return inner is not None and inner.co_qualname.startswith(GENERATED)
        if value.__code__.co_qualname.startswith(GENERATED):
            return True
        if name.startswith("__annotate"):
            return True
        by_library = name.startswith("_") and code.package_of(value) is not None
        named = issubclass(cls, tuple) and hasattr(cls, "_fields")
        return by_library or (named and name == "__new__")
    if issubclass(cls, Enum):
        return name in cls.__members__ or name.startswith("_")
    return name in getattr(cls, "_fields", ()) or (
        name in getattr(cls, "__dataclass_fields__", {})
    )


def default_of(field: dataclasses.Field) -> Any:
    for value in (field.default, field.default_factory):
        if value is not dataclasses.MISSING:
            return value
    return None


def content_of(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet bound
        return None
