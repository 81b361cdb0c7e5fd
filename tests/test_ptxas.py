"""What the compiler says about the CUDA kernels, for every architecture they are built for."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ARCHITECTURES = (80, 90, 100)
REGISTERS = 65536  # of a multiprocessor, on each of them
LARGEST_BLOCK = 256  # threads; the largest that a kernel here is launched with

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")


@pytest.fixture(scope="module", params=sorted((ROOT / "csrc/kernels/cuda").glob("*.cu")), ids=str)
def report(request, tmp_path_factory) -> str:
    """What ptxas prints about one source file."""
    out = tmp_path_factory.mktemp("ptxas") / "kernels.o"
    code = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    options = ["-std=c++17", "-O3", "--expt-relaxed-constexpr", "-DFASTSSL_WITH_CUDA"]
    command = ["nvcc", *options, *code, "--threads=2", "-Xptxas=-v", "-c", request.param, "-o", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def kernels(report: str) -> list[tuple[str, str]]:
    """(architecture and mangled name, what follows about it) of every kernel."""
    pieces = re.split(r"Compiling entry function '(\w+)' for '(sm_\w+)'", report)
    return [
        (f"{architecture} {name}", text)
        for name, architecture, text in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True)
    ]


def test_every_architecture_is_reported(report):
    seen = {name.split()[0].rstrip("af") for name, _ in kernels(report)}
    assert seen == {f"sm_{a}" for a in ARCHITECTURES}


def test_no_spills_and_no_stack(report):
    for name, text in kernels(report):
        found = re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", text
        )
        assert found is not None, f"ptxas said nothing about {name}"
        assert found.groups() == ("0", "0", "0"), f"{name}: {found[0]}"


def test_registers_fit_a_block(report):
    for name, text in kernels(report):
        registers = int(re.search(r"Used (\d+) registers", text)[1])
        assert registers * LARGEST_BLOCK <= REGISTERS, f"{name} uses {registers} registers"
