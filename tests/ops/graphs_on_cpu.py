"""The ops on graphs as csrc/ops composes their CUDA kernels, on the CPU checker."""

from collections.abc import Callable

import numpy as np
import torch
from cuda_on_cpu import checker
from kernels_on_cpu import Pair, kernels
from torch import Tensor

from fastssl.ops.knn_graph import Graph, edge_weights, symmetric_by_sorting, unit_rows


def diffuse(order: checker.Order) -> Callable[..., tuple[Tensor, Tensor]]:
    """The op in one order of threads."""

    def op(graph, seeds, alpha=0.99, tolerance=1e-6, max_iterations=20):
        rows = Pair(order, seeds, seeds)
        N, C = rows.N, rows.C
        blocks, scores = np.empty(1, np.int64), np.empty_like(rows.a)
        kernels().launchers["diffuse_blocks"](blocks, N, order=order)
        iterations, running = np.empty(C, np.int64), np.empty(1, np.int32)
        partials, columns = np.empty((blocks[0], 4, C)), np.empty((3, C))
        workspace = rows.empty(4, N, C), partials, columns, running
        matrix = [x.numpy() for x in (graph.crow, graph.col, graph.value)]
        numbers = N, len(graph.col), C, alpha, tolerance, max_iterations
        rows.launch("diffuse", *matrix, rows.a, scores, iterations, *workspace, *numbers)
        return rows.tensors(scores)[0], torch.from_numpy(iterations)

    return op


def diffuse_product(order: checker.Order) -> Callable[..., Tensor]:
    """The op behind `diffuse` over a group, in one order of threads."""

    def op(crow, col, value, vectors, first_row, alpha):
        rows = Pair(order, vectors, vectors)
        product = rows.empty(len(crow) - 1, rows.C)
        matrix = [x.numpy() for x in (crow, col, value)]
        sizes = first_row, rows.N, len(product), len(col), rows.C
        rows.launch("diffuse_product", *matrix, rows.a, product, *sizes, alpha)
        return torch.from_numpy(product)

    return op


def knn_graph_neighbors(order: checker.Order) -> Callable[..., tuple[Tensor, Tensor]]:
    """The op in one order of threads: neighbors_cuda of csrc/ops/knn_graph.cpp."""

    def op(rows: Tensor, queries: Tensor | None, own: Tensor | None, k: int) -> tuple:
        x, q, o = (None if t is None else t.numpy() for t in (rows, queries, own))
        q = x if q is None else q
        (N, D), M = x.shape, len(q)
        elements = np.empty(1, np.int64)
        launchers = kernels().launchers
        launchers["nearest_rows_workspace"](elements, M, k, order=order)
        workspace = np.empty(elements[0], np.uint64) if elements[0] else None
        index, value = np.empty((M, k), np.int32), np.empty((M, k), np.float32)
        arguments = x, q, o, workspace, index, value, N, M, D, k
        launchers["nearest_rows"](*arguments, order=order)
        return torch.from_numpy(index), torch.from_numpy(value)

    return op


def knn_graph(order: checker.Order) -> Callable[..., Graph]:
    """The op in one order of threads, made symmetric as on a GPU."""

    def op(features: Tensor, k: int = 50, exponent: float = 3.0) -> Graph:
        index, value = knn_graph_neighbors(order)(unit_rows(features), None, None, k)
        weight = edge_weights(value, exponent)
        start, column, value = symmetric_by_sorting(index, weight, 0, len(features))
        return Graph(start.int(), column, value, None)

    return op
