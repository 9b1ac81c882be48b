"""Validated reading of the files of a run folder.

A run folder may come from an untrusted source or a damaged disk. So each file must be a
regular file of limited size, its content must match the types of `schema`, and its
digest must match the one in the summary, if there is one. Otherwise a UserError is
raised.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from dlworkshop.errors import UserError
from dlworkshop.files import read_own
from dlworkshop.run_files import schema

FORMAT = 1  # of a run folder, in its config; those before it was written have none
MOST_BYTES = 1 << 28  # of a file, such as a data card with many pictures
MOST_LOGGED = 1 << 31  # bytes of the log
DEEPEST = 100  # nested objects and lists
MOST_DIGITS = 300  # of an integer; a larger one does not fit into a float
ANSWERS = "answers.json"  # of `answers.study`, for one state of the parameters
SCHEMAS: dict[str, Any] = {
    "config.json": schema.Config,
    "summary.json": schema.Summary,
    "data_card.json": schema.Card,
    "preprocessing.json": schema.Preprocessing,
    "search.json": schema.SearchFile,
    ANSWERS: schema.Answers,
}
SPLITS = "validation", "test"
DIGESTED = "config.json", "data_card.json", "preprocessing.json", ANSWERS
DIGESTED_INSIDE = "summary.json", "search.json"  # a file's digest is its own entry
LOG = "metrics.jsonl"
# entries of a config that a continued run may change
UNSAID = "derived", "identity", "num_epochs"
REPLACE = "restore a copy of it, or run the experiment again in another folder"
MEND = "run the same experiment again with this folder, which restores it"
RETRAIN = (
    "restore a copy of it, or remove the checkpoints and run the same experiment again "
    "with this folder, which trains anew"
)


def read(
    folder: Path, name: str, summary: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The object in a JSON file of a run folder, validated by SCHEMAS.

    The summary has the digests of the other files.

    Raises:
        UserError: if the file is missing, invalid, or differs from its digest, or the
            folder was written by a newer version.
    """
    path = folder / name
    value = parsed(contents(path), path, SCHEMAS[name])
    written = value.get("derived", {}) if name == "config.json" else {}
    if (found := written.get("format", FORMAT)) > FORMAT:
        raise UserError(
            f"'{folder}' was written by a newer version of dlworkshop (format {found} "
            f"of run folders; this version reads up to {FORMAT}): upgrade dlworkshop"
        )
    known = (value if name in DIGESTED_INSIDE else summary or {}).get("sha256", {})
    if known.get(name, own := digest(name, value)) != own:
        advice = REPLACE if name == "search.json" else MEND
        raise UserError(f"{path} is not as it was written: {advice}")
    if name == "summary.json" and value.get("settings"):  # older ones averaged all
        best = value["settings"][0]
        value |= {split: best[split] for split in SPLITS if split in best}
    return value


