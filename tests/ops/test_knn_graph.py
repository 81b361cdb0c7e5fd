import sys

import pytest
import torch
from op_checks import non_contiguous

from fastssl.ops import knn_graph
from fastssl.ops.knn_graph import (
    Graph,
    int32_starts,
    knn_graph_reference,
    symmetric_by_sorting,
    unit_rows,
)

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
EPS = torch.finfo(torch.float32).eps
# Both sides of the kernels' limits: a panel of 8, 24 or 48 rows, blocks of 8 panels, a block's 64
# queries and rows, products 16 deep, lists that fit shared memory (k up to 192) and that do not.
SIZES = [(2, 1, 1), (3, 2, 1), (49, 5, 7), (64, 17, 63), (65, 16, 64), (130, 3, 20), (210, 4, 200)]
LARGE = [(500, 200, 10), (1201, 24, 50), (800, 400, 3)]


def rows_of(graph: Graph) -> torch.Tensor:
    """The row of each entry, [nnz]."""
    crow = graph.crow.long()
    return torch.arange(len(crow) - 1, device=crow.device).repeat_interleave(crow.diff())


def dense(graph: Graph) -> torch.Tensor:
    """The matrix [N, N] in float64."""
    N = len(graph.crow) - 1
    matrix = torch.zeros(N, N, dtype=torch.float64)
    matrix[rows_of(graph).cpu(), graph.col.long().cpu()] = graph.value.double().cpu()
    return matrix


def check(backend, features, k, exponent=3.0):
    """Equal to the reference in float64 up to rounding; of the form that the docstring promises."""
    graph = backend.op("knn_graph")(features.to(backend.device), k, exponent)
    expected = knn_graph_reference(features.double(), k, exponent)
    assert graph.crow.dtype == graph.col.dtype == torch.int32
    assert graph.value.dtype == torch.float32
    assert graph.recall is None
    same = ((graph.crow.cpu(), expected.crow), (graph.col.cpu(), expected.col))
    assert all(torch.equal(ours, theirs) for ours, theirs in same)
    # A similarity is a sum of D products; the weight's relative error is `exponent` times its own.
    D, largest = features.shape[1], expected.value.max().item() if len(expected.value) else 0
    error = (graph.value.cpu() - expected.value).abs().max().item() if largest else 0
    assert error <= 4 * (1 + exponent) * D**0.5 * EPS * largest
    return graph


@pytest.mark.parametrize(("N", "D", "k"), SIZES)
def test_values(backend, N, D, k):
    check(backend, torch.randn(N, D), k)


@pytest.mark.parametrize(("N", "D", "k"), LARGE)
def test_values_of_many_rows(device, N, D, k):
    features = torch.randn(N, D)
    graph = knn_graph(features.to(device), k)
    matrix, expected = dense(graph), dense(knn_graph_reference(features.double(), k))
    # Rounding may choose the other one of two neighbours that are equally near.
    differ = (matrix > 0) != (expected > 0)
    assert differ.sum() <= 4
    rest = ~differ.any(1)
    torch.testing.assert_close(matrix[rest], expected[rest], rtol=1e-2, atol=1e-5)


def test_ties_go_to_the_lower_index(backend):
    """Rows of one direction are all equally near; whole numbers make the products exact."""
    features = torch.eye(3).repeat(40, 1) * torch.arange(1, 121)[:, None]
    check(backend, features, 5)
    check(backend, torch.ones(70, 4), 9)


def test_spikes(backend):
    """Two near rows that may stand anywhere, at the edge of any tile: i's spike and i's own."""
    N = 131
    features = torch.eye(N)
    near = (torch.arange(N) * 37 + 5) % N
    features[torch.arange(N), near] += 2
    graph = check(backend, features, 2)
    assert (dense(graph)[torch.arange(N), near] > 0)[near != torch.arange(N)].all()


