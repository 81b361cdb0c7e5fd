import neighbour_graphs
import no_gradient
import numpy as np
import pytest
import torch
from neighbour_graphs import random_graph
from op_checks import accumulation_eps, non_contiguous

from fastssl.ops import diffuse
from fastssl.ops.diffuse import diffuse_reference
from fastssl.ops.knn_graph import Graph

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# Both sides of the kernels' limits: a class, a panel's 16 (8 in fp64), a warp's 32 columns; a
# group's 16 rows, a block's 256 or 8, a warp's 32 neighbours.
SIZES = [(3, 1), (70, 7), (41, 16), (40, 17), (33, 33), (300, 3)]


def make(N: int, C: int, dtype=torch.float32, device="cpu") -> tuple[Graph, torch.Tensor]:
    """A graph and seeds: 1 / n_c on two or three rows of each class."""
    graph = random_graph(N, min(N // 2, 12))
    seeds = torch.zeros(N, C)
    for c in range(C):
        rows = torch.randperm(N)[: 2 + c % 2]
        seeds[rows, c] = 1 / len(rows)
    return neighbour_graphs.to(graph, device), seeds.to(device, dtype)


def scipy_by_class(graph: Graph, seeds: torch.Tensor, alpha, tolerance, max_iterations):
    """Scores and iterations of SciPy's conjugate gradients in float64, class by class."""
    import scipy.sparse.linalg

    W = neighbour_graphs.dense(graph).numpy()
    A = scipy.sparse.csr_array(np.eye(len(W)) - alpha * W)
    scores, iterations = [], []
    for column in seeds.cpu().double().numpy().T:
        done = []
        options = {"rtol": tolerance, "maxiter": max_iterations, "callback": done.append}
        scores.append(scipy.sparse.linalg.cg(A, column, **options)[0])
        iterations.append(len(done))
    return torch.from_numpy(np.stack(scores, 1)), iterations


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("N", "C"), SIZES)
def test_precision(backend, N, C, dtype):
    """Rounding alone: as many iterations as each dtype is given."""
    graph, seeds = make(N, C, dtype, backend.device)
    op = backend.op("diffuse")
    no_gradient.check_values(
        lambda y: op(graph, y, 0.9, 0.0, 6)[0],
        lambda y: diffuse_reference(graph, y, 0.9, 0.0, 6)[0],
        [seeds],
        16 * accumulation_eps(dtype),  # of scores up to 1, whose sums are of many more terms
    )


@pytest.mark.parametrize("C", [1, 6, 33])
def test_iterates_are_those_of_class_by_class_solving(backend, C):
    graph, seeds = make(100, C, torch.float64, backend.device)
    seeds[:, C // 2] = 0
    seeds[-1, C // 2] = 1  # a row of its own, solved by the first step
    for max_iterations in (0, 20):
        expected, iterations = scipy_by_class(graph, seeds, 0.99, 1e-6, max_iterations)
        scores, taken = backend.op("diffuse")(graph, seeds, 0.99, 1e-6, max_iterations)
        torch.testing.assert_close(scores.cpu(), expected, rtol=1e-9, atol=1e-12)
        assert taken.tolist() == iterations
    assert len(set(iterations)) > 1 or C == 1


def test_agrees_with_scipy_in_float32(backend):
    graph, seeds = make(150, 12, device=backend.device)
    expected, _ = scipy_by_class(graph, seeds, 0.99, 1e-6, 20)
    scores, _ = backend.op("diffuse")(graph, seeds)
    error = torch.linalg.vector_norm(scores.cpu().double() - expected, dim=0)
    assert (error <= 1e-5 * torch.linalg.vector_norm(expected, dim=0)).all()
    assert torch.equal(scores[:-1].cpu().argmax(1), expected[:-1].argmax(1))


def test_small_and_large_seeds(backend):
    """Squares of 1e-30 are not numbers of float32."""
    graph, seeds = make(50, 3, device=backend.device)
    expected, _ = backend.op("diffuse")(graph, seeds)
    for scale in (2.0**-100, 2.0**100):
        scores, _ = backend.op("diffuse")(graph, seeds * scale)
        torch.testing.assert_close(scores / scale, expected)


def test_nothing_is_solved_where_nothing_is_known(backend):
    graph, seeds = make(30, 3, device=backend.device)
    seeds[:, 1] = 0
    scores, iterations = backend.op("diffuse")(graph, seeds)
    assert (scores[:, 1] == 0).all()
    assert iterations[1] == 0
    assert (iterations[[0, 2]] > 0).all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_in_its_class(backend, value):
    graph, seeds = make(30, 3, device=backend.device)
    expected, _ = backend.op("diffuse")(graph, seeds)
    seeds[4, 1] = value
    scores, _ = backend.op("diffuse")(graph, seeds)
    assert scores[4, 1].isnan()
    assert torch.equal(scores[:, [0, 2]], expected[:, [0, 2]])


def test_grids_that_go_round(backend):
    """More rows than all blocks have warps; on the CPU, vectors beyond a second-level cache."""
    if backend.name == "cuda_on_cpu_reverse":
        pytest.skip("one order of many threads is enough")
    N = 8500 if backend.name.startswith("cuda_on_cpu") else 40000
    ring = torch.arange(N)
    col = torch.stack([(ring - 1) % N, (ring + 1) % N], 1).sort(1).values.flatten()
    graph = Graph(2 * torch.arange(N + 1).int(), col.int(), torch.full((2 * N,), 0.5), None)
    graph = neighbour_graphs.to(graph, backend.device)
    seeds = torch.zeros(N, 2, device=backend.device)
    seeds[[0, N - 2], 0] = 1
    seeds[N // 2, 1] = 1
    expected, _ = diffuse_reference(graph, seeds.double(), max_iterations=3)
    scores, _ = backend.op("diffuse")(graph, seeds, max_iterations=3)
    torch.testing.assert_close(scores.double(), expected, rtol=1e-5, atol=1e-6)


def test_order_of_rows_is_not_seen():
    """Beyond a second-level cache rows are solved in another order; some belong to no seed."""
    N, C = 40000, 5
    part = random_graph(100, 8)
    copies = N // 100
    crow = torch.cat([part.crow[:-1] + k * len(part.col) for k in range(copies)])
    crow = torch.cat([crow, torch.tensor([copies * len(part.col)])]).int()
    col = torch.cat([part.col + 100 * k for k in range(copies)]).int()
    graph = Graph(crow, col, part.value.repeat(copies), None)
    seeds = torch.zeros(N, C)
    known = torch.randperm(N)[:500]
    seeds[known, torch.randint(C, (500,))] = 1
    expected, iterations = diffuse_reference(graph, seeds.double())
    scores, taken = diffuse(graph, seeds)
    torch.testing.assert_close(scores.double(), expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(taken, iterations)


def test_threads_do_not_change_the_result():
    graph, seeds = make(1000, 20)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one, _ = diffuse(graph, seeds)
        torch.set_num_threads(2)
        assert torch.equal(one, diffuse(graph, seeds)[0])
    finally:
        torch.set_num_threads(threads)


def test_strided_inputs(device):
    graph, seeds = make(60, 5, device=device)
    strided = Graph(*(non_contiguous(x) for x in graph[:3]), None)
    expected = diffuse(graph, seeds)
    for got, want in zip(diffuse(strided, non_contiguous(seeds)), expected, strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("C", [3, 17, 40])
def test_product_of_some_rows(backend, C, dtype):
    """What each process of a group computes."""
    graph, _ = make(70, C)
    vectors = torch.randn(70, C, dtype=dtype, device=backend.device)
    expected = vectors.cpu().double() - 0.9 * neighbour_graphs.dense(graph) @ vectors.cpu().double()
    compiled = torch.ops.fastssl.diffuse_product
    on_cpu = backend.name.startswith("cuda_on_cpu")
    product = backend.op("diffuse_product") if on_cpu else compiled
    crow, col, value = (x.to(backend.device) for x in graph[:3])
    for first, last in ((0, 70), (0, 1), (31, 70)):
        entries = slice(int(crow[first]), int(crow[last]))
        rows = crow[first : last + 1] - crow[first]
        got = product(rows, col[entries], value[entries], vectors, first, 0.9)
        torch.testing.assert_close(got.cpu().double(), expected[first:last], rtol=1e-5, atol=1e-6)


def test_entries_outside_the_matrix(backend):
    graph, seeds = make(40, 3, device=backend.device)
    for wrong in (-1, 40, 2**31 - 1):
        col = graph.col.clone()
        col[int(graph.crow[7])] = wrong
        broken = graph._replace(col=col)
        if backend.name == "cpu":
            with pytest.raises(RuntimeError, match=r"col lies outside \[0, N\)"):
                diffuse(broken, seeds)
        else:
            assert backend.op("diffuse")(broken, seeds, max_iterations=1)[0].isnan().any()


@pytest.mark.parametrize("crow", [[0, 2, 1, 4], [0, 1, 2, 9], [1, 2, 3, 4]])
def test_rows_outside_the_entries(crow):
    graph = Graph(torch.tensor(crow).int(), torch.ones(4).int(), torch.ones(4), None)
    with pytest.raises(RuntimeError, match="crow does not rise from 0 to nnz"):
        diffuse(graph, torch.ones(3, 2))


def test_opcheck(device):
    graph, seeds = make(9, 5, device=device)
    op = torch.ops.fastssl.diffuse.default
    for y in (seeds, seeds.clone().requires_grad_()):
        torch.library.opcheck(op, (*graph[:3], y, 0.9, 1e-6, 20))
    product = torch.ops.fastssl.diffuse_product.default
    torch.library.opcheck(product, (*graph[:3], seeds, 0, 0.9))


@pytest.mark.parametrize("backend_name", ["aot_eager", "inductor"])
def test_compiles(device, backend_name):
    graph = neighbour_graphs.to(random_graph(20, 5), device)
    no_gradient.check_compiles(
        lambda y: diffuse(graph, y * 2)[0].square(),
        lambda C: [torch.rand(20, C, device=device)],
        backend_name,
    )


def test_is_a_constant(device):
    graph, seeds = make(8, 3, device=device)
    no_gradient.check_is_a_constant(lambda y: diffuse(graph, y)[0], "diffuse", [seeds])


def test_same_under_autocast(device):
    graph, seeds = make(20, 6, device=device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inside, _ = diffuse(graph, seeds)
    assert torch.equal(inside, diffuse(graph, seeds)[0])


@pytest.mark.parametrize("shape", [(9, 3), (10, 0), (10,), (0, 3)])
def test_shapes(shape):
    with pytest.raises(ValueError, match="diffuse: seeds is") as raised:
        diffuse(random_graph(10, 3), torch.ones(shape))
    assert str(list(shape)) in str(raised.value)


@pytest.mark.parametrize(
    "given", [{"alpha": 1.0}, {"alpha": -0.1}, {"tolerance": -1.0}, {"max_iterations": -1}]
)
def test_ranges(given):
    graph, seeds = make(10, 3)
    with pytest.raises(ValueError, match=f"diffuse: {next(iter(given))} is"):
        diffuse(graph, seeds, **given)


def test_dtypes():
    graph, seeds = make(10, 3)
    with pytest.raises(TypeError, match=r"seeds is torch\.int64"):
        diffuse(graph, seeds.long())
    with pytest.raises(TypeError, match=r"graph\.col is torch\.int64; expected torch\.int32"):
        diffuse(graph._replace(col=graph.col.long()), seeds)
