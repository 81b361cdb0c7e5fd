"""The rows of the benchmarks: one measurement each, with all that is needed to place it."""

import csv
import datetime
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch

import fastssl
from fastssl.benchmarks.harness import Work, plain

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Run:
    """What the rows of one run have in common: where, with what and when it was made."""

    device: str
    threads: int
    fastssl: str
    commit: str
    torch: str
    cuda: str
    cpu_capability: str
    date: str

    @classmethod
    def now(cls, device: torch.device) -> "Run":
        """The run that starts here and now."""
        return cls(
            device=device_name(device),
            threads=torch.get_num_threads(),
            fastssl=fastssl.__version__,
            commit=commit(),
            torch=torch.__version__,
            cuda=torch.version.cuda or "",
            cpu_capability=fastssl.build_info()["cpu_capability"],
            date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )


@dataclass(frozen=True)
class Row(Run):
    """One measurement; its run's "machine" rows say what bounds it."""

    op: str
    implementation: str
    mode: str
    clock: str
    dtype: str
    shape: str
    bytes: int
    flops: int
    median_ms: float
    low_ms: float  # 20th percentile
    high_ms: float  # 80th percentile
    rounds: int

    @classmethod
    def of(
        cls,
        run: Run,
        op: str,
        implementation: str,
        mode: str,
        clock: str,
        dtype: torch.dtype,
        shape: str,
        work: Work,
        samples: list[float],
    ) -> "Row":
        """The row of an implementation's samples in milliseconds."""
        return cls(
            op=op,
            implementation=implementation,
            mode=mode,
            clock=clock,
            dtype=plain(dtype),
            shape=shape,
            bytes=work.bytes,
            flops=work.flops,
            median_ms=round(statistics.median(samples), 5),
            low_ms=round(percentile(samples, 0.2), 5),
            high_ms=round(percentile(samples, 0.8), 5),
            rounds=len(samples),
            **asdict(run),
        )


# What was measured first, where and when last.
COLUMNS = sorted(fields(Row), key=lambda field: field in fields(Run))


def percentile(values: list[float], share: float) -> float:
    """The value below which a share of the sorted values lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def device_name(device: torch.device) -> str:
    """The card's own name, or the processor's with its family and model.

    A virtual machine often calls its processor "AMD EPYC" and no more, of which one may multiply
    at twice the rate of another.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    first = cpuinfo.read_text().split("\n\n", 1)[0]
    facts = dict(line.split(":", 1) for line in first.splitlines() if ":" in line)
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    name = facts.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in facts and "model" in facts:
        name += f" family {facts['cpu family']} model {facts['model']}"
    return name


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


def append(path: Path, new: Iterable[Row]) -> None:
    """Append rows to a CSV file, with a header if it is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in COLUMNS], lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(asdict(row) for row in new)


def read(path: Path) -> list[Row]:
    """The rows of a CSV file."""
    with path.open(newline="") as file:
        return [
            Row(**{field.name: field.type(row[field.name]) for field in COLUMNS})
            for row in csv.DictReader(file)
        ]
