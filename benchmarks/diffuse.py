"""diffuse against the same by torch's sparse products, and against SciPy's conjugate gradients.

SciPy's are class by class in float64, the form of label propagation's own code, and in a block.

N rows, C classes, the exact graph of 50 neighbours. FASTSSL_BENCH_FEATURES names an .npz of
"features" [N, D] and "labels" [N] to take them from; without it they are synthetic clusters. Where
the labels have another number of classes, k-means clusters of the features stand in for them.
"""

import functools
import os
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from fastssl.benchmarks.harness import Implementation, Work
from fastssl.ops import diffuse, knn_graph
from fastssl.ops.diffuse import diffuse_reference
from fastssl.ops.knn_graph import Graph
from fastssl.ops.propagate_labels import label_seeds

CASES = [(2000, 10), (50000, 10), (50000, 100)]
EMPTY = (2, 1)
DTYPES = (torch.float32, torch.float64)

ALPHA, TOLERANCE, ITERATIONS = 0.99, 1e-6, 20
K, D, LABELED = 50, 64, 1000
SPREAD = 0.7  # of a cluster, against centres of unit spread


@functools.cache
def features_and_classes(N: int, C: int) -> tuple[Tensor, Tensor]:
    """Features [N, D] and the class of each row, [N]."""
    path = os.environ.get("FASTSSL_BENCH_FEATURES")
    generator = torch.Generator().manual_seed(0)
    if path is None or len(np.load(path)["features"]) != N:
        classes = torch.randint(C, (N,), generator=generator)
        centres, noise = (torch.randn(n, D, generator=generator) for n in (C, N))
        return (centres[classes] + SPREAD * noise).relu(), classes
    given = np.load(path)
    features, classes = torch.from_numpy(given["features"]), torch.from_numpy(given["labels"])
    if int(classes.max()) + 1 != C:
        from sklearn.cluster import MiniBatchKMeans

        rows = torch.nn.functional.normalize(features).numpy()
        means = MiniBatchKMeans(C, random_state=0, n_init=1, batch_size=4096)
        classes = torch.from_numpy(means.fit_predict(rows)).long()
    return features, classes


@functools.cache
def problem(N: int, C: int) -> tuple[Graph, Tensor]:
    """The graph, and the seeds of up to 1000 labels, about as many of each class."""
    features, classes = features_and_classes(N, C)
    labels = torch.full_like(classes, -1)
    shuffled = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    for c in range(C):
        own = shuffled[classes[shuffled] == c][: max(1, LABELED // C)]
        labels[own] = c
    return knn_graph(features, min(K, N - 1)), label_seeds(labels, C)


def scipy_by_class(graph: Graph) -> Callable[[Tensor], Tensor]:
    """The form of label propagation's own code (Iscen et al., 2019): a float64 solve a class."""
    import scipy.sparse
    import scipy.sparse.linalg

    N = len(graph.crow) - 1
    W = scipy.sparse.csr_array((graph.value, graph.col, graph.crow), shape=(N, N))
    A = (scipy.sparse.eye_array(N) - ALPHA * W.astype(np.float64)).tocsr()

    def solve(seeds: Tensor) -> Tensor:
        columns = seeds.double().numpy().T
        solved = [
            scipy.sparse.linalg.cg(A, np.ascontiguousarray(y), rtol=TOLERANCE, maxiter=ITERATIONS)
            for y in columns
        ]
        return torch.from_numpy(np.stack([x for x, _ in solved], 1))

    return solve


def scipy_block(graph: Graph) -> Callable[[Tensor], Tensor]:
    """All classes at once by SciPy's sparse times dense product, float32."""
    import scipy.sparse

    N = len(graph.crow) - 1
    W = scipy.sparse.csr_array((graph.value, graph.col, graph.crow), shape=(N, N))

    def solve(seeds: Tensor) -> Tensor:
        r = seeds.numpy().copy()
        x, p = np.zeros_like(r), r.copy()
        squares = np.einsum("nc,nc->c", r, r)
        threshold = TOLERANCE**2 * squares
        for _ in range(ITERATIONS):
            running = squares > threshold
            if not running.any():
                break
            q = p - np.float32(ALPHA) * (W @ p)
            safe = np.where(running, np.einsum("nc,nc->c", p, q), 1)
            length = np.where(running, squares / safe, 0)
            x += length * p
            r -= length * q
            left = np.einsum("nc,nc->c", r, r)
            p = r + np.where(running, left / np.where(running, squares, 1), 0) * p
            squares = np.where(running, left, squares)
        return torch.from_numpy(x)

    return solve


def torch_csr(graph: Graph, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """All classes at once by torch's sparse CSR times dense product; it never looks at the host."""
    N = len(graph.crow) - 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the layout is a beta
        W = torch.sparse_csr_tensor(graph.crow, graph.col, graph.value.to(dtype), (N, N))

    def solve(seeds: Tensor) -> Tensor:
        x, r, p = torch.zeros_like(seeds), seeds, seeds
        squares = r.square().sum(0)
        threshold = TOLERANCE**2 * squares
        for _ in range(ITERATIONS):
            running = squares > threshold
            q = torch.addmm(p, W, p, alpha=-ALPHA)
            length = torch.where(running, squares / (p * q).sum(0), 0)
            x, r = x + length * p, r - length * q
            left = r.square().sum(0)
            p = torch.where(running, r + left / squares * p, 0)
            squares = torch.where(running, left, squares)
        return x

    return solve


def implementations(
    N: int, C: int, device: torch.device, dtype: torch.dtype
) -> Iterator[Implementation]:
    """What is timed for one shape; fastssl first."""
    graph, seeds = problem(N, C)
    on_device = Graph(*(x.to(device) for x in graph[:3]), graph.recall)
    inputs = [seeds.to(device, dtype)]
    settings = ALPHA, TOLERANCE, ITERATIONS
    yield Implementation("fastssl", lambda y: diffuse(on_device, y, *settings)[0], inputs)

    def eager(y: Tensor) -> Tensor:
        return diffuse_reference(on_device, y, *settings)[0]

    yield Implementation("eager", eager, inputs, captured=False)
    yield Implementation("torch, sparse CSR", torch_csr(on_device, dtype), inputs)
    if device.type == "cpu" and dtype == torch.float32:
        yield Implementation("SciPy, class by class, fp64", scipy_by_class(graph), inputs)
        yield Implementation("SciPy, sparse x dense, fp32", scipy_block(graph), inputs)


def work(N: int, C: int, size: int) -> dict[str, Work]:
    """Ten iterations, each of the matrix once (8 bytes an entry) and 8 passes over vectors."""
    entries = N * min(K, N - 1) * 3 // 2  # what is not mutual counts twice
    bytes_ = 10 * (8 * entries + 8 * N * C * size)
    return {"forward": Work(bytes=bytes_, flops=10 * 2 * entries * C)}
