"""The graph of nearest neighbours that labels diffuse along (Iscen et al., 2019, section 4.1).

N rows of D features, k neighbours each. Similarity is the inner product of rows scaled to length 1.
"""

from types import ModuleType
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from fastssl.ops.registration import check_floats, register_no_gradient

INDEXES = ("exact", "ivf", "hnsw")
BACKENDS = (None, "compiled", "faiss")
MOST = 2**31 - 1  # that an int32 counts to
RECALL_ROWS = 1000
FAISS_BATCH = 1 << 16  # rows of one search, whose results FAISS returns in 12 bytes each


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
    return _share(N, dist.get_rank(group), dist.get_world_size(group))


def _share(N: int, rank: int, ranks: int) -> tuple[int, int]:
    return N * rank // ranks, N * (rank + 1) // ranks


def knn_graph(
    features: Tensor,
    k: int = 50,
    exponent: float = 3.0,
    *,
    index: str = "exact",
    backend: str | None = None,
    group: dist.ProcessGroup | None = None,
) -> Graph:
    """The normalised graph of k nearest neighbours (Iscen et al., 2019, section 4.1).

    A holds max(⟨vᵢ, vⱼ⟩, 0)^exponent for the k rows j most similar to row i, itself left out; of
    equally similar rows those of lower index. W = A + Aᵀ, and the result is D^-1/2 W D^-1/2. A pair
    whose similarity is not positive has no edge, nor has a row of zeros, which has no direction.

    Args:
        features: [N, D]; float32, float64, float16 or bfloat16; any length of rows. Similarities
            are accumulated in float32.
        k: neighbours of a row, below N.
        exponent: of the similarities, at least 0; 0 weighs all neighbours alike.
        index: "exact", or FAISS's approximate "ivf" (inverted lists) or "hnsw" (a graph to
            navigate), whose recall is measured and in the result.
        backend: of the exact search: "compiled", "faiss" (then ties fall as they may), or None for
            the faster of them.
        group: processes that share the search and the graph by rows. Each of them must call, with
            all N rows, and gets the rows `row_range(N, group)` of one process's graph.

    Returns:
        The graph, on the device of the features. Without a gradient: to autograd it is a constant.
        An exact one on the CPU is the same for any number of threads.

    Raises:
        ValueError: features are not [N, D] with N >= 2, hold NaN or infinity; k is not between 1
            and N - 1; exponent, index or backend is not one of the above; the graph would have
            2^31 entries or more.
        TypeError: the dtype is not supported.
        ModuleNotFoundError: FAISS is asked for and not installed.
    """
    _check_options(exponent, index, backend)
    rows = unit_rows(features)
    N = len(rows)
    if not isinstance(k, int) or not 1 <= k < N:
        raise ValueError(f"knn_graph: k is {k}; expected an integer from 1 to N - 1 = {N - 1}")
    begin, end = row_range(N, group)
    if index != "exact" or backend == "faiss":
        neighbors, value = _faiss_neighbors(rows, k, index, begin, end)
    elif end - begin == N:
        neighbors, value = torch.ops.fastssl.knn_graph_neighbors(rows, None, None, k)
    else:
        neighbors, value = _neighbors_of(rows, torch.arange(begin, end, device=rows.device), k)
    recall = None if index == "exact" else _recall(rows, neighbors, begin, k, group)
    weight = edge_weights(value, exponent)
    if group is not None:
        neighbors, weight = (_gather_rows(x, N, group) for x in (neighbors, weight))
    symmetric = symmetric_by_sorting if rows.is_cuda else torch.ops.fastssl.knn_graph_symmetrize
    start, column, value = symmetric(neighbors, weight, begin, end)
    return Graph(int32_starts(start), column, value, recall)


def knn_graph_reference(features: Tensor, k: int = 50, exponent: float = 3.0) -> Graph:
    """`knn_graph` with index "exact" in plain PyTorch, N x N numbers large: the specification."""
    rows = F.normalize(features, dim=1)
    similarity = rows @ rows.T
    similarity.fill_diagonal_(-torch.inf)
    value, neighbors = similarity.sort(dim=1, descending=True, stable=True)
    weight = torch.where(value > 0, value.clamp_min(0) ** exponent, 0)[:, :k]
    A = torch.zeros_like(similarity).scatter_(1, neighbors[:, :k], weight)
    W = A + A.T
    degree = W.sum(1)
    row, col = W.nonzero(as_tuple=True)
    value = W[row, col] / (degree[row] * degree[col]).sqrt()
    crow = F.pad(torch.bincount(row, minlength=len(W)).cumsum(0), (1, 0))
    return Graph(crow.int(), col.int(), value, None)


