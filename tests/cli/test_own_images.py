"""A folder of one's own images: what is chosen for it, and all the way to predictions."""

import csv
import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from image_trees import digits_tree, enlarged, save

from fastssl.data.sources import load_source
from fastssl.recipes import folder
from fastssl.recipes.experiment import configure
from fastssl.recipes.folder import MEANS, Survey, choose, survey

# The three commands that the README shows.
COMMANDS = """
fastssl data info ./my_images
fastssl train muscle --data ./my_images --out runs/mine
fastssl predict runs/mine ./new_images --out predictions.csv
"""
NAMES = {0: "ring", 1: "stick", 7: "hook"}


@pytest.fixture
def new_user(tmp_path, monkeypatch):
    """An empty folder but for 300 images of three classes, 90 of them labeled, and 30 new ones."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTSSL_DATA", str(tmp_path / "cache"))  # not the user's own
    source = load_source("digits")
    for digit, name in NAMES.items():
        images = source.images[source.labels == digit, 0].numpy()
        for i, pixels in enumerate(images[:110]):
            place = f"my_images/{name}" if i < 30 else "my_images/unlabeled"
            place = "new_images" if i >= 100 else place
            save(
                tmp_path / place / f"{name}-{i:03d}.png", enlarged(pixels, 2 + (i % 3 == 0)), "RGB"
            )
    return tmp_path


def test_the_readme_shows_these_commands():
    assert COMMANDS in (Path(__file__).parents[2] / "README.md").read_text()


def test_from_an_empty_folder_to_predictions_in_three_commands(fastssl, new_user, monkeypatch):
    # A class a digit is learnt in a few steps, and a test has no minutes to spend.
    monkeypatch.setitem(folder.MEANS, "cpu", replace(MEANS["cpu"], rows=16, steps=(60, 60)))
    outputs = []
    for line in COMMANDS.strip().splitlines():
        result = fastssl(*shlex.split(line)[1:])
        assert result.exit_code == 0, result.output
        outputs.append(result.stdout)
    info, trained, predicted = outputs
    assert "300" in info
    assert "hook" in info
    assert "found 90 labeled images of 3 classes and 210 unlabeled ones" in trained
    for choice in ("16x16 pixels (--image-size 32)", "small_cnn", "60 steps (--steps 120)"):
        assert choice in trained
    assert trained.splitlines()[-1] == "report: runs/mine/report.html"
    assert (new_user / "runs/mine/report.html").is_file()
    assert predicted.splitlines()[-1] == "predictions: predictions.csv"
    rows = list(csv.DictReader((new_user / "predictions.csv").open()))
    assert len(rows) == 30
    right = [re.search(r"new_images/(\w+)-", row["image"])[1] == row["class"] for row in rows]
    assert sum(right) >= 27


@pytest.mark.parametrize(
    ("found", "device", "given", "expected"),
    [
        (Survey(90, 210, 3, 640, 480), "cpu", None, (32, "small_cnn", 469)),
        (Survey(90, 210, 3, 640, 480), "cuda", None, (64, "conv_large", 1000)),
        (Survey(90, 210, 3, 30, 40), "cpu", None, (28, "small_cnn", 469)),
        (Survey(90, 210, 3, 30, 40), "cpu", 48, (48, "small_cnn", 469)),
        (Survey(20, 0, 2, 5, 900), "cpu", None, (16, "small_cnn", 400)),
        (Survey(200, 60_000, 2, 128, 128), "cpu", None, (32, "small_cnn", 2000)),
        (Survey(200, 12_600, 2, 128, 128), "cuda", None, (64, "conv_large", 10_000)),
    ],
)
def test_size_network_and_steps_are_chosen(found, device, given, expected):
    chosen = choose(found, device, given)
    assert (chosen.image_size, chosen.network, chosen.steps) == expected


def test_a_folder_is_surveyed_with_its_broken_files(tmp_path):
    digits_tree(tmp_path)
    found = survey(str(tmp_path))
    assert (found.labeled, found.unlabeled, found.classes) == (142, 61, 10)
    assert 8 <= found.width <= 32
    assert 8 <= found.height <= 32


def test_what_the_user_says_is_kept_and_not_repeated(fastssl, tmp_path):
    digits_tree(tmp_path / "data", broken=False)
    data = tmp_path / "data"
    config = configure("muscle", str(data), {"data.image_size": "24", "device": "cpu"})
    assert config.data.image_size == 24
    assert config.views.weak.translate == 3
    options = ("--data", data, "--data-dir", tmp_path / "cache", "--device", "cpu")
    short = ("--steps", 2, "--image-size", 8, "--set", "data.labeled_rows=4")
    result = fastssl("train", "muscle", *options, *short, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    chosen = result.stdout.partition("how to change it:")[2]
    assert "network small_cnn" in chosen
    for told in ("pixels (", "2 steps", "4 labeled"):
        assert told not in chosen
    run = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert (run["data"]["image_size"], run["views"]["weak"]["translate"]) == (8, 1)
    again = fastssl("train", "muscle", "--out", tmp_path / "run", "--resume")
    assert again.exit_code == 0, again.output
    assert "how to change it" not in again.stdout


def test_ccn_takes_a_folder(fastssl, tmp_path):
    digits_tree(tmp_path / "data", broken=False)
    options = ("--data", tmp_path / "data", "--data-dir", tmp_path / "cache", "--image-size", 16)
    short = ("--steps", 3, "--device", "cpu")
    result = fastssl("train", "ccn", *options, *short, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "16x16" not in result.stdout.partition("how to change it:")[2]
    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert config["algorithm"]["radius"] == 4.0  # 8 is for 32x32 pixels
    assert config["algorithm"]["statistics"] == "unlabeled"
    # 400 steps of 32 rows, 80 of 300 passes: before --steps was said.
    unlabeled = survey(str(tmp_path / "data")).unlabeled
    assert config["algorithm"]["ramp_epochs"] == pytest.approx(400 * 32 / unlabeled * 80 / 300)
    variant = configure("ccn-no-vat", str(tmp_path / "data"), {"device": "cpu"})
    assert variant.algorithm.adversarial == 0


def test_a_run_predicts_where_its_data_is_gone(fastssl, tmp_path):
    digits_tree(tmp_path / "data", broken=False)
    options = ("--data", tmp_path / "data", "--data-dir", tmp_path / "cache", "--image-size", 8)
    short = ("--steps", 2, "--device", "cpu", "--set", "data.labeled_rows=4")
    result = fastssl("train", "supervised", *options, *short, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    image = tmp_path / "new.png"
    shutil.copy(tmp_path / "data" / "3" / "00.png", image)
    before = fastssl("predict", tmp_path / "run", image).stdout
    for path in ("data", "cache"):
        shutil.rmtree(tmp_path / path)
    after = fastssl("predict", tmp_path / "run", image)
    assert after.exit_code == 0, after.output
    assert after.stdout == before
