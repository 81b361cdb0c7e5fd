"""CCN's figures from tiny runs: the panels, labels and data that each must have.

C classes, M test images, D features.
"""

import json

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer

from fastssl.data.sources import load_source
from fastssl.errors import InputError
from fastssl.recipes.experiment import configure
from fastssl.recipes.runs import fit, start
from fastssl.recipes.trained import load_trained
from fastssl.reporting import ccn
from fastssl.reporting.ccn import CCNRun, figures
from fastssl.reporting.drawing import COLOURS
from fastssl.reporting.results import results
from fastssl.training.evaluation import predict_all
from fastssl.training.outputs import (
    FinalOutputs,
    grid,
    read_final,
    read_planes,
    write_final,
)
from fastssl.training.record import RunFolder, read_metrics

SMALL = {
    "steps": 6,
    "log_every": 2,
    "eval.every": 2,
    "data.labeled_rows": 10,
    "data.unlabeled_rows": 20,
    "device": "cpu",
}


def trained(path, algorithm, data, labels, **changes):
    config = configure(algorithm, data, {**SMALL, "data.labels": labels, **changes})
    run = start(config, path)
    fit(run)
    return run.folder


@pytest.fixture(scope="module")
def spirals(tmp_path_factory):
    """Runs of three variants on two_spirals by name; tests only read them."""
    root = tmp_path_factory.mktemp("spirals")
    names = {"full": "ccn", "baseline": "ccn-baseline", "no-ml": "ccn-no-ml"}
    return {key: trained(root / key, name, "two_spirals", 40) for key, name in names.items()}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The full model and the baseline on the digits, tested on 60 of them."""
    root = tmp_path_factory.mktemp("digits")
    few = {"eval.images": 60, "steps": 16, "eval.every": 16}
    names = {"full": "ccn", "baseline": "ccn-baseline"}
    return {key: trained(root / key, name, "digits", 20, **few) for key, name in names.items()}


def as_run(folder):
    return CCNRun(folder, tuple(results(folder)))


def logged(folder, key):
    return [row[key] for row in read_metrics(folder.metrics_jsonl) if key in row]


def bars_of(panel):
    return [container for container in panel.containers if isinstance(container, BarContainer)]


def percent_wrong(folder, network):
    return [100 - 100 * x for x in logged(folder, f"accuracy/test/{network}")]


def test_planes_are_what_the_networks_say(spirals):
    folder = spirals["full"]
    planes = read_planes(folder)
    assert [plane.step for plane in planes] == [2, 4, 6]
    experiment, _ = load_trained(folder.path)
    size = planes[-1].classes["net1"].shape[0]
    points = grid(planes[-1].reach, size)
    assert points[0].tolist() == pytest.approx([-planes[-1].reach] * 2)
    assert points[1, 0] > points[0, 0]
    assert points[1, 1] == points[0, 1]
    said = predict_all(experiment.algorithm, [experiment.inputs(points)])
    for network, classes in planes[-1].classes.items():
        assert torch.equal(classes.flatten().long(), said[network].argmax(1))
    assert sorted(planes[-1].labeled.tolist()) == list(experiment.split.labeled)


def test_boundaries(spirals):
    run = as_run(spirals["no-ml"])
    drawing = ccn.boundaries(run)
    panels = np.array(drawing.figure.axes).reshape(2, 3)
    assert [row[0].get_ylabel() for row in panels] == ["net 1", "CCN"]
    planes = read_planes(run.folder)
    for network, row in zip(("net1", "ccn"), panels, strict=True):
        errors = percent_wrong(run.folder, network)
        for panel, plane, error in zip(row, planes, errors, strict=True):
            assert panel.get_title() == f"step {plane.step}: {error:.2f} %"
            (image,) = panel.images
            assert np.array_equal(image.get_array(), plane.classes[network])
            assert image.origin == "lower"
            *classes, labeled = panel.lines
            assert sum(len(line.get_xdata()) for line in classes) == 2000
            assert labeled.get_color() == "black"
            assert len(labeled.get_xdata()) == 40
    assert "no-ml on two_spirals, 40 labels" in drawing.caption


def test_at_most_so_many_steps_are_shown(spirals, monkeypatch):
    monkeypatch.setattr(ccn, "STEPS_SHOWN", 2)
    titles = [panel.get_title() for panel in ccn.boundaries(as_run(spirals["full"])).figure.axes]
    assert [title.split(":")[0] for title in titles] == ["step 2", "step 6"] * 2


def test_errors_over_settings(spirals, digits):
    runs = [as_run(spirals["full"]), as_run(spirals["no-ml"]), as_run(digits["full"])]
    drawing = ccn.errors_over_settings([*runs, as_run(spirals["baseline"])])
    (panel,) = drawing.figure.axes
    names = [label.get_text().split("\n") for label in panel.get_xticklabels()]
    assert names[0] == ["two_spirals", "40 labels", "n = 1"]
    assert names[1][2] == "no-ml"
    assert names[2][:2] == ["digits", "20 labels"]
    for network, bars in zip(("net1", "net2", "ccn"), bars_of(panel), strict=True):
        heights = [bar.get_height() for bar in bars]
        assert heights == pytest.approx([percent_wrong(run.folder, network)[-1] for run in runs])
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["net 1", "net 2", "CCN"]


def test_errors_are_means_over_seeds(spirals, tmp_path):
    folder = spirals["full"]
    other = RunFolder(tmp_path)
    described = folder.description()
    described["config"]["seed"] = 1
    (tmp_path / "run.json").write_text(json.dumps(described))
    rows = read_metrics(folder.metrics_jsonl)
    rows[-1]["accuracy/test/net1"] -= 0.1
    other.metrics_jsonl.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (panel,) = ccn.errors_over_settings([as_run(folder), as_run(other)]).figure.axes
    assert panel.get_xticklabels()[0].get_text().endswith("n = 2")
    bar = bars_of(panel)[0][0]
    assert bar.get_height() == pytest.approx(percent_wrong(folder, "net1")[-1] + 5)


def test_corrections(spirals):
    folder = spirals["no-ml"]
    drawing = ccn.corrections(as_run(folder))
    left, right = drawing.figure.axes
    for network, line in zip(("net1", "net2", "ccn"), left.lines, strict=True):
        assert list(line.get_xdata()) == [2, 4, 6]
        assert list(line.get_ydata()) == pytest.approx(percent_wrong(folder, network))
    for kind, line in zip(("true", "false"), right.lines, strict=True):
        counts = logged(folder, f"count/test/{kind}_corrections")
        assert list(line.get_ydata()) == counts
        assert line.get_label() == f"{kind}, {int(sum(counts))} in all"
    assert (left.get_ylabel(), right.get_ylabel()) == ("error (%)", "images corrected")


def test_nothing_is_corrected_without_a_correction(spirals):
    baseline = as_run(spirals["baseline"])
    assert ccn.boundaries(baseline) is None
    assert ccn.corrections(baseline) is None
    assert ccn.gallery(baseline) is None


def test_the_disagreements_are_kept(digits):
    found = read_final(digits["full"])
    experiment, step = load_trained(digits["full"].path)
    assert found.step == step == 16
    images = experiment.source.test_images[:60]
    said = predict_all(experiment.algorithm, [experiment.inputs(images)])
    classes = torch.stack([logits.argmax(1) for logits in said.values()])
    differ = (classes != classes[0]).any(0)
    assert 0 < differ.sum() < 60
    assert torch.equal(found.images, images[differ])
    assert torch.equal(found.image_labels, experiment.source.test_labels[:60][differ])
    for network, logits in said.items():
        assert torch.equal(found.logits[network], logits[differ])
    assert found.features.shape == (60, 128)
    assert torch.equal(found.labels, experiment.source.test_labels[:60])


def test_gallery(digits, tmp_path):
    """Of five disagreements two are true corrections, of different classes."""
    M, C = 5, 10
    labels = torch.tensor([3, 3, 7, 0, 9])
    before = torch.tensor([5, 3, 1, 0, 2])
    after = torch.tensor([3, 4, 7, 0, 2])
    raw = torch.nn.functional.one_hot(before, C).float() + torch.rand(M, C) / 2
    corrected = torch.nn.functional.one_hot(after, C).float() + torch.rand(M, C) / 2
    folder = RunFolder(tmp_path)
    (tmp_path / "run.json").write_text(digits["full"].run_json.read_text())
    part = FinalOutputs(
        step=2,
        class_names=tuple("abcdefghij"),
        features=torch.zeros(1, 2),
        labels=torch.tensor([3]),
        images=torch.randint(256, (M, 1, 8, 8), dtype=torch.uint8),
        image_labels=labels,
        logits={"net1": raw, "net2": raw + 1, "ccn": corrected},
    )
    write_final(folder, part)
    drawing = ccn.gallery(as_run(folder))
    panels = np.array(drawing.figure.axes).reshape(2, 4)
    titles = [panel.get_title() for panel in panels[0, 1:]]
    assert titles == ["raw output", "residual", "corrected"]
    shown = {panel.get_title(): row for panel, row in zip(panels[:, 0], panels, strict=True)}
    assert shown.keys() == {"d,\nnot f", "h,\nnot b"}
    for title, i in (("d,\nnot f", 0), ("h,\nnot b", 2)):
        image, *bars = shown[title]
        assert np.array_equal(image.images[0].get_array(), part.images[i, 0])
        heights = np.array([[bar.get_height() for bar in panel.patches] for panel in bars])
        assert heights[0] == pytest.approx(raw[i].numpy())
        assert heights[0] + heights[1] == pytest.approx(heights[2], abs=1e-6)
        assert heights[2] == pytest.approx(corrected[i].numpy())
        assert to_hex(bars[0].patches[labels[i]].get_facecolor()) == COLOURS[2].lower()
        assert to_hex(bars[0].patches[before[i]].get_facecolor()) == COLOURS[0].lower()


def test_learning_curves(spirals):
    drawing = ccn.learning_curves(as_run(spirals["full"]), as_run(spirals["baseline"]))
    (panel,) = drawing.figure.axes
    lines = {line.get_label(): line for line in panel.lines}
    own = ["full, net 1", "full, net 2", "full, CCN"]
    assert list(lines) == ["baseline, net 1", "baseline, net 2", *own]
    assert list(lines["baseline, net 2"].get_ydata()) == pytest.approx(
        percent_wrong(spirals["baseline"], "net2")
    )
    assert list(lines["full, CCN"].get_ydata()) == pytest.approx(
        percent_wrong(spirals["full"], "ccn")
    )
    assert panel.get_ylim()[1] > max(max(line.get_ydata()) for line in panel.lines)
    assert f"full {percent_wrong(spirals['full'], 'net1')[-1]:.2f} %" in drawing.caption


def test_representations(digits):
    drawing = ccn.representations(as_run(digits["full"]), as_run(digits["baseline"]))
    panels = drawing.figure.axes
    assert [panel.get_title() for panel in panels] == ["baseline", "full"]
    labels = load_source("digits").test_labels[:60]
    for panel in panels:
        counts = [len(line.get_xdata()) for line in panel.lines]
        assert counts == torch.bincount(labels, minlength=10).tolist()
    texts = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert texts == list("0123456789")


def test_every_figure_that_the_runs_have(spirals, digits, tmp_path):
    other = trained(tmp_path / "other", "supervised", "digits", 20, **{"steps": 2})
    names = [drawing.name for drawing in figures([*spirals.values(), other])]
    place = "two_spirals-40-labels"
    assert names == [
        "networks",
        f"boundaries-full-{place}",
        f"corrections-full-{place}",
        f"boundaries-no-ml-{place}",
        f"corrections-no-ml-{place}",
        f"curves-full-{place}",
        f"representations-full-{place}",
    ]
    assert figures([other]) == []
    own = {drawing.name.split("-")[0] for drawing in figures([*digits.values()])}
    assert {"networks", "corrections", "curves", "representations"} <= own
    assert "boundaries" not in own


def test_a_run_that_has_not_ended(spirals, tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / "run.json").write_text(spirals["full"].run_json.read_text())
    lines = spirals["full"].metrics_jsonl.read_text().splitlines(keepends=True)
    folder.metrics_jsonl.write_text(lines[0])
    assert [drawing.name.split("-")[0] for drawing in figures([folder])] == ["corrections"]


def test_damaged_outputs_are_refused(spirals, tmp_path):
    folder = RunFolder(tmp_path)
    folder.outputs.mkdir()
    data = (spirals["full"].outputs / "final.safetensors").read_bytes()
    (folder.outputs / "final.safetensors").write_bytes(data[:-100])
    with pytest.raises(InputError, match=r"final\.safetensors: not"):
        read_final(folder)
