import paired_logits
import pytest
import torch
from op_checks import (
    accumulation_eps,
    check_compiles,
    check_precision,
    check_refuses_higher_derivatives,
    misaligned,
)

from fastssl.ops import joint_distribution
from fastssl.ops.joint_distribution import joint_distribution_reference


def check(backend, inputs):
    """The precision rule; entries of P are means of probabilities, gradients carry 1/(N V)."""
    (N, C), V = inputs[0].shape, inputs[1].numel() // inputs[0].numel()
    eps = accumulation_eps(inputs[0].dtype)
    check_precision(
        backend.op("joint_distribution"),
        joint_distribution_reference,
        [x.to(backend.device) for x in inputs],
        [8 * eps / min(C, 10), 8 * eps / (N * V), 8 * eps / (N * V)],
        torch.randn(C, C, dtype=torch.float64),
    )


@pytest.mark.parametrize(
    ("backend", "N", "C", "V", "dtype", "strided"), paired_logits.cases(), indirect=["backend"]
)
def test_precision(backend, N, C, V, dtype, strided):
    inputs = paired_logits.make(N, C, V, dtype, backend.device)
    check(backend, paired_logits.spread(inputs, strided))


def test_is_a_symmetric_distribution(backend):
    P = backend.op("joint_distribution")(*paired_logits.make(130, 33, 3, device=backend.device))
    assert torch.equal(P, P.T)
    assert (P >= 0).all()
    torch.testing.assert_close(P.sum().item(), 1.0, rtol=0, atol=2e-6)


def test_views_are_pooled(backend):
    a, b = paired_logits.make(50, 12, 3, torch.float64, backend.device)
    op = backend.op("joint_distribution")
    torch.testing.assert_close(op(a, b), torch.stack([op(a, view) for view in b]).mean(0))


@pytest.mark.parametrize("C", [11, 12, 18, 22, 24])
def test_few_classes(backend, C):
    """Up to 32 the CUDA kernel has four instances, for 1, 2, 4 or 8 x 128 entries of the joint."""
    check(backend, paired_logits.make(5, C, 1))


def test_more_rows_than_one_pass_of_the_grid(backend):
    """The CUDA kernel's blocks are at most 264, of 128 rows: here some take a second turn."""
    check(backend, paired_logits.make(264 * 128 + 300, 2, 1))


@pytest.mark.parametrize("name", paired_logits.extremes())
@pytest.mark.parametrize("C", [10, 50])
def test_extremes(backend, name, C):
    check(backend, paired_logits.extremes(C)[name])


@pytest.mark.parametrize("dtype", paired_logits.DTYPES)
def test_rows_of_whole_16_bytes(backend, dtype):
    """A warp of the CUDA kernel reads 32 x 16 bytes at once, if aligned; here twice a row."""
    inputs = paired_logits.make(5, 264, 3, dtype, backend.device)
    check(backend, inputs)
    check(backend, [misaligned(x) for x in inputs])


@pytest.mark.parametrize("C", [10, 32, 136, 150])
def test_a_spike_in_every_column(backend, C):
    check(backend, paired_logits.spikes(C))


@pytest.mark.parametrize("C", [5, 40])
def test_gradcheck(backend, C):
    inputs = paired_logits.make(4, C, 3, torch.float64, backend.device)
    op = backend.op("joint_distribution")
    assert torch.autograd.gradcheck(op, [x.requires_grad_() for x in inputs], fast_mode=C > 32)


def test_opcheck(device):
    for V in (1, 3):
        a, b = paired_logits.make(9, 5, V, device=device)
        op = torch.ops.fastssl.joint_distribution.default
        torch.library.opcheck(op, (a.clone().requires_grad_(), b.clone().requires_grad_()))
        torch.library.opcheck(op, (a, b.clone().requires_grad_()))
        backward = torch.ops.fastssl.joint_distribution_backward.default
        for needs in ((True, True), (True, False), (False, True)):
            torch.library.opcheck(backward, (op(a, b), a, b, *needs))


def test_compiles(device):
    for V in (1, 3):
        check_compiles(
            lambda a, b: joint_distribution(a * 2, b).square(),
            lambda N, V=V: paired_logits.make(N, 7, V, device=device),
            "aot_eager",
        )


def test_refuses_higher_derivatives(device):
    inputs = paired_logits.make(6, 4, 1, device=device)
    check_refuses_higher_derivatives(joint_distribution, "joint_distribution", inputs)


@pytest.mark.parametrize(
    ("shape_a", "shape_b"),
    [((4, 3), (4, 2)), ((4, 3), (5, 3)), ((3,), (3,)), ((4, 3), (2, 5, 3)), ((2, 4, 3), (2, 4, 3))],
)
def test_mismatched_shapes(shape_a, shape_b):
    with pytest.raises(ValueError, match="joint_distribution") as raised:
        joint_distribution(torch.randn(shape_a), torch.randn(shape_b))
    assert str(list(shape_a)) in str(raised.value)
    assert str(list(shape_b)) in str(raised.value)


def test_empty():
    with pytest.raises(ValueError, match=r"\[0, 3\]"):
        joint_distribution(torch.randn(0, 3), torch.randn(0, 3))


def test_dtypes():
    with pytest.raises(TypeError, match=r"logits_b is torch\.float64"):
        joint_distribution(torch.randn(4, 3), torch.randn(4, 3).double())
    with pytest.raises(TypeError, match=r"logits_a is torch\.int64"):
        joint_distribution(torch.ones(4, 3).long(), torch.ones(4, 3).long())
