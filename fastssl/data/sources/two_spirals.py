"""CCN's toy example: two interleaved spirals in the plane, points instead of images."""

import math

import numpy as np
import torch
from torch import Tensor

from fastssl.data.philox import Purpose, philox, uniform
from fastssl.data.sources.place import Place
from fastssl.data.sources.source import Source

TURNS = 1.0
NOISE = 0.02  # standard deviation, in units of the disc's radius
EACH = 1000  # points a class in the training part, and as many in the test part


def read_two_spirals(_: Place) -> Source:
    """Two spirals: 1,000 points a class in the unit disc, an independent draw of 2,000 to test on.

    The arms are x(t) = t (cos t, sin t) and its negative with t = sqrt(u) * turns * 2 pi, u uniform
    in [0, 1), divided by turns * 2 pi, plus Gaussian noise. CCN gives neither turns nor noise: one
    turn and 0.02 are ours.
    """
    images, labels = spirals(EACH, draw=0)
    test_images, test_labels = spirals(EACH, draw=1)
    return Source("two_spirals", images, labels, test_images, test_labels, ("first", "second"))


def spirals(each: int, *, draw: int) -> tuple[Tensor, Tensor]:
    """`each` points of each arm, float32 [2*each,2], and their arm, int64 [2*each]."""
    point = torch.arange(2 * each)
    number, purpose = torch.full_like(point, draw), torch.full_like(point, Purpose.POINTS)
    words = philox((point, number, purpose, torch.zeros_like(point)), seed=0)
    u, radius, turn = (uniform(word).double().numpy() for word in words[:3])
    arm = (np.arange(2 * each) >= each).astype(np.int64)
    t = np.sqrt(u) * (TURNS * math.tau)
    points = np.stack([t * np.cos(t), t * np.sin(t)], 1) / (TURNS * math.tau)
    points *= np.where(arm == 0, 1.0, -1.0)[:, None]
    # Box and Muller: two uniform numbers give the two coordinates' noise.
    length = NOISE * np.sqrt(-2 * np.log1p(-radius))
    points += length[:, None] * np.stack([np.cos(math.tau * turn), np.sin(math.tau * turn)], 1)
    return torch.from_numpy(points.astype(np.float32)), torch.from_numpy(arm)
