"""The neighbours of knn_graph against torch and FAISS, and the whole graph against SciPy's.

N rows, D features, 50 neighbours each. Searches are compared by the similarities found, since two
neighbours that rounding cannot tell apart make different graphs.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastssl.benchmarks.harness import Implementation, Work, normal
from fastssl.ops import knn_graph
from fastssl.ops.knn_graph import Graph, load_faiss, unit_rows

CASES = [(2000, 64), (10000, 128)]
EMPTY = (2, 1)
DTYPES = (torch.float32,)
MOST_NEIGHBORS = 50
BLOCK = 1024  # rows of one product


def neighbors(N: int) -> int:
    """50, or fewer where there are not so many other rows."""
    return min(MOST_NEIGHBORS, N - 1)


def compiled_search(features: Tensor) -> Tensor:
    """Similarities [N, k] of the neighbours that the op finds."""
    rows = unit_rows(features)
    return torch.ops.fastssl.knn_graph_neighbors(rows, None, None, neighbors(len(rows)))[1]


def eager_search(features: Tensor) -> Tensor:
    """The same by torch's products and top-k, block by block, never N x N."""
    rows, k = F.normalize(features, dim=1), neighbors(len(features))
    value = rows.new_empty(len(rows), k)
    for first in range(0, len(rows), BLOCK):
        similarity = rows[first : first + BLOCK] @ rows.T
        value[first : first + BLOCK] = similarity.topk(k + 1).values[:, 1:]
    return value


def faiss_search(features: Tensor) -> Tensor:
    """The same by a flat index searched once, as LP-DeepSSL does (lp/db_semisuper.py)."""
    return torch.from_numpy(_faiss_flat(features)[0])[:, 1:]


def _faiss_flat(features: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Similarities and indices [N, k + 1]."""
    faiss, X = load_faiss(), features.cpu().numpy().copy()
    faiss.omp_set_num_threads(torch.get_num_threads())
    faiss.normalize_L2(X)
    index = faiss.IndexFlatIP(X.shape[1])
    index.add(X)
    return index.search(X, neighbors(len(X)) + 1)


def compiled_graph(features: Tensor) -> Graph:
    """The whole graph."""
    return knn_graph(features, neighbors(len(features)))


def scipy_graph(features: Tensor) -> Tensor:
    """The whole graph by FAISS and SciPy, as LP-DeepSSL makes it (lp/db_semisuper.py)."""
    import scipy.sparse

    value, found = _faiss_flat(features)
    value, found = value[:, 1:], found[:, 1:]
    N, k = found.shape
    row = np.arange(N).repeat(k)
    A = scipy.sparse.csr_matrix(
        (np.maximum(value, 0).ravel() ** 3, (row, found.ravel())), shape=(N, N)
    )
    W = A + A.T
    degree = np.asarray(W.sum(axis=1)).ravel()
    scale = scipy.sparse.diags(1 / np.sqrt(np.where(degree == 0, 1, degree)))
    return torch.from_numpy((scale @ W @ scale).tocsr().data)


def implementations(
    N: int, D: int, device: torch.device, dtype: torch.dtype
) -> Iterator[Implementation]:
    """What is timed for one shape; fastssl first."""
    inputs = [normal(N, D, device=device, dtype=dtype).detach()]
    yield Implementation("fastssl", compiled_search, inputs)
    yield Implementation("eager", eager_search, inputs)
    yield Implementation("faiss", faiss_search, inputs, captured=False)
    whole = {"check": False, "captured": False}
    yield Implementation("fastssl, whole graph", compiled_graph, inputs, **whole)
    yield Implementation("faiss and SciPy, whole graph", scipy_graph, inputs, **whole)


def work(N: int, D: int, size: int) -> dict[str, Work]:
    """Features read, neighbours and similarities written; each pair of rows multiplied once."""
    return {"forward": Work(bytes=N * D * size + N * neighbors(N) * 8, flops=N * N * D)}
