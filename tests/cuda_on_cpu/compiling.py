"""Builds .cu and .cpp files with g++ into one Python module, through a cache of objects.

An object's name is a hash of all that went into it: compiler, options, source and the project's
headers. The same text gives the same object wherever the source tree lies, so that mutate.py can
build changed copies of the tree (FASTSSL_SOURCE_ROOT) and compile only what it changed.
"""

import contextlib
import fcntl
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / "build" / "cuda_on_cpu"
CACHE_DAYS = 14  # an object that long unused is deleted

RUNTIME = "tests/cuda_on_cpu/runtime"
INCLUDE_FOLDERS = ("tests/cuda_on_cpu", "csrc")

OPTIONS = (
    "-std=c++17",
    "-DFASTSSL_WITH_CUDA",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-gnu-unique",
    "-Wall",
    "-Wno-unknown-pragmas",
    # A finding walks the stack and names lines.
    "-g1",
    "-fno-omit-frame-pointer",
    "-fno-optimize-sibling-calls",
)
HOST_OPTIONS = ("-O2",)
KERNEL_OPTIONS = (
    "-O1",
    "-fsanitize=thread,alignment,bounds,integer-divide-by-zero",  # see runtime/hooks.cpp
    "--param=tsan-instrument-func-entry-exit=0",
    "-fno-strict-aliasing",  # type punning is everyday CUDA
    # Memory functions stay calls, so that they can be checked.
    "-fno-builtin-memcpy",
    "-fno-builtin-memmove",
    "-fno-builtin-memset",
)


class CompileError(Exception):
    """g++ refused a file; the message is g++'s."""


def source_root() -> Path:
    """The tree whose C++ sources are built."""
    return Path(os.environ.get("FASTSSL_SOURCE_ROOT", REPOSITORY)).resolve()


@functools.cache
def cuda_include_folder() -> Path | None:
    """The folder of cuda_runtime_api.h, or None where there is no CUDA toolkit."""
    candidates = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    if shutil.which("nvcc"):
        # nvcc may be a wrapper script; a dry run prints the toolkit's own folder.
        dry_run = subprocess.run(
            ["nvcc", "--dryrun", "x.cu"], capture_output=True, text=True, check=False
        )
        candidates += re.findall(r"^#\$ TOP=(.*)$", dry_run.stderr, re.MULTILINE)
    candidates.append("/usr/local/cuda")
    folders = (Path(candidate).resolve() / "include" for candidate in candidates)
    return next((folder for folder in folders if (folder / "cuda_runtime_api.h").exists()), None)


def missing() -> str | None:
    """What this machine lacks for CUDA on the CPU, or None."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return "CUDA on the CPU needs x86-64 Linux"
    for program in ("g++", "addr2line"):
        if shutil.which(program) is None:
            return f"CUDA on the CPU needs {program}"
    if cuda_include_folder() is None:
        return "CUDA on the CPU needs the CUDA toolkit's headers (nvcc, or CUDA_HOME)"
    try:
        import pybind11  # noqa: F401
    except ImportError:
        return "CUDA on the CPU needs pybind11 (the test extra)"
    return None


@functools.cache
def _system_options() -> list[str]:
    import pybind11

    folders = [cuda_include_folder(), pybind11.get_include(), sysconfig.get_path("include")]
    return [option for folder in folders for option in ("-isystem", str(folder))]


@functools.cache
def _toolchain() -> str:
    version = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True)
    return " ".join([version.stdout.splitlines()[0], *_system_options()])


def _digest(*parts: str | bytes) -> str:
    state = hashlib.sha256()
    for part in parts:
        encoded = part.encode() if isinstance(part, str) else part
        state.update(len(encoded).to_bytes(8, "little") + encoded)
    return state.hexdigest()[:24]


def _object_for(headers: Sequence[str], base: str, root: Path) -> Path:
    contents = (part for name in headers for part in (name, (root / name).read_bytes()))
    return CACHE / f"{_digest(base, *contents)}.o"


def compile_object(source: str, root: Path) -> Path:
    """The object file of `source`, a path relative to `root`; compiles it if it is not cached."""
    options = (*OPTIONS, *(KERNEL_OPTIONS if source.endswith(".cu") else HOST_OPTIONS))
    base = _digest(_toolchain(), *options, source, (root / source).read_bytes())
    headers_file = CACHE / f"{base}.headers"  # those that the last compilation read
    if headers_file.exists():
        headers = headers_file.read_text().splitlines()
        if all((root / name).exists() for name in headers):
            built = _object_for(headers, base, root)
            if built.exists():
                headers_file.touch()
                built.touch()
                return built
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        produced, rule = Path(scratch, "object.o"), Path(scratch, "object.d")
        command = ["g++", *options, *_system_options()]
        command += [f"-I{folder}" for folder in INCLUDE_FOLDERS]
        command += [f"-fdebug-prefix-map={root}=.", "-MMD", "-MF", str(rule)]
        command += ["-x", "c++", "-c", source, "-o", str(produced)]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise CompileError(f"g++ cannot build {source}:\n{done.stderr[-6000:]}")
        dependencies = rule.read_text().replace("\\\n", " ").split()[1:]
        headers = sorted({os.path.relpath(root / d, root) for d in dependencies} - {source})
        listing = Path(scratch, "headers")
        listing.write_text("\n".join(headers))
        built = _object_for(headers, base, root)
        produced.replace(built)
        listing.replace(headers_file)
    return built


@contextlib.contextmanager
def _one_at_a_time(root: Path) -> Iterator[None]:
    """While another process builds from the same tree, wait: what it builds is then cached."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{_digest(str(root))}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build_module(sources: Sequence[str], root: Path) -> Path:
    """The shared library of the runtime and the given sources (paths relative to `root`)."""
    # The runtime comes first: of an inline function of the C++ library that both instantiate, the
    # linker keeps the first, and the runtime must not run one that calls its own hooks.
    runtime = sorted(str(path.relative_to(root)) for path in (root / RUNTIME).glob("*.cpp"))
    with _one_at_a_time(root), ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda name: compile_object(name, root), [*runtime, *sources]))
    module = CACHE / f"{_digest(*(path.name for path in objects))}.so"
    if module.exists():
        module.touch()
        return module
    _prune()
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        produced = Path(scratch, "module.so")
        command = ["g++", "-shared", "-Wl,-z,now", "-Wl,-Bsymbolic", "-o", str(produced)]
        subprocess.run([*command, *map(str, objects)], check=True)
        produced.replace(module)
    return module


def _prune() -> None:
    oldest = time.time() - CACHE_DAYS * 24 * 3600
    for path in CACHE.glob("*.*"):
        if path.is_file() and path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)
