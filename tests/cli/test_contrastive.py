"""Pre-training without labels, and fine-tuning what came of it: MUSCLE's figure 2d."""

import json

import pytest
from PIL import Image

from fastssl.data.batches import TwoStreams
from fastssl.recipes.trained import load_trained
from fastssl.training.record import read_metrics

SHORT = (
    *("--labels", "20", "--device", "cpu"),
    *("--set", "data.labeled_rows=20", "--set", "data.unlabeled_rows=20"),
)


@pytest.fixture(scope="module")
def pretrained(fastssl, tmp_path_factory):
    """Finished pre-training with and without mutual information."""
    folder = tmp_path_factory.mktemp("pretrained")
    for out, names in (("plain", ["contrastive"]), ("muscle", ["muscle", "--base", "contrastive"])):
        result = fastssl("train", *names, *SHORT, "--steps", "20", "--out", folder / out)
        assert result.exit_code == 0, result.output
        assert "(knn, n = 360)" in result.stdout
    return folder


def test_the_vote_of_labeled_images_is_what_is_measured(fastssl, pretrained):
    for out, terms in (
        ("plain", {"contrastive"}),
        ("muscle", {"contrastive", "mutual_information"}),
    ):
        last = read_metrics(pretrained / out / "metrics.jsonl")[-1]
        assert {key[5:] for key in last if key.startswith("term/")} == terms
        assert [key for key in last if key.startswith("accuracy/")] == ["accuracy/test/knn"]
        found = json.loads(fastssl("evaluate", pretrained / out, "--json").stdout)["networks"]
        assert found["knn"]["accuracy"] == last["accuracy/test/knn"]
        assert last["accuracy/test/knn"] > 0.3  # guessing: 0.1
    assert "knn" in fastssl("report", pretrained / "plain", pretrained / "muscle").stdout


def test_the_vote_classifies_and_no_head_is_exported(fastssl, refused, pretrained, tmp_path):
    experiment, _ = load_trained(pretrained / "plain")
    images = experiment.source.test_images[:20]
    for number, pixels in enumerate(images[:, 0].numpy()):
        Image.fromarray(pixels).save(tmp_path / f"{number:02d}.png")
    rows = json.loads(fastssl("predict", pretrained / "plain", tmp_path, "--json").stdout)
    votes = experiment.predict([experiment.inputs(images)])["knn"].argmax(1)
    names = [experiment.source.class_names[c] for c in votes.tolist()]
    assert [row["class"] for row in rows] == names
    assert len(set(names)) > 3
    message = refused("export", pretrained / "plain", "--out", tmp_path / "a.pt2")
    assert "its head knows no class" in message


def test_no_label_is_read(fastssl, monkeypatch, tmp_path):
    at, labels = TwoStreams.at, []

    def watched(self, step):
        batch = at(self, step)
        labels.append(batch[1])
        return batch

    monkeypatch.setattr(TwoStreams, "at", watched)
    options = ("--device", "cpu", "--steps", "3")  # without --labels all images have one
    assert fastssl("train", "muscle+contrastive", *options, "--out", tmp_path / "a").exit_code == 0
    assert [len(each) for each in labels] == [0, 0, 0]


def test_fine_tuning_keeps_what_was_learned(fastssl, pretrained, tmp_path):
    accuracy = {}
    for name, options in (("scratch", ()), ("tuned", ("--init", pretrained / "plain"))):
        out = tmp_path / name
        command = ("train", "supervised", *SHORT, "--steps", "5", *options, "--out", out)
        assert fastssl(*command).exit_code == 0
        accuracy[name] = read_metrics(out / "metrics.jsonl")[-1]["accuracy/test/network"]
    result = fastssl(
        *("train", "muscle", *SHORT, "--steps", "1"),
        "--init",
        pretrained / "muscle",
        "--out",
        tmp_path / "m",
    )
    assert "(muscle+contrastive, step 20): network; head kept" in result.stdout
    assert accuracy["tuned"] > accuracy["scratch"]
