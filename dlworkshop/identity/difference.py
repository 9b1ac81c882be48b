"""Differences of two descriptions, in sentences with dotted paths."""

from collections.abc import Iterator
from typing import Any

from dlworkshop.identity.description import JSON, as_text, bare, checksum, title

# parts of a description that are left out of paths
SILENT = {"fields", "closure", "globals", "members", "class", "items", "attributes"}
# kinds that are compared part by part; others are compared as a whole
COMPOUND = {"dict", "list", "@partial", "@staticmethod", "@classmethod", "@property"}
NAMES = ("@function", "@class", "@object", "@method", "@module")
# References to a thing that is described elsewhere, where its differences are found.
REFERENCES = ("@same", "@again")


def difference(then: JSON, now: JSON) -> list[str]:
    """The differences between two descriptions, a sentence each; [] for none.

    Library versions are ignored. Opaque parts always differ.

    >>> from dlworkshop.identity import describe
    >>> then = describe({"model": {"features": [4]}, "seeds": 3})
    >>> difference(then, describe({"model": {"features": [8]}, "seeds": 3}))
    ['model.features was [4] and is now [8]']
    """
    found: dict[tuple, str] = {}
    references: list[str] = []
    for path, old, new in _differing("", then, now):
        kinds = {_kind(old), _kind(new)}
        if kinds <= set(REFERENCES) and title(old) == title(new):
            references.append(f"{path or 'it'} ({title(old)}) changed")
            continue
        sentence = _sentence(path, old, new)
        # a part with two paths is reported once
        last = path.rpartition(".")[2]
        found.setdefault((last, checksum(old), checksum(new)), sentence)
    for path, part in _opaque("", now):
        kind = title(part)
        found.setdefault((path,), f"{path or 'it'} ({kind}) cannot be compared")
    sentences = list(dict.fromkeys(found.values())) or references[:1]
    if not sentences and not _same(then, now):
        return [f"it was {title(then)} and is now another"]
    return sentences


def opaque(description: JSON) -> list[str]:
    """Dotted paths of parts whose content cannot be inspected.

    >>> from dlworkshop.identity import describe
    >>> opaque(describe({"loss": {"log": open("/dev/null")}, "seed": 1}))
    ['loss.log']
    """
    return list(dict.fromkeys(path for path, _ in _opaque("", description)))


def _opaque(path: str, description: JSON) -> Iterator[tuple[str, JSON]]:
    if isinstance(description, dict) and "@opaque" in description:
        yield path, description
    for _, name, part in _children(description):
        yield from _opaque(_join(path, name), part)


def _differing(path: str, then: JSON, now: JSON) -> Iterator[tuple[str, Any, Any]]:
    if _same(then, now):
        return
    if _kind(then) != _kind(now) or _kind(then) in {"value", "@opaque", *REFERENCES}:
        yield path, then, now
        return
    if isinstance(then, list):
        parts = [*then, *now]
        if len(then) != len(now) or not any(isinstance(p, (dict, list)) for p in parts):
            yield path, then, now
            return
    elif _marks(then) != _marks(now):
        yield path, then, now
        if any(then.get(name) != now.get(name) for name in NAMES):
            return  # another thing, whose parts all differ
    olds = {key: (name, part) for key, name, part in _children(then)}
    news = {key: (name, part) for key, name, part in _children(now)}
    for key in dict.fromkeys([*olds, *news]):
        name, old = olds.get(key, (None, None))
        name, new = news.get(key, (name, None))
        inner = _join(path, name or "")
        if key in olds and key in news:
            yield from _differing(inner, old, new)
        else:
            yield inner, old, new


def _marks(description: JSON) -> JSON:
    """The marks of a description, without its parts."""
    if _kind(description) not in COMPOUND | {*NAMES, "@wrapper", "@dict", "@set"}:
        return bare(description)
    return {
        key: part
        for key, part in description.items()
        if key in {*NAMES, "code"} and _kind(description) != "dict"
    }


def _sentence(path: str, then: JSON, now: JSON) -> str:
    path = path or "it"
    if isinstance(then, dict) and isinstance(now, dict):
        for mark in NAMES:
            name = then.get(mark)
            if name is None or name != now.get(mark) or "code" not in then:
                continue
            old, new = str(then["code"]), str(now.get("code"))
            if old.split()[:-1] != new.split()[:-1]:
                return (
                    f"the code of {path} `{name}` was known by its {_form(old)} and is "
                    f"now by its {_form(new)}, so it cannot be compared"
                )
            return f"the code of {path} `{name}` changed"
        if "sha256" in then and then.get("@array") == now.get("@array"):
            return f"the numbers of {path} ({title(then)}) changed"
    return f"{path} was {title(then)} and is now {title(now)}"


def _form(code: str) -> str:
    """The kind of a code digest, such as "source" for "source abc"."""
    return " ".join(code.split()[:-1]) or code


def _same(then: JSON, now: JSON) -> bool:
    """Whether two descriptions are equal but for library versions."""
    return as_text(bare(then)) == as_text(bare(now))


def _kind(description: JSON) -> str:
    if isinstance(description, list):
        return "list"
    if not isinstance(description, dict):
        return "value"
    return next((key for key in sorted(description) if key.startswith("@")), "dict")


def _children(description: JSON) -> Iterator[tuple[str, str, JSON]]:
    """Key, name in a path ("" for none) and content of each part."""
    if isinstance(description, list):
        for place, part in enumerate(description):
            yield str(place), str(place), part
        return
    if not isinstance(description, dict):
        return
    marked = _kind(description) != "dict"
    for key, part in description.items():
        if not marked:
            yield key, key, part
        elif key in {"package", "code", "sha256", "digest", "values"}:
            continue
        elif key in SILENT and _kind(part) == "dict":
            for name, inner in part.items():
                yield f"{key}.{name}", name, inner
        elif key in SILENT or key.startswith("@"):
            yield key, "" if isinstance(part, dict) else key.lstrip("@"), part
        else:
            yield key, key, part


def _join(path: str, name: str) -> str:
    return ".".join(part for part in (path, name) if part)
