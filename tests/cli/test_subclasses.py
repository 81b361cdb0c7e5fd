"""Sequestered subclasses from split to `fastssl evaluate`, and top-5 of many classes."""

import json

import pytest
import torch

from fastssl.data import sources
from fastssl.data.sources.source import Source, Subclasses
from fastssl.recipes import images
from fastssl.training.record import read_metrics

EACH, TEST_EACH = 8, 4


def source_of(num_classes, per_class):
    """Random 32x32 images, `per_class` subclasses in each class, numbered across the classes."""
    fine = torch.arange(num_classes * per_class)
    generator = torch.Generator().manual_seed(0)

    def part(each):
        subclasses = fine.repeat_interleave(each)
        shape = (len(subclasses), 3, 32, 32)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        return pixels, subclasses // per_class, subclasses

    (train, labels, own), (test, test_labels, its) = part(EACH), part(TEST_EACH)
    names = tuple(f"s{i}" for i in range(len(fine)))
    classes = tuple(f"c{i}" for i in range(num_classes))
    subclasses = Subclasses(names, own, its) if per_class > 1 else None
    return Source("cifar20", train, labels, test, test_labels, classes, subclasses)


SMALL = (
    *("--data", "cifar20", "--device", "cpu", "--steps", "2", "--set", "model.name=small_cnn"),
    *("--set", "data.labeled_rows=8", "--set", "data.unlabeled_rows=8"),
)


@pytest.mark.parametrize(
    ("algorithm", "networks"),
    [
        ("supervised", ["network"]),
        ("mean-teacher", ["teacher", "student"]),
        ("muscle", ["network"]),
    ],
)
def test_accuracy_and_entropy_of_labeled_and_unlabeled_subclasses(
    fastssl, tmp_path, monkeypatch, algorithm, networks
):
    monkeypatch.setitem(sources.SOURCES, "cifar20", lambda place: source_of(4, 3))
    out = tmp_path / "run"
    sequestered = ("--labels", "16", "--set", "data.rule=sequestered")  # 2 a labeled subclass
    result = fastssl("train", algorithm, *SMALL, *sequestered, "--out", out)
    assert result.exit_code == 0, result.output
    split = json.loads((out / "split.json").read_text())
    labeled = torch.arange(12).repeat_interleave(EACH)[split["labeled"]].bincount(minlength=12)
    kept = [c for c in range(12) if c not in split["sequestered"]]
    assert labeled[kept].tolist() == [2] * 8
    assert labeled[split["sequestered"]].tolist() == [0] * 4
    assert [c // 3 for c in split["sequestered"]] == [0, 1, 2, 3]

    found = json.loads(fastssl("evaluate", out, "--json").stdout)
    assert found["counts"]["images_of_labeled_subclasses"] == 8 * TEST_EACH
    assert found["counts"]["images_of_unlabeled_subclasses"] == 4 * TEST_EACH
    assert list(found["networks"]) == networks
    last = read_metrics(out / "metrics.jsonl")[-1]
    for name, values in found["networks"].items():
        for measure in ("accuracy", "entropy"):
            parts = [values[f"{measure}_{part}labeled_subclasses"] for part in ("", "un")]
            whole = (8 * parts[0] + 4 * parts[1]) / 12
            assert values[measure] == pytest.approx(whole, rel=1e-5)
            assert last[f"{measure}_unlabeled_subclasses/test/{name}"] == parts[1]
            assert last[f"{measure}/test/{name}"] == values[measure]
        assert 0 < values["entropy"] <= torch.tensor(4.0).log() + 1e-6

    table = fastssl("evaluate", out).stdout.splitlines()
    rows = [line.split() for line in table if "subclasses" in line]
    assert [row[:3] for row in rows] == [
        [name, part, "subclasses"] for name in networks for part in ("labeled", "unlabeled")
    ]
    assert rows[1][-1] == str(4 * TEST_EACH)


def test_other_splits_have_no_such_figures(fastssl, tmp_path, monkeypatch):
    monkeypatch.setitem(sources.SOURCES, "cifar20", lambda place: source_of(4, 3))
    out = tmp_path / "run"
    assert fastssl("train", "supervised", *SMALL, "--labels", "8", "--out", out).exit_code == 0
    network = json.loads(fastssl("evaluate", out, "--json").stdout)["networks"]["network"]
    assert network.keys() == {"accuracy", "error", "n"}


def test_top_5_where_there_are_many_classes(fastssl, tmp_path, monkeypatch):
    monkeypatch.setitem(sources.SOURCES, "cifar20", lambda place: source_of(50, 1))
    out = tmp_path / "run"
    assert fastssl("train", "supervised", *SMALL, "--labels", "50", "--out", out).exit_code == 0
    last = read_metrics(out / "metrics.jsonl")[-1]
    assert last["accuracy/test/network"] <= last["top5/test/network"] < 0.5
    header, row = fastssl("evaluate", out).stdout.splitlines()
    assert header.split() == ["network", "accuracy", "%", "error", "%", "top-5", "%", "n"]
    assert row.split()[3] == f"{100 * last['top5/test/network']:.2f}"


def test_mini_imagenet_has_the_papers_network():
    assert images.recipe("mini_imagenet", "muscle").model.name == "resnet18"
