"""Times providers of the same result against each other, and keeps the rows.

Other work may share the machine, so an absolute time means little: providers take turns, round
after round in one process, and what is reported is the median and its ratio to the others'.
"""

import csv
import datetime
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

import fastssl


@dataclass(frozen=True)
class Provider:
    """One way to compute a benchmark's result.

    `run` does the work once. `check` says whether what it returns must equal the first provider's;
    a floor, such as the bare matrix products, computes something else.
    """

    name: str
    run: Callable[[], object]
    check: bool = True


@dataclass(frozen=True)
class Row:
    """One measurement and all that is needed to place it."""

    op: str
    provider: str
    mode: str
    dtype: str
    shape: str
    device: str
    threads: int
    median_ms: float
    low_ms: float  # 20th percentile
    high_ms: float  # 80th percentile
    rounds: int
    fastssl: str
    commit: str
    torch: str
    cuda: str
    cpu_capability: str
    date: str


def forward_backward(
    function: Callable[..., Tensor], *inputs: Tensor
) -> Callable[[], list[Tensor]]:
    """A call through autograd: the output and the gradients of all inputs."""
    inputs = [x.detach().clone().requires_grad_() for x in inputs]

    def run() -> list[Tensor]:
        output = function(*inputs)
        return [output, *torch.autograd.grad(output, inputs)]

    return run


def assert_equal_results(providers: Iterable[Provider], rtol: float = 1e-3) -> None:
    """Stop unless the checked providers agree, up to `rtol` of each tensor's largest entry."""
    first, *others = [p for p in providers if p.check]
    expected = first.run()
    for other in others:
        for want, got in zip(expected, other.run(), strict=True):
            error = (got.double() - want.double()).abs().max().item()
            if not error <= rtol * want.double().abs().max().item() + 1e-9:
                raise AssertionError(f"{other.name} differs from {first.name} by {error:.3g}")


def time_in_turns(
    providers: list[Provider], device: torch.device, rounds: int, sample_ms: float = 3.0
) -> dict[str, list[float]]:
    """Milliseconds a call of every provider, a sample a round, the providers taking turns.

    A sample repeats the call until it lasts about `sample_ms`, so that the clock and the other
    providers' traces in the caches do not weigh on short calls.
    """

    def sample(provider: Provider, repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            provider.run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - start) * 1e3 / repeats

    repeats = {}
    for provider in providers:
        sample(provider, 1)
        repeats[provider.name] = max(1, round(sample_ms / sample(provider, 1)))
    times = {provider.name: [] for provider in providers}
    for _ in range(rounds):
        for provider in providers:
            times[provider.name].append(sample(provider, repeats[provider.name]))
    return times


def percentile(values: list[float], share: float) -> float:
    """The value below which a share of the sorted values lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def machine_limits(device: torch.device) -> list[Provider]:
    """What bounds every op: a copy of memory, and a float32 product by torch's BLAS (no TF32)."""
    large = 2**28 if device.type == "cuda" else 2**24
    source = torch.zeros(large, device=device)
    target = torch.empty_like(source)
    side = 8192 if device.type == "cuda" else 1536
    a = torch.randn(side, side, device=device)
    return [
        Provider(f"copy of {source.nbytes} bytes", lambda: target.copy_(source)),
        Provider(f"product of two {side} x {side}", lambda: a @ a),
    ]


def limit_rate(provider: Provider, milliseconds: float) -> str:
    """The rate behind a time of `machine_limits`: bytes read and written, or 2 n^3 flops."""
    words = provider.name.split()
    if words[0] == "copy":
        return f"{2 * int(words[2]) / milliseconds / 1e6:.1f} GB/s"
    return f"{2 * int(words[-1]) ** 3 / milliseconds / 1e6:.0f} GFLOP/s"


def rows(
    op: str, mode: str, dtype: torch.dtype, shape: str, device: torch.device, times: dict[str, list]
) -> Iterator[Row]:
    """A row a provider, with this run's provenance."""
    for provider, samples in times.items():
        yield Row(
            op=op,
            provider=provider,
            mode=mode,
            dtype=str(dtype).removeprefix("torch."),
            shape=shape,
            device=device_name(device),
            threads=torch.get_num_threads(),
            median_ms=round(statistics.median(samples), 5),
            low_ms=round(percentile(samples, 0.2), 5),
            high_ms=round(percentile(samples, 0.8), 5),
            rounds=len(samples),
            fastssl=fastssl.__version__,
            commit=commit(),
            torch=torch.__version__,
            cuda=torch.version.cuda or "",
            cpu_capability=fastssl.build_info()["cpu_capability"],
            date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        )


def device_name(device: torch.device) -> str:
    """The processor's or the card's own name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """The checkout's commit, with "+" if its code has uncommitted changes; "" without git.

    FASTSSL_COMMIT says it for an installed copy.
    """
    if named := os.environ.get("FASTSSL_COMMIT"):
        return named
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", here, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "../csrc", "../fastssl", "*.py")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def append(path: Path, new: list[Row]) -> None:
    """Append rows to a CSV file, with a header if it is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(asdict(row) for row in new)
