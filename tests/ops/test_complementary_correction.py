import itertools

import pytest
import torch
from op_checks import (
    accumulation_eps,
    check_allocations,
    check_capability,
    check_compiles,
    check_dispatches,
    check_precision,
    check_refuses_higher_derivatives,
    evaluate,
    non_contiguous,
)

from fastssl.ops import complementary_correction
from fastssl.ops.complementary_correction import (
    complementary_correction_reference,
    parameter_shapes,
)

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
PAPER = (64, 64, 64, 32)
# (N, C, D, R, E, F, J): one row, two, a prime and more than a block or a chunk of rows; the paper's
# widths, widths that no vector divides, and products deeper than a block of the depth.
SIZES = [
    (1, 10, 128, *PAPER),
    (2, 1, 1, 1, 1, 1, 1),
    (41, 3, 5, 5, 7, 6, 3),
    (41, 10, 128, *PAPER),
    (41, 100, 401, 33, 250, 70, 130),
    (700, 10, 300, *PAPER),
    (4096, 10, 128, *PAPER),
]
# For the checker: both sides of the kernels' limits (64 rows and columns a tile, 16 of its depth,
# 132 blocks, activations that fit in shared memory).
CHECKER_SIZES = [
    (1, 2, 3, 2, 3, 2, 1),
    (65, 10, 33, *PAPER),
    (70, 4, 5, 70, 65, 66, 17),
    (3, 5, 4, 300, 5, 300, 8),
    (8500, 3, 2, 4, 4, 4, 4),
]
LARGE = 8000  # rows from which one dtype is enough for the checker
CHECKER_ORDERS = ("forward", "reverse", "1")


def make(N, C, D, R, E, F, J, dtype=torch.float32, device="cpu"):
    """raw_output, features and parameters whose layers keep the size of what goes through them."""
    shapes = parameter_shapes(C, D, R, E, F, J)
    scales = [shape[-1] ** -0.5 if len(shape) == 2 else 1.0 for shape in shapes]
    parameters = [scale * torch.randn(shape) for shape, scale in zip(shapes, scales, strict=True)]
    return [x.to(device, dtype) for x in (torch.randn(N, C), torch.randn(N, D), *parameters)]


def flat(op, **options):
    """The op as a function of all its tensors."""
    return lambda raw_output, features, *parameters: op(raw_output, features, parameters, **options)


def check(backend, inputs, **options):
    """The precision rule; a floor is a few roundings of a tensor's largest entry.

    Sums over N rows round like sqrt(N), the reference's in float64 too; and what is stored in 16
    bits is half a spacing off, unless eager is lucky.
    """
    reference = flat(complementary_correction_reference, **options)
    inputs = [x.to(backend.device) for x in inputs]
    grad = torch.randn(inputs[0].shape).to(inputs[0].dtype).double()  # no rounding of its own
    exact = evaluate(reference, [x.double() for x in inputs], grad)
    eps = accumulation_eps(inputs[0].dtype) * (16 + len(inputs[0]) ** 0.5 / 2)
    eps += torch.finfo(inputs[0].dtype).eps / 2
    check_precision(
        flat(backend.op("complementary_correction"), **options),
        reference,
        inputs,
        [eps * tensor.abs().max().item() for tensor in exact],
        grad,
    )


def cases():
    found = []

    def add(backend, size, dtype, strided):
        layout = "strided" if strided else "contiguous"
        shape, name = "x".join(map(str, size)), str(dtype).removeprefix("torch.")
        found.append(
            pytest.param(backend, size, dtype, strided, id=f"{backend}-{shape}-{name}-{layout}")
        )

    for backend, size, dtype, strided in itertools.product(
        ("cpu", "cuda"), SIZES, DTYPES, (False, True)
    ):
        add(backend, size, dtype, strided)
    for order, size, dtype in itertools.product(CHECKER_ORDERS, CHECKER_SIZES, DTYPES):
        if size[0] < LARGE or dtype == torch.float32:
            add(f"cuda_on_cpu_{order}", size, dtype, False)
    return found


