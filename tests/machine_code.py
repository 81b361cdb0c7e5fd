"""CUDA kernels as machine code, read with NVIDIA's cuobjdump, and what their sources ask of it."""

import importlib.metadata
import math
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cuda_on_cpu.mutants import NO_CODE

REGISTERS = 65536  # of a multiprocessor, on every architecture since sm_50
REGISTER_UNIT = 8  # a thread's registers are rounded up to a multiple of it
LARGEST_BLOCK = 1024  # threads, of a kernel without __launch_bounds__


@dataclass(frozen=True)
class Kernel:
    """What the compiler made of one instance of a kernel."""

    architecture: str
    name: str  # mangled
    registers: int
    stack: int  # bytes a thread
    threads: int  # the largest block that its launch bounds allow


def cuobjdump() -> str | None:
    """The program: the toolkit's own, or its Python package's (the test extra)."""
    if found := shutil.which("cuobjdump"):
        return found
    try:
        files = importlib.metadata.files("nvidia-cuda-cuobjdump") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((str(file.locate()) for file in files if file.name == "cuobjdump"), None)


def _dump(binary: Path, *options: str) -> str:
    command = [cuobjdump(), *options, binary]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _by_architecture(dump: str) -> Iterable[tuple[str, str]]:
    pieces = re.split(r"^arch = (sm_\w+)$", dump, flags=re.MULTILINE)
    return zip(pieces[1::2], pieces[2::2], strict=True)


def kernels_in(binary: Path) -> list[Kernel]:
    """Every kernel of a library or object file, once an architecture."""
    bounds = {}
    for architecture, text in _by_architecture(_dump(binary, "-elf")):
        # Up to the next section: an empty line may stand within one whose lists are long.
        for name, section in re.findall(r"^\.nv\.info\.(\w+)\n(.*?)(?=^\.|\Z)", text, re.M | re.S):
            if sides := re.search(r"EIATTR_MAX_THREADS\s+Format:.*\s+Value:\s+(.*)", section):
                bounds[architecture, name] = math.prod(int(side, 16) for side in sides[1].split())
    kernels = []
    for architecture, text in _by_architecture(_dump(binary, "-res-usage")):
        usage = re.findall(r"Function (\w+):\s+REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", text)
        for name, registers, stack, local in usage:
            threads = bounds.get((architecture, name), LARGEST_BLOCK)
            kernels.append(
                Kernel(architecture, name, int(registers), int(stack) + int(local), threads)
            )
    return kernels


def with_stack(kernels: Iterable[Kernel]) -> list[str]:
    """Kernels that spill registers or index an array that is not in registers."""
    return [f"{k.architecture} {k.name}: {k.stack} bytes of stack" for k in kernels if k.stack]


def with_too_many_registers(kernels: Iterable[Kernel]) -> list[str]:
    """Kernels of which the largest block does not fit a multiprocessor."""
    return [
        f"{k.architecture} {k.name}: {k.registers} registers x {k.threads} threads"
        for k in kernels
        if -(-k.registers // REGISTER_UNIT) * REGISTER_UNIT * k.threads > REGISTERS
    ]


def without_16_byte_loads(
    binary: Path, kernels: Iterable[Kernel], source: Path, headers: Iterable[Path]
) -> list[str]:
    """Kernels of a source that call load16, but load no 16 bytes at once.

    Instances of a template that differ in numbers or flags alone count as one, so that a template
    may choose load16 by a flag.
    """
    meant: dict[tuple[str, str], list[str]] = {}
    of_this_file = f"{len(source.stem) + 3}_{source.stem}_cu_"  # in the name of its namespace
    for name in kernels_that_reach("load16", source, headers):
        for kernel in kernels:
            if of_this_file in kernel.name and f"{len(name)}{name}" in kernel.name:
                template = re.sub(r"L[a-z]n?\d+E", "", kernel.name)
                meant.setdefault((kernel.architecture, template), []).append(kernel.name)
    if not meant:
        return []
    loads: dict[tuple[str, str], bool] = {}
    every = sorted({instance for instances in meant.values() for instance in instances})
    for architecture, text in _by_architecture(_dump(binary, "-sass", "-fun", ",".join(every))):
        for function, code in re.findall(r"Function : (\w+)\n(.*?)(?=Function :|\Z)", text, re.S):
            loads[architecture, function] = re.search(r"\bLDG\.E\.\S*128\b", code) is not None
    return [
        f"{architecture} {instances[0]}"
        for (architecture, _), instances in meant.items()
        if not any(loads[architecture, instance] for instance in instances)
    ]


def kernels_that_reach(function: str, source: Path, headers: Iterable[Path]) -> set[str]:
    """Names of a source's kernels that call a device function, themselves or through others."""
    bodies: dict[str, str] = {}  # overloads together
    kernels = set()
    for path in (source, *headers):
        code = NO_CODE.sub(" ", path.read_text())
        for start in re.finditer(r"\b__(global|device)__\b", code):
            name = re.compile(r"\b(?!__)(\w+)\s*(?=\()").search(code, start.end())
            parameters = _closing(code, name.end())
            opening = re.compile(r"[;{]").search(code, parameters)
            if opening is None or opening[0] == ";":
                continue
            body = code[opening.start() : _closing(code, opening.start())]
            bodies[name[1]] = bodies.get(name[1], "") + body
            if start[1] == "global":
                kernels.add(name[1])
    reaching = {function}
    while True:
        callers = {
            name
            for name, body in bodies.items()
            if any(re.search(rf"\b{callee}\b\s*[<(]", body) for callee in reaching)
        }
        if callers <= reaching:
            return kernels & reaching
        reaching |= callers


def _closing(code: str, opening: int) -> int:
    """The end of the bracket that opens at `opening`."""
    pair = {"(": "()", "{": "{}"}[code[opening]]
    depth = 0
    for match in re.compile("[()]" if pair == "()" else "[{}]").finditer(code, opening):
        depth += 1 if match[0] == pair[0] else -1
        if depth == 0:
            return match.end()
    raise ValueError(f"unbalanced {pair}")
