"""The two streams joined: labeled rows first, the right labels, a new look at every repetition."""

import pytest
import torch

from fastssl.data import residence
from fastssl.data.batches import TwoStreams
from fastssl.data.normalise import normalise
from fastssl.data.sources import load_source
from fastssl.data.splits import draw_split
from fastssl.data.streams import Shard
from fastssl.ops import augment
from fastssl.ops.policies import Digits, IICHard, NoAugment, RandAugment, Weak

PLAIN = NoAugment()


@pytest.fixture(scope="module")
def digits():
    return load_source("digits")


def streams(source, *, num_labels=20, policies=(PLAIN, PLAIN), rows=(64, 32), seed=0, **rest):
    split = draw_split(source, num_labels=num_labels, num_validation=100, seed=0)
    joined = TwoStreams(
        source,
        split,
        policies,
        labeled_rows=rows[0],
        unlabeled_rows=rows[1],
        seed=seed,
        **{"device": torch.device("cpu"), **rest},
    )
    return joined, split


def which(source, views):
    """Position in the training images of each un-augmented row."""
    images = normalise(source.images, source.mean, source.std).flatten(1)
    return torch.cdist(views.flatten(1), images).argmin(1)


def test_labeled_rows_come_first_with_their_labels(digits):
    joined, split = streams(digits)
    for step in range(3):
        views, labels, _ = joined.at(step)
        assert views.shape == (2, 96, 1, 8, 8)
        position = which(digits, views[0])
        assert torch.equal(digits.labels[position[:64]], labels)
        assert set(position[:64].tolist()) == set(split.labeled)
        assert set(position[64:].tolist()) <= set(split.unlabeled)


def test_without_labels_all_images_are_one_stream(digits):
    joined, split = streams(digits, rows=(0, 96))
    both = sorted(split.labeled + split.unlabeled)
    assert joined.steps_per_pass == len(both) // 96
    seen = torch.cat([joined.positions(step) for step in range(len(both) // 96)])
    assert len(seen.unique()) == len(seen)  # no image twice in a pass
    assert set(seen.tolist()) <= set(both)
    assert set(seen.tolist()) & set(split.labeled)
    views, labels, index = joined.at(3)
    assert views.shape == (2, 96, 1, 8, 8)
    assert labels.shape == (0,)
    assert torch.equal(index, joined.positions(3))
    first, second = (
        streams(digits, rows=(0, 96), shard=Shard(rank, 2), policies=[PLAIN])[0].positions(3)
        for rank in (0, 1)
    )
    assert torch.equal(torch.cat([first, second]), index)


def test_an_image_repeated_within_a_step_looks_different(digits):
    joined, _ = streams(digits, policies=[Digits(rotate=20, noise=0.1)])
    views, *_ = joined.at(0)
    assert len(views.flatten(2)[0].unique(dim=0)) == 96


def test_the_views_of_a_step_are_the_ops(digits):
    policies = [Weak(translate=1), IICHard(crop=5, flip=False), RandAugment(weak=Weak())]
    joined, _ = streams(digits, policies=policies, seed=3)
    for step in (0, 4):
        views, _, position = joined.at(step)
        expected = augment(
            digits.images[position],
            policies,
            seed=3,
            step=torch.tensor(step),
            index=torch.arange(96),
            mean=digits.mean,
            std=digits.std,
        )
        assert torch.equal(views, expected)


def test_views_come_in_the_networks_dtype_and_memory_format(digits):
    policies = [Digits(rotate=20), Digits(rotate=20)]
    plain, _ = streams(digits, policies=policies)
    other = {"dtype": torch.bfloat16, "memory_format": torch.channels_last}
    joined, _ = streams(digits, policies=policies, **other)
    views, *_ = joined.at(2)
    assert views.dtype == torch.bfloat16
    assert views.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(views, plain.at(2)[0].to(torch.bfloat16))


def test_a_step_is_a_function_of_seed_and_step(digits):
    policies = [Digits(rotate=20)]
    first, _ = streams(digits, policies=policies)
    first.at(0)
    again, _ = streams(digits, policies=policies)
    for one, other in zip(first.at(5), again.at(5), strict=True):
        assert torch.equal(one, other)
    elsewhere, _ = streams(digits, policies=policies, seed=1)
    assert not torch.equal(first.at(5)[0], elsewhere.at(5)[0])


def test_without_unlabeled_images_a_step_is_labeled(digits):
    joined, split = streams(digits, num_labels=None)
    views, labels, _ = joined.at(0)
    assert views.shape[1] == len(labels) == 64
    assert joined.steps_per_pass == len(split.labeled) // 64


def test_two_ranks_have_the_rows_and_views_of_one_process(digits):
    policies = [PLAIN, Digits(rotate=20, noise=0.1)]
    whole, _ = streams(digits, policies=policies)
    halves = [streams(digits, policies=policies, shard=Shard(rank, 2))[0] for rank in (0, 1)]
    for step in (0, 7):
        views, labels, _ = whole.at(step)
        own, own_labels, _ = zip(*(half.at(step) for half in halves), strict=True)
        assert torch.equal(torch.cat(own_labels), labels)
        labeled = torch.cat([rows[:, :32] for rows in own], 1)
        unlabeled = torch.cat([rows[:, 32:] for rows in own], 1)
        assert torch.equal(torch.cat([labeled, unlabeled], 1), views)


def test_images_gathered_ahead_are_the_same_at_any_step(digits):
    policies = [Digits(rotate=20)]
    resident, _ = streams(digits, policies=policies)
    gathered, _ = streams(digits, policies=policies, resident=False)
    for step in (0, 1, 2, 9, 10, 3):  # in order, ahead, back
        for one, other in zip(resident.at(step), gathered.at(step), strict=True):
            assert torch.equal(one, other)


def test_what_the_device_cannot_hold_stays_on_the_host(gpu, digits, monkeypatch):
    monkeypatch.setattr(residence, "SHARE", 0.0)
    gathered, _ = streams(digits, device=gpu)
    assert gathered.images.device.type == "cpu"
    monkeypatch.undo()
    resident, _ = streams(digits, device=gpu)
    assert resident.images.device.type == "cuda"
    for one, other in zip(resident.at(3), gathered.at(3), strict=True):
        assert one.device.type == "cuda"
        assert torch.equal(one, other)


def test_points_are_their_own_views():
    source = load_source("two_spirals")
    joined, split = streams(source, num_labels=40, rows=(40, 100))
    views, labels, _ = joined.at(0)
    assert views.shape == (2, 140, 2)
    assert torch.equal(views[0], views[1])
    position = torch.cdist(views[0], source.images).argmin(1)
    assert torch.equal(views[0], source.images[position])
    assert torch.equal(source.labels[position[:40]], labels)
    assert set(position[:40].tolist()) == set(split.labeled)