@pytest.mark.parametrize("exponent", [0, 1, 2.5])
def test_exponents(backend, exponent):
    check(backend, torch.randn(70, 6), 4, exponent)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_and_strides(backend, dtype):
    check(backend, torch.randn(70, 20).to(dtype), 4)
    features = torch.randn(70, 20).to(dtype)
    strided, transposed = non_contiguous(features), features.T.contiguous().T
    expected = backend.op("knn_graph")(features.to(backend.device), 4)
    for given in (strided, transposed):
        graph = backend.op("knn_graph")(given.to(backend.device), 4)
        assert all(torch.equal(a, b) for a, b in zip(graph[:3], expected[:3], strict=True))


def test_rows_of_zeros_are_alone(backend):
    features = torch.randn(80, 5)
    features[[0, 17, 79]] = 0
    graph = check(backend, features, 3)
    assert graph.crow.diff()[[0, 17, 79]].tolist() == [0, 0, 0]
    assert not torch.isin(graph.col.cpu(), torch.tensor([0, 17, 79])).any()
    empty = backend.op("knn_graph")(torch.zeros(5, 4, device=backend.device), 2)
    assert empty.crow.tolist() == [0] * 6
    assert empty.col.numel() == empty.value.numel() == 0


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float32, 1e30), (torch.float64, 1e-300)])
def test_the_length_of_rows_does_not_matter(device, dtype, scale):
    features = torch.randn(60, 7, dtype=dtype)
    expected, graph = (knn_graph((features * s).to(device), 5) for s in (1, scale))
    assert torch.equal(graph.col, expected.col)
    torch.testing.assert_close(graph.value, expected.value)


def test_is_symmetric_and_normalised(device):
    graph = knn_graph(torch.randn(400, 12).to(device), 8)
    rows, matrix = rows_of(graph).cpu(), dense(graph)
    assert torch.equal(matrix, matrix.T)
    assert not matrix.diagonal().any()
    assert ((graph.col.cpu().diff() > 0) | (rows.diff() > 0)).all()
    # Of D^-1/2 W D^-1/2 the square roots of W's row sums are an eigenvector, with eigenvalue 1.
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    assert eigenvalues[-1].item() == pytest.approx(1, abs=1e-6)
    assert (vectors[:, -1].sign() == vectors[0, -1].sign()).all()


@pytest.mark.parametrize("k", [3, 100])
def test_some_queries_find_what_all_do(backend, k):
    """Shares of the rows and samples of them are searched by other loops than all rows at once."""
    on_checker = backend.name.startswith("cuda_on_cpu")
    N = 140 if on_checker else 900
    rows = unit_rows(torch.randn(N, 10))
    search = (backend.op if on_checker else torch.ops.fastssl.__getattr__)("knn_graph_neighbors")
    index, value = (x.cpu() for x in search(rows.to(backend.device), None, None, k))
    own = torch.tensor([0, N - 1, *range(60, 130)])
    given = (x.to(backend.device) for x in (rows, rows[own], own.int()))
    some_index, some_value = (x.cpu() for x in search(*given, k))
    assert torch.equal(some_index, index[own])
    assert torch.equal(some_value, value[own])


@pytest.mark.parametrize("share", [(0, 50), (0, 17), (17, 50), (20, 20)])
def test_both_ways_of_making_it_symmetric_agree(share):
    index = torch.stack([torch.randperm(49)[:6] for _ in range(50)])
    index += index >= torch.arange(50)[:, None]
    weight = torch.rand(50, 6) * (torch.rand(50, 6) > 0.2)
    index, weight = index.int().masked_fill(weight == 0, -1), weight.contiguous()
    compiled = torch.ops.fastssl.knn_graph_symmetrize(index, weight, *share)
    for ours, theirs in zip(compiled, symmetric_by_sorting(index, weight, *share), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_threads_do_not_change_the_result():
    features, threads = torch.randn(5000, 16), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = knn_graph(features, 7)
        torch.set_num_threads(3)
        three = knn_graph(features, 7)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(one[:3], three[:3], strict=True))


# ---- FAISS --------------------------------------------------------------------------------------


