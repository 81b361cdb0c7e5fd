"""The graph of nearest neighbours that labels diffuse along (Iscen et al., 2019, section 4.1).

N rows, D features.
"""

from typing import NamedTuple

import torch.distributed as dist
from torch import Tensor


class Graph(NamedTuple):
    """A symmetric, normalised matrix of weights in compressed rows: D^-1/2 W D^-1/2.

    W is symmetric with a zero diagonal, D holds its row sums. Columns ascend within a row; a row
    without neighbours is empty. Made for a group of processes, each holds the rows `row_range(N,
    group)` alone: crow counts from 0 there, col is a row of the whole matrix, and N is not to be
    read off crow.

    Attributes:
        crow: [N + 1] int32, where each row starts in col and value.
        col: [nnz] int32.
        value: [nnz] float32, above 0.
        recall: the share of the true k neighbours that an approximate index found, measured on a
            sample of rows; None for an exact one.
    """

    crow: Tensor
    col: Tensor
    value: Tensor
    recall: float | None


def row_range(N: int, group: dist.ProcessGroup | None) -> tuple[int, int]:
    """The rows [begin, end) of N that this process of a group holds; all without a group."""
    if group is None:
        return 0, N
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    return N * rank // ranks, N * (rank + 1) // ranks
