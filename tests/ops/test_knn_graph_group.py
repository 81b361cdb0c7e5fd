"""knn_graph over a group of processes: each holds its rows of one process's graph."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from fastssl.ops import knn_graph

N, D = 1001, 16
CASES = [(10, "exact", None), (10, "exact", "faiss"), (10, "ivf", None)]  # k, index, backend


def features() -> torch.Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(3))


def rank(number: int, folder: str, ranks: int) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", ranks)
    dist.init_process_group("gloo", store=store, rank=number, world_size=ranks)
    options = [{"k": k, "index": index, "backend": backend} for k, index, backend in CASES]
    graphs = [knn_graph(features(), **each, group=dist.group.WORLD) for each in options]
    torch.save([tuple(graph) for graph in graphs], f"{folder}/{number}")
    dist.barrier()
    dist.destroy_process_group()


def test_shares_make_up_the_graph_of_one_process(tmp_path: Path):
    ranks = 2
    mp.start_processes(rank, (str(tmp_path), ranks), nprocs=ranks, start_method="spawn")
    found = [torch.load(tmp_path / str(n), weights_only=True) for n in range(ranks)]
    for (k, index, backend), *shares in zip(CASES, *found, strict=True):
        whole = knn_graph(features(), k, index=index, backend=backend)
        crow, col, value, recall = zip(*shares, strict=True)
        assert [len(starts) - 1 for starts in crow] == [N // 2, N - N // 2]
        assert torch.equal(torch.cat([c.diff() for c in crow]), whole.crow.diff())
        assert torch.equal(torch.cat(col), whole.col)
        torch.testing.assert_close(torch.cat(value), whole.value, rtol=1e-6, atol=0)
        if whole.recall is None:
            assert recall == (None, None)
        else:
            assert recall[0] == recall[1] == pytest.approx(whole.recall, abs=0.02)
