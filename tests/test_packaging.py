"""What a person installs: a whole sdist, a wheel with what it should hold, errors of one line."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command: str, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, cwd=cwd, env=os.environ | env, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """The sdist, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    built = run(
        sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", folder, cwd=ROOT
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    return unpacked


def test_sdist_is_whole(source):
    for folder in ("csrc", "fastssl", "cli", "benchmarks"):
        for path in (ROOT / folder).rglob("*"):
            if "results" in path.parts:  # measurements, which no user needs to build
                continue
            if path.suffix in (".py", ".cpp", ".h", ".cu", ".cuh", ".txt", ".html", ".css"):
                assert (source / path.relative_to(ROOT)).exists(), path


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    """A CPU-only wheel built from the sdist, with nothing downloaded."""
    folder = tmp_path_factory.mktemp("wheel")
    built = run(
        *(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"),
        *("-v", "-w", str(folder), "."),
        cwd=source,
        FASTSSL_CUDA="OFF",
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert "this is a CPU-only build" in built.stdout + built.stderr
    (found,) = folder.glob("*.whl")
    return found


def test_wheel_contents(wheel):
    assert wheel.name.split("-")[2:4] == ["cp311", "abi3"]
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top_level = {name.split("/")[0] for name in names}
    assert {name for name in top_level if not name.endswith(".dist-info")} == {"fastssl"}
    for name in ("_C.abi3.so", "cli/main.py", "ops/mutual_information.py", "reporting/page.html"):
        assert f"fastssl/{name}" in names
    assert not [name for name in names if name.endswith((".cpp", ".cu", ".csv"))]


def test_wheel_works(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = f"""
import sys
sys.meta_path = [f for f in sys.meta_path if "ScikitBuild" not in type(f).__name__]  # not editable
sys.path.insert(0, {str(tmp_path)!r})
import torch, fastssl, fastssl.cli.main
from fastssl.ops import mutual_information
assert fastssl.__file__.startswith({str(tmp_path)!r}), fastssl.__file__
assert fastssl.build_info()["cuda"] == ""
x = torch.randn(8, 3, requires_grad=True)
mutual_information(x, x).backward()
assert x.grad.isfinite().all()
"""
    done = run(sys.executable, "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_no_compiler_is_one_line(source, tmp_path):
    hook = "import build_backend; build_backend.build_wheel('.')"
    done = run(
        sys.executable, "-c", hook, cwd=source, PYTHONPATH="csrc", PATH=str(tmp_path), CXX=""
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("fastssl: no C++ compiler found (looked for c++, g++, clang++)")


def test_a_named_compiler_that_is_not_there(source):
    hook = "import build_backend; build_backend.build_wheel('.')"
    done = run(sys.executable, "-c", hook, cwd=source, PYTHONPATH="csrc", CXX="no-such-compiler")
    assert done.returncode == 1
    assert done.stderr.startswith("fastssl: no C++ compiler found (looked for no-such-compiler)")


def test_torch_is_required_only_where_there_is_none(source):
    ask = "import build_backend as b; print(b.get_requires_for_build_wheel())"
    done = run(sys.executable, "-c", ask, cwd=source, PYTHONPATH="csrc")
    assert "torch" not in done.stdout, done.stdout + done.stderr
    none = run(
        *(sys.executable, "-c", f"import build_backend as b; b.find_torch = lambda: None; {ask}"),
        cwd=source,
        PYTHONPATH="csrc",
    )
    assert "torch>=2.11" in none.stdout, none.stdout + none.stderr


def test_a_wrong_torch_folder_is_one_line(source, tmp_path):
    done = run(
        sys.executable, "build_backend.py", cwd=source / "csrc", FASTSSL_TORCH_DIR=str(tmp_path)
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"fastssl: FASTSSL_TORCH_DIR={tmp_path} holds no ")
