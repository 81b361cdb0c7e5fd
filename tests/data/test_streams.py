"""Streams: every pass holds each image once, whatever the batch size, and a step needs no past."""

import numpy as np
import pytest

from fastssl.data.philox import Purpose
from fastssl.data.streams import Stream

IMAGES = np.array([3, 5, 8, 13, 21, 34, 55])


def stream(rows, seed=0, purpose=Purpose.LABELED_STREAM):
    return Stream(IMAGES, rows, seed, purpose)


@pytest.mark.parametrize("rows", [1, 3, 7, 16])  # straddling, exact, several passes a step
def test_every_pass_holds_each_image_once(rows):
    n = len(IMAGES)
    draws = np.concatenate([stream(rows).at(step) for step in range(3 * n)])
    for number in range(len(draws) // n):
        assert sorted(draws[number * n : (number + 1) * n]) == IMAGES.tolist()


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
