"""diffuse over a group of processes, each with its own rows of one graph, on two gloo ranks."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from neighbour_graphs import random_graph

from fastssl.ops import diffuse
from fastssl.ops.knn_graph import Graph


def problem(N: int = 101, C: int = 19) -> tuple[Graph, torch.Tensor]:
    torch.manual_seed(3)
    graph, seeds = random_graph(N, 8), torch.zeros(N, C)
    seeds[torch.randperm(N)[: 2 * C], torch.arange(2 * C) % C] = 0.5
    seeds[:, 4] = 0
    return graph, seeds


def rank(number: int, folder: str, shares: list[int], dtype: torch.dtype) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", len(shares))
    dist.init_process_group("gloo", store=store, rank=number, world_size=len(shares))
    (crow, col, value, _), seeds = problem()
    begin = sum(shares[:number])
    end = begin + shares[number]
    entries = slice(int(crow[begin]), int(crow[end]))
    own = Graph(crow[begin : end + 1] - crow[begin], col[entries], value[entries], None)
    result = diffuse(own, seeds[begin:end].to(dtype), group=dist.group.WORLD)
    torch.save(result, f"{folder}/{number}")
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("shares", "dtype"), [([50, 51], torch.float32), ([80, 21], torch.float64)], ids=str
)
def test_equals_one_process_with_all_rows(tmp_path: Path, shares, dtype):
    arguments = str(tmp_path), shares, dtype
    mp.start_processes(rank, arguments, nprocs=len(shares), start_method="spawn")
    graph, seeds = problem()
    scores, iterations = diffuse(graph, seeds.to(dtype))
    ranks = [torch.load(tmp_path / str(n), weights_only=True) for n in range(len(shares))]
    whole = torch.cat([own for own, _ in ranks])
    assert whole.dtype == dtype
    torch.testing.assert_close(whole, scores, rtol=1e-5, atol=1e-6 * scores.abs().max().item())
    for _, taken in ranks:
        assert torch.equal(taken, iterations)