@pytest.mark.parametrize(("backend", "size", "dtype", "strided"), cases(), indirect=["backend"])
def test_precision(backend, size, dtype, strided):
    inputs = make(*size, dtype)
    check(backend, [non_contiguous(x) for x in inputs] if strided else inputs)


@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0])
def test_slopes(backend, slope):
    check(backend, make(70, 4, 9, 8, 7, 6, 5), negative_slope=slope)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float32_parameters(backend, dtype):
    """Beside 16-bit inputs; eager has no such form, so the reference is that of float32."""
    inputs = make(70, 10, 20, *PAPER, device=backend.device)
    inputs[:2] = [x.to(dtype) for x in inputs[:2]]
    inputs = [x.requires_grad_() for x in inputs]
    grad = torch.randn(70, 10, device=backend.device).to(dtype)
    output = flat(backend.op("complementary_correction"))(*inputs)
    grads = torch.autograd.grad(output, inputs, grad)
    wide = [x.detach().float().requires_grad_() for x in inputs]
    expected = flat(complementary_correction_reference)(*wide)
    wide_grads = torch.autograd.grad(expected, wide, grad.float())
    for got, want in zip((output, *grads[:2]), (expected, *wide_grads[:2]), strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got.float(), want, rtol=torch.finfo(dtype).eps, atol=1e-4)
    for got, want in zip(grads[2:], wide_grads[2:], strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("position", range(4))
def test_a_spike_in_every_column(backend, position):
    """Only the thread that owns the entry sees it: in raw_output, features, a weight, a bias."""
    inputs = make(80, 5, 20, 18, 17, 70, 33)
    spiked = inputs[position]
    rows = torch.arange(spiked.shape[-1])
    spiked.reshape(-1, spiked.shape[-1])[rows % spiked[..., 0].numel(), rows] += 100.0
    check(backend, inputs)


def test_extremes(backend):
    inputs = make(20, 4, 6, 5, 5, 5, 5, device=backend.device)
    for scale in (0.0, 1e30):
        scaled = [x * scale for x in inputs[:2]] + inputs[2:]
        output = flat(backend.op("complementary_correction"))(*scaled)
        expected = flat(complementary_correction_reference)(*[x.double() for x in scaled])
        torch.testing.assert_close(output.double(), expected, rtol=1e-5, atol=1e-6)


def test_nothing_to_correct(backend):
    inputs = make(30, 4, 6, 5, 5, 5, 5, device=backend.device)
    inputs[-2:] = [torch.zeros_like(x) for x in inputs[-2:]]
    assert torch.equal(flat(backend.op("complementary_correction"))(*inputs), inputs[0])


def test_gradcheck(backend):
    inputs = [x.requires_grad_() for x in make(5, 3, 4, 5, 4, 3, 2, torch.float64, backend.device)]
    op = backend.op("complementary_correction")
    assert torch.autograd.gradcheck(flat(op), inputs, fast_mode=backend.name != "cpu")


def test_only_what_is_needed(backend):
    inputs = make(20, 4, 6, 5, 5, 5, 5, device=backend.device)
    op = flat(backend.op("complementary_correction"))
    every = [x.detach().requires_grad_() for x in inputs]
    all_grads = torch.autograd.grad(op(*every).sum(), every)
    for needed in ([0], [1], [0, 1], [5], list(range(2, 12))):
        some = [x.detach().requires_grad_(i in needed) for i, x in enumerate(inputs)]
        grads = torch.autograd.grad(op(*some).sum(), [some[i] for i in needed])
        for grad, i in zip(grads, needed, strict=True):
            assert torch.equal(grad, all_grads[i])


def test_opcheck(device):
    inputs = make(9, 3, 4, 5, 4, 3, 2, device=device)
    op = torch.ops.fastssl.complementary_correction.default
    torch.library.opcheck(op, (*(x.clone().requires_grad_() for x in inputs), 0.1))
    torch.library.opcheck(op, (inputs[0], inputs[1].clone().requires_grad_(), *inputs[2:], 0.1))
    backward = torch.ops.fastssl.complementary_correction_backward.default
    for needs in ((True, True, True), (True, False, False), (False, False, True)):
        torch.library.opcheck(backward, (torch.randn(9, 3, device=device), *inputs, 0.1, *needs))


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compiles(device, compiler):
    parameters = make(1, 3, 4, 5, 4, 3, 2, device=device)[2:]
    check_compiles(
        lambda raw, features, *given: (
            flat(complementary_correction)(raw * 2, features, *given).square().sum()
        ),
        lambda N: [torch.randn(N, 3).to(device), torch.randn(N, 4).to(device), *parameters],
        compiler,
    )


def test_refuses_higher_derivatives(device):
    inputs = make(6, 3, 4, 5, 4, 3, 2, device=device)
    check_refuses_higher_derivatives(
        flat(complementary_correction), "complementary_correction", inputs
    )


def test_same_under_autocast(device):
    inputs = make(20, 4, 6, 5, 5, 5, 5, device=device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inside = flat(complementary_correction)(*inputs)
    assert torch.equal(inside, flat(complementary_correction)(*inputs))


def gradients(inputs):
    output = flat(complementary_correction)(*inputs)
    return output, *torch.autograd.grad(output.square().sum(), inputs)


def test_repeats_bit_for_bit(device):
    inputs = [x.requires_grad_() for x in make(700, 10, 128, *PAPER, device=device)]
    assert all(map(torch.equal, gradients(inputs), gradients(inputs)))


def test_threads_do_not_change_the_result():
    inputs = [x.requires_grad_() for x in make(2000, 10, 128, *PAPER)]
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(gradients(inputs))
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, *found))


