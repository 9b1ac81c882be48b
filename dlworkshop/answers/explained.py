"""Explanations: importance of columns, saliency of images, nearest train examples."""

from typing import Any

import numpy as np

from dlworkshop.answers import importance, mistakes, saliency, unlike
from dlworkshop.answers.limits import units, values
from dlworkshop.data import card
from dlworkshop.data.rows import Rows
from dlworkshop.learn.metrics import own_units
from dlworkshop.report.words import quantity
from dlworkshop.train.predictions import LINKS, labels
from dlworkshop.train.result import Run
from dlworkshop.train.scores import only_array, scores_of
from dlworkshop.types import Batch, Dataset

EXPLAINED = 4  # mistakes, and correct predictions, whose saliency is shown


def of_columns(
    run: Run, dataset: Dataset, headline: str | None
) -> dict[str, Any] | None:
    """Importance of the columns of a table, if the inputs are its encoded rows."""
    columns = unlike.widths(dataset.preprocessing)
    if dataset.test.inputs.shape[1:] != (sum(width for _, width in columns),):
        return None
    kind = run.summary["outputs"]
    name = headline or ("rmse" if kind == "values" else "accuracy")
    sign = -1 if name in ("rmse", "mae", "loss") else 1

    def score(outputs: np.ndarray, targets: np.ndarray) -> float:
        scores = scores_of(kind, *own_units(run.target))
        scores.add(outputs, targets, None)
        return sign * scores.result().ensemble[name]

    members = int(run.chosen.sum())
    found, size = importance.importance(
        lambda inputs: only_array(run.predict(inputs))[run.chosen],
        score,
        dataset.test,
        columns,
        2.0 * run.summary["parameters"] * members,
    )
    if not found:
        return None
    return {
        "score": name,
        "examples": size,
        "columns": [each._asdict() for each in found],
    }


def _wrong(run: Run, test: Batch, said: np.ndarray) -> np.ndarray | None:
    """Indices in test of the worst mistakes of the ensemble, worst first."""
    kind = run.summary["outputs"]
    if kind == "values":
        if said[0].size != test.targets.size:
            return None
        mean, true = values(run, said, test.targets)
        error = np.abs(mean - true)
        worst = (error / np.maximum(error.mean(0), 1e-12)).max(1)
        return np.argsort(-worst, kind="stable")[: mistakes.WORST]
    label = labels(test.targets)
    if kind not in ("logits", "probabilities") or label is None:
        return None
    chance = LINKS[kind](said.astype(np.float64)).mean(0)
    wrong = np.flatnonzero(chance.argmax(-1) != label)
    likely = chance[wrong, label[wrong]]
    return wrong[np.argsort(likely, kind="stable")][: mistakes.WORST]


def of_mistakes(run: Run, dataset: Dataset, said: np.ndarray) -> dict[str, Any] | None:
    """The worst mistakes, with their sources and the nearest examples of train."""
    train, test = dataset.train, dataset.test
    wrong = _wrong(run, test, said)
    if wrong is None or not wrong.size:
        return None
    inputs = Rows(test.inputs, wrong)[:]
    places, far, looked_at = mistakes.nearest(train.inputs, inputs)
    told = _said(run, dataset, said[:, wrong])
    true = _true(run, dataset, np.asarray(test.targets)[wrong])
    near = _true(run, dataset, np.asarray(train.targets)[places.ravel()])
    names = mistakes.names("test", test.inputs, wrong.tolist())
    near_names = mistakes.names("train", train.inputs, places.ravel().tolist())
    shown = card.is_picture(test.inputs)
    rows = []
    for i in range(len(wrong)):
        row: dict[str, Any] = {"name": names[i], "true": true[i], "said": told[i]}
        own = slice(i * places.shape[1], (i + 1) * places.shape[1])
        row["nearest"] = [
            {"name": name, "true": is_, "distance": float(d)}
            for name, is_, d in zip(near_names[own], near[own], far[i], strict=True)
        ]
        if shown:
            pictures = [inputs[i], *Rows(train.inputs, places[i])[:]]
            row["pictures"] = [card.picture(each) for each in pictures]
        rows.append(row)
    return {"rows": rows, "looked_at": looked_at, "of": len(train.targets)}


def _true(run: Run, dataset: Dataset, targets: np.ndarray) -> list[str]:
    """Targets [n, ...] in words."""
    if run.summary["outputs"] != "values":
        label = labels(targets)
        assert label is not None
        names = dataset.classes
        return [names[k] if names else str(k) for k in label.tolist()]
    true = values(run, np.asarray(targets)[None], targets)[1]
    return _in_words(run, true)


def _said(run: Run, dataset: Dataset, outputs: np.ndarray) -> list[str]:
    """Ensemble predictions from outputs [P, n, ...], in words."""
    kind = run.summary["outputs"]
    if kind == "values":
        shape = len(outputs[0]), -1
        mean = values(run, outputs, np.zeros(outputs.shape[1:]).reshape(shape))[0]
        return _in_words(run, mean)
    chance = LINKS[kind](outputs.astype(np.float64)).mean(0)
    names = dataset.classes
    return [
        f"{names[k] if names else k} ({100 * row[k]:.0f} %)"
        for row in chance
        for k in [int(row.argmax())]
    ]


def _in_words(run: Run, rows: np.ndarray) -> list[str]:
    """Numbers [n, D] in the units of the table."""
    own = units(run, rows.shape[1])
    return [
        ", ".join(
            f"{quantity(value, '')} {unit}".strip()
            for value, unit in zip(row, own, strict=True)
        )
        for row in rows.tolist()
    ]


def of_images(run: Run, dataset: Dataset, said: np.ndarray) -> list[dict] | None:
    """Saliency of some images: mistakes, and correct predictions."""
    test, kind = dataset.test, run.summary["outputs"]
    if kind not in ("logits", "probabilities") or not card.is_picture(test.inputs):
        return None
    wrong, label = _wrong(run, test, said), labels(test.targets)
    if wrong is None or label is None:
        return None
    together = LINKS[kind](said.astype(np.float64)).mean(0)  # [N, K]
    best = together.argmax(-1)
    right = np.flatnonzero(best == label)
    _, first = np.unique(label[right], return_index=True)  # one of each class
    index = np.array([*wrong[:EXPLAINED], *right[np.sort(first)][:EXPLAINED]], int)
    images = Rows(test.inputs, index)[:]
    outputs = only_array(run.predict(np.concatenate([*map(saliency.covered, images)])))
    chance = LINKS[kind](outputs[run.chosen].astype(np.float64)).mean(0)  # [M * G², K]
    chance = chance.reshape(len(index), saliency.GRID, saliency.GRID, -1)
    names = mistakes.names("test", test.inputs, index.tolist())
    told = _said(run, dataset, said[:, index])
    true = _true(run, dataset, label[index])
    rows = []
    for i, place in enumerate(index):
        k = best[place]
        fell = together[place, k] - chance[i, ..., k]  # [G, G]
        shown = images[i], saliency.overlaid(images[i], fell)
        rows.append(
            {
                "name": names[i],
                "true": true[i],
                "said": told[i],
                "fell": float(fell.max()),
                "pictures": [card.picture(each) for each in shown],
            }
        )
    return rows
