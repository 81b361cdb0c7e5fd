"""Times implementations of the same result against each other.

Other work may share the machine, so an absolute time means little: implementations take turns,
round after round in one process, and what is reported is the median and its ratio to the others'.
A GPU has two clocks: the wall time of calls from Python, and the device time of the same calls
replayed from a CUDA graph, where Python has no part.

A benchmark is a module of this package with

    CASES = [(512, 10), (4096, 100)]  # the shapes that are timed
    EMPTY = (1, 2)                    # the smallest shape: all that is left is the cost of a call
    def implementations(N, C, device, dtype) -> Iterator[Implementation]: ...  # fastssl first
    def work(N, C, size) -> dict[str, Work]: ...  # of forward and backward; size: bytes a number
    RTOL = 5e-3                       # if results agree less well than to 1e-3, which it explains
    GPU_CASES, gpu_work               # if they are others on a GPU
    DTYPES = (torch.float32,)         # of the inputs, if not any of this file's
"""

import functools
import importlib
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch._functorch.config
from torch import Tensor

INFRASTRUCTURE = {"__init__", "harness", "picture", "pillow_views", "records", "rows"}
MODES = ("forward", "backward", "both")
EMPTY_CALL = "empty call"
WALL, DEVICE = CLOCKS = ("wall", "device")
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
MOST_RECORDED = 20  # calls in one CUDA graph: its own launch is then little beside them
LONGEST_MS = 3000.0  # after which an implementation takes no more turns, if it had three


@dataclass(frozen=True)
class Implementation:
    """One way to compute a benchmark's result, or a tuple of results the first of which counts.

    Inputs that require gradients are differentiated. `check` says whether results must equal the
    first implementation's; a floor, such as the bare matrix products, computes something else.
    `captured` says whether a CUDA graph can hold it: not what reads values on the host.
    """

    name: str
    function: Callable[..., Tensor | tuple[Tensor, ...]]
    inputs: Sequence[Tensor]
    check: bool = True
    captured: bool = True


@dataclass(frozen=True)
class Work:
    """What no implementation can avoid: bytes read and written, floating-point operations."""

    bytes: int
    flops: int

    def __add__(self, other: "Work") -> "Work":
        return Work(self.bytes + other.bytes, self.flops + other.flops)


def names() -> list[str]:
    """The benchmarks that there are."""
    return sorted({path.stem for path in Path(__file__).parent.glob("*.py")} - INFRASTRUCTURE)


def names_of(dtype: torch.dtype) -> list[str]:
    """Those that time inputs of a dtype."""
    return [name for name in names() if dtype in dtypes(load(name))]


def load(name: str) -> ModuleType:
    """The benchmark of that name."""
    return importlib.import_module(f"fastssl.benchmarks.{name}")


