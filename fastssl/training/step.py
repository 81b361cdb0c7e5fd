"""A training step: operation by operation, with its loss compiled, or all of it one CUDA graph."""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor

from fastssl.algorithms.base import Algorithm, Batch, State
from fastssl.algorithms.loss import Loss
from fastssl.algorithms.ranks import Ranks
from fastssl.errors import InputError
from fastssl.training.distributed import average_step

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


class Streams(Protocol):
    """Where batches come from: of a step's rows, which are fetched, the device makes the rest."""

    def at(self, step: int) -> tuple[Tensor, ...]:
        """The fields of a step's `Batch`."""

    def rows(self, step: int) -> Sequence[Tensor]:
        """What `of` wants to know of a step, of fixed shapes, on the device."""

    def of(self, rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What `at` gives, by work on the device alone."""


class Step:
    """A training step: views, loss, gradients, weights, and what the algorithm averages.

    Args:
        algorithm: whose parameters are trained.
        batch_at: the batch of a step, on the algorithm's device.
        optimizer: over the parameters.
        autocast: around the loss.
        loss: the algorithm's own, or that compiled.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        batch_at: Callable[[int], Batch],
        optimizer: torch.optim.Optimizer,
        autocast: AbstractContextManager = FULL_PRECISION,
        loss: Callable[[Batch], Loss] | None = None,
    ) -> None:
        self.algorithm, self.batch_at = algorithm, batch_at
        self.optimizer, self.autocast = optimizer, autocast
        self.loss = loss or algorithm.loss

    def __call__(self, number: int, state: State) -> tuple[Batch, Loss]:
        """Take step `number`; its batch and loss. `state` is that after it."""
        batch = self.batch_at(number)
        loss = self.passes(batch)
        self.update(state)
        return batch, loss

    def passes(self, batch: Batch) -> Loss:
        """Forward and backward: the batch's gradients, and no others, are in the parameters."""
        self.optimizer.zero_grad()
        with self.autocast:
            loss = self.loss(batch)
        loss.total.backward()
        return loss

    def update(self, state: State) -> None:
        """The weights follow the gradients, and what the algorithm keeps follows the weights."""
        average_step(self.algorithm.ranks, self.algorithm)
        self.optimizer.step()
        self.algorithm.after_step(state)

    def begin_stage(self) -> None:
        """Called before the first step of each stage, in which the loss may be another."""


def adjust(optimizer: torch.optim.Optimizer, values: dict[str, Any]) -> None:
    """Set what all of an optimiser's parameter groups hold; a tensor in place."""
    for group in optimizer.param_groups:
        for name, value in values.items():
            if isinstance(group[name], Tensor):
                group[name].fill_(value)
            else:
                group[name] = value


class Recorder(Protocol):
    """What records work on a device, to do it again."""

    def warm_up(self, work: Callable[[], Any]) -> Any:
        """Do the work once as it will be recorded."""

    def record(self, work: Callable[[], Any]) -> Any:
        """Record it, done or not; the tensors it gave are those that `replay` fills."""

    def replay(self) -> None:
        """Do it again, on the same tensors."""


class CudaGraph:
    """A CUDA graph. Random numbers go on from one replay to the next."""

    def __init__(self) -> None:
        self.graph = torch.cuda.CUDAGraph()
        self.stream = torch.cuda.Stream()

    def warm_up(self, work: Callable[[], Any]) -> Any:
        """On a stream of its own, as a graph is recorded."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            done = work()
        torch.cuda.current_stream().wait_stream(self.stream)
        return done

    def record(self, work: Callable[[], Any]) -> Any:
        """Nothing is done yet."""
        with torch.cuda.graph(self.graph, stream=self.stream):
            return work()

    def replay(self) -> None:
        """All of it in one launch."""
        self.graph.replay()


class RecordedStep:
    """A step whose rows are of fixed shapes, recorded once and replayed.

    What changes from step to step is on the device, and in the same tensors: the rows are copied
    into the recorded ones, the streams and the optimiser keep step and learning rate in tensors,
    and an algorithm keeps its weights of terms in buffers. The first steps of a stage are taken as
    they are, to warm up.

    Args:
        step: what is recorded.
        rows_at: the rows of a step, on the device.
        batch_of: the batch of rows.
        whole: with the optimiser's part and what follows it. Not where Python moves one of the
            optimiser's numbers; then those are taken after each replay.
    """

    def __init__(
        self,
        step: Step,
        rows_at: Callable[[int], Sequence[Tensor]],
        batch_of: Callable[[Sequence[Tensor]], Batch],
        *,
        whole: bool = True,
    ) -> None:
        self.step, self.rows_at, self.batch_of, self.whole = step, rows_at, batch_of, whole
        self.begin_stage()

    def begin_stage(self) -> None:
        """Warm up and record anew."""
        self.recorder: Recorder = CudaGraph()
        self.left = WARM_UP_STEPS
        self.rows: list[Tensor] | None = None

    def __call__(self, number: int, state: State) -> tuple[Batch, Loss]:
        """As `Step`; batch and loss are in the same tensors at every step."""
        rows = self.rows_at(number)
        if self.left > 0:
            self.left -= 1
            given = self.recorder.warm_up(lambda: self._work(rows, state))
        else:
            if self.rows is None:
                self.rows = own = [tensor.clone() for tensor in rows]
                self.given = self.recorder.record(lambda: self._work(own, REPLAYED))
            for recorded, new in zip(self.rows, rows, strict=True):
                recorded.copy_(new)
            self.recorder.replay()
            given = self.given
        if not self.whole:
            self.step.update(state)
        return given

    def _work(self, rows: Sequence[Tensor], state: State) -> tuple[Batch, Loss]:
        batch = self.batch_of(rows)
        loss = self.step.passes(batch)
        if self.whole:
            self.step.update(state)
        return batch, loss


class _Replayed:
    """In place of a `State` in a recorded step: numbers of it would stay what they were."""

    def __getattr__(self, name: str) -> NoReturn:
        raise InputError(
            f"compile: graph replays after_step, where state.{name} would stay as it was; "
            "keep it in a buffer, or train with compile=none"
        )


REPLAYED: Any = _Replayed()


def step_by(
    compiler: str,
    algorithm: Algorithm,
    streams: Streams,
    optimizer: torch.optim.Optimizer,
    autocast: AbstractContextManager = FULL_PRECISION,
    *,
    whole: bool = True,
) -> Step | RecordedStep:
    """The step of an algorithm on its streams by a compiler of that name, one of COMPILERS."""
    loss = torch.compile(algorithm.loss, dynamic=False) if compiler == "inductor" else None
    step = Step(algorithm, lambda n: Batch(*streams.at(n)), optimizer, autocast, loss)
    if compiler != "graph":
        return step
    return RecordedStep(step, streams.rows, lambda rows: Batch(*streams.of(rows)), whole=whole)
