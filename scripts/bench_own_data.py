"""How accurate is `autofit`, compared with scikit-learn's models and their defaults?

    python scripts/bench_own_data.py --repeats 5 --penguins penguins.csv

Every repeat draws a new test split of a fifth, the same for all systems. scikit-learn's
models learn from all the rest; `autofit` takes its validation split, or folds, from the
rest. For all of them numbers are standardised and categories one-hot encoded, with
statistics of the rest. Scores are accuracies, or R2 for numeric targets, in percent;
the score of `autofit` is that of its ensemble.

With three minutes for each call of `autofit`, all seven tables and five repeats take up
to two hours on two cores; `--only iris wine` and `--minutes` shorten this. Every score
is a line in the file `--json`, and a second call with this file skips the scores in it.

    python scripts/bench_own_data.py --images FOLDER --minutes 40 --json images.json

instead runs `autofit` once on a folder of images, and the other models on the pixels;
all are evaluated on the test split. An interrupted run is resumed from `--workdir`.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from sklearn import datasets, ensemble, linear_model, neural_network
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dlworkshop import autofit, data
from dlworkshop.types import Dataset
from dlworkshop.workshop.script import use_all_cores

OURS, MLP = "dlworkshop", "MLP"
Pair = tuple[np.ndarray, np.ndarray]  # columns [N, D], target [N]
TEST, VALIDATION = 0.2, 0.15


class Task(NamedTuple):
    """A table: columns [N, D], in which text may be, and classes or numbers [N]."""

    columns: pd.DataFrame
    target: np.ndarray
    classes: bool


def tasks(penguins: Path | None) -> dict[str, Callable[[], Task]]:
    """Name -> a function that reads the table."""

    def bundled(load: Callable, classes: bool) -> Callable[[], Task]:
        def read() -> Task:
            x, y = load(return_X_y=True)
            return Task(pd.DataFrame(x), y, classes)

        return read

    def friedman() -> Task:
        x, y = datasets.make_friedman1(1000, noise=1.0, random_state=0)
        return Task(pd.DataFrame(x), y, False)

    def birds() -> Task:
        table = pd.read_csv(penguins).dropna(subset=["species"])
        return Task(table.drop(columns="species"), table["species"].to_numpy(), True)

    found = {
        "iris": bundled(datasets.load_iris, True),
        "wine": bundled(datasets.load_wine, True),
        "breast cancer": bundled(datasets.load_breast_cancer, True),
        "digits": bundled(datasets.load_digits, True),
        "diabetes": bundled(datasets.load_diabetes, False),
        "friedman1": friedman,
    }
    return found if penguins is None else {**found, "penguins": birds}


def encoded(rest: pd.DataFrame, test: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Both tables as numbers: missing ones become the mean, categories one-hot."""
    parts: list[list[np.ndarray]] = [[], []]
    for name in rest:
        if pd.api.types.is_numeric_dtype(rest[name]):
            mean = rest[name].mean()
            for part, table in zip(parts, (rest, test), strict=True):
                part.append(table[name].fillna(mean).to_numpy(np.float32))
            continue
        for value in sorted(rest[name].dropna().unique()):
            for part, table in zip(parts, (rest, test), strict=True):
                part.append((table[name] == value).to_numpy(np.float32))
    return np.stack(parts[0], 1), np.stack(parts[1], 1)


def others(classes: bool, seed: int) -> dict[str, Any]:
    """Models of scikit-learn with their defaults."""
    if classes:
        return {
            "linear": linear_model.LogisticRegression(),
            "forest": ensemble.RandomForestClassifier(random_state=seed),
            "boosting": ensemble.HistGradientBoostingClassifier(random_state=seed),
            MLP: neural_network.MLPClassifier(random_state=seed),
        }
    return {
        "linear": linear_model.Ridge(),
        "forest": ensemble.RandomForestRegressor(random_state=seed),
        "boosting": ensemble.HistGradientBoostingRegressor(random_state=seed),
        MLP: neural_network.MLPRegressor(random_state=seed),
    }


def ours(
    x: np.ndarray,
    y: np.ndarray,
    test: tuple[np.ndarray, np.ndarray],
    classes: bool,
    minutes: float,
) -> dict[str, Any]:
    """The score of the ensemble of `autofit`, and the chosen setting."""
    if not classes:
        y, test = y.astype(np.float32), (test[0], test[1].astype(np.float32))
    dataset = data.from_arrays(x, y, test=test, validation_size=VALIDATION)
    run = autofit(dataset, minutes=minutes, quiet=True)
    chosen = run.summary["search"]["chosen"]
    return {
        "score": run.summary["ensemble"]["accuracy" if classes else "r2"],
        "chosen": f"{chosen['candidate']} {chosen['hparams']}",
        "members": run.summary["members"],
        "notes": run.summary["notes"],
    }


def fitted(model: Any, train: Pair, test: Pair) -> dict[str, float]:
    """The score of a scikit-learn model, and the seconds of fitting and scoring."""
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of too few iterations
        whole = make_pipeline(StandardScaler(), model).fit(*train)
    score = float(whole.score(*test))
    return {"score": score, "seconds": time.perf_counter() - started}


