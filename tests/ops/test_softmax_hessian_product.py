import itertools

import no_gradient
import paired_logits
import pytest
import torch
from op_checks import accumulation_eps, non_contiguous

from fastssl.ops import softmax_hessian_product
from fastssl.ops.softmax_hessian_product import softmax_hessian_product_reference

# Both sides of the kernels' limits: a vector, a warp's 32 columns, 4 rows a block.
SIZES = [(1, 1), (2, 2), (41, 10), (3, 33), (130, 100), (9, 401)]


def make(N: int, C: int, dtype=torch.float32, device="cpu") -> list[torch.Tensor]:
    """Logits and tangent."""
    return [(torch.randn(N, C) * spread).to(device, dtype) for spread in (2, 1)]


def check(backend, inputs):
    """The precision rule; entries are of the tangent's size and rounded once to its dtype."""
    dtype, size = inputs[1].dtype, inputs[1].abs().max()
    no_gradient.check_values(
        backend.op("softmax_hessian_product"),
        softmax_hessian_product_reference,
        [x.to(backend.device) for x in inputs],
        8 * accumulation_eps(dtype) * size.item(),
    )


@pytest.mark.parametrize("dtype", paired_logits.DTYPES)
@pytest.mark.parametrize(("N", "C"), SIZES)
def test_precision(backend, N, C, dtype):
    check(backend, make(N, C, dtype))


@pytest.mark.parametrize(("N", "C"), [(41, 10), (4096, 100), (512, 1000)])
def test_precision_of_large_and_strided_inputs(device, N, C):
    inputs = make(N, C, device=device)
    expected = softmax_hessian_product_reference(*inputs)
    for strided in itertools.product((False, True), repeat=2):
        given = [non_contiguous(x) if s else x for x, s in zip(inputs, strided, strict=True)]
        torch.testing.assert_close(softmax_hessian_product(*given), expected)


@pytest.mark.parametrize("C", [5, 40])
def test_is_the_hessian_of_the_divergence(backend, C):
    logits, tangent = (x.to(backend.device) for x in make(1, C, torch.float64))
    target = logits[0].softmax(0)

    def divergence(perturbation):
        return (target * (target.log() - (logits[0] + perturbation).log_softmax(0))).sum()

    hessian = torch.autograd.functional.hessian(divergence, torch.zeros_like(target))
    product = backend.op("softmax_hessian_product")(logits, tangent)
    torch.testing.assert_close(product[0], hessian @ tangent[0])


@pytest.mark.parametrize("C", [10, 150])
def test_confident_rows_keep_their_digits(backend, C):
    """At probabilities of e^-40 the plain formula has no digit left, and half of VAT's rows are."""
    logits, tangent = make(64, C)
    logits[torch.arange(64), torch.randint(C, (64,))] += 40
    x, t = logits.double(), tangent.double()
    expected = softmax_hessian_product_reference(x, t - t.gather(1, x.argmax(1, keepdim=True)))
    inputs = [y.to(backend.device) for y in (logits, tangent)]
    product = backend.op("softmax_hessian_product")(*inputs).cpu().double()
    error = torch.linalg.vector_norm(product - expected, dim=1)
    assert (error <= 1e-5 * torch.linalg.vector_norm(expected, dim=1)).all()


@pytest.mark.parametrize("name", paired_logits.extremes())
@pytest.mark.parametrize("C", [10, 50])
def test_extremes(backend, name, C):
    logits = paired_logits.extremes(C)[name][0]
    check(backend, [logits, torch.randn(logits.shape)])


@pytest.mark.parametrize("C", [10, 32, 150])
def test_a_spike_in_every_column(backend, C):
    check(backend, [1e4 * torch.eye(C), torch.randn(C, C)])
    check(backend, [torch.randn(C, C), 1e4 * torch.eye(C)])


def test_opcheck(device):
    inputs = make(9, 5, device=device)
    op = torch.ops.fastssl.softmax_hessian_product.default
    torch.library.opcheck(op, inputs)
    torch.library.opcheck(op, [x.clone().requires_grad_() for x in inputs])


@pytest.mark.parametrize("backend_name", ["aot_eager", "inductor"])
def test_compiles(device, backend_name):
    no_gradient.check_compiles(
        lambda x, t: softmax_hessian_product(x * 2, t).square(),
        lambda N: make(N, 7, device=device),
        backend_name,
    )


def test_is_a_constant(device):
    inputs = make(6, 4, device=device)
    no_gradient.check_is_a_constant(softmax_hessian_product, "softmax_hessian_product", inputs)


def test_same_under_autocast(device):
    inputs = make(20, 6, device=device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inside = softmax_hessian_product(*inputs)
    assert torch.equal(inside, softmax_hessian_product(*inputs))


def test_threads_do_not_change_the_result():
    inputs, threads = make(4000, 130), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = softmax_hessian_product(*inputs)
        torch.set_num_threads(2)
        assert torch.equal(one, softmax_hessian_product(*inputs))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("logits", "tangent"), [((4, 3), (4, 2)), ((4, 3), (5, 3)), ((3,), (3,)), ((0, 3), (0, 3))]
)
def test_shapes(logits, tangent):
    with pytest.raises(ValueError, match="softmax_hessian_product") as raised:
        softmax_hessian_product(torch.randn(logits), torch.randn(tangent))
    assert str(list(logits)) in str(raised.value)
    assert str(list(tangent)) in str(raised.value)


def test_dtypes():
    with pytest.raises(TypeError, match=r"tangent is torch\.float64"):
        softmax_hessian_product(torch.randn(4, 3), torch.randn(4, 3).double())
    with pytest.raises(TypeError, match=r"logits is torch\.int64"):
        softmax_hessian_product(torch.ones(4, 3).long(), torch.ones(4, 3).long())
