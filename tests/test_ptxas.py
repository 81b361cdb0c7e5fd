"""What the compiler made of the CUDA kernels, for every architecture they are built for."""

import re
import shutil
import subprocess
from pathlib import Path

import machine_code
import pytest
from machine_code import Kernel

import fastssl

ROOT = Path(__file__).parent.parent
KERNELS = ROOT / "csrc/kernels"
HEADERS = [*KERNELS.glob("*.h"), *KERNELS.glob("cuda/*.cuh")]
PLANTS = ROOT / "tests/ptxas_plants.cu"

pytestmark = pytest.mark.skipif(
    machine_code.cuobjdump() is None, reason="no cuobjdump (the test extra)"
)


@pytest.fixture(scope="module")
def library() -> Path:
    """The extension that is installed."""
    if not fastssl.build_info()["cuda"]:
        pytest.skip("the installed fastssl has no CUDA kernels")
    return Path(fastssl._C.__file__)


@pytest.fixture(scope="module")
def kernels(library) -> list[Kernel]:
    return machine_code.kernels_in(library)


def test_every_kernel_is_there_for_every_architecture(kernels):
    wanted = re.findall(r"\d+", fastssl.build_info()["architectures"])
    assert {k.architecture.rstrip("af") for k in kernels} == {f"sm_{a}" for a in wanted}
    for path in KERNELS.glob("cuda/*.cu"):
        assert any(f"_{path.stem}_cu_" in k.name for k in kernels), f"no kernel of {path.name}"


def test_no_spills_and_no_stack(kernels):
    assert machine_code.with_stack(kernels) == []


def test_registers_fit_a_block(kernels):
    assert machine_code.with_too_many_registers(kernels) == []


@pytest.mark.parametrize("path", sorted(KERNELS.glob("cuda/*.cu")), ids=lambda path: path.stem)
def test_16_byte_loads(library, kernels, path):
    assert machine_code.without_16_byte_loads(library, kernels, path, HEADERS) == []


# ---- the gates above can fail -------------------------------------------------------------------


@pytest.fixture(scope="module")
def binary(tmp_path_factory) -> Path:
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc")
    out = tmp_path_factory.mktemp("ptxas") / "plants.o"
    options = ["-std=c++17", "-O3", "--expt-relaxed-constexpr", "-arch=sm_90"]
    command = ["nvcc", *options, f"-I{ROOT / 'csrc'}", "-c", PLANTS, "-o", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def plants(binary) -> list[Kernel]:
    return machine_code.kernels_in(binary)


def names(complaints: list[str]) -> list[str]:
    return sorted(re.search(r"\d([a-z]+_kernel)", complaint)[1] for complaint in complaints)


def test_launch_bounds_are_read(plants):
    assert {"unbounded" in k.name: k.threads for k in plants} == {False: 256, True: 1024}


def test_planted_stack(plants):
    assert names(machine_code.with_stack(plants)) == ["indexing_kernel"]


def test_planted_registers(plants):
    assert names(machine_code.with_too_many_registers(plants)) == ["unbounded_kernel"]


def test_planted_16_byte_loads(binary, plants):
    found = machine_code.without_16_byte_loads(binary, plants, PLANTS, HEADERS)
    assert names(found) == ["narrowed_kernel"]


def test_which_kernels_mean_16_byte_loads():
    found = machine_code.kernels_that_reach("load16", PLANTS, HEADERS)
    assert found == {"wide_kernel", "narrowed_kernel", "flagged_kernel"}