def test_one_dispatch_each_way_and_nothing_kept(device):
    inputs = [x.requires_grad_() for x in make(300, 10, 128, *PAPER, device=device)]
    function = flat(complementary_correction)
    check_dispatches(function, inputs, "complementary_correction")
    output = inputs[0].nbytes
    check_allocations(function, inputs, [output, sum(x.nbytes for x in inputs)], device)
    check_allocations(function, [x.detach() for x in inputs], [output], device)


@pytest.mark.parametrize("capability", ["portable", "avx2"])
def test_every_instruction_set(capability):
    """The precision cases again, on the kernels this machine would not choose."""
    check_capability(capability, __file__, "test_precision and cpu-41x")


def test_errors():
    inputs = make(6, 3, 4, 5, 4, 3, 2)
    raw_output, features, *parameters = inputs

    def refused(error, match, *arguments, **options):
        with pytest.raises(error, match=match):
            complementary_correction(*arguments, **options)

    shapes = r"raw_output is \[6, 3\] and features \[5, 4\]"
    refused(ValueError, shapes, raw_output, features[:5], parameters)
    refused(ValueError, r"\[0, 3\]", raw_output[:0], features[:0], parameters)
    refused(ValueError, r"got raw_weight \[5, 3\]", raw_output, features[:, :3], parameters)
    refused(ValueError, r"out_bias \[2\]", raw_output, features, [*parameters[:-1], torch.ones(2)])
    refused(ValueError, "9 parameters", raw_output, features, parameters[:-1])
    refused(ValueError, "negative_slope is -1", raw_output, features, parameters, negative_slope=-1)
    refused(TypeError, r"features is torch\.float64", raw_output, features.double(), parameters)
    doubles = [x.double() for x in parameters]
    refused(TypeError, r"the parameters are torch\.float64", raw_output, features, doubles)
    mixed = [parameters[0].bfloat16(), *parameters[1:]]
    refused(TypeError, r"raw_weight is torch\.bfloat16", raw_output, features, mixed)
