"""Label diffusion on a graph of neighbours, the linear system behind label propagation.

N rows, C classes. All classes are solved by conjugate gradients in one call.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from fastssl.ops.knn_graph import Graph
from fastssl.ops.registration import FLOATS, accumulator, register_no_gradient


def diffuse(
    graph: Graph,
    seeds: Tensor,
    alpha: float = 0.99,
    tolerance: float = 1e-6,
    max_iterations: int = 20,
    *,
    group: dist.ProcessGroup | None = None,
) -> tuple[Tensor, Tensor]:
    """Solve (I - alpha W) F = Y by conjugate gradients (Iscen et al., 2019, eq. 8).

    Every class has its own step lengths and stops by itself, once its residual is at most
    `tolerance` times its seeds' norm: the iterates are those of solving class by class. On the CPU
    the result does not depend on the number of threads.

    Args:
        graph: W [N, N], symmetric with eigenvalues in [-1, 1], as `knn_graph` makes it.
        seeds: Y [N, C]; float32, float64, float16 or bfloat16, on the graph's device.
        alpha: share that each row takes from its neighbours, in [0, 1).
        tolerance: of each class's residual, relative to its seeds.
        max_iterations: products with W at most.
        group: processes that hold consecutive rows of one graph, in the order of their ranks: each
            gives its own rows of W, col numbering the rows of all, and of Y. Every one of them must
            call.

    Returns:
        Scores F [N, C], of the seeds' dtype, this process's rows under `group`; and how many
        iterations each class took, int64 [C]. Without a gradient: to autograd they are constants.

    Raises:
        ValueError: shapes do not match, a dimension is empty, devices differ, or alpha, tolerance
            or max_iterations is out of range.
        TypeError: a dtype is not supported.
        RuntimeError: on the CPU, col or crow points outside the graph (on CUDA such a row is NaN);
            under forward-mode AD.
    """
    check_graph("diffuse", graph, seeds)
    if not 0 <= alpha < 1:
        raise ValueError(f"diffuse: alpha is {alpha}; expected 0 <= alpha < 1")
    if not tolerance >= 0:
        raise ValueError(f"diffuse: tolerance is {tolerance}; expected a number >= 0")
    if max_iterations < 0:
        raise ValueError(f"diffuse: max_iterations is {max_iterations}; expected >= 0")
    matrix = graph.crow, graph.col, graph.value
    if group is not None:
        return _diffuse_over_group(matrix, seeds, alpha, tolerance, max_iterations, group)
    return torch.ops.fastssl.diffuse(*matrix, seeds, alpha, tolerance, max_iterations)


def diffuse_reference(
    graph: Graph,
    seeds: Tensor,
    alpha: float = 0.99,
    tolerance: float = 1e-6,
    max_iterations: int = 20,
) -> tuple[Tensor, Tensor]:
    """`diffuse` in plain PyTorch: the specification."""
    N, dtype = len(seeds), accumulator(seeds.dtype)
    row = torch.arange(N, device=seeds.device).repeat_interleave(graph.crow.diff())
    entries = torch.stack([row, graph.col.long()])
    options = {"is_coalesced": True, "check_invariants": False}
    W = torch.sparse_coo_tensor(entries, graph.value.to(dtype), (N, N), **options)
    scores, iterations = _conjugate_gradients(
        lambda p: p - alpha * (W @ p),
        lambda a, b: (a * b).sum(0),
        seeds.to(dtype),
        tolerance,
        max_iterations,
    )
    return scores.to(seeds.dtype), iterations


def check_graph(op: str, graph: Graph, seeds: Tensor) -> None:
    """Check that a graph and the seeds of its rows fit together.

    Raises:
        TypeError: a dtype is not supported.
        ValueError: shapes do not match, a dimension is empty, or devices differ.
    """
    if seeds.dtype not in FLOATS:
        raise TypeError(
            f"{op}: seeds is {seeds.dtype}; expected float32, float64, float16 or bfloat16"
        )
    for name, dtype in (("crow", torch.int32), ("col", torch.int32), ("value", torch.float32)):
        tensor = getattr(graph, name)
        if tensor.dtype != dtype:
            raise TypeError(f"{op}: graph.{name} is {tensor.dtype}; expected {dtype}")
        if tensor.device != seeds.device:
            raise ValueError(
                f"{op}: graph.{name} is on {tensor.device} but seeds on {seeds.device}"
            )
    if (
        seeds.dim() != 2
        or 0 in seeds.shape
        or graph.crow.shape != (len(seeds) + 1,)
        or graph.col.dim() != 1
        or graph.value.shape != graph.col.shape
    ):
        shapes = ", ".join(f"{n} {list(getattr(graph, n).shape)}" for n in Graph._fields[:3])
        raise ValueError(
            f"{op}: seeds is {list(seeds.shape)}, the graph's {shapes}; expected seeds [N, C], not "
            "empty, crow [N + 1], col [nnz], value [nnz]"
        )


def _conjugate_gradients(
    multiply, dot, seeds: Tensor, tolerance: float, max_iterations: int
) -> tuple[Tensor, Tensor]:
    """Solve A x = seeds column by column, all at once: multiply(p) is A p, dot(a, b) [C]."""
    x, r, p = torch.zeros_like(seeds), seeds, seeds
    squares = dot(r, r)
    threshold = tolerance**2 * squares
    iterations = torch.zeros(seeds.shape[1], dtype=torch.int64, device=seeds.device)
    for _ in range(max_iterations):
        running = ~(squares <= threshold)
        if not running.any():
            break
        q = multiply(p)
        length = torch.where(running, squares / dot(p, q), 0).to(seeds.dtype)
        x, r = x + length * p, r - length * q
        left = dot(r, r)
        p = torch.where(running, r + (left / squares).to(seeds.dtype) * p, 0)
        squares = torch.where(running, left, squares)
        iterations += running
    return x, iterations


def _diffuse_over_group(
    matrix: tuple[Tensor, Tensor, Tensor],
    seeds: Tensor,
    alpha: float,
    tolerance: float,
    max_iterations: int,
    group: dist.ProcessGroup,
) -> tuple[Tensor, Tensor]:
    """`diffuse` where each process has its own rows: p is gathered, dot products are summed."""
    rows = seeds.new_tensor([len(seeds)], dtype=torch.int64)
    counts = [torch.empty_like(rows) for _ in range(dist.get_world_size(group))]
    dist.all_gather(counts, rows, group=group)
    counts = [int(count) for count in counts]
    first, most = sum(counts[: dist.get_rank(group)]), max(counts)

    def multiply(p: Tensor) -> Tensor:
        padded = torch.cat([p, p.new_zeros(most - len(p), p.shape[1])])  # gloo's gather is even
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded, group=group)
        whole = torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)])
        return torch.ops.fastssl.diffuse_product(*matrix, whole, first, alpha)

    def dot(a: Tensor, b: Tensor) -> Tensor:
        total = (a.double() * b.double()).sum(0)
        dist.all_reduce(total, group=group)
        return total

    scores, iterations = _conjugate_gradients(
        multiply, dot, seeds.detach().to(accumulator(seeds.dtype)), tolerance, max_iterations
    )
    return scores.to(seeds.dtype), iterations


@torch.library.register_fake("fastssl::diffuse")
def _(crow, col, value, seeds, alpha, tolerance, max_iterations):
    return (
        torch.empty_like(seeds, memory_format=torch.contiguous_format),
        seeds.new_empty(seeds.shape[1], dtype=torch.int64),
    )


@torch.library.register_fake("fastssl::diffuse_product")
def _(crow, col, value, vectors, first_row, alpha):
    return vectors.new_empty(crow.shape[0] - 1, vectors.shape[1])


register_no_gradient("diffuse")
register_no_gradient("diffuse_product")
