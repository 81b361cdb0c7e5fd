"""Small graphs of neighbours for the ops that diffuse labels along them."""

import torch

from fastssl.ops.knn_graph import Graph


def random_graph(N: int, degree: int) -> Graph:
    """Every row joined to about `degree` random others, D^-1/2 W D^-1/2; row N - 1 to none.

    A tenth of the rows, the last but one among them, joins itself to row 0 too: a hub.
    """
    W = torch.zeros(N, N)
    for i in range(N - 1):
        W[i, torch.randint(N - 1, (degree,))] = torch.rand(degree) + 0.1
        if i % 10 == (N - 2) % 10:
            W[i, 0] = 1
    W.fill_diagonal_(0)
    return normalised(W + W.T)


def normalised(W: torch.Tensor) -> Graph:
    """A dense symmetric matrix of weights as knn_graph would give it."""
    degrees = W.sum(1)
    scale = torch.where(degrees > 0, degrees, 1).rsqrt()
    matrix = W * scale[:, None] * scale
    row, col = matrix.nonzero(as_tuple=True)
    crow = torch.cat([torch.zeros(1, dtype=torch.int64), row.bincount(minlength=len(W)).cumsum(0)])
    return Graph(crow.int(), col.int(), matrix[row, col], None)


def to(graph: Graph, device: torch.device) -> Graph:
    """The graph on a device."""
    return Graph(*(x.to(device) for x in graph[:3]), graph.recall)


def dense(graph: Graph) -> torch.Tensor:
    """W [N, N] in float64."""
    N = len(graph.crow) - 1
    row = torch.arange(N).repeat_interleave(graph.crow.cpu().diff())
    W = torch.zeros(N, N, dtype=torch.float64)
    W[row, graph.col.cpu().long()] = graph.value.cpu().double()
    return W
