"""The data card of a run: counts, pictures, skipped files, warnings."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlworkshop.data.card import warnings
from dlworkshop.data.content import SPLITS
from dlworkshop.report import terminal
from dlworkshop.report.elements import Html, fold, folded, join, note, table, tag
from dlworkshop.report.names import in_table, in_tables, one_line
from dlworkshop.report.read import RunFolder
from dlworkshop.report.words import count, plain


def data_card(run: RunFolder) -> Html | None:
    """The section on the data; None without a data card."""
    card = run.data_card
    if card is None:
        return None
    parts = [
        tag("p", sentence(card)),
        *(tag("p", "⚠ ", text, class_="bad") for text in warnings(card)),
        _counts(card),
        *_details(card),
    ]
    return join(part for part in parts if part)


def show(card: dict[str, Any], folder: Path) -> None:
    """Print a data card; its warnings were printed by `load`."""
    terminal.print_line(sentence(card))
    if card.get("counts"):
        terminal.show(*counts(card))
    if made := facts(card):
        terminal.show(("", ""), made)
    for file, reason in card.get("skipped") or []:
        terminal.print_line(f"! {file}: {reason}")
    terminal.print_line(f"stored in {folder}")


def augmentation(run: RunFolder) -> Html | None:
    """Training examples before and after augmentation."""
    card = run.data_card or {}
    rows = card.get("augmented")
    if not rows:
        return None
    strengths = card.get("augment")
    words = f"Strengths: {plain(strengths)}. " if isinstance(strengths, dict) else ""
    text = (
        "Left: the original image. The others: random augmentations of it; training "
        f"draws a new one in each step. {words}Validation and test are never augmented."
    )
    strips = [
        strip(row, f"augmented-{i}", f"a training example and augmentations of it, {i}")
        for i, row in enumerate(rows)
    ]
    return join([note(text), *strips])


def sentence(card: dict[str, Any]) -> str:
    """The data in one sentence: name, splits, shape and classes."""
    sizes = card.get("sizes_of_splits") or {}
    parts = ", ".join(f"{sizes[name]:,} {name}" for name in SPLITS if name in sizes)
    shape = card.get("shape") or []
    arrays = shape if isinstance(shape, dict) else {"": shape}
    each = " and ".join(
        f"{name} {' x '.join(map(str, sizes))}".strip()
        for name, sizes in arrays.items()
    )
    classes = card.get("classes") or []
    kinds = f" in {count(len(classes), 'class')}"
    return (
        f"{plain(card.get('name'))}: {parts} examples of {each} numbers"
        f"{kinds if classes else ''}."
    )


def counts(card: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Examples of each class in each split: the header, and the rows of a table."""
    found = card["counts"]
    names = [name for name in SPLITS if name in found]
    rows: list[list[Any]] = [
        [label, *(f"{found[name][k]:,}" for name in names)]
        for k, label in enumerate(card["classes"])
    ]
    rows.append(["all", *(f"{sum(found[name]):,}" for name in names)])
    return ["Class", *(name.capitalize() for name in names)], rows


def _counts(card: dict[str, Any]) -> Html | None:
    """A row for each class: the number of examples in each split, and pictures."""
    examples = card.get("examples") or []
    if not card.get("counts"):
        return None
    head, rows = counts(card)
    if examples:
        head.append("Training examples")
        for k, row in enumerate(rows):
            title = f"training examples of {one_line(row[0])}"
            pictures = examples[k] if k < len(examples) else []
            row.append(strip(pictures, f"examples-{k}", title) if pictures else "")
    named = [*in_tables(card["classes"]), "all"]
    shown = [[name, *row[1:]] for name, row in zip(named, rows, strict=True)]
    title = "Examples of each class"
    return folded(title, title, head, shown)


def strip(pictures: Sequence[str], name: str, title: str) -> Html:
    """Pictures (PNG in base64) side by side as one drawing."""
    images = "".join(
        f'<image x="{i * 1.06:.2f}" width="1" height="1"'
        f' href="data:image/png;base64,{content}"/>'
        for i, content in enumerate(pictures)
        if re.fullmatch(r"[A-Za-z0-9+/=]*", content)  # base64 cannot end the attribute
    )
    width = 1.06 * len(pictures) - 0.06
    return Html(
        f'<svg role="img" class="strip" aria-labelledby="{name}-title"'
        f' style="max-width:{3.5 * len(pictures):g}rem" viewBox="0 0 {width:.2f} 1">'
        f"{tag('title', title, id=f'{name}-title')}{images}</svg>"
    )


def facts(card: dict[str, Any]) -> list[list[str]]:
    """How the data were prepared, as rows of a table."""
    rows = [
        [key.capitalize(), plain(card[key])]
        for key in ("source", "prepared", "splits", "target")
        if card.get(key)
    ]
    if card.get("sizes"):
        more = card.get("num_sizes", 0) - len(card["sizes"])
        text = ", ".join(f"{size} ({number:,})" for size, number in card["sizes"])
        rows.append(["Sizes", text + (f" and {more} other sizes" if more > 0 else "")])
        modes = ", ".join(f"{mode} ({number:,})" for mode, number in card["modes"])
        rows.append(["Modes", modes])
    if groups := card.get("groups"):
        text = f"{groups['groups']} by '{groups['by']}', the largest of "
        text += f"{count(groups['largest'], 'example')}; "
        rows.append(
            ["Groups", f"{text}{groups['in_several_splits']} in several splits"]
        )
    if (copies := card.get("copies")) is not None:
        text = f"{copies['examples']}; {copies['across_splits']} contents in several"
        rows.append(["Exact copies", f"{text} splits"])
    return rows


def _details(card: dict[str, Any]) -> list[Html]:
    """How the data were prepared, and the names of skipped files."""
    rows = facts(card)
    parts = [table("How the data were prepared", [], rows)] if rows else []
    if card.get("columns"):
        rows = [
            [in_table(c["name"]), c["about"], plain(c["missing"])]
            for c in card["columns"]
        ]
        total = card.get("num_columns", len(rows))
        title = f"{count(total, 'column')} to learn from"
        if total > len(rows):
            title += f", the first {len(rows)}"
        head = ["Column", "What it is", "Missing"]
        parts.append(folded(title, "Columns", head, rows))
    copies = card.get("copies") or {}
    for key, title in (
        ("across", "The same content in several splits"),
        ("torn", "The same content under several classes"),
    ):
        if copies.get(key):
            rows = [[str(i + 1), ", ".join(c)] for i, c in enumerate(copies[key])]
            parts.append(fold(title, table(title, ["", "Examples"], rows)))
    if card.get("skipped"):
        title = "Skipped files"
        rows = [[name, reason] for name, reason in card["skipped"]]
        less = card.get("num_skipped", 0) - len(rows)
        shown = table(title, ["File", "Reason"], rows)
        more = note(f"and {less} more") if less > 0 else ""
        parts.append(fold(title, join([shown, more])))
    return parts
