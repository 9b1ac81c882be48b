"""Predictions for a drawing, mistakes, filters and verdicts, as HTML."""

from collections.abc import Sequence

import numpy as np

from dlworkshop.data.card import picture
from dlworkshop.lab.digit import Explanation
from dlworkshop.report.elements import Html, join, table, tag
from dlworkshop.report.words import count
from dlworkshop.train.result import Run
from dlworkshop.types import Array, Dataset
from dlworkshop.verify import GradientReport

MOST_SHOWN = 24  # images of one kind


def answered(found: Explanation, image: np.ndarray, run: Run, dataset: Dataset) -> Html:
    """The predictions for an image, their saliency, and the nearest training images."""
    names = list(dataset.classes) or [str(k) for k in range(len(found.ensemble))]
    best = int(found.ensemble.argmax())
    spread = found.chance.std(0, ddof=int(len(found.chance) > 1))  # [K]
    told = f"{found.ensemble[best]:.2f} ± {spread[best]:.2f}"
    head = tag("p", "The ensemble predicts ", tag("strong", names[best]), f" ({told})")
    words = (
        f"Entropy: {found.entropy:.2f} nats (maximum {np.log(len(names)):.2f}), of "
        f"which {found.disagreement:.2f} are due to disagreement between the members."
    )
    near = [
        _shown(dataset.train.inputs[place], f"{names[k]}, distance {far:.2f}")
        for place, k, far in found.nearest
    ]
    seen = [
        _shown(image, "input of the network"),
        _shown(found.saliency, "orange: important for the prediction"),
    ]
    return tag(
        "div",
        head,
        tag("p", words),
        tag("div", *seen, class_="lab-strip"),
        tag("h3", "Probability of each class"),
        tag("p", "Mean over the members; ± one standard deviation."),
        _bars(names, found.ensemble, spread),
        tag("h3", "The nearest training images"),
        tag("div", *near, class_="lab-strip"),
        tag("h3", "Each member"),
        _members(found, names, run),
    )


def _members(found: Explanation, names: Sequence[str], run: Run) -> Html:
    rows = []
    for member, chance in zip(found.members.tolist(), found.chance, strict=True):
        row = run.summary["population"][member]
        k = int(chance.argmax())
        settings = row.get("hparams") or {}
        numbers = [f"{value:g}" for value in settings.values()]
        seed = row.get("seed", "")
        rows.append([member, seed, *numbers, names[k], f"{chance[k]:.3f}"])
    settings = run.summary["population"][0].get("hparams") or {}
    head = ["member", "seed", *settings, "prediction", "probability"]
    return table("Predictions of the members", head, rows)


def _bars(names: Sequence[str], mean: np.ndarray, spread: np.ndarray) -> Html:
    rows = []
    order = np.argsort(-mean, kind="stable")[:10]
    for k in sorted(order.tolist()):
        bar = tag("meter", value=f"{mean[k]:.4f}", min=0, max=1, aria_label=names[k])
        rows.append([names[k], bar, f"{mean[k]:.3f} ± {spread[k]:.3f}"])
    return table("Probabilities", [], rows)


def told(run: Run) -> Html:
    """The `repr` of a run as paragraphs."""
    return join(tag("p", line) for line in repr(run).splitlines())


def mistaken(
    images: Array, pairs: Sequence[tuple[int, int]], members: int, names: Sequence[str]
) -> Html:
    """Images of test examples of a class that members take for a class.

    Args:
        images: of the test split.
        pairs: (index in test, number of members) as of `explore.mistaken`; all are
            counted, and the first of them shown.
        members: the number of all members.
        names: the true and the predicted class.
    """
    true, said = names
    if not pairs:
        return tag("p", f"No member takes {true} for {said}.")
    shown = [
        _shown(images[place], f"{votes} of {members}, test {place}")
        for place, votes in pairs[:MOST_SHOWN]
    ]
    right = "rightly " if true == said else ""
    words = f"{count(len(pairs), 'example')} of {true} {right}taken for {said}"
    if len(pairs) > len(shown):
        words += f"; the first {len(shown)} are shown"
    return tag("div", tag("p", words), tag("div", *shown, class_="lab-strip"))


def matrix(counts: np.ndarray, names: Sequence[str]) -> Html:
    """A confusion matrix [K, K] as a table; cells with 0 are empty."""
    rows = [
        [name, *(f"{n:.3g}" if n else "" for n in row)]
        for name, row in zip(names, counts, strict=True)
    ]
    caption = tag("p", "True class by predicted class, mean over the members")
    return join([caption, table("Confusion matrix", ["", *names], rows)])


def strip(images: np.ndarray) -> Html:
    """Images [F, h, w, 3] uint8 in rows."""
    shown = [_shown(each, "", "lab-small") for each in images]
    return tag("div", *shown, class_="lab-strip")


def verdict(report: GradientReport) -> Html:
    """The verdict of a gradient check, the culprits, and the table."""
    first, *rest = str(report).splitlines()
    blamed = [
        tag(
            "li", tag("strong", each.name), f" at {each.where}", tag("br"), each.finding
        )
        for each in report.culprits
    ]
    kind = "lab-right" if report.ok else "lab-wrong"
    parts = [tag("p", report.verdict, class_=f"lab-verdict {kind}"), tag("p", first)]
    if blamed:
        parts += [tag("h3", "Culprit"), tag("ul", *blamed)]
    table_of_it = [line for line in rest if not line.startswith("culprit: ")]
    parts.append(tag("pre", "\n".join(table_of_it), tabindex=0))
    return tag("div", *parts)


def _shown(image: np.ndarray, words: str, kind: str = "") -> Html:
    """An image [H, W, C], uint8 or float in [0, 1], with a caption."""
    href = f"data:image/png;base64,{picture(np.asarray(image))}"
    drawn = tag("img", src=href, alt=words)
    return tag("figure", drawn, tag("figcaption", words), class_=kind or None)