def read_log(folder: Path, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` that belong to a summary; [] if it is missing.

    A run that is continued for more epochs has written more lines. An incomplete last
    line is ignored.

    Raises:
        UserError: if a line is invalid, or the log differs from its digest.
    """
    path, known = folder / LOG, summary.get("sha256", {}).get(LOG)
    if not path.exists():
        if known is None:
            return []
        raise UserError(f"{path} is missing: {RETRAIN}")
    content = contents(path)
    if known is not None:
        content = content[: summary.get("log_bytes")]
        if hashlib.sha256(content).hexdigest() != known:
            raise UserError(f"{path} is not as it was written: {RETRAIN}")
    whole = content[: content.rfind(b"\n") + 1]
    lines = log_lines(whole, path)
    rows = (
        line.get(split) or {}
        for line in lines
        for split in ("train", "validation", "hparams")
    )
    sizes = {len(values) for row in rows for values in row.values()}
    for source in (line["source"] for line in lines if "source" in line):
        sizes |= {len(source), *(i + 1 for i in source if i >= len(source))}
    check_members(path, sizes, summary)
    return lines


def check_members(path: Path, sizes: set[int], summary: Mapping[str, Any]) -> None:
    """Check that a file has as many members as the summary.

    Raises:
        UserError: if the numbers differ.
    """
    members = len(summary.get("population") or ())
    if len(sizes) > 1 or (members and sizes - {members}):
        found = " and ".join(map(str, sorted(sizes)))
        raise UserError(
            f"'{path}' has {found} members, and summary.json has {members}: {MEND}"
        )


def log_lines(content: bytes, path: Path) -> list[dict[str, Any]]:
    """Each line of a log as an object."""
    return [
        parsed(line, f"{path} line {number}", schema.LogLine)
        for number, line in enumerate(content.splitlines(), 1)
    ]


def contents(path: Path) -> bytes:
    """The contents of a file of a run folder, limited in size."""
    try:
        return read_own(path, MOST_LOGGED if path.name == LOG else MOST_BYTES)
    except FileNotFoundError:
        raise UserError(
            f"'{path.parent}' is not the folder of a finished run: {path.name} is "
            "missing."
        ) from None
    except OSError as error:
        raise UserError(
            f"'{path}' cannot be read ({error.strerror}): {REPLACE}"
        ) from None


def parsed(content: bytes, where: object, wanted: Any) -> dict[str, Any]:
    """A JSON object from bytes, validated by a schema.

    >>> parsed(b'{"step": "x"}', "the log", schema.LogLine)
    Traceback (most recent call last):
    dlworkshop.errors.UserError: 'the log' is not valid (Expected `int`, got `str` - at
    `$.step`): restore a copy of it, or run the experiment again in another folder
    """
    try:
        text = content.decode()
        value = json.loads(text, parse_int=_whole)
        if re.search(r"\\u[dD][89a-fA-F]", text):  # a surrogate; invalid if unpaired
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise UserError(f"'{where}' is not JSON ({error}): {REPLACE}") from None
    if not isinstance(value, dict):
        raise UserError(f"'{where}' holds no JSON object: {REPLACE}")
    conforms(value, wanted, where)
    return value


def check_writable(what: str, value: Mapping[str, Any]) -> None:
    """Refuse what could not be written as JSON, or not be read again.

    >>> check_writable("the config", {"activation": abs})
    Traceback (most recent call last):
    dlworkshop.errors.UserError: the config cannot be written as JSON (Object of type
    builtin_function_or_method is not JSON serializable): give numbers, text, lists
    and dicts
    """
    try:
        parsed(json.dumps(value).encode(), what, dict)
    except (TypeError, ValueError) as error:
        why = error.__cause__ or error.__context__ or error
        raise UserError(
            f"{what} cannot be written as JSON ({why}): give numbers, text, lists and "
            "dicts"
        ) from None


def conforms(value: Any, wanted: Any, where: object) -> None:
    """Raise a UserError if a value does not conform to a schema.

    >>> conforms(json.loads('{"a":' * 100 + "1" + "}" * 100), dict, "the log")
    >>> conforms(json.loads('{"a":' * 101 + "1" + "}" * 101), dict, "the log")
    Traceback (most recent call last):
    dlworkshop.errors.UserError: 'the log' is not valid (it is more than 100 objects and
    lists deep): ...
    """
    try:
        if not _is_flat(value, DEEPEST):
            raise ValueError(f"it is more than {DEEPEST} objects and lists deep")
        msgspec.convert(value, wanted)
        if wanted is schema.Preprocessing and value["preprocessing"] is not None:
            _check_conversion(value["preprocessing"])
        if wanted is schema.Card:
            _check_counts(value)
        if wanted is schema.Summary:
            _check_settings(value.get("settings") or [])
    except (ValueError, msgspec.MsgspecError) as error:
        said = str(error).rstrip(".")
        raise UserError(f"'{where}' is not valid ({said}): {REPLACE}") from None


def _check_conversion(conversion: Mapping[str, Any]) -> None:
    required = schema.CONVERSION_KEYS.get(conversion.get("kind", ""), {"kind"})
    if missing := required - conversion.keys():
        raise ValueError(f"it has no {', '.join(sorted(missing))}")
    for column in conversion.get("columns", ()):
        if "values" not in column and not {"mean", "deviation"} <= column.keys():
            raise ValueError(f"its column '{column['name']}' has no values and no mean")
    if "mean" in conversion and [len(conversion["mean"])] != conversion.get("shape"):
        raise ValueError("it lacks a mean for each number")
    if len(conversion.get("mean", ())) != len(conversion.get("deviation", ())):
        raise ValueError("it lacks a deviation for each mean")


def _check_counts(card: Mapping[str, Any]) -> None:
    wanted = {len(card.get("classes", ()))}
    if {len(each) for each in card.get("counts", {}).values()} - wanted:
        raise ValueError("it lacks a count for each class")


def _check_settings(settings: Sequence[Mapping[str, Any]]) -> None:
    for split in SPLITS:
        if len({frozenset(row.get(split, ())) for row in settings}) > 1:
            raise ValueError(f"its settings have different scores on {split}")


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


def _is_flat(value: Any, most: int) -> bool:
    parts = value.values() if isinstance(value, dict) else value
    inner = [part for part in parts if isinstance(part, (dict, list))]
    return most > 0 and all(_is_flat(part, most - 1) for part in inner)


def digest(name: str, value: Mapping[str, Any]) -> str:
    """SHA-256 of the contents of a JSON file, independent of formatting.

    It excludes entries that may change: UNSAID in a config, and the digest of a file in
    the file itself (DIGESTED_INSIDE).
    """
    if name == "config.json":
        value = {k: v for k, v in value.items() if k not in UNSAID}
    if name in DIGESTED_INSIDE:
        others = {k: v for k, v in value.get("sha256", {}).items() if k != name}
        value = {**value, "sha256": others}
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
