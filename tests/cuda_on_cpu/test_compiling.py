"""The cache of objects, what a source tree is, and what happens where something is missing."""

import pytest

from . import checker, compiling
from .checker import require

require()


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A source tree of its own, with a cache of its own."""
    monkeypatch.setattr(compiling, "CACHE", tmp_path / "cache")
    for name in ("a", "b"):
        folder = tmp_path / name / "csrc"
        folder.mkdir(parents=True)
        (folder / "answer.h").write_text("#pragma once\ninline int answer() { return 42; }\n")
        (folder / "source.cpp").write_text('#include "answer.h"\nint half = answer() / 2;\n')
    return tmp_path


def test_an_object_is_built_once_for_the_same_text(tree):
    first = compiling.compile_object("csrc/source.cpp", tree / "a")
    written = first.stat().st_ino
    assert compiling.compile_object("csrc/source.cpp", tree / "b") == first
    assert first.stat().st_ino == written


@pytest.mark.parametrize("name", ["csrc/answer.h", "csrc/source.cpp"])
def test_a_changed_file_is_built_anew(tree, name):
    first = compiling.compile_object("csrc/source.cpp", tree / "a")
    changed = tree / "a" / name
    text = changed.read_text()
    changed.write_text(text + "inline int more() { return 1; }\n")
    assert compiling.compile_object("csrc/source.cpp", tree / "a") != first
    changed.write_text(text)
    assert compiling.compile_object("csrc/source.cpp", tree / "a") == first


def test_a_refused_file_is_reported_with_the_message(tree):
    (tree / "a/csrc/source.cpp").write_text("int half = nonsense;\n")
    with pytest.raises(compiling.CompileError, match="nonsense"):
        compiling.compile_object("csrc/source.cpp", tree / "a")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("__global__ void k() { __shared__ int x; }", "is_declared_with_FASTSSL_SHARED"),
        ("__device__ unsigned mask() { return __activemask(); }", "deleted function"),
        ("__device__ void add(long* x) { atomicAdd(x, 1); }", "no matching function"),
    ],
)
def test_what_cuda_or_the_house_forbids_does_not_compile(tree, line, message):
    for folder in ("csrc/kernels/cuda", "tests/cuda_on_cpu"):
        (tree / "a" / folder).parent.mkdir(parents=True, exist_ok=True)
        (tree / "a" / folder).symlink_to(compiling.REPOSITORY / folder)
    (tree / "a/csrc/source.cu").write_text(f'#include "kernels/cuda/launch.cuh"\n{line}\n')
    with pytest.raises(compiling.CompileError, match=message):
        compiling.compile_object("csrc/source.cu", tree / "a")


def test_a_pattern_without_a_file_is_an_error():
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        checker.load("csrc/nothing-here/*.cu")


@pytest.mark.parametrize(
    ("required", "outcome"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)]
)
def test_what_is_missing_skips_unless_required(monkeypatch, required, outcome):
    monkeypatch.setenv("FASTSSL_REQUIRE_CUDA_ON_CPU", required)
    monkeypatch.setattr(compiling, "missing", lambda: "there is no g++")
    with pytest.raises(outcome, match="there is no g"):
        require()
