"""An endless, seeded stream of images in batches of a fixed size, addressed by step."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from fastssl.data.philox import Purpose, permutation
from fastssl.errors import InputError


@dataclass(frozen=True)
class Shard:
    """The part of every step that one of several processes takes: row r goes to one rank alone."""

    rank: int
    ranks: int

    def rows(self, total: int) -> slice:
        """This rank's rows among the `total` of a step.

        Raises:
            InputError: they do not divide by the ranks.
        """
        if total % self.ranks:
            raise InputError(f"data: {total} rows a step do not divide by {self.ranks} processes")
        own = total // self.ranks
        return slice(self.rank * own, (self.rank + 1) * own)


ALONE = Shard(rank=0, ranks=1)


@dataclass(frozen=True, eq=False)
class Stream:
    """One permutation of the images after another, cut into steps of `rows` images.

    A step may straddle two permutations, or hold several when there are fewer images than rows;
    among draws p*n .. (p+1)*n - 1 each of the n images is exactly one. A step depends on
    (seed, purpose, step) alone, so a resumed run sees the images it would have seen, and on any
    number of ranks the steps together hold the same.
    """

    images: Tensor  # int64 [n], positions in the source's training images, where they are wanted
    rows: int  # images a step, of all ranks together
    seed: int
    purpose: Purpose
    shard: Shard = ALONE

    @property
    def steps_per_pass(self) -> int:
        """Steps to a pass over the images, rounded down, at least 1."""
        return max(1, len(self.images) // self.rows)

    def at(self, step: int) -> Tensor:
        """Positions of this rank's images of one step, int64 [rows / ranks], beside `images`.

        A pass is permuted on the device once, and its steps are slices of it.
        """
        n, own = len(self.images), self.shard.rows(self.rows)
        first, last = step * self.rows + own.start, step * self.rows + own.stop
        passes = range(first // n, -(-last // n))
        draws = torch.cat([_one_pass(self, number) for number in passes])
        return draws[first - passes.start * n : last - passes.start * n]


@lru_cache(maxsize=8)
def _one_pass(stream: Stream, number: int) -> Tensor:
    """The images of one pass in their order; kept, since a long pass serves many steps."""
    order = permutation(len(stream.images), seed=stream.seed, purpose=stream.purpose, number=number)
    positions, device = torch.from_numpy(order), stream.images.device
    if device.type == "cuda":  # so that the host need not wait for the device
        positions = positions.pin_memory()
    return stream.images[positions.to(device, non_blocking=True)]
