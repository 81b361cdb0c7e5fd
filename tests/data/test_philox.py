"""The random numbers are the published ones, so that a seed means the same everywhere."""

import numpy as np
import pytest
import torch

from fastssl.data.philox import Purpose, permutation, philox, uniform

# Known answers of philox4x32-10, from kat_vectors of the authors' Random123 library.
KNOWN = [
    ([0] * 4, 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, 2**64 - 1, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        0x299F31D0A4093822,
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_gives_the_published_answers(counter, key, expected):
    words = philox(tuple(torch.tensor([word]) for word in counter), key)
    assert [int(word) for word in words] == expected


def test_uniform_covers_the_unit_interval_and_excludes_one():
    ends = uniform(torch.tensor([0, 2**32 - 1]))
    assert ends.tolist() == [0.0, 1 - 2**-24]


def test_permutation_is_fixed_for_ever():
    # Recorded once: a change here would change every split ever drawn.
    drawn = permutation(8, seed=7, purpose=Purpose.LABEL_SPLIT, number=3)
    assert drawn.tolist() == [5, 6, 1, 2, 4, 0, 7, 3]
    assert np.array_equal(np.sort(drawn), np.arange(8))


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 2, "purpose": Purpose.LABEL_SPLIT, "number": 0},
        {"seed": 1, "purpose": Purpose.LABELED_STREAM, "number": 0},
        {"seed": 1, "purpose": Purpose.LABEL_SPLIT, "number": 1},
    ],
)
def test_permutations_differ_by_seed_purpose_and_number(other):
    one = permutation(50, seed=1, purpose=Purpose.LABEL_SPLIT)
    assert not np.array_equal(one, permutation(50, **other))
