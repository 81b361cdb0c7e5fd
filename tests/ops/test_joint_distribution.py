import paired_logits
import pytest
import torch
from op_checks import (
    accumulation_eps,
    check_compiles,
    check_precision,
    check_refuses_higher_derivatives,
)

from fastssl.ops import joint_distribution
from fastssl.ops.joint_distribution import joint_distribution_reference


@pytest.mark.parametrize(("N", "C", "V", "dtype", "strided"), paired_logits.cases())
def test_precision(device, N, C, V, dtype, strided):
    inputs = paired_logits.spread(paired_logits.make(N, C, V, dtype, device), strided)
    # Entries of P are sums of N V products of probabilities; gradients carry 1/(N V).
    eps = accumulation_eps(dtype)
    floors = [8 * eps / min(C, 10), *[8 * eps / (N * V)] * 2]
    grad = torch.randn(C, C, dtype=torch.float64).to(device)
    check_precision(joint_distribution, joint_distribution_reference, inputs, floors, grad)


def test_is_a_symmetric_distribution(device):
    P = joint_distribution(*paired_logits.make(300, 33, 3, device=device))
    assert torch.equal(P, P.T)
    assert (P >= 0).all()
    torch.testing.assert_close(P.sum().item(), 1.0, rtol=0, atol=2e-6)


def test_views_are_pooled(device):
    a, b = paired_logits.make(50, 12, 3, torch.float64, device)
    each = torch.stack([joint_distribution(a, view) for view in b])
    torch.testing.assert_close(joint_distribution(a, b), each.mean(0))


@pytest.mark.parametrize("name", paired_logits.extremes())
@pytest.mark.parametrize("C", [10, 50])
def test_extremes(device, name, C):
    inputs = [x.to(device) for x in paired_logits.extremes(C)[name]]
    grad = torch.randn(C, C, dtype=torch.float64).to(device)
    floors = [1e-6, 1e-7, 1e-7]
    check_precision(joint_distribution, joint_distribution_reference, inputs, floors, grad)


def test_gradcheck(device):
    for C in (5, 40):
        inputs = [x.requires_grad_() for x in paired_logits.make(4, C, 3, torch.float64, device)]
        assert torch.autograd.gradcheck(joint_distribution, inputs)


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
