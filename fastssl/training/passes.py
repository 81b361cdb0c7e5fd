"""How a step's loss and gradients are computed: eagerly, compiled, or replayed from one CUDA graph.

What follows them in a step, the optimiser and the averages of weights, is a handful of calls on all
parameters at once, and stays outside.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch

from fastssl.algorithms.base import Algorithm, Batch
from fastssl.algorithms.loss import Loss
from fastssl.algorithms.ranks import Ranks
from fastssl.errors import InputError

COMPILERS = ("graph", "inductor", "none")
FULL_PRECISION = nullcontext()
WARM_UP_STEPS = 3  # in which cuDNN and cuBLAS choose kernels and take their workspaces


def check_compiler(name: str, algorithm: Algorithm, device: torch.device, ranks: Ranks) -> None:
    """Refuse a compiler that this run cannot have.

    Raises:
        InputError: as it says.
    """
    if name == "none":
        return
    if ranks.count > 1:
        raise InputError(f"compile: {name} trains in one process, not in {ranks.count}")
    if name == "graph" and device.type != "cuda":
        raise InputError(f"compile: graph records what a GPU does, and the device is {device}")
    if name == "inductor" and algorithm.needs_forward_mode:
        raise InputError(
            "compile: inductor cannot pass the exact adversarial direction on; leave it out, or "
            "set algorithm.adversarial=0"
        )
    if name == "inductor" and device.type == "cpu" and not has_cpp_compiler():
        raise InputError("compile: inductor needs a C++ compiler, and there is none (g++, or CXX)")


def has_cpp_compiler() -> bool:
    """Whether there is the C++ compiler that torch.compile needs on the CPU."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None


class Passes:
    """Forward and backward of a batch, one operation after the other."""

    def __init__(
        self,
        loss: Callable[[Batch], Loss],
        optimizer: torch.optim.Optimizer,
        autocast: AbstractContextManager = FULL_PRECISION,
    ) -> None:
        self.loss, self.optimizer, self.autocast = loss, optimizer, autocast

    def __call__(self, batch: Batch) -> Loss:
        """The batch's loss; its gradients, and no others, are in the parameters."""
        self.optimizer.zero_grad()
        with self.autocast:
            loss = self.loss(batch)
        loss.total.backward()
        return loss

    def begin_stage(self) -> None:
        """Called before the first step of each stage, in which the loss may be another."""


class Recorder(Protocol):
    """What records work on a device, to do it again."""

    def warm_up(self, work: Callable[[], Loss]) -> Loss:
        """Do the work once as it will be recorded."""

    def record(self, work: Callable[[], Loss]) -> Loss:
        """Record it, done or not; the tensors it gave are those that `replay` fills."""

    def replay(self) -> None:
        """Do it again, on the same tensors."""


class CudaGraph:
    """A CUDA graph. Random numbers go on from one replay to the next."""

    def __init__(self) -> None:
        self.graph = torch.cuda.CUDAGraph()
        self.stream = torch.cuda.Stream()

    def warm_up(self, work: Callable[[], Loss]) -> Loss:
        """On a stream of its own, as a graph is recorded."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            done = work()
        torch.cuda.current_stream().wait_stream(self.stream)
        return done

    def record(self, work: Callable[[], Loss]) -> Loss:
        """Nothing is done yet."""
        with torch.cuda.graph(self.graph, stream=self.stream):
            return work()

    def replay(self) -> None:
        """All of it in one launch."""
        self.graph.replay()


class RecordedPasses(Passes):
    """The passes of a batch of fixed shape, recorded once and replayed.

    What changes from step to step is on the device, and in the same tensors: the batch is copied
    into the recorded one, and an algorithm keeps its weights of terms in buffers. The first steps
    of a stage are taken as they are, to warm up.

    Args:
        passes: what is recorded.
        recorder: makes what records it.
    """

    def __init__(self, passes: Passes, recorder: Callable[[], Recorder] = CudaGraph) -> None:
        self.passes, self.new_recorder = passes, recorder
        self.begin_stage()

    def begin_stage(self) -> None:
        """Warm up and record anew."""
        self.recorder, self.left = self.new_recorder(), WARM_UP_STEPS
        self.batch: Batch | None = None

    def __call__(self, batch: Batch) -> Loss:
        """As `Passes`; the loss's tensors are the same ones at every step."""
        if self.left > 0:
            self.left -= 1
            return self.recorder.warm_up(lambda: self.passes(batch))
        if self.batch is None:
            own = Batch(*(tensor.clone() for tensor in vars(batch).values()))
            self.batch, self.given = own, self.recorder.record(lambda: self.passes(own))
        for recorded, new in zip(vars(self.batch).values(), vars(batch).values(), strict=True):
            recorded.copy_(new)
        self.recorder.replay()
        return self.given


def passes_by(
    compiler: str,
    algorithm: Algorithm,
    optimizer: torch.optim.Optimizer,
    autocast: AbstractContextManager,
) -> Passes:
    """The passes of an algorithm by a compiler of that name, one of COMPILERS."""
    loss = algorithm.loss
    if compiler == "inductor":
        loss = torch.compile(loss, dynamic=False)
    passes = Passes(loss, optimizer, autocast)
    return RecordedPasses(passes) if compiler == "graph" else passes
