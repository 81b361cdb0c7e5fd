"""What a CUDA graph does, on the CPU: the operations of some work, done again on the same tensors.

Whatever the work took from Python, a number or a branch, is as it was when it was recorded.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class OpRecorder:
    """A `Recorder` of torch's operations."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, tuple, dict, Any]] = []
        self.replays = 0

    def warm_up(self, work: Callable[[], Any]) -> Any:
        return work()

    def record(self, work: Callable[[], Any]) -> Any:
        """Record it without a trace in the parameters and buffers, random numbers or gradients."""
        with _Record(self.calls) as mode:
            given = work()
        with torch.no_grad():
            for tensor, before in mode.before.values():
                tensor.copy_(before)
        torch.set_rng_state(mode.generator)
        return given

    def replay(self) -> None:
        self.replays += 1
        with torch.no_grad():
            for function, args, kwargs, outputs in self.calls:
                again = function(*args, **kwargs)
                for old, new in zip(_tensors(outputs), _tensors(again), strict=True):
                    if old is not new:
                        old.copy_(new)


class _Record(TorchDispatchMode):
    def __init__(self, calls: list) -> None:
        super().__init__()
        self.calls, self.before = calls, {}
        self.made: set[int] = set()
        self.generator = torch.get_rng_state()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = _tensors((args, kwargs))
        changes = function._schema.is_mutable or "batch_norm" in str(function)
        for tensor in given if changes else ():  # what the work did not make itself
            if _memory(tensor) not in self.made:
                self.before.setdefault(id(tensor), (tensor, tensor.detach().clone()))
        outputs = function(*args, **kwargs)
        memories = {_memory(tensor) for tensor in given}
        found = _tensors(outputs)
        self.made |= {_memory(x) for x in found} - memories
        if changes or not all(_memory(x) in memories for x in found):  # not a mere view
            self.calls.append((function, args, kwargs, outputs))
        return outputs


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
