"""Damage to one file of a run folder: a byte, a value, a key; what a seed gives."""

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save

NESTED: Any = []
for _ in range(300):
    NESTED = [NESTED]
WEIRD = [
    None,
    True,
    -1,
    0,
    1,
    0.5,
    2.0,
    1e308,
    float("nan"),
    10**18,
    -5,
    "",
    "x",
    "<b>",
]
WEIRD += ["\ud800", "a" * 3000, "../../x", "\0", [], [1], [None], [[]], {}, {"a": 1}]
WEIRD += [[{}], NESTED, "logits", "values", [1, 2, 3]]


def mutated(path: Path, rng: random.Random) -> bytes:
    """The content of a file with one thing changed, as its kind has things."""
    content = path.read_bytes()
    if rng.random() < 0.3:
        return in_bytes(content, rng)
    kinds = {
        ".json": lambda: json.dumps(in_json(json.loads(content), rng)).encode(),
        ".jsonl": lambda: in_jsonl(content, rng),
        ".npy": lambda: in_npy(path, rng),
        ".npz": lambda: in_npz(content, rng),
        ".safetensors": lambda: in_safetensors(path, rng),
    }
    return kinds.get(path.suffix, lambda: in_bytes(content, rng))()


def in_jsonl(content: bytes, rng: random.Random) -> bytes:
    lines = content.splitlines()
    at = rng.randrange(len(lines))
    lines[at] = json.dumps(in_json(json.loads(lines[at]), rng)).encode()
    return b"\n".join(lines) + b"\n"


def in_npy(path: Path, rng: random.Random) -> bytes:
    out = io.BytesIO()
    np.save(out, in_array(np.load(path), rng))
    return out.getvalue()


def in_bytes(content: bytes, rng: random.Random) -> bytes:
    """Flipped, cut, emptied, doubled or filled with what is no UTF-8."""
    at = rng.randrange(max(1, len(content)))
    end = min(len(content), at + rng.choice([1, 1, 4, 100]))
    return rng.choice(
        [
            content[:at] + bytes([content[at % len(content)] ^ (1 << at % 8)])
            + content[at + 1 :] if content else b"x",
            content[:at],
            b"",
            content[:at] + content[end:],
            content[:end] + content[at:],
            content[:at] + b"\xff\xfe\0" + content[end:],
            content[:at] + bytes(end - at) + content[end:],
        ]
    )  # fmt: skip


def in_json(value: Any, rng: random.Random) -> Any:
    """One node is another, or gone."""
    *way, last = rng.choice([path for path in nodes(value) if path] or [("x",)])
    node = value
    for key in way:
        node = node[key]
    if isinstance(node, (dict, list)) and len(node) and rng.random() < 0.25:
        del node[last]
    elif isinstance(node, (dict, list)):
        node[last] = rng.choice(WEIRD)
    return value


def nodes(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of each node; of long lists, of the first ones."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from nodes(value[key], (*path, key))
    if isinstance(value, list):
        for i in range(min(len(value), 3)):
            yield from nodes(value[i], (*path, i))


def in_array(array: np.ndarray, rng: random.Random) -> np.ndarray:
    """Of another size, shape, dtype, or with values that cannot be."""
    kinds = [
        lambda: array[:-1] if array.ndim else array,
        lambda: np.concatenate([array, array]) if array.ndim else array,
        lambda: array[None],
        lambda: array[..., :1] if array.ndim else array,
        array.ravel,
        lambda: array.ravel()[:0],
        lambda: np.array(1.5, np.float32),
        lambda: np.zeros(array.shape, np.float64),
        lambda: np.full(array.shape, 10**9),
        lambda: np.full(array.shape, -7),
        lambda: np.full(array.shape, np.nan, np.float32),
        lambda: np.full(array.shape, np.inf, np.float32),
        lambda: np.full(array.shape, "<b>"),
        lambda: np.zeros(array.shape, bool),
        lambda: np.zeros((*array.shape, 0), array.dtype),
    ]
    return rng.choice(kinds)()


def in_npz(content: bytes, rng: random.Random) -> bytes:
    with np.load(io.BytesIO(content)) as file:
        arrays = dict(file)
    name = rng.choice(sorted(arrays))
    if rng.random() < 0.15:
        del arrays[name]
    else:
        arrays[name] = in_array(arrays[name], rng)
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **arrays)
    found = out.getvalue()
    if rng.random() < 0.3:  # a header that promises more than there is
        found = found.replace(
            b"'shape': (", b"'shape': (9" + b"9" * rng.choice([1, 9]), 1
        )
    return found


def in_safetensors(path: Path, rng: random.Random) -> bytes:
    with safetensors.safe_open(path, "numpy") as file:
        config = json.loads(file.metadata()["config"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if rng.random() < 0.6:
        config = in_json(config, rng)
    else:
        name = rng.choice(sorted(arrays))
        changed = in_array(arrays[name], rng)
        arrays[name] = arrays[name] if changed.dtype.kind == "U" else changed
    return save(arrays, {"config": json.dumps(config)})
