"""The two streams joined: labeled rows first, the right labels, a new look at every repetition."""

import pytest
import torch

from fastssl.data.batches import TwoStreams
from fastssl.data.sources import load_source
from fastssl.data.splits import draw_split
from fastssl.data.views import ViewPolicy, normalise

PLAIN = ViewPolicy()


@pytest.fixture(scope="module")
def digits():
    return load_source("digits")


def streams(source, *, num_labels=20, policies=(PLAIN, PLAIN), rows=(64, 32), seed=0):
    split = draw_split(
        source.labels,
        source.num_classes,
        num_labels=num_labels,
        num_validation=100,
        seed=0,
        source=source.name,
        fingerprint=source.fingerprint,
    )
    joined = TwoStreams(
        source,
        split,
        policies,
        labeled_rows=rows[0],
        unlabeled_rows=rows[1],
        seed=seed,
        device=torch.device("cpu"),
    )
    return joined, split


def which(source, views):
    """Position in the training images of each un-augmented row."""
    images = normalise(source.images, source.mean, source.std).flatten(1)
    return torch.cdist(views.flatten(1), images).argmin(1)


def test_labeled_rows_come_first_with_their_labels(digits):
    joined, split = streams(digits)
    for step in range(3):
        views, labels = joined.at(step)
        assert views.shape == (2, 96, 1, 8, 8)
        position = which(digits, views[0])
        assert torch.equal(digits.labels[position[:64]], labels)
        assert set(position[:64].tolist()) == set(split.labeled)
        assert set(position[64:].tolist()) <= set(split.unlabeled)


def test_an_image_repeated_within_a_step_looks_different(digits):
    joined, _ = streams(digits, policies=[ViewPolicy(rotate=20, noise=0.1)])
    views, _ = joined.at(0)
    assert len(views.flatten(2)[0].unique(dim=0)) == 96


def test_a_step_is_a_function_of_seed_and_step(digits):
    policies = [ViewPolicy(rotate=20)]
    first, _ = streams(digits, policies=policies)
    first.at(0)
    again, _ = streams(digits, policies=policies)
    for one, other in zip(first.at(5), again.at(5), strict=True):
        assert torch.equal(one, other)
    elsewhere, _ = streams(digits, policies=policies, seed=1)
    assert not torch.equal(first.at(5)[0], elsewhere.at(5)[0])


def test_without_unlabeled_images_a_step_is_labeled(digits):
    joined, split = streams(digits, num_labels=None)
    views, labels = joined.at(0)
    assert views.shape[1] == len(labels) == 64
    assert joined.steps_per_pass == len(split.labeled) // 64
