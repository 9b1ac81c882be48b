"""Encoding of the columns of a table, as a file has them, in an ONNX graph."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlworkshop.data.readers.cells import MISSING
from dlworkshop.serve.onnx.graph import Graph, described

STRING = np.dtype(object)  # NumPy's dtype for strings of any length


def vectors(graph: Graph, columns: Sequence[Mapping[str, Any]], size: Any) -> str:
    """Vectors [B, D] of one input [B] per column, encoded as in `data.readers.columns`.

    Numbers are float64, as in the reader, and NaN is missing. Categories are strings,
    read like the cells of a CSV file, so "", "NA" and so on are missing. `size` is the
    symbolic size of the batch.
    """
    parts = []
    for column in columns:
        category = "values" in column
        x = graph.input(column["name"], [size], STRING if category else np.float64)
        if category:
            absent = _says(graph, x, MISSING)
            parts += [
                _says(graph, x, _escaped(value), _case(value))
                for value in column["values"]
            ]
        else:
            absent = graph.add("IsNaN", x, dtype=bool)
            mean, deviation = (
                graph.constant(np.float64(column[name]))
                for name in ("mean", "deviation")
            )
            known = graph.add("Where", absent, mean, x, dtype=np.float64)
            parts.append(graph.add("Div", graph.add("Sub", known, mean), deviation))
        if column["missing"]:
            parts.append(absent)
    rows = [graph.unsqueeze(graph.cast(part, np.float32), [1]) for part in parts]
    return graph.add(
        "Concat", *rows, out=described([size, len(rows)], np.float32), axis=1
    )


def metadata(columns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Description of the inputs, as JSON.

    `missing` has words of the table for which a number is to be given as NaN.

    >>> metadata([{"name": "sex", "values": ["f", "m"], "missing": False}])
    [{'name': 'sex', 'type': 'category', 'categories': ['f', 'm']}]
    >>> fitted = {"mean": 0.0, "deviation": 1.0, "missing": True, "odd": ["error"]}
    >>> metadata([{"name": "x"} | fitted])[0]["missing"]
    ['error']
    """
    said = []
    for column in columns:
        about: dict[str, Any] = {"name": column["name"]}
        if "values" in column:
            about |= {"type": "category", "categories": column["values"]}
        else:
            about |= {"type": "number", "unit": "as in the table"}
            about |= {name: column[name] for name in ("mean", "deviation")}
            about |= {"missing": column["odd"]} if "odd" in column else {}
        said.append(about)
    return said


def _says(graph: Graph, x: str, pattern: str, flags: str = "") -> str:
    """Whether a cell matches the pattern, ignoring surrounding spaces."""
    whole = rf"{flags}\s*(?:{pattern})\s*"
    return graph.add("RegexFullMatch", x, pattern=whole, dtype=bool)


def _case(value: str) -> str:
    """True and False match in upper and lower case."""
    return "(?i)" if value in ("True", "False") else ""


def _escaped(text: str) -> str:
    """A pattern that matches this text literally, for RE2."""
    return "".join(
        c if c.isascii() and c.isalnum() else f"\\x{{{ord(c):x}}}" for c in text
    )
