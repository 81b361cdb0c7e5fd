"""Label splits: balanced, seeded, disjoint, refused when impossible."""

import json

import pytest
import torch

from fastssl.data.splits import LabelSplit, draw_split
from fastssl.errors import InputError

CLASSES, EACH = 4, (9, 10, 12, 15)
LABELS = torch.cat([torch.full((n,), c) for c, n in enumerate(EACH)])
N = len(LABELS)


def draw(num_labels=8, num_validation=0, seed=0):
    return draw_split(
        LABELS,
        CLASSES,
        num_labels=num_labels,
        num_validation=num_validation,
        seed=seed,
        source="toy",
        fingerprint="f" * 64,
    )


def read(text, fingerprint="f" * 64):
    return LabelSplit.from_json(text, fingerprint=fingerprint, num_images=N)


@pytest.mark.parametrize("num_validation", [0, 6, 10])
@pytest.mark.parametrize("num_labels", [4, 8, 24, None])
def test_parts_cover_every_image_once(num_labels, num_validation):
    if num_labels == 24 and num_validation == 10:
        num_labels = 20
    split = draw(num_labels, num_validation)
    together = [*split.labeled, *split.unlabeled, *split.validation]
    assert sorted(together) == list(range(N))
    assert len(split.labeled) == (N - num_validation if num_labels is None else num_labels)
    assert len(split.validation) == num_validation


def test_labels_and_validation_are_balanced():
    split = draw(num_labels=12, num_validation=10)
    assert torch.bincount(LABELS[list(split.labeled)]).tolist() == [3, 3, 3, 3]
    assert torch.bincount(LABELS[list(split.validation)]).tolist() == [3, 3, 2, 2]


def test_the_seed_decides():
    assert draw(seed=1) == draw(seed=1)
    assert draw(seed=1).labeled != draw(seed=2).labeled


def test_holding_images_out_changes_no_labeled_image():
    assert draw(num_validation=10).labeled == draw().labeled


@pytest.mark.parametrize(
    ("num_labels", "num_validation", "message"),
    [
        (0, 0, "labels: 0; expected at least 4"),
        (-4, 0, "labels: -4; expected at least 4"),
        (10, 0, "labels: 10 does not divide by the 4 classes"),
        (40, 0, "needs 10 images of each class, the smallest has 9"),
        (28, 12, "needs 7 images of each class, the smallest has 6"),
        (8, -1, "validation: -1"),
        (8, 40, "validation: 40 images"),
    ],
)
def test_impossible_numbers_are_refused(num_labels, num_validation, message):
    with pytest.raises(InputError, match=message):
        draw(num_labels, num_validation)


def test_json_gives_the_split_back():
    split = draw(num_validation=4)
    assert read(split.to_json()) == split


def edited(**changes):
    return json.dumps(json.loads(draw().to_json()) | changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a label split"),
        ("[]", "not a label split"),
        (draw().to_json()[:-20], "not a label split"),
        (edited(extra=1), "not a label split"),
        (edited(format=2), "format 2"),
        (edited(labeled=[0, 1]), "each of the 46 training images once"),
        (edited(validation=["0"]), "each of the 46 training images once"),
    ],
)
def test_a_damaged_split_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        read(text)


def test_a_split_of_other_data_is_refused():
    with pytest.raises(InputError, match="made for other data"):
        read(draw().to_json(), fingerprint="0" * 64)
