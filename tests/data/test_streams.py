"""Streams: every pass holds each image once, whatever the batch size, and a step needs no past."""

import pytest
import torch

from fastssl.data.philox import Purpose
from fastssl.data.streams import ALONE, Shard, Stream
from fastssl.errors import InputError

IMAGES = torch.tensor([3, 5, 8, 13, 21, 34, 55])


def stream(rows, seed=0, purpose=Purpose.LABELED_STREAM, shard=ALONE):
    return Stream(IMAGES, rows, seed, purpose, shard)


@pytest.mark.parametrize("rows", [1, 3, 7, 16])  # straddling, exact, several passes a step
def test_every_pass_holds_each_image_once(rows):
    n = len(IMAGES)
    draws = torch.cat([stream(rows).at(step) for step in range(3 * n)])
    for number in range(len(draws) // n):
        assert sorted(draws[number * n : (number + 1) * n].tolist()) == IMAGES.tolist()


@pytest.mark.parametrize("rows", [2, 6, 16])
def test_two_ranks_halve_every_step(rows):
    ranks = [stream(rows, shard=Shard(rank, 2)) for rank in (0, 1)]
    n = len(IMAGES)
    for step in range(n):
        halves = [rank.at(step) for rank in ranks]
        assert [len(half) for half in halves] == [rows // 2] * 2
        assert torch.equal(torch.cat(halves), stream(rows).at(step))
    # Within a pass no image is drawn twice, so the two ranks never see the same one.
    whole_steps = n // rows
    own = [[i for step in range(whole_steps) for i in rank.at(step).tolist()] for rank in ranks]
    assert not set(own[0]) & set(own[1])


def test_rows_must_divide_by_the_ranks():
    with pytest.raises(InputError, match="7 rows a step do not divide by 2"):
        stream(7, shard=Shard(0, 2)).at(0)


@pytest.mark.parametrize("first", [1, 4, 6])
def test_a_stream_resumed_at_any_step_is_the_same(first):
    whole = [stream(3).at(step).tolist() for step in range(9)]
    resumed = stream(3)
    assert [resumed.at(step).tolist() for step in range(first, 9)] == whole[first:]


def test_the_order_is_fixed_for_ever():
    # Recorded once: a change here would change every run that is to be resumed or repeated.
    order = [stream(3).at(step).tolist() for step in range(3)]
    assert order == [[55, 8, 5], [13, 34, 3], [21, 34, 8]]


def test_passes_differ():
    assert stream(7).at(0).tolist() != stream(7).at(1).tolist()


def test_a_step_depends_on_seed_purpose_and_step_alone():
    visited = stream(3)
    for step in range(5):
        visited.at(step)
    assert visited.at(2).tolist() == stream(3).at(2).tolist()
    assert stream(64).at(0).tolist() != stream(64, seed=1).at(0).tolist()
    other = stream(64, purpose=Purpose.UNLABELED_STREAM)
    assert stream(64).at(0).tolist() != other.at(0).tolist()
