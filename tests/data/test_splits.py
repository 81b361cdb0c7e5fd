"""Label splits: balanced, seeded, disjoint, refused when impossible."""

import json

import pytest
import torch

from fastssl.data.sources.source import Source, Subclasses
from fastssl.data.splits import LabelSplit, draw_split, split_from_positions
from fastssl.errors import InputError

CLASSES, EACH = 4, (9, 10, 12, 15)
LABELS = torch.cat([torch.full((n,), c) for c, n in enumerate(EACH)])
N = len(LABELS)


def toy(labels=LABELS, *, test=1, subclasses=None):
    """A source of blank images with these labels."""
    blank = torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8)
    names = tuple("abcd")
    return Source(
        "toy", blank, labels, blank[:test], torch.zeros(test, dtype=torch.int64), names, subclasses
    )


TOY = toy()


def draw(num_labels=8, num_validation=0, seed=0, source=TOY, **rest):
    return draw_split(
        source, num_labels=num_labels, num_validation=num_validation, seed=seed, **rest
    )


def read(text, source=TOY):
    return LabelSplit.from_json(text, source)


def per_class(positions, labels=LABELS):
    return torch.bincount(labels[list(positions)], minlength=CLASSES).tolist()


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
        (edited(format=1), "format 1"),
        (edited(labeled=[0, 1]), "each of the 46 training images once"),
        (edited(validation=["0"]), "each of the 46 training images once"),
    ],
)
def test_a_damaged_split_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        read(text)


def test_a_split_of_other_data_is_refused():
    with pytest.raises(InputError, match="made for other data"):
        read(draw().to_json(), toy(LABELS.flip(0)))


def test_the_draw_is_fixed_for_ever():
    # Recorded once: a change here would change the labeled images of every run.
    assert draw(num_labels=4, seed=3).labeled == (7, 9, 27, 31)


def test_proportional_follows_the_classes():
    assert per_class(draw(23, rule="proportional").labeled) == [5, 5, 6, 7]  # 4.5, 5, 6, 7.5
    assert per_class(draw(4, rule="proportional").labeled) == [1, 1, 1, 1]
    with pytest.raises(InputError, match="labels: 3; expected at least 4"):
        draw(3, rule="proportional")


def test_imbalanced_is_a_long_tail():
    # 8, 4, 2, 1 fall by half each class, 8 to 1 in all.
    assert per_class(draw(15, rule="imbalanced", ratio=8).labeled) == [8, 4, 2, 1]
    assert per_class(draw(8, rule="imbalanced", ratio=1).labeled) == [2, 2, 2, 2]
    assert per_class(draw(11, rule="imbalanced", ratio=1000).labeled) == [8, 1, 1, 1]


def test_sequestered_subclasses_lose_every_label():
    fine = 2 * LABELS + torch.arange(N) % 2
    source = toy(subclasses=Subclasses(tuple("ABCDEFGH"), fine, torch.zeros(1, dtype=torch.int64)))
    seen = set()
    for seed in range(8):
        split = draw(8, num_validation=8, seed=seed, source=source, rule="sequestered")
        kept = torch.bincount(fine[list(split.labeled)], minlength=8).tolist()
        assert kept == [0 if g in split.sequestered else 2 for g in range(8)]
        assert [g // 2 for g in split.sequestered] == [0, 1, 2, 3]
        assert torch.bincount(fine[list(split.validation)]).tolist() == [1] * 8
        assert read(split.to_json(), source) == split
        seen.add(split.sequestered)
    assert len(seen) > 1


HALF = torch.where(torch.arange(N) % 2 == 0, LABELS, -1)  # 5, 5, 6, 7 labeled


def test_without_a_test_part_some_labeled_images_are_held_out():
    source = toy(HALF, test=0)
    split = draw(None, source=source, num_validation=4)
    assert per_class(split.test, HALF) == [1, 1, 1, 1]  # round(0.2 n)
    assert per_class(split.validation, HALF) == [1, 1, 1, 1]
    assert per_class(split.labeled, HALF) == [3, 3, 4, 5]
    assert set(split.unlabeled) == set((HALF == -1).nonzero().flatten().tolist())
    assert read(split.to_json(), source) == split
    assert draw(None, source=source, seed=1).test != split.test
    assert per_class(draw(None, source=source, holdout=0.5).test, HALF) == [2, 2, 3, 4]
    assert draw(None, source=source, holdout=0.0).test == ()


def test_one_labeled_image_in_a_class_leaves_no_test_part():
    single = HALF.clone()
    single[(HALF == 2).nonzero().flatten()[1:]] = -1
    split = draw(None, source=toy(single, test=0))
    assert split.test == ()
    assert per_class(split.labeled, single)[2] == 1


def test_given_positions_keep_their_label():
    positions = [0, 10, 20, 40, 45]
    split = split_from_positions(TOY, positions[::-1], seed=0)
    assert list(split.labeled) == positions
    assert read(split.to_json()) == split


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw(8, rule="equal"), "rule: unknown name 'equal'"),
        (lambda: draw(8, rule="sequestered"), "toy has no subclasses"),
        (lambda: draw(8, rule="imbalanced"), "ratio: None; expected a number"),
        (lambda: draw(8, ratio=2.0), "ratio: 2.0; expected a number with rule imbalanced"),
        (lambda: draw(8, rule="imbalanced", ratio=0.5), "ratio: 0.5; expected 1 or more"),
        (lambda: draw(40, rule="imbalanced", ratio=100.0), "images of class 0, which has 9"),
        (lambda: draw(8, holdout=0.2), "holdout: toy has a test part of its own"),
        (lambda: draw(8, source=toy(HALF, test=0), holdout=1.0), "holdout: 1.0"),
        (lambda: split_from_positions(TOY, [0, 10, 20], seed=0), "class 'd' has no labeled image"),
        (lambda: split_from_positions(TOY, [0, 46], seed=0), "position 46"),
        (lambda: split_from_positions(TOY, [0, 0], seed=0), "a position given twice"),
        (
            lambda: split_from_positions(toy(HALF), [0, 1, 10, 20, 40], seed=0),
            "labeled: training image 1 has no label",
        ),
    ],
)
def test_rules_that_do_not_fit_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
