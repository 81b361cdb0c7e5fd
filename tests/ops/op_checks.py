"""What every op must satisfy, as functions that an op's test file calls on its own cases."""

import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import fastssl


def accumulation_eps(dtype: torch.dtype) -> float:
    """Spacing of the numbers an op accumulates in for logits of `dtype`."""
    return torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps


def non_contiguous(x: Tensor) -> Tensor:
    """The same values behind strides that no kernel could take for a contiguous tensor's."""
    wide = x.new_zeros((*x.shape[:-1], 2 * x.shape[-1] + 1))
    strided = wide[..., 1::2]
    strided.copy_(x)
    return strided


def misaligned(x: Tensor) -> Tensor:
    """The same values, contiguous, but at an address that no 16-byte load could read."""
    shifted = x.new_empty(x.numel() + 1)[1:].view_as(x)
    return shifted.copy_(x)


def evaluate(
    function: Callable, inputs: Sequence[Tensor], grad_output: Tensor | None
) -> list[Tensor]:
    """The output of `function`, then the gradients of its inputs, in float64."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    output = function(*inputs)
    if grad_output is None:
        grad_output = torch.ones_like(output)
    grads = torch.autograd.grad(output, inputs, grad_output.to(output.device, output.dtype))
    return [t.detach().double() for t in (output, *grads)]


def check_precision(
    function: Callable,
    reference: Callable,
    inputs: Sequence[Tensor],
    floors: Sequence[float],
    grad_output: Tensor | None = None,
) -> None:
    """err(function) <= 2 err(eager in the same dtype) + floor, for the output and each gradient.

    Errors are the largest absolute difference from the reference in float64. A floor is what the
    last rounding steps alone may cost: eager can come out exact by luck, and is exact in float64.
    """
    exact = evaluate(reference, [x.double() for x in inputs], grad_output)
    eager = evaluate(reference, inputs, grad_output)
    ours = evaluate(function, inputs, grad_output)
    names = ["output", *(f"gradient {i}" for i in range(len(inputs)))]
    for name, want, peer, got, floor in zip(names, exact, eager, ours, floors, strict=True):
        assert torch.isfinite(got).all(), f"{name} is not finite"
        error, allowed = (got - want).abs().max(), 2 * (peer - want).abs().max() + floor
        assert error <= allowed, f"{name}: error {error:.3g}, allowed {allowed:.3g}"


def nats_floor(dtype: torch.dtype, C: int) -> float:
    """Rounding of a sum of probabilities times logarithms of size ln C."""
    return 8 * accumulation_eps(dtype) * (1 + math.log(C))


def check_refuses_higher_derivatives(
    function: Callable, name: str, inputs: Sequence[Tensor]
) -> None:
    """Second derivatives and forward-mode AD raise RuntimeError naming the op."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    output = function(*inputs)
    grads = torch.autograd.grad(output.sum(), inputs, create_graph=True)
    for grad in grads:
        with pytest.raises(RuntimeError, match=f"fastssl::{name} .*second derivatives"):
            torch.autograd.grad(grad.sum(), inputs, retain_graph=True, allow_unused=True)
    for requires_grad in (False, True):
        with torch.autograd.forward_ad.dual_level():
            first = inputs[0].detach().requires_grad_(requires_grad)
            dual = torch.autograd.forward_ad.make_dual(first, torch.ones_like(first))
            with pytest.raises(RuntimeError, match=f"fastssl::{name} .*forward-mode"):
                function(dual, *inputs[1:])


def check_compiles(
    function: Callable, make_inputs: Callable[[int], list[Tensor]], backend: str
) -> None:
    """torch.compile(fullgraph=True), dynamic batch: the eager op's output and gradients."""
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=backend)
    for N in (6, 9, 14):
        inputs = make_inputs(N)
        for ours, theirs in zip(
            evaluate(function, inputs, None), evaluate(compiled, inputs, None), strict=True
        ):
            torch.testing.assert_close(theirs, ours)


def check_dispatches(function: Callable, inputs: Sequence[Tensor], name: str) -> None:
    """One call of the op forward, one of its gradient backward, and nothing else."""

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            calls.append(str(func))
            return func(*args, **(kwargs or {}))

    calls: list[str] = []
    wanted = [x for x in inputs if x.requires_grad]
    grad = torch.ones_like(function(*inputs))
    with Record():
        output = function(*inputs)
        assert calls == [f"fastssl.{name}.default"]
        torch.autograd.grad(output, wanted, grad)
    assert calls == [f"fastssl.{name}.default", f"fastssl.{name}_backward.default"]


def allocated_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Bytes of tensors that a call allocates, freed again or not."""
    if device.type == "cuda":
        counter = "allocated_bytes.all.allocated"
        before = torch.cuda.memory_stats(device)[counter]
        call()
        return torch.cuda.memory_stats(device)[counter] - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        kept = call()
    del kept
    events = profile.profiler.kineto_results.events()
    return sum(max(0, event.nbytes()) for event in events if event.name() == "[memory]")


def check_allocations(
    function: Callable, inputs: Sequence[Tensor], expected: Sequence[int], device: torch.device
) -> None:
    """Bytes allocated forward and, if the inputs require a gradient, backward.

    Exactly so many on the CPU; CUDA's allocator rounds up, and its kernels have a small workspace.
    """
    wanted = [x for x in inputs if x.requires_grad]
    output = function(*inputs)
    found = [allocated_bytes(lambda: function(*inputs), device)]
    if wanted:
        grad = torch.ones_like(output)
        found.append(allocated_bytes(lambda: torch.autograd.grad(output, wanted, grad), device))
    slack = 1 << 15 if device.type == "cuda" else 0
    for got, want in zip(found, expected, strict=True):
        assert want <= got <= want + slack, f"{got} bytes allocated, expected {want}"


CAPABILITIES = ("portable", "avx2", "avx512", "amx")


def check_capability(capability: str, file: str, cases: str):
    """Run a test file's cases again, on CPU kernels that this machine would not choose."""
    own = fastssl.build_info()["cpu_capability"]
    if CAPABILITIES.index(capability) >= CAPABILITIES.index(own):
        pytest.skip(f"this machine's own is {own}")
    program = """
import sys, fastssl, pytest
assert fastssl.build_info()["cpu_capability"] == sys.argv[1]
sys.exit(pytest.main(sys.argv[2:]))
"""
    run = subprocess.run(
        [sys.executable, "-c", program, capability, "-q", file, "-k", cases],
        env=os.environ | {"FASTSSL_CPU_CAPABILITY": capability},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert " passed" in run.stdout