def unit_rows(features: Tensor) -> Tensor:
    """Features [N, D] scaled to length 1 as contiguous float32 [N, D]; rows of zeros stay zeros.

    Raises:
        ValueError: features are not [N, D] with N >= 2 and D >= 1, or hold NaN or infinity.
        TypeError: the dtype is not supported.
    """
    check_floats("knn_graph", features=features)
    if features.dim() != 2 or len(features) < 2 or features.shape[1] < 1:
        raise ValueError(
            f"knn_graph: features is {list(features.shape)}; expected [N, D], N at least 2"
        )
    if len(features) > MOST:
        raise ValueError(f"knn_graph: features has {len(features)} rows; expected below 2^31")
    features = features.detach().contiguous()  # strides would change the order of sums
    # The largest entry first: squares would leave the range of numbers that are not extreme.
    largest = torch.linalg.vector_norm(features, torch.inf, dim=1, keepdim=True)
    if not (finite := largest.isfinite()).all():
        row = int((~finite).flatten().nonzero()[0])
        raise ValueError(f"knn_graph: features has NaN or infinity in row {row}")
    is_double = features.dtype == torch.float64
    largest = largest if is_double else largest.float()
    largest.masked_fill_(largest == 0, 1)
    if is_double:
        rows = (features / largest).float()
    else:
        rows = features.to(torch.float32, copy=True).div_(largest)
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows.div_(length.masked_fill_(length == 0, 1)).contiguous()


def edge_weights(value: Tensor, exponent: float) -> Tensor:
    """max(value, 0)^exponent, 0 for similarities that are not positive whatever the exponent."""
    # Rounding takes some similarities above 1, where a large exponent would blow them up.
    return value.clamp(0, 1).pow_(exponent).mul_(value > 0)


def _check_options(exponent: float, index: str, backend: str | None) -> None:
    if not 0 <= exponent < float("inf"):
        raise ValueError(f"knn_graph: exponent is {exponent}; expected a finite number from 0")
    if index not in INDEXES:
        raise ValueError(f"knn_graph: index is {index!r}; expected one of {', '.join(INDEXES)}")
    if backend not in BACKENDS:
        raise ValueError(f"knn_graph: backend is {backend!r}; expected None, compiled or faiss")
    if index != "exact" and backend == "compiled":
        raise ValueError(f"knn_graph: backend is 'compiled', but index {index!r} is FAISS's")


