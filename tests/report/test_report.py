"""The page: well formed, self-contained, true to the run, and there in any weather."""

import html
import html.parser
import json
import math
import re

import numpy as np
import pytest

from dlworkshop.errors import UserError
from dlworkshop.report import figures, notebook, read, svg, write
from dlworkshop.report.series import Series
from dlworkshop.train.history import History

VOID = {"meta", "br", "wbr", "link", "img", "input", "hr"}
HEADINGS = [
    "Claims",
    "Key numbers",
    "Settings",
    "Learning curves",
    "Confusion matrix",
    "Each class",
    "Worst mistakes",
    "Members",
    "Hyper-parameters",
    "Model",
    "Timings",
    "Configuration",
    "Environment",
]


class Page(html.parser.HTMLParser):
    """Parses a report; remembers elements, exact numbers and what is not balanced."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.unbalanced, self.words = [], [], [], []
        self.feed(text)
        self.unbalanced += self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), [name for name, _ in attrs]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), [name for name, _ in attrs]))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        if not {"style", "script"} & {*self.open}:
            self.words.append(data)

    def find(self, tag):
        return [attributes for name, attributes, _ in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())


def render(folder):
    text = write(folder).read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture(scope="module")
def report(any_run):
    """The page of a run of each kind: its folder, text and parsed elements."""
    return any_run, *render(any_run)


def test_is_well_formed(report):
    _, text, page = report
    assert page.unbalanced == []
    assert "</br>" not in text
    assert "<!--" not in text  # they would repeat names outside of any element
    for tag, attributes, names in page.elements:
        assert len(names) == len(attributes), f"an attribute twice in {tag}"
    assert page.find("html")[0]["lang"] == "en"
    assert any(meta.get("name") == "viewport" for meta in page.find("meta"))


def test_ids_are_unique_and_references_resolve(report):
    _, text, page = report
    ids = [a["id"] for _, a, _ in page.elements if "id" in a]
    assert len(ids) > 50
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    wanted |= {a["aria-labelledby"] for a in page.find("svg")}
    assert wanted
    assert wanted <= set(ids)


def test_refers_to_nothing_outside(report):
    _, text, page = report
    assert not re.search(r"https?:|\bsrc=|@import|<script .|<link|<iframe", text)
    assert "//" not in re.sub(r"base64,[^\"]*", "", text)
    links = [a[k] for _, a, _ in page.elements for k in a if k.endswith("href")]
    assert links
    assert all(link.startswith(("#", "data:image/")) for link in links)


def test_every_drawing_is_an_image_with_a_title(report):
    _, text, page = report
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(drawings) == len(page.find("svg")) > 5
    for drawing in drawings:
        assert re.match(r'<svg role="(img|group)"', drawing)
        assert re.search(r"<title id=[^>]*>[^<]{5,}</title>", drawing)


def test_what_scrolls_can_be_reached_by_keyboard(report):
    boxes = [a for a in report[2].find("div") if a.get("class") == "scroll"]
    assert len(boxes) >= 5
    assert len(report[2].find("table")) == len(boxes) - 2  # and layers and matrix
    for box in boxes:
        assert box["tabindex"] == "0"
        assert box["role"] == "region"
        assert box["aria-label"]


def test_parts_come_in_order(sweep):
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", render(sweep)[0])
    assert headings == HEADINGS


def test_numbers_are_those_of_the_summary(report):
    folder, _, page = report
    summary = json.loads((folder / "summary.json").read_text())
    exact = [float(a["value"]) for a in page.find("data")]
    told = (summary["settings"] or [summary])[0]  # of several settings the best
    wanted = [told[s][n]["mean"] for s in ("test", "validation") for n in told[s]]
    wanted += [summary["parameters"], summary["examples_per_second"]]
    wanted += summary["seconds"].values()
    wanted += [m["test"][n] for m in summary["population"] for n in m["test"]]
    assert set(wanted) <= set(exact)


def test_the_finding_comes_first(population, edit):
    edit(
        population / "summary.json",
        test={"accuracy": {"mean": 0.99124, "sem": 0.00113, "n": 7}},
    )
    text, page = render(population)
    finding = "7 of 8 models reach 99.1 % ± 0.1 % test accuracy"
    assert f"<title>digits population: {finding}</title>" in text
    assert page.text.index("Key numbers") > page.text.rindex(finding)
    assert page.text.count(finding) == 2
    assert re.search('<p class="finding">7 of 8', text)


def test_one_member_has_no_error_bar(single):
    _, page = render(single)
    assert re.search(r"1 model reaches [\d.]+ % test accuracy", page.text)
    assert "no error bar" in page.text
    assert "±" not in page.text
    assert "nan" not in page.text.lower()


def test_quarantined_members_are_marked_and_count_nowhere(population):
    text, page = render(population)
    marked = re.findall(r'<tr class="bad">.*?</tr>', text, re.DOTALL)
    assert len(marked) == 1
    assert "loss not finite at step 30" in marked[0]
    assert "mean of 7" in page.text
    assert "6 finished, 1 stopped early, 1 quarantined" in page.text


def test_curves_end_at_the_mean_of_each_healthy_members_last_value(population):
    last = {}
    for line in (population / "metrics.jsonl").read_text().splitlines():
        for split in ("train", "validation"):
            row = json.loads(line).get(split, {"loss": []})["loss"]
            last |= {(split, i): v for i, v in enumerate(row) if v is not None}
    text, page = render(population)
    train, validation = (
        np.mean([last[split, i] for i in range(8) if i != 5])
        for split in ("train", "validation")
    )
    title = f"Loss ends at {train:#.3g} on train, {validation:#.3g} on validation"
    assert title in text
    assert "Dashed: quarantined" in page.text


def test_confusion_is_the_mean_over_healthy_members(population, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        figures, "confusion", lambda name, counts, *_: drawn.append(counts) or "<svg/>"
    )
    write(population)
    with np.load(population / "predictions.npz") as found:
        label, said = found["label"], found["prediction"]
    counts = np.zeros((10, 10))
    for member in (0, 1, 2, 3, 4, 6, 7):
        for true, answer in zip(label, said[member], strict=True):
            counts[true, answer] += 1 / 7
    np.testing.assert_allclose(drawn[0], counts, rtol=1e-12)


def test_mistakes_name_truth_and_votes(population):
    with np.load(population / "predictions.npz") as found:
        arrays = dict(found)
    worst = arrays["worst_index"][0]
    label = arrays["label"][worst]
    # of the seven finite members three say the next class, two each the others
    ahead = np.array([1, 2, 2, 1, 0, 3, 0, 1])
    arrays["prediction"][:, worst] = (label + ahead) % 10
    np.savez(population / "predictions.npz", **arrays)
    _, page = render(population)
    said = np.delete(arrays["prediction"][:, worst], 5)
    loss = np.delete(arrays["loss"][:, worst], 5).mean()
    wrong = said[said != label]
    answer = np.bincount(wrong).argmax()
    votes = (wrong == answer).sum()
    expected = f"True: {label} {votes} of 7 say {answer} loss {loss:#.3g}"
    assert expected in page.text


def test_sweep_shows_each_value_with_its_spread(sweep, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        figures, "sweep", lambda *args: seen.update(value=args[3], result=args[4]) or ""
    )
    _, page = render(sweep)
    assert "Hyper-parameters" in page.text
    np.testing.assert_array_equal(seen["value"], np.repeat([0.01, 0.1, 1.0], 3))
    np.testing.assert_array_equal(np.isnan(seen["result"]), [False] * 8 + [True])


def test_trials_are_a_table_and_lines(population, edit):
    rows = [
        {
            "trial": i,
            "bucket": 0,
            "hparams": {"width": 2**i, "act": "ab"[i % 2], "fixed": 1},
            "finite": 1.0,
            "validation": {"loss": {"mean": loss, "sem": 0.01, "n": 2}},
        }
        for i, loss in enumerate([0.1, 0.2, 0.4, None])
    ]
    told = {"trials": rows, "importance": {"width": 0.75, "act": 0.25}, "seeds": [0, 1]}
    edit(population / "summary.json", sweep=told | {"buckets": 2}, sha256={})
    _, page = render(population)
    assert "4 trials with 2 seeds each in 2 programs" in page.text
    assert "width 1 and act a, the best of 4 trials by validation loss" in page.text
    assert "Trial Width Act Seeds Validation loss" in " ".join(page.text.split())
    assert "The best trial has a validation loss of 0.100" in page.text
    assert "Dashed: no member stayed finite." in page.text
    assert "Width mattered most" in page.text
    assert "fixed" not in page.text[page.text.index("4 trials with") :][:2000].lower()


def test_no_sweep_without_different_values(population):
    assert "Hyper-parameters" not in render(population)[1].text


def test_whatever_a_run_is_called_is_only_text(make, edit):
    nasty = '<b>&"$x_{$'
    folder = make([0.1], [0, 1], classes=(nasty, "b", "c"))
    edit(folder / "config.json", **{nasty: {nasty: nasty}})
    claims = [{"statement": nasty, "verdict": nasty}]
    edit(folder / "summary.json", experiment=nasty, table=nasty, claims=claims)
    population = json.loads((folder / "summary.json").read_text())["population"]
    population[0] |= {"note": nasty, "status": nasty, "hparams": {nasty: 1.0}}
    population[1] |= {"hparams": {nasty: 2.0}}
    edit(folder / "summary.json", population=population)
    text, page = render(folder)
    assert page.unbalanced == []
    assert "<b>" not in text
    assert page.text.count(nasty) > 8
    assert "&lt;b&gt;&amp;&quot;" in text


@pytest.mark.parametrize(
    ("name", "note", "gone"),
    [
        ("metrics.jsonl", "", ["Learning curves"]),
        (
            "predictions.npz",
            "contains no predictions for the test split",
            ["Confusion matrix", "Each class", "Worst mistakes"],
        ),
    ],
)
def test_what_is_missing_has_no_part_of_the_page(population, name, note, gone):
    (population / name).unlink()
    text, page = render(population)
    assert note in page.text
    assert page.unbalanced == []
    rest = {"Hyper-parameters", "Settings", *gone}
    wanted = [heading for heading in HEADINGS if heading not in rest]
    if note:
        wanted = ["Notes", *wanted]
    assert wanted == re.findall(r"<h2[^>]*>(.*?)</h2>", text)


def test_a_single_metrics_line(population):
    path = population / "metrics.jsonl"
    path.write_text(path.read_text().splitlines()[9] + "\n")  # the end of an epoch
    _, page = render(population)
    assert "a single measurement is a dot" in page.text
    assert "curve-loss-title" in [a.get("id") for a in page.find("title")]


def test_a_summary_that_says_nothing(population):
    (population / "summary.json").write_text('{"experiment": "x"}')
    (population / "config.json").write_text("{}")
    (population / "predictions.npz").unlink()
    (population / "metrics.jsonl").unlink()
    text, page = render(population)
    assert "This run has no test loss." in page.text
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", text) == ["Notes"]


def test_all_members_quarantined(make):
    folder = make([0.1], [0, 1], quarantined=(0, 1))
    _, page = render(folder)
    assert "No result: all 2 models were quarantined." in page.text
    assert "no member stayed finite" in page.text
    assert "Confusion matrix" not in page.text
    assert "All members were quarantined, so there are no predictions" in page.text


def test_null_and_nan_are_the_same_absence(population, edit):
    path = population / "summary.json"
    missing = {"mean": None, "sem": None, "n": 0}
    edit(path, test={"accuracy": missing, "loss": missing})
    with_null = render(population)[0]
    assert "This run has no test accuracy." in with_null
    assert "The test split was read, but this score is not known." in with_null
    assert "Nothing was measured on the test split" not in with_null
    edit(path, test={"accuracy": missing | {"mean": math.nan}, "loss": missing})
    assert render(population)[0] == with_null


def test_regression_has_its_own_metric_and_no_nats(population, edit):
    (population / "predictions.npz").unlink()
    edit(population / "config.json", metric="rmse", loss="squared_error")
    stat = {"mean": 0.3121, "sem": 0.0213, "n": 8}
    edit(population / "summary.json", test={"rmse": stat, "loss": stat})
    _, page = render(population)
    assert "8 models have a test RMSE of 0.312 ± 0.021" in page.text
    assert "nats" not in page.text


@pytest.mark.parametrize(
    "image", [np.zeros((1, 4), np.float32), np.zeros((1, 4, 4, 2), np.uint8)]
)
def test_features_are_not_drawn(population, image):
    with np.load(population / "predictions.npz") as found:
        arrays = dict(found)
    arrays |= {"worst_image": image, "worst_index": np.array([0])}
    np.savez(population / "predictions.npz", **arrays)
    assert "Worst mistakes" not in render(population)[1].text


def test_twice_the_same_bytes(sweep, drawn):
    first = write(sweep).read_bytes()
    drawn.clear()
    assert write(sweep).read_bytes() == first
    assert sorted(p.name for p in sweep.iterdir()) == [
        "config.json",
        "metrics.jsonl",
        "predictions.npz",
        "report.html",
        "summary.json",
    ]


def test_a_failed_write_leaves_the_old_page(population):
    old = write(population).read_bytes()
    (population / "summary.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        write(population)
    assert (population / "report.html").read_bytes() == old


def test_a_kill_between_writing_and_naming_leaves_the_old_page(population, monkeypatch):
    old = write(population).read_bytes()
    edit_title = (population / "summary.json").read_text().replace("digits pop", "new")
    (population / "summary.json").write_text(edit_title)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write(population)
    assert (population / "report.html").read_bytes() == old
    assert not list(population.glob(".*"))


def test_a_large_population_stays_a_small_file(make):
    folder = make([0.1], list(range(16)), num_epochs=50)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 500
    assert write(folder).stat().st_size < 1_500_000


def test_many_members_share_few_lines(make):
    folder = make([0.1], list(range(300)), num_epochs=2)
    text, page = render(folder)
    assert "50 of 300 members have a line" in page.text
    assert len(text) < 1_500_000


@pytest.mark.parametrize("name", ["config.json", "summary.json"])
def test_a_folder_that_is_no_run_says_what_is_missing(population, name):
    (population / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        write(population)
    assert not (population / "report.html").exists()


def test_no_folder_at_all(tmp_path):
    with pytest.raises(UserError, match="is not a folder: give the folder of a run"):
        write(tmp_path / "nowhere")


def test_broken_predictions_are_the_users_to_mend(population):
    (population / "predictions.npz").write_bytes(b"PK not a zip")
    with pytest.raises(UserError, match=r"predictions\.npz"):
        write(population)


def test_a_torn_last_line_is_left_out_and_a_repeated_step_counts_once(make):
    rows = [
        {"step": 2, "epoch": 0.2, "train": {"loss": [9.0, None]}},
        {"step": 4, "epoch": 0.4, "train": {"loss": [2.0, 3.0]}},
        {"step": 2, "epoch": 0.2, "train": {"loss": [1.0, None]}},
    ]
    folder = make([0.1], [0, 1])
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(lines + '{"step": 6, "tra')
    series = read.read_run(folder).series["train", "loss"]
    np.testing.assert_array_equal(series.step, [2, 4])
    np.testing.assert_array_equal(series.value, [[1.0, np.nan], [2.0, 3.0]])
    (folder / "metrics.jsonl").write_text("garbage\n" + lines)
    with pytest.raises(UserError, match="line 1"):
        read.read_run(folder)


def test_many_points_become_means_over_time():
    value = np.arange(10.0).reshape(10, 1)
    value[3] = np.nan
    series = Series(np.arange(10), np.arange(10) / 5, value, np.array([True]))
    coarse = series.averaged(2)
    assert coarse.value[:, 0].tolist() == [(0 + 1 + 2 + 4) / 4, 7.0]
    assert coarse.step.tolist() == [4, 9]
    assert series.averaged(10) is series


def test_a_copy_has_the_past_of_its_source_in_a_notebook_too(monkeypatch):
    seen = []
    monkeypatch.setattr(figures, "learning_curves", lambda *a: seen.append(a[3]) or "")
    first = {"step": 1, "epoch": 1.0, "train": {"loss": [9.0, 2.0]}, "source": [1, 1]}
    last = {"step": 2, "epoch": 2.0, "train": {"loss": [1.0, 0.5]}}
    notebook.curves(History([first, last]))
    assert seen[0]["train"].value.tolist() == [[2.0, 2.0], [1.0, 0.5]]


def test_an_axis_of_less_than_a_decade_has_numbers_not_formulas():
    with svg.drawing("short", "Less than a decade", (4, 3)) as (_, axes, _):
        axes.set(yscale="log")
        axes.plot([1, 2], [0.2, 0.9])
    labels = [label.get_text() for label in axes.get_yticklabels(which="both")]
    assert "0.3" in labels and not any("$" in label for label in labels)


def test_all_metrics_are_shown_and_the_first_is_the_title(population, edit):
    stat = {"mean": 1.25, "sem": 0.05, "n": 8}
    edit(
        population / "config.json",
        metric="perplexity",
        metrics={"perplexity": "lower", "top_3": "higher"},
        units={"perplexity": "choices"},
    )
    summary = json.loads((population / "summary.json").read_text())
    for row in summary["population"]:
        row["test"] = {"perplexity": 1.25, "top_3": 0.875, "loss": 0.5}
    split = {"perplexity": stat, "top_3": {**stat, "mean": 0.875}, "loss": stat}
    summary |= {"test": split, "validation": split}
    edit(population / "summary.json", **summary)
    text, page = render(population)
    assert "8 models have a test perplexity of 1.250 ± 0.050 choices" in text
    for words in ("Perplexity 1.250", "choices lower is better", "Top 3 0.875"):
        assert words in page.text
    for head in ("Test perplexity", "Test top 3", "Test loss"):
        assert head in page.text
    assert "accuracy" not in page.text.split("Configuration")[0].split("Confusion")[0]


@pytest.mark.parametrize(
    ("better", "best"), [("lower", "0.01"), ("higher", "1"), (None, None)]
)
def test_a_sweep_names_the_best_in_the_metrics_direction(sweep, edit, better, best):
    summary = json.loads((sweep / "summary.json").read_text())
    for row in summary["population"]:
        rate = row["hparams"]["learning_rate"]
        row["test"] = {"error": 10 * rate, "loss": 1.0}
    edit(
        sweep / "summary.json",
        population=summary["population"],
        test={"error": {"mean": 3.7, "sem": 0.1, "n": 8}},
        settings=[],
    )
    edit(sweep / "config.json", metric="error", metrics={"error": better})
    text, _ = render(sweep)
    if best is None:
        assert "Test error against learning rate" in text
    else:
        most = {"lower": "lowest", "higher": "highest"}[better]
        assert f"Test error is {most} at learning rate {best}: " in text


def test_no_metric_at_all_is_told_by_the_loss(population, edit):
    edit(population / "config.json", metric="loss", metrics={})
    stat = {"mean": 0.5, "sem": 0.02, "n": 7}
    edit(population / "summary.json", test={"loss": stat}, validation={"loss": stat})
    _, page = render(population)
    assert "7 of 8 models have a test loss of 0.500 ± 0.020 nats" in page.text
    ids = [a["id"] for _, a, _ in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert page.text.count("Test loss") == 2  # of the tiles, and of the members


def test_a_test_split_that_was_not_read(population, edit):
    (population / "predictions.npz").unlink()
    summary = json.loads((population / "summary.json").read_text())
    del summary["test"]
    for row in summary["population"]:
        row["validation"] = row.pop("test")
    summary["validation"]["accuracy"]["mean"] = 0.75
    (population / "summary.json").write_text(json.dumps(summary))
    _, page = render(population)
    assert "7 of 8 models reach 75.0 %" in page.text
    assert "validation accuracy" in page.text
    assert "The test split was not read, so there are no predictions" in page.text
    assert "Test " not in page.text.split("Configuration")[0]


def test_an_interrupted_run_says_so(population, edit):
    edit(population / "summary.json", interrupted=True)
    _, page = render(population)
    assert "Training was interrupted after 120 steps." in page.text


def test_outputs_that_nobody_knows_get_a_sentence(population, edit):
    (population / "predictions.npz").unlink()
    edit(population / "summary.json", outputs=None)
    _, page = render(population)
    assert "The kind of the model outputs is unknown" in page.text
    assert "Calibration" not in page.text and "Confusion" not in page.text


def test_classes_without_names_get_a_sentence(population, edit):
    (population / "predictions.npz").unlink()
    edit(population / "summary.json", outputs="logits")
    assert "The data set has no class names" in render(population)[1].text


def test_what_was_monitored_is_in_the_table_of_members(population, edit):
    summary = json.loads((population / "summary.json").read_text())
    for row in summary["population"]:
        row["best_validation_accuracy"] = row.pop("best_validation_loss") / 10
    edit(
        population / "summary.json",
        monitor="accuracy",
        **{"population": summary["population"]},
    )
    _, page = render(population)
    assert "Best validation accuracy" in page.text
    exact = [float(a["value"]) for a in page.find("data")]
    assert summary["population"][0]["best_validation_accuracy"] in exact


def test_a_member_that_is_left_over_is_not_called_the_only_one(make):
    _, page = render(make([0.1], [0, 1, 2], quarantined=(0, 2)))
    assert "A single member of 3 has a finite score and no error bar" in page.text


def test_a_loss_of_zero_is_the_lowest(sweep):
    path = sweep / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if "validation" in row:
            row["validation"]["loss"][:3] = [0.0] * 3  # of the rate 0.01
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "Validation loss ends lowest at learning rate 0.01" in render(sweep)[1].text
