"""`fastssl predict`: files and folders of PNG and JPEG, for people and for machines."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fastssl.cli import predict
from fastssl.data.sources import load_source
from fastssl.recipes.experiment import load_trained


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
    monkeypatch.setattr(predict, "IMAGES_AT_ONCE", 7)
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


def test_bad_input(refused, trained, folder):
    path, _ = trained
    broken = folder / "broken.png"
    broken.write_bytes(b"not an image")
    assert "broken.png cannot be read" in refused("predict", path, folder)
    assert "there is no" in refused("predict", path, folder / "absent.png")
    assert "Missing argument" in refused("predict", path)
    assert "is not a run folder" in refused("predict", folder, folder / "0.png")
    (folder / "empty").mkdir()
    assert "no image file" in refused("predict", path, folder / "empty")