def measure(task: Task, seed: int, minutes: float, known: set[str]) -> list[dict]:
    """A row for each system without a score yet, on one split."""
    rows = np.arange(len(task.target))
    kept, held = train_test_split(
        rows,
        test_size=TEST,
        random_state=seed,
        stratify=task.target if task.classes else None,
    )
    x, x_test = encoded(task.columns.iloc[kept], task.columns.iloc[held])
    y, y_test = task.target[kept], task.target[held]
    found = [
        {"system": name, **fitted(model, (x, y), (x_test, y_test))}
        for name, model in others(task.classes, seed).items()
        if name not in known
    ]
    if OURS not in known:
        started = time.perf_counter()
        row = ours(x, y, (x_test, y_test), task.classes, minutes)
        row |= {"system": OURS, "seconds": time.perf_counter() - started}
        found.append(row)
    return found


def of_images(
    dataset: Dataset, minutes: float, workdir: Path
) -> Iterator[dict[str, Any]]:
    """Rows of one split: `autofit`, then the others on train and validation pixels."""
    run = autofit(dataset, minutes=minutes, workdir=workdir, experiment=dataset.name)
    told = run.summary
    yield {
        "system": OURS,
        "score": told["ensemble"][told["search"]["headline"]],
        "members": told["members"],
        "steps": told["steps"],
        "parameters": told["parameters"],
        "examples": [split.num_examples for split in dataset[:3]],
        "network": {k: v for k, v in run.model.config.items() if k != "standardized"},
        "minutes": minutes,
        **{k: told[k] for k in ("search", "ensemble", "test", "baselines", "budget")},
        **{k: told[k] for k in ("seconds", "examples_per_second", "notes", "versions")},
    }
    (x, y), (x_more, y_more), test = (
        (
            np.asarray(split.inputs, np.float32).reshape(split.num_examples, -1),
            np.asarray(split.targets),
        )
        for split in (dataset.train, dataset.validation, dataset.test)
    )
    rest = np.concatenate([x, x_more]), np.concatenate([y, y_more])
    for name, model in others(True, 0).items():
        yield {"system": name, **fitted(model, rest, test)}


def table(rows: list[dict]) -> str:
    """Mean and standard error in percent, ranks, and points behind the best."""
    frame = pd.DataFrame(rows)
    systems = [*dict.fromkeys(frame["system"])]
    lines = ["| table | n | " + " | ".join(systems) + " |"]
    lines.append("|---" * (len(systems) + 2) + "|")
    ranks, behind, ahead = [], [], []
    for name, own in frame.groupby("table", sort=False):
        scores = own.pivot(index="repeat", columns="system", values="score").dropna()
        scores = 100 * scores[systems]
        mean, n = scores.mean(), len(scores)
        cells = [
            f"{mean[s]:.1f} ± {scores[s].std(ddof=1) / np.sqrt(n):.1f}"
            if n > 1
            else f"{mean[s]:.1f}"
            for s in systems
        ]
        lines.append(f"| {name} | {n} | " + " | ".join(cells) + " |")
        ranks.append(stats.rankdata(-mean.round(6)))
        behind.append((mean.max() - mean).to_numpy())
        if {OURS, MLP} <= set(systems):
            ahead.append(mean[OURS] >= mean[MLP])
    for title, values in (("mean rank", ranks), ("points behind the best", behind)):
        numbers = " | ".join(f"{value:.2f}" for value in np.mean(values, 0))
        lines.append(f"| {title} | {len(values)} | {numbers} |")
    if ahead:
        lines.append(
            f"\n{OURS} is at least as good as {MLP} on {sum(ahead)} of {len(ahead)} "
            "tables"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repeats", type=int, default=5, help="number of splits of each table"
    )
    parser.add_argument(
        "--minutes", type=float, default=3.0, help="budget of each call of autofit"
    )
    parser.add_argument("--only", nargs="+", help="names of the tables to measure")
    parser.add_argument("--penguins", type=Path, help="CSV file of the penguins")
    parser.add_argument("--json", type=Path, help="file of scores, extended if present")
    parser.add_argument(
        "--images", type=Path, help="a folder with one folder of images per class"
    )
    parser.add_argument(
        "--image-size", type=int, help="height and width of all images in pixels"
    )
    parser.add_argument(
        "--workdir",
        type=Path,
        default=Path("runs/bench_own_data"),
        help="run folder, with --images",
    )
    asked = parser.parse_args()
    use_all_cores(2)
    if asked.images is not None:
        dataset = data.load(asked.images, image_size=asked.image_size)
        found = []
        for row in of_images(dataset, asked.minutes, asked.workdir):
            found.append(row)
            if asked.json is not None:
                asked.json.write_text(json.dumps(found, indent=1) + "\n")
            score, size = 100 * row["score"], dataset.test.num_examples
            print(f"{row['system']}: {score:.2f} % of {size:,} test images", flush=True)
        return
    rows: list[dict] = []
    if asked.json is not None and asked.json.is_file():
        rows = [json.loads(line) for line in asked.json.read_text().splitlines()]
    for name, read in tasks(asked.penguins).items():
        if asked.only and name not in asked.only:
            continue
        task = read()
        for repeat in range(asked.repeats):
            here = [r for r in rows if (r["table"], r["repeat"]) == (name, repeat)]
            known = {row["system"] for row in here}
            for row in measure(task, repeat, asked.minutes, known):
                whole = {"table": name, "repeat": repeat, **row}
                print(json.dumps(whole), flush=True)
                rows.append(whole)
                if asked.json is not None:
                    with asked.json.open("a") as file:
                        file.write(json.dumps(whole) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
