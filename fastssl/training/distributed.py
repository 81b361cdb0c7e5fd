"""Several processes that train one algorithm: how they find each other, agree and average.

Not torch's DistributedDataParallel: it wraps one network that goes forward once a step and hooks
its backward. An algorithm has several networks, each of them forward more than once, and VAT's
power step runs a tangent and a gradient through them in between. So the networks stay as they are,
and the gradients are averaged after the one backward, a few flat messages a step.
"""

import datetime
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fastssl.algorithms.base import Algorithm
from fastssl.algorithms.ranks import ALONE, Ranks
from fastssl.errors import InputError, PeerError

BUCKET = 2**23  # elements a message: large enough for the network's speed, small beside the model
PATIENCE = datetime.timedelta(hours=2)  # for a process that evaluates while the others wait


@contextmanager
def processes() -> Iterator[Ranks]:
    """The processes that torchrun, or `--devices`, has started with this one; this one alone else.

    Raises:
        InputError: the environment names some that cannot be reached.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE
        return
    backend = "cpu:gloo,cuda:nccl" if dist.is_nccl_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the {count} processes do not reach each other: {reason}") from error
    try:
        yield Ranks(dist.get_rank(), count)
    finally:
        dist.destroy_process_group()


def local_device(ranks: Ranks, device: torch.device) -> torch.device:
    """This process's own GPU where several share the work; the CPU is everybody's.

    Raises:
        InputError: one GPU for all, or fewer GPUs than processes on this machine.
    """
    if ranks.count == 1 or device.type == "cpu":
        return device
    if device.index is not None:
        raise InputError(f"device: {device} for {ranks.count} processes; expected cuda")
    number = int(os.environ.get("LOCAL_RANK", ranks.rank))
    if number >= torch.cuda.device_count():
        raise InputError(
            f"devices: process {number + 1} of this machine finds no GPU left, "
            f"there are {torch.cuda.device_count()}"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def average(ranks: Ranks, tensors: Iterable[Tensor]) -> None:
    """Replace tensors by their mean over the processes, in place; every process must call."""
    if ranks.count == 1:
        return
    for bucket in _buckets([tensor.detach() for tensor in tensors]):
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        dist.all_reduce(flat)
        flat /= ranks.count
        parts = flat.split([tensor.numel() for tensor in bucket])
        means = [part.view(tensor.shape) for part, tensor in zip(parts, bucket, strict=True)]
        torch._foreach_copy_(bucket, means)


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of one dtype together, up to BUCKET elements."""
    bucket: list[Tensor] = []
    for tensor in sorted(tensors, key=lambda tensor: str(tensor.dtype)):
        size = sum(other.numel() for other in bucket)
        if bucket and (tensor.dtype != bucket[0].dtype or size + tensor.numel() > BUCKET):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def average_step(ranks: Ranks, algorithm: nn.Module) -> None:
    """Average what a backward has left: the gradients, and batch norm's running statistics.

    Each process normalises by its own rows. With the statistics averaged, all of them hold the same
    state after every step, so that any of them can be evaluated and saved.
    """
    gradients = [p.grad for p in algorithm.parameters() if p.grad is not None]
    statistics = [
        statistic
        for module in algorithm.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
        for statistic in (module.running_mean, module.running_var)
    ]
    average(ranks, gradients + statistics)


def agree(ranks: Ranks, *flags: bool) -> tuple[bool, ...]:
    """Whether each flag is set in any of the processes; every process must call.

    On the CPU, whatever the device: nothing waits for a GPU.
    """
    if ranks.count == 1:
        return flags
    found = torch.tensor(flags, dtype=torch.uint8)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return tuple(map(bool, found.tolist()))


@contextmanager
def all_or_none(ranks: Ranks) -> Iterator[None]:
    """What is within succeeds in every process or in none; they wait for each other at its end.

    Raises:
        PeerError: it raised in another process.
    """
    failed = True
    try:
        yield
        failed = False
    finally:
        (any_failed,) = agree(ranks, failed)
    if any_failed:
        raise PeerError


@contextmanager
def first_alone(ranks: Ranks) -> Iterator[bool]:
    """Whether this process is the first, which does alone what is within, while the others wait.

    Raises:
        PeerError: in the others, where the first raises; they end with it.
    """
    with all_or_none(ranks):
        yield ranks.rank == 0


def synchronise_batch_norm(algorithm: Algorithm, device: torch.device) -> None:
    """Let batch norm take its statistics from the rows of all processes, in place.

    Raises:
        InputError: not on a GPU, or the algorithm needs a derivative that cannot pass through it.
    """
    if device.type != "cuda":
        raise InputError(
            f"sync_bn: batch norm is synchronised between GPUs, not on {device}; without, each "
            "process normalises by its own rows"
        )
    if algorithm.needs_forward_mode:
        raise InputError(
            "sync_bn: the exact adversarial direction cannot pass through synchronised batch norm; "
            "leave it out, or set algorithm.adversarial=0"
        )
    nn.SyncBatchNorm.convert_sync_batchnorm(algorithm)