def clusters(N: int) -> torch.Tensor:
    return torch.randn(20, 16).repeat_interleave(N // 20, 0) + 0.3 * torch.randn(N, 16)


@pytest.mark.parametrize(("index", "least"), [("exact", 1.0), ("ivf", 0.9), ("hnsw", 0.9)])
def test_faiss(device, index, least):
    pytest.importorskip("faiss")
    features = clusters(2000)
    graph = knn_graph(features.to(device), 10, index=index, backend="faiss")
    expected = knn_graph(features, 10)
    ours, theirs = dense(graph) > 0, dense(expected) > 0
    share = ((ours & theirs).sum() / theirs.sum()).item()
    assert share >= least - 1e-4
    if index == "exact":
        assert graph.recall is None
    else:
        assert least <= graph.recall <= 1
        assert graph.recall == pytest.approx(share, abs=0.02)


def test_faiss_where_a_row_does_not_find_itself():
    """Copies of a row may crowd it out of its own neighbours, which must not cost it an edge."""
    pytest.importorskip("faiss")
    graph = knn_graph(torch.ones(30, 4), 5, backend="faiss")
    assert not dense(graph).diagonal().any()
    assert (graph.crow.diff() >= 5).all()


def test_faiss_leaves_its_number_of_threads():
    faiss = pytest.importorskip("faiss")
    before = faiss.omp_get_max_threads()
    knn_graph(torch.randn(50, 4), 5, backend="faiss")
    assert faiss.omp_get_max_threads() == before


def test_without_faiss(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ModuleNotFoundError, match=r"index 'ivf', .* pip install faiss-cpu"):
        knn_graph(torch.randn(50, 4), 5, index="ivf")
    knn_graph(torch.randn(50, 4), 5)


# ---- the contract -------------------------------------------------------------------------------


def test_opcheck(device):
    rows = unit_rows(torch.randn(30, 5, device=device))
    own = torch.arange(3, 9, device=device)
    neighbors = torch.ops.fastssl.knn_graph_neighbors.default
    torch.library.opcheck(neighbors, (rows, None, None, 4))
    torch.library.opcheck(neighbors, (rows, rows[own], own.int(), 4))
    index, weight = (x.cpu() for x in neighbors(rows, None, None, 4))
    torch.library.opcheck(
        torch.ops.fastssl.knn_graph_symmetrize.default, (index, weight.clamp_min(0), 3, 20)
    )


def test_is_a_constant(device):
    graph = knn_graph(torch.randn(30, 5, device=device, requires_grad=True), 4)
    assert not graph.value.requires_grad


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_is_named(device, value, dtype):
    features = torch.randn(20, 4, device=device, dtype=dtype)
    features[13, 2] = value
    with pytest.raises(ValueError, match="features has NaN or infinity in row 13"):
        knn_graph(features, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 20}, "k is 20; expected an integer from 1 to N - 1 = 19"),
        ({"k": 0}, "k is 0"),
        ({"k": 2.5}, r"k is 2\.5"),
        ({"exponent": -1}, "exponent is -1"),
        ({"exponent": float("nan")}, "exponent is nan"),
        ({"index": "annoy"}, "index is 'annoy'; expected one of exact, ivf, hnsw"),
        ({"backend": "torch"}, "backend is 'torch'"),
        ({"index": "ivf", "backend": "compiled"}, "backend is 'compiled', but index 'ivf'"),
    ],
)
def test_options(options, message):
    with pytest.raises(ValueError, match=message):
        knn_graph(torch.randn(20, 4), **{"k": 3, **options})


@pytest.mark.parametrize("shape", [(1, 4), (0, 4), (20, 0), (20,), (2, 3, 4)])
def test_shapes(shape):
    with pytest.raises(ValueError, match="features is ") as raised:
        knn_graph(torch.randn(shape), 1)
    assert str(list(shape)) in str(raised.value)


def test_dtypes():
    with pytest.raises(TypeError, match=r"features is torch\.int64"):
        knn_graph(torch.ones(20, 4).long(), 3)


def test_more_entries_than_an_int32_counts():
    start = torch.tensor([0, 2**31 - 1])
    assert int32_starts(start).tolist() == start.tolist()
    with pytest.raises(ValueError, match="the graph has 2147483648 entries; expected below 2"):
        int32_starts(start + 1)
