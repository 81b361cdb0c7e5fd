"""`fastssl predict`: files and folders of PNG and JPEG, for people and for machines."""

import csv
import json
import shutil
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from fastssl import classifier
from fastssl.data.files import read_image
from fastssl.data.sources import load_source
from fastssl.recipes.trained import Trained, load_trained


@pytest.fixture
def folder(tmp_path):
    """Ten test digits, as PNG files and as large JPEG files."""
    images = load_source("digits").test_images[:10, 0].numpy()
    for number, pixels in enumerate(images):
        image = Image.fromarray(pixels)
        image.save(tmp_path / f"{number}.png")
        large = Image.fromarray(np.kron(pixels, np.ones((16, 16), dtype=np.uint8)))
        large.save(tmp_path / f"{number}.jpg", quality=95)
    return tmp_path


@pytest.fixture
def expected(trained):
    """Class names and confidences of the ten, computed from the networks directly."""
    experiment, _ = load_trained(trained[0])
    images = experiment.inputs(experiment.source.test_images[:10])
    with torch.inference_mode():
        confidence, index = experiment.algorithm.eval().predict(images).softmax(1).max(1)
    return [experiment.source.class_names[i] for i in index.tolist()], confidence.tolist()


def test_png_files_are_classified_as_the_network_does(fastssl, trained, folder, expected):
    files = [folder / f"{number}.png" for number in range(10)]
    rows = json.loads(fastssl("predict", trained[0], *files, "--json").stdout)
    assert [row["image"] for row in rows] == [str(file) for file in files]
    assert [row["class"] for row in rows] == expected[0]
    assert [row["confidence"] for row in rows] == pytest.approx(expected[1], abs=1e-5)


def test_a_folder_and_its_batches(fastssl, trained, folder, monkeypatch):
    whole = fastssl("predict", trained[0], folder, "--json").stdout
    rows = json.loads(whole)
    assert [row["image"] for row in rows] == sorted(str(path) for path in folder.iterdir())
    monkeypatch.setattr(classifier, "IMAGES_AT_ONCE", 7)
    batched = json.loads(fastssl("predict", trained[0], folder, "--json").stdout)
    for one, other in zip(rows, batched, strict=True):
        assert one["class"] == other["class"]
        assert one["confidence"] == pytest.approx(other["confidence"], abs=1e-5)


def test_a_large_jpeg_of_a_digit_is_the_same_class_where_that_is_sure(
    fastssl, trained, folder, expected
):
    files = [folder / f"{number}.jpg" for number in range(10)]
    rows = json.loads(fastssl("predict", trained[0], *files, "--json").stdout)
    found = zip(rows, *expected, strict=True)
    sure = [(row["class"], name) for row, name, confidence in found if confidence > 0.9]
    assert len(sure) >= 5
    assert all(one == other for one, other in sure)


def test_the_table_is_for_people(fastssl, trained, folder, expected):
    header, row = fastssl("predict", trained[0], folder / "0.png").stdout.splitlines()
    assert header.split() == ["image", "class", "confidence"]
    path, name, confidence = row.split()
    assert (path, name) == (str(folder / "0.png"), expected[0][0])
    assert float(confidence) == pytest.approx(expected[1][0], abs=6e-4)


def test_predictions_go_to_a_file(fastssl, trained, folder, expected):
    files = [folder / f"{number}.png" for number in range(10)]
    for name in ("found.csv", "found.json"):
        result = fastssl("predict", trained[0], *files, "--out", folder / name)
        assert result.exit_code == 0, result.output
        summary, place = result.stdout.splitlines()
        assert summary.startswith("10 images: ")
        assert place == f"predictions: {folder / name}"
    listed = json.loads((folder / "found.json").read_text())
    lines = list(csv.DictReader((folder / "found.csv").open()))
    for rows in (listed, lines):
        assert [row["image"] for row in rows] == [str(file) for file in files]
        assert [row["class"] for row in rows] == expected[0]
        found = [float(row["confidence"]) for row in rows]
        assert found == pytest.approx(expected[1], abs=1e-5)


def test_images_are_in_memory_a_batch_or_two_at_a_time(fastssl, trained, folder, monkeypatch):
    """Of 60 files, never more than two batches of 5 are decoded and not yet scored."""
    for number in range(10, 50):
        shutil.copy(folder / f"{number % 10}.png", folder / f"{number}.png")
    waiting, most, lock = 0, 0, threading.Lock()

    def read(path, shape):
        nonlocal waiting, most
        with lock:
            waiting += 1
            most = max(most, waiting)
        return read_image(path, shape)

    def logits(self, batches):
        nonlocal waiting
        found = score(self, (batches := list(batches)))
        with lock:
            waiting -= sum(map(len, batches))
        return found

    score = Trained.logits
    monkeypatch.setattr(classifier, "IMAGES_AT_ONCE", 5)
    monkeypatch.setattr(classifier, "read_image", read)
    monkeypatch.setattr(Trained, "logits", logits)
    rows = json.loads(fastssl("predict", trained[0], folder, "--json").stdout)
    assert len(rows) == 60
    assert most <= 10


def test_unreadable_files_are_named_and_left_out_on_request(fastssl, refused, trained, folder):
    path, _ = trained
    bad = [folder / "a.png", folder / "b.jpg"]
    for file in bad:
        file.write_bytes(b"not an image")
    refusing = fastssl("predict", path, folder, "--out", folder / "found.csv")
    assert refusing.exit_code == 2
    assert "2 of 22 files cannot be read" in refusing.stderr.splitlines()[-1]
    assert "--skip-bad" in refusing.stderr
    assert not (folder / "found.csv").exists()
    skipping = fastssl("predict", path, folder, "--json", "--skip-bad")
    assert skipping.exit_code == 0, skipping.output
    assert len(json.loads(skipping.stdout)) == 20
    for file in bad:
        assert f"{file} cannot be read" in refusing.stderr
        assert f"left out: {file}" in skipping.stderr
    assert "none of 2 files" in fastssl("predict", path, *bad, "--skip-bad").stderr


def test_bad_input(refused, trained, folder):
    path, _ = trained
    broken = folder / "broken.png"
    broken.write_bytes(b"not an image")
    assert "broken.png cannot be read" in refused("predict", path, folder)
    assert "there is no" in refused("predict", path, folder / "absent.png")
    assert "Missing argument" in refused("predict", path)
    assert "is not a run folder" in refused("predict", folder, folder / "0.png")
    assert "ends in .csv or .json" in refused("predict", path, folder, "--out", folder / "x.txt")
    assert "existing folder" in refused("predict", path, folder, "--out", folder / "no" / "x.csv")
    assert "device: 'tpu'" in refused("predict", path, folder / "0.png", "--device", "tpu")
    (folder / "empty").mkdir()
    assert "no image file" in refused("predict", path, folder / "empty")
