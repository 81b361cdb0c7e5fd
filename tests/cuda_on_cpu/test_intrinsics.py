"""Device functions give what CUDA's give, as NumPy computes it."""

import shutil
import subprocess

import numpy as np
import pytest

from . import checker, compiling

checker.require()

LANES = np.arange(32)
SELF_TEST = "tests/cuda_on_cpu/self_test"


@pytest.fixture(scope="module")
def kernels() -> checker.Kernels:
    return checker.load(f"{SELF_TEST}/*.cu", f"{SELF_TEST}/bindings.cpp")


@pytest.mark.parametrize("order", checker.ORDERS)
def test_warp_operations(kernels, order):
    values = np.random.default_rng(0).permutation(32).astype(np.int32)
    results = np.empty((14, 32), np.int32)
    kernels.warp_operations(values, results, order=order)
    segment = LANES % 16
    lanes_read = [
        np.full(32, 5),
        LANES // 8 * 8 + (LANES + 1) % 8,
        np.where(LANES >= 3, LANES - 3, LANES),
        np.where(segment >= 3, LANES - 3, LANES),
        np.where(LANES <= 28, LANES + 3, LANES),
        np.where(segment <= 12, LANES + 3, LANES),
        LANES ^ 17,
        LANES ^ 1,
    ]
    np.testing.assert_array_equal(results[:8], [values[lanes] for lanes in lanes_read])
    ballot = np.bitwise_or.reduce(1 << LANES[values % 3 == 0])
    votes = [ballot, 1, 0, 16, 0, 1]
    np.testing.assert_array_equal(results[8:], np.repeat(votes, 32).reshape(6, 32))


@pytest.mark.parametrize("order", checker.ORDERS)
def test_atomics(kernels, order):
    cells = np.zeros(12, np.uint32)
    floats, doubles, halves = np.zeros(1, np.float32), np.zeros(1), np.zeros(2, np.float16)
    kernels.atomics(
        *(cells, floats, doubles, halves),
        order=order,
        initialised=["cells", "floats", "doubles", "halves"],
    )
    expected = [63 * 32, 63, 2**32 - 64, 4, 2**32 - 1, 0, 7, 3, 2, 2**32 - 63, 0, 0]
    np.testing.assert_array_equal(cells, np.array(expected, np.uint32))
    assert (floats[0], doubles[0]) == (64, 32)
    np.testing.assert_array_equal(halves, [64, 128])


def bfloat16_bits(values: np.ndarray) -> np.ndarray:
    """Rounded to nearest even."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def test_float16_in_wide_loads(kernels):
    values = np.random.default_rng(0).normal(size=64).astype(np.float16)
    scaled = np.empty_like(values)
    kernels.scale_float16(values, scaled, 64, 1.5)
    expected = (values.astype(np.float32) * np.float32(1.5)).astype(np.float16)
    np.testing.assert_array_equal(scaled, expected)
    as_bits = np.empty(64, np.uint16)
    kernels.scale_float16(values.view(np.uint16), as_bits, 64, 1.5)
    np.testing.assert_array_equal(as_bits.view(np.float16), expected)


def test_bfloat16_in_wide_loads(kernels):
    values = bfloat16_bits(np.random.default_rng(0).normal(size=64))
    scaled = np.empty_like(values)
    kernels.scale_bfloat16(values, scaled, 64, 1.5)
    np.testing.assert_array_equal(scaled, bfloat16_bits(from_bfloat16(values) * np.float32(1.5)))


def test_round_trip_through_16_bits(kernels):
    values = np.concatenate([np.random.default_rng(0).normal(size=60), [0, -0.0, 1e-7, 65504]])
    values = values.astype(np.float32)
    as_half, as_bfloat16 = np.empty_like(values), np.empty_like(values)
    kernels.round_trip(values, as_half, as_bfloat16, values.size)
    np.testing.assert_array_equal(as_half, values.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(as_bfloat16, from_bfloat16(bfloat16_bits(values)))


def test_float_functions(kernels):
    x = np.concatenate([np.random.default_rng(0).normal(size=29) * 3, [0.5, 1.5, 2.5]])
    x = x.astype(np.float32)
    results = np.empty((14, x.size), np.float32)
    kernels.float_functions(x, results, x.size)
    exact = x.astype(np.float64)
    expected = [
        np.exp(exact),
        np.log(np.abs(exact)),
        1 / np.sqrt(np.abs(exact)),
        exact / 3,
        np.sin(np.pi * exact),
        np.cos(np.pi * exact),
        np.clip(exact, 0, 1),
        np.maximum(exact, 0.25),
        np.minimum(exact, 1),
        np.rint(exact),
        np.floor(exact),
        np.trunc(np.maximum(exact, 0)),
        -exact,
        2 * exact + 1,
    ]
    np.testing.assert_allclose(results, expected, rtol=2e-6, atol=2e-7)


def test_integer_functions(kernels):
    x = np.random.default_rng(0).integers(0, 2**32, 32, dtype=np.uint64)
    x[:4] = [0, 1, 2**31, 2**32 - 1]
    results = np.empty((10, x.size), np.uint32)
    kernels.integer_functions(x.astype(np.uint32), results, x.size)
    y = x[::-1]
    binary = [f"{int(value):032b}" for value in x]
    signed = [product >> 32 for product in _signed(x).astype(object) * _signed(y).astype(object)]
    expected = [
        [text.count("1") for text in binary],
        [len(text) - len(text.lstrip("0")) for text in binary],
        [text[::-1].find("1") + 1 for text in binary],
        [int(text[::-1], 2) for text in binary],
        x * y >> np.uint64(32),
        [product % 2**32 for product in signed],
        np.minimum(x, 7),
        (y << np.uint64(5) | x >> np.uint64(27)) % 2**32,
        [_odd_bytes(int(a), int(b)) for a, b in zip(x, y, strict=True)],
        x * y >> np.uint64(32),
    ]
    np.testing.assert_array_equal(results, np.array(expected, np.uint64))


def _signed(values: np.ndarray) -> np.ndarray:
    return values.astype(np.uint32).view(np.int32)


def _odd_bytes(low: int, high: int) -> int:
    odd = (high << 32 | low).to_bytes(8, "little")[1::2]
    return int.from_bytes(odd, "little")


@pytest.mark.parametrize("order", checker.ORDERS)
def test_every_thread_knows_its_place(kernels, order):
    where = np.empty((2, 3, 2, 3, 2, 4, 6), np.uint32)  # grid z, y, x, block z, y, x
    kernels.places(where, order=order)
    places = np.moveaxis(np.indices(where.shape[:-1]), 0, -1)
    np.testing.assert_array_equal(where, places[..., [2, 1, 0, 5, 4, 3]])


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize("name", ["intrinsics.cu", "legal_patterns.cu"])
def test_nvcc_accepts_the_same_source(name, tmp_path):
    """What the checker offers under CUDA's names, CUDA has, with these parameters."""
    options = ["-std=c++17", "-arch=sm_90", "--expt-relaxed-constexpr", "-ptx"]
    options += [f"-I{folder}" for folder in compiling.INCLUDE_FOLDERS]
    command = ["nvcc", *options, f"{SELF_TEST}/{name}", "-o", str(tmp_path / "kernel.ptx")]
    root = compiling.REPOSITORY
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
