"""An endless, seeded stream of images in batches of a fixed size, addressed by step."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fastssl.data.philox import Purpose, permutation


@dataclass(frozen=True, eq=False)
class Stream:
    """One permutation of the images after another, cut into steps of `rows` images.

    A step may straddle two permutations, or hold several when there are fewer images than rows;
    among draws p*n .. (p+1)*n - 1 each of the n images is exactly one. A step depends on
    (seed, purpose, step) alone, so a resumed run sees the images it would have seen.
    """

    images: np.ndarray  # int64 [n], positions in the source's training images
    rows: int  # images a step
    seed: int
    purpose: Purpose

    @property
    def steps_per_pass(self) -> int:
        """Steps to a pass over the images, rounded down, at least 1."""
        return max(1, len(self.images) // self.rows)

    def at(self, step: int) -> np.ndarray:
        """Positions of the images of one step, int64 [rows]."""
        n = len(self.images)
        first, last = step * self.rows, (step + 1) * self.rows  # draws [first, last)
        passes = range(first // n, -(-last // n))
        draws = np.concatenate([_one_pass(self, number) for number in passes])
        return draws[first - passes.start * n : last - passes.start * n]


@lru_cache(maxsize=8)
def _one_pass(stream: Stream, number: int) -> np.ndarray:
    """The images of one pass in their order; kept, since a long pass serves many steps."""
    order = permutation(len(stream.images), seed=stream.seed, purpose=stream.purpose, number=number)
    return stream.images[order]