def normal(*shape: int, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Normal numbers, the same on every device, as an input that is differentiated."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(device, dtype).requires_grad_()


def modes(implementation: Implementation) -> tuple[str, ...]:
    """The modes it can run in: forward alone where no input requires a gradient."""
    return MODES if _differentiated(implementation) else MODES[:1]


def prepare(implementation: Implementation, mode: str) -> Callable[[], list[Tensor]]:
    """A call that does the work of a mode once and returns the results.

    Forward alone needs no gradient and keeps nothing for one; backward alone repeats one graph's.
    """
    function, inputs = implementation.function, implementation.inputs
    wanted = _differentiated(implementation)

    def results() -> list[Tensor]:
        output = function(*inputs)
        return list(output) if isinstance(output, tuple) else [output]

    def forward() -> list[Tensor]:
        with torch.no_grad():
            return results()

    if mode == "forward":
        return forward
    recorded = results()
    weights = None if recorded[0].dim() == 0 else _weights(recorded[0])

    def backward() -> list[Tensor]:
        return list(torch.autograd.grad(recorded[0], wanted, weights, retain_graph=True))

    def both() -> list[Tensor]:
        found = results()
        return [*found, *torch.autograd.grad(found[0], wanted, weights)]

    return backward if mode == "backward" else both


def dtypes(module: ModuleType) -> tuple[torch.dtype, ...]:
    """Of the inputs that a benchmark can time."""
    return getattr(module, "DTYPES", DTYPES)


def plain(dtype: torch.dtype) -> str:
    """A dtype's name, as in a row."""
    return str(dtype).removeprefix("torch.")


def cases(module: ModuleType, device: torch.device) -> list[tuple[int, ...]]:
    """The shapes that a benchmark times on a device."""
    return _on(device, module, "CASES")


def total_work(
    module: ModuleType, case: Sequence[int], device: torch.device, dtype: torch.dtype, mode: str
) -> Work:
    """The work of a benchmark's case in a mode."""
    work = _on(device, module, "work")(*case, dtype.itemsize)
    return work["forward"] + work["backward"] if mode == "both" else work[mode]


def compiled(implementations: Iterable[Implementation]) -> list[Implementation]:
    """The one called eager as torch.compile makes it, in a list; empty if there is none.

    Nor of one without inputs: it has a state of its own, as a training step has.
    """
    # Without this, a compiled backward frees what it would need to be repeated.
    torch._functorch.config.donated_buffer = False
    torch._dynamo.reset()
    return [
        Implementation(
            "torch.compile", torch.compile(eager.function, dynamic=False), eager.inputs, eager.check
        )
        for eager in implementations
        if eager.name == "eager" and eager.inputs
    ]


def empty_call(module: ModuleType, device: torch.device, dtype: torch.dtype) -> Implementation:
    """A benchmark's first implementation on its smallest shape."""
    first = next(module.implementations(*module.EMPTY, device, dtype))
    return Implementation(EMPTY_CALL, first.function, first.inputs, check=False)


def tolerance(module: ModuleType) -> float:
    """How far a benchmark's implementations may differ, relative to a tensor's largest entry."""
    return getattr(module, "RTOL", 1e-3)


def comparable(dtype: torch.dtype) -> torch.dtype:
    """In which implementations must agree before they are timed in a dtype.

    In bfloat16 plain PyTorch rounds every step, and may be nowhere near: its mutual information of
    (4096, 100) is 0.0165, not 0.0087.
    """
    return torch.float32 if dtype.itemsize < 4 else dtype


def clocks(device: torch.device) -> tuple[str, ...]:
    """Those that a device has."""
    return CLOCKS if device.type == "cuda" else CLOCKS[:1]


def stream(device: torch.device) -> AbstractContextManager:
    """Where all of a benchmark is done: a CUDA graph can be recorded on it, from its inputs on."""
    return torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext()


def assert_equal_results(
    implementations: Sequence[Implementation], mode: str, rtol: float = 1e-3
) -> None:
    """Stop unless all that are to be checked agree, up to `rtol` of each tensor's largest entry."""
    first, *others = [each for each in implementations if each.check]
    expected = prepare(first, mode)()
    for other in others:
        for want, got in zip(expected, prepare(other, mode)(), strict=True):
            error = (got.double() - want.double()).abs().max().item()
            if not error <= rtol * want.double().abs().max().item() + 1e-9:
                raise AssertionError(
                    f"{other.name} differs from {first.name} by {error:.3g} in {mode}"
                )


def time_in_turns(
    implementations: Iterable[Implementation],
    mode: str,
    device: torch.device,
    rounds: int,
    clock: str = WALL,
    sample_ms: float = 3.0,
) -> dict[str, list[float]]:
    """Milliseconds a call of every implementation, a sample a round, taking turns.

    A sample repeats the call until it lasts about `sample_ms`, so that the clock and the others'
    traces in the caches do not weigh on short calls. On the device's clock those that a CUDA graph
    cannot hold are left out.
    """
    if clock == DEVICE:
        implementations = [each for each in implementations if each.captured]
    samples = {}
    for each in implementations:
        call = prepare(each, mode)
        first = wall_ms(call, 1, device)  # with what happens only once, little in a long call
        once = first if first > 100 * sample_ms else wall_ms(call, 1, device)
        repeats = max(1, round(sample_ms / once))
        if clock == WALL:
            samples[each.name] = functools.partial(wall_ms, call, repeats, device)
        else:
            samples[each.name] = _recorded(call, repeats)
    times: dict[str, list[float]] = {name: [] for name in samples}
    for turn in range(rounds):
        for name, sample in samples.items():
            if turn < 3 or sum(times[name]) < LONGEST_MS:
                times[name].append(sample())
    return times


def wall_ms(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Milliseconds a call, of so many called from Python."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) * 1e3 / repeats


def _recorded(call: Callable[[], object], repeats: int) -> Callable[[], float]:
    """What replays about so many calls from a CUDA graph: the device's milliseconds a call.

    The call has been made before, so that nothing is left to compile or to choose.
    """
    graph, copies = torch.cuda.CUDAGraph(), min(repeats, MOST_RECORDED)
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        for _ in range(copies):
            call()
    replays = max(1, repeats // copies)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def sample() -> float:
        start.record()
        for _ in range(replays):
            graph.replay()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / (replays * copies)

    sample()  # the first replay takes the graph to the device
    return sample


def machine_limits(device: torch.device, dtype: torch.dtype) -> list[tuple[Implementation, Work]]:
    """What bounds every op: a copy of memory, and a product by torch's BLAS, without TF32."""
    count = 2**28 if device.type == "cuda" else 2**24
    source = torch.zeros(count, device=device)
    target = torch.empty_like(source)
    side = 8192 if device.type == "cuda" else 1536
    a = torch.randn(side, side, device=device, dtype=dtype)
    copy = Implementation(f"copy of {source.nbytes} bytes", target.copy_, [source])
    product = Implementation(f"product of two {side} x {side}", torch.matmul, [a, a])
    return [(copy, Work(2 * source.nbytes, 0)), (product, Work(0, 2 * side**3))]


def _on(device: torch.device, module: ModuleType, name: str) -> Any:
    """What a benchmark has under a name, on a GPU of its own if there is such."""
    own = f"GPU_{name}" if name.isupper() else f"gpu_{name}"
    return getattr(module, own if device.type == "cuda" and hasattr(module, own) else name)


def _differentiated(implementation: Implementation) -> list[Tensor]:
    return [x for x in implementation.inputs if x.requires_grad]


def _weights(output: Tensor) -> Tensor:
    """A gradient of the output: the same for implementations whose outputs agree."""
    like = {"device": output.device, "dtype": output.dtype}
    return normal(*output.shape, **like, seed=1).detach()
