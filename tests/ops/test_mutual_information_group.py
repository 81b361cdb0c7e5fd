"""mutual_information over a group of processes: the whole batch's joint, on two gloo ranks."""

import gc
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fastssl.ops import mutual_information

V, D, C = 3, 6, 5


def batch(rows: int) -> torch.Tensor:
    """Inputs [1 + V, rows, D] of a weak and V hard views."""
    return torch.randn(
        1 + V, rows, D, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )


def network() -> nn.Module:
    torch.manual_seed(5)
    return nn.Linear(D, C).double()


def value_and_gradients(model: nn.Module, inputs: torch.Tensor, group=None) -> list[torch.Tensor]:
    logits = model(inputs)
    value = mutual_information(logits[0], logits[1:], group=group)
    value.backward()
    return [value.detach(), *(p.grad for p in model.parameters())]


def rank(number: int, folder: str, shares: list[int]) -> None:
    store = dist.FileStore(f"{folder}/store", len(shares))
    dist.init_process_group("gloo", store=store, rank=number, world_size=len(shares))
    start = sum(shares[:number])
    own = batch(sum(shares))[:, start : start + shares[number]]
    raw = value_and_gradients(network(), own, dist.group.WORLD)
    averaged = value_and_gradients(DistributedDataParallel(network()), own, dist.group.WORLD)
    torch.save([raw, averaged], f"{folder}/{number}")
    gc.collect()  # DistributedDataParallel sits in a cycle; outliving gloo's threads, it aborts
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("shares", [[8, 8], [11, 5]], ids=["equal", "unequal"])
def test_equals_one_process_with_the_whole_batch(tmp_path: Path, shares):
    mp.start_processes(rank, (str(tmp_path), shares), nprocs=len(shares), start_method="spawn")
    expected = value_and_gradients(network(), batch(sum(shares)))
    ranks = [torch.load(tmp_path / str(n), weights_only=True) for n in range(len(shares))]
    for _, averaged in ranks:
        for got, want in zip(averaged, expected, strict=True):
            torch.testing.assert_close(got, want)
    for first, second, want in zip(ranks[0][0][1:], ranks[1][0][1:], expected[1:], strict=True):
        torch.testing.assert_close((first + second) / 2, want)
