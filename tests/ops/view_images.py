"""Images for the tests of augment: squares cut out of photographs, tinted, and plain extremes."""

import functools

import numpy as np
import torch
from torch import Tensor


@functools.cache
def _photographs() -> list[np.ndarray]:
    from sklearn.datasets import load_sample_images

    return load_sample_images().images  # two of 427 x 640, RGB


def photographs(N: int, S: int, K: int = 3) -> Tensor:
    """N squares of the photographs, each with its own gain and offset a channel, uint8 [N,K,S,S].

    The first three are one gray, two grays, and black and white in stripes.
    """
    rng = np.random.default_rng(0)
    squares = []
    for n in range(N):
        photograph = _photographs()[n % 2]
        step = int(rng.integers(1, min(5, 427 // S + 1)))
        y, x = (int(rng.integers(side - step * S + 1)) for side in photograph.shape[:2])
        square = photograph[y : y + step * S : step, x : x + step * S : step].astype(float)
        square = square * rng.uniform(0.2, 1.3, 3) + rng.uniform(-60, 60, 3)
        squares.append(square.clip(0, 255))
    images = torch.from_numpy(np.stack(squares)).to(torch.uint8).permute(0, 3, 1, 2)
    images = images[:, :K].contiguous()
    extremes = torch.full((3, K, S, S), 77, dtype=torch.uint8)
    extremes[1, :, : S // 2] = 78
    extremes[2] = 255 * (torch.arange(S) % 2).to(torch.uint8)
    images[:3] = extremes[:N]
    return images
