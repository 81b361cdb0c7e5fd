"""The pattern of an op's test on this backend: values against NumPy, in every order of threads."""

import numpy as np
import pytest

from . import checker

checker.require()

SELF_TEST = "tests/cuda_on_cpu/self_test"


@pytest.fixture(scope="module")
def kernels() -> checker.Kernels:
    return checker.load(f"{SELF_TEST}/row_softmax.cu", f"{SELF_TEST}/bindings.cpp")


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def check(kernels, logits, dtype, order, tolerance):
    N, C = logits.shape
    logits = logits.astype(dtype)
    probabilities = np.empty_like(logits)
    mean = np.zeros(C, np.float64 if dtype == "float64" else np.float32)
    launcher = getattr(kernels, f"row_softmax_{dtype}")
    launcher(
        *(logits, probabilities, mean, N, C),
        order=order,
        initialised=["mean"],
        multiprocessors=3,  # so that a block has several rows
    )
    expected = softmax(logits.astype(np.float64))
    np.testing.assert_allclose(probabilities, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(mean, expected.mean(0), rtol=tolerance, atol=tolerance / 10)


@pytest.mark.parametrize("order", checker.ORDERS)
@pytest.mark.parametrize("shape", [(1, 1), (17, 13), (5, 150), (2, 64)])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-14), ("float16", 1e-3)]
)
def test_values(kernels, dtype, tolerance, shape, order):
    check(kernels, np.random.default_rng(0).normal(size=shape), dtype, order, tolerance)


@pytest.mark.parametrize("order", checker.ORDERS)
def test_a_spike_in_every_column(kernels, order):
    """Only the lane that owns the column sees the maximum; exp overflows without it."""
    check(kernels, 1e4 * np.eye(150), "float32", order, 1e-6)


@pytest.mark.parametrize("order", checker.ORDERS)
def test_every_logit_far_below_zero(kernels, order):
    check(kernels, np.full((3, 70), -1e4), "float32", order, 1e-6)


def test_no_rows(kernels):
    check_shapes = np.empty((0, 5), np.float32), np.empty((0, 5), np.float32)
    mean = np.zeros(5, np.float32)
    kernels.row_softmax_float32(*check_shapes, mean, 0, 5, initialised=["mean"])
    assert (mean == 0).all()