def _neighbors_of(rows: Tensor, own: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The exact neighbours of the rows `own` [M]: index int32 and value float32, [M, k] both."""
    return torch.ops.fastssl.knn_graph_neighbors(rows, rows[own], own.int(), k)


def _recall(
    rows: Tensor, neighbors: Tensor, begin: int, k: int, group: dist.ProcessGroup | None
) -> float:
    """The share of true neighbours among those found, on rows spread evenly over all there are."""
    sample = torch.linspace(0, len(neighbors) - 1, min(RECALL_ROWS, len(neighbors))).long()
    sample = sample.to(rows.device)
    true, _ = _neighbors_of(rows, begin + sample, k)
    place = torch.arange(len(sample), device=rows.device)[:, None] * len(rows)
    is_found = torch.isin(true + place, neighbors[sample] + place) & (true >= 0)
    counts = torch.stack([is_found.sum(), (true >= 0).sum()]).double()
    if group is not None:
        dist.all_reduce(counts, group=group)
    found, total = counts.tolist()
    return found / total if total else 1.0


def _gather_rows(own: Tensor, N: int, group: dist.ProcessGroup) -> Tensor:
    """The rows of all processes, [N, k], from each one's own."""
    whole = own.new_empty(N, own.shape[1])
    ranks = dist.get_world_size(group)
    for rank in range(ranks):
        share = whole[slice(*_share(N, rank, ranks))]
        if rank == dist.get_rank(group):
            share.copy_(own)
        dist.broadcast(share, dist.get_global_rank(group, rank), group=group)
    return whole


def symmetric_by_sorting(
    index: Tensor, weight: Tensor, begin: int, end: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows [begin, end) of D^-1/2 (A + Aᵀ) D^-1/2: `knn_graph_symmetrize` in torch's operations."""
    N, k = index.shape
    source = torch.arange(N, device=index.device).repeat_interleave(k)
    is_edge = weight.flatten() > 0
    i, j = source[is_edge], index.flatten()[is_edge].long()
    weight = weight.flatten()[is_edge].double().repeat(2)
    place, order = torch.cat([i * N + j, j * N + i]).sort()
    place, entry = torch.unique_consecutive(place, return_inverse=True)  # two where both point
    weight = weight.new_zeros(len(place)).index_add_(0, entry, weight[order])
    bounds = torch.arange(N + 1, device=index.device) * N
    start = torch.searchsorted(place, bounds)
    degree = torch.segment_reduce(weight, "sum", offsets=start, initial=0)
    row, column = place // N, place % N
    scale = degree.rsqrt()
    value = (weight * (scale[row] * scale[column])).float()
    start = start[begin : end + 1]
    own = slice(int(start[0]), int(start[-1]))
    return start - start[0], column[own].int(), value[own]


def int32_starts(start: Tensor) -> Tensor:
    """Where rows start, counted in int64, as int32 if the entries are so few."""
    if int(start[-1]) > MOST:
        raise ValueError(
            f"knn_graph: the graph has {int(start[-1])} entries; expected below 2^31: lower k, or "
            "share the rows among the processes of a group"
        )
    return start.int()


def load_faiss() -> ModuleType:
    """FAISS, or ModuleNotFoundError that says what to do."""
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "knn_graph: index 'ivf', 'hnsw' and backend 'faiss' need FAISS: pip install faiss-cpu"
        ) from error
    return faiss


def _faiss_neighbors(
    rows: Tensor, k: int, index: str, begin: int, end: int
) -> tuple[Tensor, Tensor]:
    """The k rows that FAISS finds most similar to each of the rows [begin, end), itself left out.

    Index int32 and value float32, [end - begin, k]; index -1 where FAISS found fewer.
    """
    faiss = load_faiss()
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(torch.get_num_threads())
    try:
        vectors = rows.cpu().numpy()
        searched = _faiss_index(faiss, index, *rows.shape)
        if rows.is_cuda and index != "hnsw" and hasattr(faiss, "StandardGpuResources"):
            resources = faiss.StandardGpuResources()
            searched = faiss.index_cpu_to_gpu(resources, rows.device.index, searched)
        if not searched.is_trained:
            searched.train(vectors)
        searched.add(vectors)
        found = torch.empty(end - begin, k, dtype=torch.int32)
        value = torch.empty(end - begin, k)
        for first in range(begin, end, FAISS_BATCH):
            last = min(first + FAISS_BATCH, end)
            batch = map(torch.from_numpy, searched.search(vectors[first:last], k + 1))
            own = slice(first - begin, last - begin)
            value[own], found[own] = without_self(*batch, first)
        return found.to(rows.device), value.to(rows.device)
    finally:
        faiss.omp_set_num_threads(threads)


def _faiss_index(faiss: ModuleType, index: str, N: int, D: int):  # of a type that FAISS has
    """An empty index for N rows of D features, by inner product."""
    if index == "exact":
        return faiss.IndexFlatIP(D)
    if index == "hnsw":
        graph = faiss.IndexHNSWFlat(D, 32, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = 80
        graph.hnsw.efSearch = 128
        return graph
    cells = max(1, min(round(4 * N**0.5), N // 39))
    lists = faiss.IndexIVFFlat(faiss.IndexFlatIP(D), D, cells, faiss.METRIC_INNER_PRODUCT)
    lists.cp.min_points_per_centroid, lists.cp.max_points_per_centroid = 1, 64
    lists.nprobe = min(cells, 32)
    return lists


def without_self(value: Tensor, found: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """Values and indices [M, k] out of [M, k + 1], row m of which is of query first + m."""
    own = torch.arange(first, first + len(found))[:, None]
    is_other = found != own
    is_other[:, -1] &= ~is_other.all(1)  # itself not among them: the last one goes
    shape = len(found), found.shape[1] - 1
    value, found = value[is_other].view(shape), found[is_other].view(shape)
    return value.masked_fill_(found < 0, 0), found.int()


@torch.library.register_fake("fastssl::knn_graph_neighbors")
def _(rows, queries, own, k):
    M = len(rows if queries is None else queries)
    return rows.new_empty((M, k), dtype=torch.int32), rows.new_empty((M, k))


@torch.library.register_fake("fastssl::knn_graph_symmetrize")
def _(index, weight, begin, end):
    nnz = torch.library.get_ctx().new_dynamic_size()
    start = index.new_empty(end - begin + 1, dtype=torch.int64)
    return start, index.new_empty(nnz), weight.new_empty(nnz)


register_no_gradient("knn_graph_neighbors")
register_no_gradient("knn_graph_symmetrize")
