"""Runs CUDA kernels on the CPU from tests, and raises what the checker finds.

    kernels = load("csrc/kernels/cuda/*.cu", "tests/cuda_on_cpu/bindings.cpp")
    joint = np.empty((C, C), np.float32)
    kernels.joint_distribution_float32(logits_a, logits_b, joint, N, C, 1, order="reverse")

bindings.cpp has one line per launcher (runtime/bind.h). Arrays are checked against the launcher's
parameters and never converted; float16 and bfloat16 may travel as uint16. An array behind a pointer
to const is read-only, any other starts uninitialised unless `initialised` names it. Kernels work on
guarded copies: after a finding the arrays passed in are as they were. A call that makes more
launches, copies and fills than any before is repeated with each of them refused: the launcher must
return that error and ask for nothing more.
"""

import functools
import importlib.util
import itertools
import numbers
import os
import posixpath
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

from . import compiling

Order = str | int  # "forward", "reverse", or the seed of a shuffle
ORDERS: tuple[Order, ...] = ("forward", "reverse", 1)

H200_MULTIPROCESSORS = 132


class Place(NamedTuple):
    """A line of a source file, by its path from the root of the repository."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class KernelError(Exception):
    """What the checker found.

    Attributes:
        kind: "race", "out of bounds", "read-only memory", "uninitialised read",
            "misaligned access", "divergent barrier", "warp mask", "deadlock",
            "shared memory layout", "division by zero" or "launch".
        kernel: name of the kernel, or None outside any.
        block, thread: their x, y, z, or None outside a kernel.
        places: where it happened, then the calls that led there, innermost first.
        others: the places of other threads' accesses or barriers that the message mentions.
    """

    def __init__(
        self,
        kind: str,
        text: str,
        kernel: str | None,
        block: tuple[int, int, int] | None,
        thread: tuple[int, int, int] | None,
        places: Sequence[Place],
        others: Sequence[Place],
    ) -> None:
        self.kind = kind
        self.kernel = kernel
        self.block = block
        self.thread = thread
        self.places = list(places)
        self.others = list(others)
        message = kind
        if places:
            message += f" at {places[0]}"
        if len(places) > 1:
            message += f" (from {', '.join(map(str, places[1:]))})"
        if kernel is not None:
            message += f" in {kernel}"
        if block is not None:
            message += f", block {block}, thread {thread}"
        super().__init__(f"{message}: {text}")


class Parameter(NamedTuple):
    """A parameter of a launcher; `type` is NumPy's name, or bfloat16."""

    name: str
    type: str
    is_pointer: bool
    is_const: bool


class Launcher:
    """A bound launcher, callable with NumPy arrays and numbers."""

    def __init__(self, name: str, parameters: Sequence[Parameter], kernels: "Kernels") -> None:
        self.name = name
        self.parameters = parameters
        self._kernels = kernels

    def __call__(
        self,
        *arguments: np.ndarray | numbers.Real | None,
        order: Order = "forward",
        initialised: Iterable[str] = (),
        multiprocessors: int = H200_MULTIPROCESSORS,
    ) -> None:
        """Launches; outputs are written to the arrays passed in.

        Args:
            arguments: the launcher's, without the stream; None is a null pointer.
            order: how threads (and blocks) take turns.
            initialised: names of outputs whose content on entry the kernel may read.
            multiprocessors: what the device claims to have; few make grid-stride loops go round.

        Raises:
            KernelError: something is wrong with the kernel or the launch.
            TypeError, ValueError: something is wrong with the arguments.
        """
        initialised = list(initialised)
        self._check(arguments, initialised)
        turns, seed = {"forward": (0, 0), "reverse": (1, 0)}.get(order, (2, order))
        if not isinstance(seed, int):
            raise ValueError(f"order is 'forward', 'reverse' or a seed, not {order!r}")
        found = self._kernels.module.run(
            self.name, list(arguments), initialised, turns, seed, multiprocessors
        )
        if found is not None:
            raise self._kernels.error(found)

    def _check(self, arguments: Sequence, initialised: Sequence[str]) -> None:
        if len(arguments) != len(self.parameters):
            names = ", ".join(parameter.name for parameter in self.parameters)
            raise TypeError(f"{self.name}({names}) got {len(arguments)} arguments")
        outputs = {p.name for p in self.parameters if p.is_pointer and not p.is_const}
        if unknown := set(initialised) - outputs:
            raise ValueError(f"{self.name} has no output {sorted(unknown)}")
        arrays = []
        for parameter, value in zip(self.parameters, arguments, strict=True):
            if not parameter.is_pointer:
                _check_number(parameter, value)
            elif value is not None:
                _check_array(parameter, value)
                arrays.append((parameter, value))
        for i, (first, a) in enumerate(arrays):
            for second, b in arrays[i + 1 :]:
                if not (first.is_const and second.is_const) and np.may_share_memory(a, b):
                    raise ValueError(f"{first.name} and {second.name} share memory")


