"""Counter-based random numbers: a draw is a function of its name, not of the draws before it.

Two users. `permutation` orders images on the host (splits, streams); `philox` draws the points of
two_spirals. Both generators are fixed by publication, so a seed means the same split and the same
points on every machine and under every torch version.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

import enum

import numpy as np
import torch
from torch import Tensor

MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10


class Purpose(enum.IntEnum):
    """What random numbers are for; two purposes never share them."""

    TEST_SPLIT = 0
    LABEL_SPLIT = 1
    LABELED_STREAM = 2
    UNLABELED_STREAM = 3
    SEQUESTERED = 4
    POINTS = 5
    PREVIEW = 6


def permutation(n: int, *, seed: int, purpose: Purpose, number: int = 0) -> np.ndarray:
    """Permutation `number` of 0..n-1 for one seed and purpose, int64 [n].

    Sorts raw Philox-4x64 words, whose sequence numpy guarantees for ever, unlike that of
    `Generator.permutation`.
    """
    words = np.random.Philox(key=[seed, purpose], counter=[0, 0, number, 0]).random_raw(n)
    return np.argsort(words, kind="stable")


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], seed: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox-4x32-10: four random 32-bit words for every counter.

    Args:
        counter: four int64 tensors that broadcast together; their low 32 bits count.
        seed: the 64-bit key.

    Returns:
        Four int64 tensors of the broadcast shape, uniform in [0, 2**32).
    """
    c0, c1, c2, c3 = (word & MASK for word in counter)
    k0, k1 = seed & MASK, (seed >> 32) & MASK
    for _ in range(ROUNDS):
        # The product of two 32-bit words wraps in int64, but both of its halves survive the masks.
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((p1 >> 32) & MASK) ^ c1 ^ k0,
            p1 & MASK,
            ((p0 >> 32) & MASK) ^ c3 ^ k1,
            p0 & MASK,
        )
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return c0, c1, c2, c3


def uniform(words: Tensor) -> Tensor:
    """32-bit words to float32 in [0, 1), on the 24-bit grid that float32 holds exactly."""
    return (words >> 8).to(torch.float32) * 2.0**-24
