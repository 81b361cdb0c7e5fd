"""`fastssl report`: accuracies side by side, the curves as a picture, and the page about all."""

import csv
import html
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import chromium
from matplotlib.figure import Figure
from PIL import Image

from fastssl.reporting import figures
from fastssl.reporting.drawing import Drawing
from fastssl.reporting.page import write_report
from fastssl.training.predictions import read_predictions
from fastssl.training.record import RunFolder

SCRIPT = "<script>alert(1)</script>"
LARGEST = 5 * 2**20  # bytes


@pytest.fixture
def runs(trained, tmp_path):
    """The same run under two seeds with known accuracies, and one that is not finished."""
    for name, seed, accuracy in (("a", 0, 0.95), ("b", 1, 0.97)):
        shutil.copytree(trained[0], tmp_path / name)
        file = tmp_path / name / "run.json"
        description = json.loads(file.read_text())
        description["config"]["seed"] = seed
        file.write_text(json.dumps(description))
        rows = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        last = json.loads(rows[-1]) | {"accuracy/test/network": accuracy}
        text = "\n".join([*rows[:-1], json.dumps(last)]) + "\n"
        (tmp_path / name / "metrics.jsonl").write_text(text)
    unfinished = tmp_path / "unfinished"
    shutil.copytree(tmp_path / "a", unfinished)
    (unfinished / "predictions.safetensors").unlink()
    lines = (unfinished / "metrics.jsonl").read_text().splitlines(keepends=True)
    (unfinished / "metrics.jsonl").write_text("".join(lines[:2]))
    return tmp_path


@pytest.fixture(scope="module")
def hostile(fastssl, tmp_path_factory):
    """A run on a folder of images whose classes, files and own name are markup and formulas."""
    root = tmp_path_factory.mktemp("hostile")
    rng = np.random.default_rng(0)
    classes = (SCRIPT, "<img src=x onerror=alert(1)>", "$a&b\"'_{{7*7}}")
    (root / "data" / "<b").mkdir(parents=True)
    with (root / "data" / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "label"])
        for i in range(24):
            name = f"<b/>{i}.png"
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)  # nothing to learn
            Image.fromarray(pixels).save(root / "data" / name)
            rows.writerow([name, classes[i % 3]])
    run = root / "_$x<script>alert(2)<script>"
    options = ("--data", root / "data", "--data-dir", root / "cache", "--image-size", 16)
    short = ("--steps", 2, "--device", "cpu", "--set", "data.labeled_rows=6", "--holdout", 0.5)
    result = fastssl("train", "supervised", *options, *short, "--out", run)
    assert result.exit_code == 0, result.output
    return run, classes


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the text outside of style."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.found and self.found[-1][0] != "style":
            self.text += data

    def handle_endtag(self, tag):
        self.text += " " * (tag in ("td", "th"))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.found if name == tag]


def check_self_contained(path: Path) -> Elements:
    """Every picture is in the page and described, no address leaves it, nothing runs in it."""
    text = path.read_text()
    assert len(text) < LARGEST
    elements = Elements(path)
    for image in elements.all("img"):
        kind = image["src"].split(",")[0]
        assert kind in ("data:image/png;base64", "data:image/jpeg;base64")
        assert image["alt"].strip()
    assert "://" not in text
    assert "@import" not in text
    assert "url(" not in text
    tags = {tag for tag, _ in elements.found}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form", "svg"}
    ids = {attributes["id"] for _, attributes in elements.found if "id" in attributes}
    for tag, attributes in elements.found:
        assert not [key for key in attributes if key.startswith("on")], tag
        for key in ("href", "srcset", "action", "background", "poster"):
            address = attributes.get(key, "")
            assert not address or address.removeprefix("#") in ids
    return elements


def test_accuracies_stand_side_by_side(fastssl, runs):
    result = fastssl("report", runs / "a", runs / "b", runs / "unfinished")
    assert result.exit_code == 0, result.output
    header, a, b, unfinished, mean, missing, page = result.stdout.splitlines()
    assert a.split() == ["a", "muscle", "digits", "20", "0", "network", "95.00"]
    assert b.split()[-1] == "97.00"
    assert len(header) == len(a) == len(b) == len(unfinished)
    assert unfinished.endswith("at step 20 of 40")
    assert mean == "muscle on digits, 20 labels, network: 96.00 ± 1.41 % over 2 seeds"
    assert missing.startswith("not in the report: unfinished: confusion, calibration and mistakes")
    assert page == f"report: {runs / 'report.html'}"