def _check_array(parameter: Parameter, value: object) -> None:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{parameter.name} is an array of {parameter.type}, not {type(value)}")
    carriers = {"float16": ("float16", "uint16"), "bfloat16": ("uint16",)}
    if value.dtype.name not in carriers.get(parameter.type, (parameter.type,)):
        raise TypeError(f"{parameter.name} is an array of {parameter.type}, not {value.dtype}")
    if not value.flags.c_contiguous:
        raise ValueError(f"{parameter.name} is not contiguous")
    if not parameter.is_const and not value.flags.writeable:
        raise ValueError(f"{parameter.name} is an output, but not writeable")


def _check_number(parameter: Parameter, value: object) -> None:
    accepted = numbers.Real if parameter.type.startswith("float") else numbers.Integral
    if not isinstance(value, accepted):
        raise TypeError(f"{parameter.name} is a number of {parameter.type}, not {value!r}")


class Kernels:
    """The launchers of one built library, as attributes."""

    def __init__(self, library: Path) -> None:
        self._library = library
        # A name of its own for each library: Python hands out one module a name.
        name = f"library_{library.stem}.cuda_on_cpu_module"
        spec = importlib.util.spec_from_file_location(name, library)
        self.module: ModuleType = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.launchers = {
            name: Launcher(name, [Parameter(*fields) for fields in parameters], self)
            for name, parameters in self.module.signatures().items()
        }

    def __getattr__(self, name: str) -> Launcher:
        try:
            return self.__dict__["launchers"][name]
        except KeyError:
            raise AttributeError(f"no launcher named {name} is bound") from None

    def error(self, found: dict) -> KernelError:
        """The exception for a finding of runtime/python.cpp."""
        # A return address lies behind its call; the byte before it belongs to the call.
        stack = [address - 1 for address in found["stack"]]
        mentioned = [int(text, 16) - 1 for text in re.findall(r"<(0x[0-9a-f]+)>", found["text"])]
        start = [] if found["kernel"] is None else [found["kernel"]]
        lines = _source_lines(self._library, (*stack, *mentioned, *start))
        calls = [place for address in stack for _, place in lines[address] if _is_kernel(place)]
        places = [place for place, _ in itertools.groupby(calls)]
        others = [_first_kernel_place(lines[address]) for address in mentioned]
        text = found["text"]
        for address, place in zip(mentioned, others, strict=True):
            text = text.replace(f"<{address + 1:#x}>", str(place))
        kernel = _short_name(lines[start[0]][0][0]) if start else None
        return KernelError(
            found["kind"], text, kernel, found["block"], found["thread"], places, others
        )


Frame = tuple[str, Place]  # function, place


@functools.lru_cache
def _source_lines(library: Path, addresses: tuple[int, ...]) -> dict[int, list[Frame]]:
    """For each address, the place and the places it is inlined into, innermost first."""
    command = ["addr2line", "-afiCe", str(library), *map(hex, addresses)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    frames: dict[int, list[Frame]] = {}
    rest = iter(output)
    for entry in rest:
        if re.fullmatch(r"0x[0-9a-f]{16}", entry):
            current = frames.setdefault(int(entry, 16), [])
            continue
        file, _, line = next(rest).partition(" ")[0].rpartition(":")
        place = Place(posixpath.normpath(file), int(line) if line.isdigit() else 0)
        current.append((entry, place))
    return frames


def _is_kernel(place: Place) -> bool:
    """Whether a place is in the project's code, not in the checker's, CUDA's or the system's."""
    in_checker = place.file.startswith((compiling.RUNTIME, "tests/cuda_on_cpu/cuda_on_cpu.h"))
    return place.line > 0 and not posixpath.isabs(place.file) and not in_checker


def _first_kernel_place(frames: Sequence[Frame]) -> Place:
    return next((place for _, place in frames if _is_kernel(place)), frames[0][1])


def _short_name(function: str) -> str:
    """A demangled function without return type, namespaces of the project and parameters."""
    name = function.replace("(anonymous namespace)::", "").removeprefix("void ")
    return re.sub(r"\(.*", "", name).removeprefix("fastssl::cuda::")


@functools.cache
def load(*patterns: str) -> Kernels:
    """Builds the .cu and .cpp files that match, from the root of the repository, and loads them.

    Raises:
        CompileError: g++ refused one of them.
    """
    root = compiling.source_root()
    matches = {pattern: sorted(root.glob(pattern)) for pattern in patterns}
    if empty := [pattern for pattern, paths in matches.items() if not paths]:
        raise FileNotFoundError(f"no file matches {empty} in {root}")
    sources = [str(path.relative_to(root)) for paths in matches.values() for path in paths]
    return Kernels(compiling.build_module(sources, root))


def require() -> None:
    """Skips the test module that calls this where CUDA on the CPU cannot run.

    With FASTSSL_REQUIRE_CUDA_ON_CPU=1 it fails instead.
    """
    import pytest

    reason = compiling.missing()
    if reason is None:
        return
    if os.environ.get("FASTSSL_REQUIRE_CUDA_ON_CPU") == "1":
        pytest.fail(f"{reason}, and FASTSSL_REQUIRE_CUDA_ON_CPU=1")
    pytest.skip(reason, allow_module_level=True)
