import math

import numpy as np
import paired_logits
import pytest
import torch
from op_checks import (
    check_capability,
    check_compiles,
    check_precision,
    check_refuses_higher_derivatives,
    nats_floor,
)

from fastssl.ops import mutual_information
from fastssl.ops.mutual_information import mutual_information_reference


def check(backend, inputs, grad=None):
    """The precision rule; I rounds in nats, and its gradients carry 1/(N V)."""
    (N, C), V = inputs[0].shape, inputs[1].numel() // inputs[0].numel()
    nats = nats_floor(inputs[0].dtype, C)
    check_precision(
        backend.op("mutual_information"),
        mutual_information_reference,
        [x.to(backend.device) for x in inputs],
        [nats, nats / (N * V), nats / (N * V)],
        grad,
    )


@pytest.mark.parametrize(
    ("backend", "N", "C", "V", "dtype", "strided"), paired_logits.cases(), indirect=["backend"]
)
def test_precision(backend, N, C, V, dtype, strided):
    inputs = paired_logits.make(N, C, V, dtype, backend.device)
    check(backend, paired_logits.spread(inputs, strided), torch.tensor(-1.7))


@pytest.mark.parametrize("C", [10, 100])
def test_precision_of_agreeing_views(backend, C):
    """Where training ends: confident predictions, the same in every view."""
    a = torch.randn(150, C) * 8
    check(backend, [a, a + torch.randn(3, 150, C)])


def test_known_values(backend):
    op = backend.op("mutual_information")
    one_hot = 1e3 * torch.eye(10, device=backend.device).repeat(5, 1)
    torch.testing.assert_close(op(one_hot, one_hot).item(), math.log(10))
    same = torch.randn(1, 10, device=backend.device).expand(50, 10)
    assert abs(op(same, same).item()) < 1e-6


@pytest.mark.parametrize("name", paired_logits.extremes())
@pytest.mark.parametrize("C", [10, 50])
def test_extremes(backend, name, C):
    check(backend, paired_logits.extremes(C)[name])


@pytest.mark.parametrize("C", [10, 32, 150])
def test_a_spike_in_every_column(backend, C):
    check(backend, paired_logits.spikes(C))


def test_grad_joint_cuda_on_cpu():
    """The kernel by itself: the op's gradient symmetrises, which hides an asymmetric error."""
    import kernels_on_cpu

    C = 20
    joint = torch.rand(C, C, dtype=torch.float64)
    joint = (joint + joint.T) / (2 * joint.sum())
    grad_joint = torch.empty_like(joint)
    arrays = joint.numpy(), np.empty(C), grad_joint.numpy()
    kernels_on_cpu.kernels().mutual_information_grad_joint_float64(*arrays, C)
    marginals = joint.sum(1)
    torch.testing.assert_close(grad_joint, (joint / marginals / marginals[:, None]).log())


@pytest.mark.parametrize("C", [5, 40])
def test_gradcheck(backend, C):
    inputs = paired_logits.make(4, C, 3, torch.float64, backend.device)
    op = backend.op("mutual_information")
    assert torch.autograd.gradcheck(op, [x.requires_grad_() for x in inputs], fast_mode=C > 32)


def test_opcheck(device):
    for V in (1, 3):
        a, b = paired_logits.make(9, 5, V, device=device)
        op = torch.ops.fastssl.mutual_information.default
        torch.library.opcheck(op, (a.clone().requires_grad_(), b.clone().requires_grad_()))
        torch.library.opcheck(op, (a.clone().requires_grad_(), b))
        backward = torch.ops.fastssl.mutual_information_backward.default
        for needs in ((True, True), (True, False), (False, True)):
            torch.library.opcheck(backward, (*op(a, b), a, b, *needs))


@pytest.mark.parametrize("V", [1, 3])
def test_compiles(device, V):
    check_compiles(
        lambda a, b: -mutual_information(a * 2, b),
        lambda N: paired_logits.make(N, 7, V, device=device),
        "aot_eager",
    )


def test_compiles_with_inductor(device):
    check_compiles(
        lambda a, b: -mutual_information(a * 2, b),
        lambda N: paired_logits.make(N, 7, 3, device=device),
        "inductor",
    )


def test_refuses_higher_derivatives(device):
    inputs = paired_logits.make(6, 4, 1, device=device)
    check_refuses_higher_derivatives(mutual_information, "mutual_information", inputs)


@pytest.mark.parametrize("C", [6, 40])
def test_one_sided_gradient(backend, C):
    a, b = paired_logits.make(20, C, 3, device=backend.device)
    op = backend.op("mutual_information")
    both = torch.autograd.grad(op(a.requires_grad_(), b.requires_grad_()), (a, b))
    (only_a,) = torch.autograd.grad(op(a, b.detach()), a)
    (only_b,) = torch.autograd.grad(op(a.detach(), b), b)
    assert torch.equal(only_a, both[0])
    assert torch.equal(only_b, both[1])


@pytest.mark.parametrize("C", [6, 100])  # a kernel's own products, and those of the BLAS
def test_same_under_autocast(device, C):
    inputs = [x.requires_grad_() for x in paired_logits.make(20, C, 3, device=device)]
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inside = mutual_information(*inputs)
        grads = torch.autograd.grad(inside, inputs)
    outside = mutual_information(*inputs)
    assert torch.equal(inside, outside)
    assert all(map(torch.equal, grads, torch.autograd.grad(outside, inputs)))


def test_repeats_bit_for_bit(device):
    inputs = [x.requires_grad_() for x in paired_logits.make(700, 100, 3, device=device)]
    first, second = (torch.autograd.grad(mutual_information(*inputs), inputs) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


@pytest.mark.parametrize("backend", ["cpu"], indirect=True)
@pytest.mark.parametrize("C", [65, 96, 113, 128])
@pytest.mark.parametrize("N", [1, 33, 600])
def test_tiles_of_any_size(backend, N, C):
    """Rows and classes around those of a tile, with and without a rest."""
    check(backend, paired_logits.make(N, C, 2, torch.float32, backend.device))


def test_threads_do_not_change_the_result():
    inputs = [x.requires_grad_() for x in paired_logits.make(2000, 130, 3)]
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(torch.autograd.grad(mutual_information(*inputs), inputs))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(x, y) for x, y in zip(*found, strict=True))


@pytest.mark.parametrize("capability", ["portable", "avx2", "avx512"])
def test_every_instruction_set(capability):
    """The precision cases again, on the kernels this machine would not choose."""
    check_capability(capability, __file__, "test_precision and cpu-41x")


def test_errors():
    with pytest.raises(ValueError, match=r"logits_a is \[4, 3\] and logits_b \[4, 2\]"):
        mutual_information(torch.randn(4, 3), torch.randn(4, 2))
    with pytest.raises(ValueError, match=r"\[0, 3\]"):
        mutual_information(torch.randn(0, 3), torch.randn(0, 3))
    with pytest.raises(TypeError, match=r"logits_b is torch\.float16"):
        mutual_information(torch.randn(4, 3), torch.randn(4, 3).half())
