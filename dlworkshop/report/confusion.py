"""The confusion matrix of the test split, or a part of it for many classes."""

from collections.abc import Mapping, Sequence

import numpy as np

from dlworkshop.report import figures
from dlworkshop.report.elements import Html, chart, data, join, number, table, tag
from dlworkshop.report.names import in_picture, in_tables, numbered
from dlworkshop.report.predictions import Mistakes, Predictions
from dlworkshop.report.svg import picture
from dlworkshop.report.words import count, quantity

MOST_SHOWN = 30  # classes; with more classes only MOST_CONFUSED of them have a row
MOST_CONFUSED = 20
MOST_OF_CELL = 4  # images
MOST_PAIRS = 10  # of classes, in the table beside a large matrix


def confusion(found: Predictions) -> Html:
    """A matrix of the mean over the members, and for many classes a table."""
    counts = mean_counts(found)
    names = found.class_names(len(counts))
    mistakes = counts * (1 - np.eye(len(counts)))
    members = count(len(found.prediction), "member")
    if not mistakes.any():
        return tag("p", f"No mistakes on the test split, mean of {members}.")
    short, everyone = in_picture(names), np.arange(len(names))
    shown = everyone
    if len(names) > MOST_SHOWN:
        shown = most_confused(mistakes, MOST_CONFUSED)
    others = np.setdiff1d(everyone, shown)
    part = counts[np.ix_(shown, shown)]
    if others.size:
        part = np.column_stack([part, counts[np.ix_(shown, others)].sum(1)])
    drawn, title = [short[k] for k in shown], _title(counts, mistakes, short)
    columns = [*drawn, "another"][: part.shape[1]]
    links, cells = _cells(found, shown, names)
    figure = chart(
        figures.confusion("confusion", part, drawn, title, links),
        _caption(members, len(shown), names, links),
        inches=figures.confusion_size(columns, title)[0],
    )
    many = len(names) > figures.FEW
    return join([figure, *cells, *([_pairs(counts, mistakes, names)] * many)])


def most_confused(mistakes: np.ndarray, most: int) -> np.ndarray:
    """The classes of the most frequent confusions, in ascending order.

    Args:
        mistakes: [K, K], true class by predicted class, 0 on the diagonal.
        most: how many classes to return.

    >>> most_confused(np.array([[0, 0, 1], [0, 0, 0], [5, 2, 0]]), 2).tolist()
    [0, 2]
    """
    pairs = np.triu(mistakes + mistakes.T)
    found: dict[int, None] = {}
    for place in np.argsort(-pairs, axis=None, kind="stable"):
        pair = [int(k) for k in np.unravel_index(place, pairs.shape)]
        if not pairs[tuple(pair)] or len({*found, *pair}) > most:
            break
        found |= dict.fromkeys(pair)
    return np.array(sorted(found), int)


def mean_counts(found: Predictions) -> np.ndarray:
    """[K, K] examples, true by predicted class, mean over the members."""
    said = found.prediction  # [P, N]
    size = max(len(found.classes), int(found.label.max()) + 1, int(said.max()) + 1)
    counts = np.zeros((size, size))
    valid = (found.label >= 0) & (said >= 0)
    true = np.broadcast_to(found.label, said.shape)[valid]
    np.add.at(counts, (true, said[valid]), 1)
    return counts / len(said)


def _title(counts: np.ndarray, mistakes: np.ndarray, short: Sequence[str]) -> str:
    """The most frequent confusion, as a share of its true class."""
    share = mistakes / np.maximum(counts.sum(axis=1, keepdims=True), 1e-9)
    i, j = np.unravel_index(share.argmax(), share.shape)
    part = quantity(share[i, j], "accuracy")
    return (
        f"Most common mistake: {short[i]} taken for {short[j]} ({part} of {short[i]})"
    )


def _cells(
    found: Predictions, shown: np.ndarray, names: Sequence[str]
) -> tuple[dict[tuple[int, int], str], list[Html]]:
    """Links from the cells of the matrix to images, and the images.

    Args:
        found: predictions of the test split.
        shown: the classes in the matrix.
        names: [K] of all classes.
    """
    kept = found.mistakes
    if kept is None or not is_picture(kept.image):
        return {}, []
    said = found.prediction[:, kept.example]  # [P, S]
    true, titles = found.label[kept.example], in_tables(names)
    links, cells = {}, []
    for row, i in enumerate(shown):
        for column, j in enumerate(shown):
            votes = (said == j).sum(0) * (true == i) * (i != j)  # [S]
            order = [int(s) for s in np.argsort(-votes, kind="stable") if votes[s]]
            if not order:
                continue
            name = f"cell-{row}-{column}"
            links[row, column] = name
            items = [
                tag("li", _mistake(kept, s, name, f"{votes[s]} of {len(said)}"))
                for s in order[:MOST_OF_CELL]
            ]
            title = tag("h3", titles[i], " taken for ", titles[j])
            pictures = tag("ol", *items, class_="mistakes")
            box = {"class_": "cell", "id_": f"confusion-{name}", "tabindex": -1}
            cells.append(tag("div", title, pictures, **box))
    return links, cells


def _mistake(kept: Mistakes, s: int, name: str, votes: str) -> Html:
    title = f"Test example {kept.example[s]}"
    svg = picture(f"{name}-{s}", kept.image[s], title)
    caption = tag("figcaption", tag("span", title), tag("span", f"{votes} say so"))
    return tag("figure", Html(svg), caption)


def is_picture(images: np.ndarray) -> bool:
    """Whether an array holds images [N, H, W, C] uint8 with one or three channels."""
    return images.ndim == 4 and images.dtype == np.uint8 and images.shape[-1] in (1, 3)


def _caption(
    members: str,
    shown: int,
    names: Sequence[str],
    links: Mapping[tuple[int, int], str],
) -> str:
    text = f"Test split, mean of {members}. Numbers: examples."
    text += " Colour: share of the true class (row)."
    if links:
        text += f" Click on a cell to see up to {MOST_OF_CELL} of its examples below."
    if shown < len(names):
        text += (
            f" The matrix shows the {shown} of {len(names)} classes that are confused "
            "most often; 'another' stands for all other classes."
        )
    if any(numbered(names)):
        text += " A number before a name is the class number in the table below."
    return text


def _pairs(counts: np.ndarray, mistakes: np.ndarray, names: Sequence[str]) -> Html:
    """A table of the most frequent confusions."""
    order = np.argsort(-mistakes, axis=None, kind="stable")[:MOST_PAIRS]
    rows, titles = [], in_tables(names)
    for i, j in zip(*np.unravel_index(order, mistakes.shape), strict=True):
        if not mistakes[i, j]:
            break
        share = float(mistakes[i, j] / counts[i].sum())
        examples = data(f"{mistakes[i, j]:.3g}", float(mistakes[i, j]))
        rows.append([titles[i], titles[j], examples, number(share, "accuracy")])
    head = ["True class", "Taken for", "Examples", "Of the true class"]
    return table("Most common mistakes", head, rows)
