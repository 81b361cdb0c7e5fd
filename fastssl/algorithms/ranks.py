"""The processes that train one algorithm together, each with its share of every step's rows.

R processes, N rows of each.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """Which of R processes this is; torch.distributed's default group is theirs where R > 1.

    What a term takes from the whole batch, and what is kept of every image, goes through here; the
    mean of a term over the processes is then its value for one process with all the rows.
    """

    rank: int = 0
    count: int = 1  # R

    @property
    def group(self) -> dist.ProcessGroup | None:
        """Theirs, for `ops` that take one; None for a process alone."""
        return dist.group.WORLD if self.count > 1 else None

    def gather(self, rows: Tensor) -> Tensor:
        """[R*N, ...] of all processes' rows [N, ...], in the order one process would have them.

        Every process must call. No gradient passes.
        """
        if self.count == 1:
            return rows.detach()
        every = rows.new_empty((self.count * len(rows), *rows.shape[1:]))
        dist.all_gather(list(every.chunk(self.count)), rows.detach().contiguous())
        return every

    def randn_like(self, rows: Tensor) -> Tensor:
        """Normal noise like rows [N, ...]: this process's part of one draw for all R*N rows.

        Every process must call; the first draws, from torch's default generator.
        """
        if self.count == 1:
            return torch.randn_like(rows)
        every = torch.cat([rows.detach()] * self.count)  # in the rows' memory format
        if self.rank == 0:
            every = torch.randn_like(every)
        dist.broadcast(every.as_strided((every.numel(),), (1,)), 0)  # its memory, as one row
        return every[self.rank * len(rows) : (self.rank + 1) * len(rows)]


ALONE = Ranks()