def test_the_plot_is_where_it_was_asked_for(fastssl, runs):
    out = runs / "plot.png"
    result = fastssl("report", runs / "a", "--out", out)
    assert result.stdout.splitlines()[-1] == f"plot: {out}"
    pixels = np.asarray(Image.open(out).convert("L"))
    assert pixels.shape[1] > 1000
    assert (pixels < 128).sum() > 2000  # lines and letters, not an empty canvas
    assert not (runs / "a" / "report.html").read_text().count("plot.png")


def test_the_page_of_three_runs_holds_all_it_shows(fastssl, runs):
    assert fastssl("report", runs / "a", runs / "b", runs / "unfinished").exit_code == 0
    elements = check_self_contained(runs / "report.html")
    text = " ".join(elements.text.split())
    for part in (
        "96.00 ± 1.41",
        "mean ± std, 2 seeds",
        "at step 20 of 40",
        "Reliability diagram",
        "Most confident mistakes",
        "unlabeled images",
        "optim.weight_decay",
        "threads",
        "predictions for the test part are written at its end",
    ):
        assert part in text
    captions = [image["alt"] for image in elements.all("img")]
    for title, shown in (
        ("accuracy (%)", ("a: ", "b: ")),  # the third was not evaluated before it stopped
        ("cross entropy", ("a: ", "b: ", "unfinished: ")),
        ("mutual information", ("a: ", "b: ", "unfinished: ")),
    ):
        (caption,) = (c for c in captions if c.startswith(title))
        assert all(name in caption for name in shown)
    wrong = (found := read_predictions(runs / "a" / "predictions.safetensors")).classes["network"]
    mistakes = min(24, int((wrong != found.labels).sum()))
    assert sum("taken for" in caption for caption in captions) == 2 * mistakes


def test_the_page_counts_what_the_network_says(fastssl, trained, tmp_path):
    assert fastssl("report", trained[0], "--out", tmp_path / "page.html").exit_code == 0
    accuracy = json.loads(fastssl("evaluate", trained[0], "--json").stdout)["networks"]["network"]
    found = read_predictions(trained[0] / "predictions.safetensors")
    right = found.classes["network"] == found.labels
    assert right.double().mean().item() == accuracy["accuracy"]
    text = " ".join(Elements(tmp_path / "page.html").text.split())
    assert f"{int(right.sum())} of 360 test images right" in text
    threes = right[found.labels == 3]
    percent = f"{100 * threes.double().mean():.2f}"
    assert f"3 2 {len(threes)} {int(threes.sum())} {percent}" in text


def test_the_surest_mistakes_come_first(trained):
    found = read_predictions(trained[0] / "predictions.safetensors")
    rows, confidences = found.mistakes.rows, found.confidences["network"]
    assert (found.classes["network"][rows] != found.labels[rows]).all()
    assert (confidences[rows].diff() <= 0).all()
    wrong = (found.classes["network"] != found.labels).nonzero().flatten()
    rest = confidences[[i for i in wrong.tolist() if i not in rows.tolist()]]
    assert not len(rest) or rest.max() <= confidences[rows].min()
    from fastssl.data.sources import load_source

    assert torch.equal(found.mistakes.images, load_source("digits").test_images[rows])


def test_names_from_disk_are_text(hostile):
    run, classes = hostile
    elements = check_self_contained(run / "report.html")
    for name in (*classes, run.name):
        assert name in elements.text
    files = [image["alt"] for image in elements.all("img") if "taken for" in image["alt"]]
    assert files
    assert all(any(name in alt for name in classes) and alt.startswith("<b/>") for alt in files)


def test_a_page_without_the_data_is_the_same(fastssl, hostile, tmp_path):
    run, _ = hostile
    moved = tmp_path / run.name
    shutil.copytree(run, moved)
    shutil.move(run.parent / "data", run.parent / "elsewhere")
    try:
        assert fastssl("report", moved).exit_code == 0
    finally:
        shutil.move(run.parent / "elsewhere", run.parent / "data")
    here, there = (
        (path / "report.html").read_text().replace(html.escape(str(path)), "")
        for path in (moved, run)
    )
    assert here == there


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("predictions.safetensors", None, "predictions.safetensors is not in the folder"),
        ("predictions.safetensors", b"{", "not predictions that fastssl wrote"),
        ("split.json", None, "which images were labeled"),
        ("split.json", b'{"labeled": 3}', "which images were labeled"),
    ],
)
def test_what_is_missing_is_said(fastssl, runs, name, data, message):
    file = runs / "a" / name
    file.unlink() if data is None else file.write_bytes(data)
    result = fastssl("report", runs / "a")
    assert result.exit_code == 0, result.output
    assert message in result.stdout
    assert message in check_self_contained(runs / "a" / "report.html").text


def test_many_classes_become_a_picture(runs, tmp_path, monkeypatch):
    from fastssl.training.evaluation import Evaluation
    from fastssl.training.predictions import write_predictions

    labels = torch.arange(40).repeat(5)
    classes, confidences = labels.roll(1), torch.linspace(0.1, 1, 200)
    write_predictions(
        runs / "a" / "predictions.safetensors",
        Evaluation({}, {}, {"network": classes}, {"network": confidences}),
        labels,
        step=40,
        class_names=tuple(f"class {c}" for c in range(40)),
        images_at=lambda rows: torch.randint(256, (len(rows), 3, 300, 200), dtype=torch.uint8),
        name_of=str,
    )
    figure = Figure()
    figure.subplots().plot([0, 1])
    drawn = [Drawing("its-own", f"What {SCRIPT} does", figure)]
    monkeypatch.setattr(figures, "FIGURES", (lambda folders: drawn,))
    write_report([RunFolder.open(runs / "a")], tmp_path / "page.html")
    elements = check_self_contained(tmp_path / "page.html")
    captions = [image["alt"] for image in elements.all("img")]
    assert any("each of the 40 classes" in caption for caption in captions)
    assert any(SCRIPT in caption for caption in captions)
    assert "class 1 for class 0 (5)" in elements.text
    assert sum(caption.startswith(("199:", "198:")) for caption in captions) == 2


def test_in_a_browser(fastssl, runs, hostile, tmp_path):
    """No complaint, every picture there, nothing wider than a phone or a desk's window."""
    pages = [runs / "report.html", hostile[0] / "report.html"]
    assert fastssl("report", runs / "a", runs / "b", runs / "unfinished").exit_code == 0
    with chromium(tmp_path / "profile") as page:
        for path in pages:
            for width in (390, 1280):
                page.open(path, width)
                assert page.evaluate("document.images.length") > 3
                empty = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
                assert page.evaluate(empty) == 0
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                small = "[...document.querySelectorAll('td, th, p, figcaption')].filter(e => "
                small += "parseFloat(getComputedStyle(e).fontSize) < 12).length"
                assert page.evaluate(small) == 0
        assert page.complaints == []
        outside = [url for url in page.requests if not url.startswith(("file:", "data:"))]
        assert outside == []


def test_an_algorithms_own_figures_stand_beside_the_plot(fastssl, refused, tmp_path):
    run, out = tmp_path / "run", tmp_path / "plot.png"
    few = ("--labels", "40", "--steps", "4", "--set", "data.unlabeled_rows=20", "--device", "cpu")
    assert fastssl("train", "ccn", "--data", "two_spirals", *few, "--out", run).exit_code == 0
    result = fastssl("report", run, "--out", out)
    assert result.exit_code == 0, result.output
    for name in ("networks", "boundaries-full-two_spirals-40-labels"):
        path = tmp_path / f"plot-{name}.png"
        assert f"plot: {path}\n" in result.stdout
        assert Image.open(path).size[0] > 400
    assert "Decision boundaries of net 1 (above) and CCN (below)" in result.stdout
    page = (run / "report.html").read_text()
    assert page.count("Decision boundaries of net 1 (above) and CCN (below)") == 2  # seen and said
    for command in (("predict", run, out), ("export", run, "--out", tmp_path / "a.pt2")):
        assert "points, not images" in refused(*command)
    next((run / "outputs").glob("plane-*")).write_bytes(b"{")
    result = fastssl("report", run)
    assert "not in the report: figures of the algorithm's own: " in result.stdout


def test_bad_input(refused, runs, tmp_path):
    assert "is not a run folder" in refused("report", tmp_path / "absent")
    assert "Missing argument" in refused("report")
    out = runs / "no" / "plot.png"
    assert "not a file name in an existing folder" in refused("report", runs / "a", "--out", out)
    assert "ends in .html or .png" in refused("report", runs / "a", "--out", runs / "plot.pdf")
    (runs / "a" / "run.json").write_text('{"format": 1}')
    assert "not a configuration" in refused("report", runs / "a")
    (runs / "b" / "metrics.jsonl").write_text("")
    assert "nothing was logged yet" in refused("report", runs / "b")
