import itertools
import math

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

from fastssl.ops import nt_xent
from fastssl.ops.nt_xent import nt_xent_reference

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# (N, D): one pair, one feature, a prime, and both sides of the kernels' limits, which are 96 rows a
# block and 192 features deep on the CPU, 64 rows and 16 features of a tile in the CUDA kernels.
SIZES = [(1, 1), (1, 5), (2, 3), (41, 128), (48, 16), (50, 401), (300, 33)]
CHECKER_SIZES = [(1, 1), (2, 3), (32, 16), (33, 70), (70, 5)]
CHECKER_ORDERS = ("forward", "reverse", "1")


def make(N: int, D: int, dtype=torch.float32, device="cpu") -> list[torch.Tensor]:
    """Features of rows whose views agree somewhat."""
    a = torch.randn(N, D)
    return [x.to(device, dtype) for x in (a, a + torch.randn(N, D))]


def at(temperature, op):
    return lambda a, b: op(a, b, temperature)


def check(backend, inputs, temperature=0.5, grad=None):
    """The precision rule; similarities round in units of 1 / temperature.

    The gradient of a row is that loss's over its length and the 2N rows.
    """
    N, dtype = len(inputs[0]), inputs[0].dtype
    floor = 8 * accumulation_eps(dtype) * (1 + math.log(2 * N) + 1 / temperature)
    floors = [floor] + [
        floor / (N * temperature * torch.linalg.vector_norm(x.double(), dim=1).min().item())
        for x in inputs
    ]
    check_precision(
        at(temperature, backend.op("nt_xent")),
        at(temperature, nt_xent_reference),
        [x.to(backend.device) for x in inputs],
        floors,
        grad,
    )


def cases() -> list:
    """(backend, N, D, dtype, strided)."""
    found = []
    devices = itertools.product(("cpu", "cuda"), SIZES, DTYPES, (False, True))
    checkers = [f"cuda_on_cpu_{order}" for order in CHECKER_ORDERS]
    for backend, (N, D), dtype, strided in itertools.chain(
        devices, itertools.product(checkers, CHECKER_SIZES, DTYPES, (False,))
    ):
        layout = "strided" if strided else "contiguous"
        name = f"{backend}-{N}x{D}-{str(dtype).removeprefix('torch.')}-{layout}"
        found.append(pytest.param(backend, N, D, dtype, strided, id=name))
    return found


@pytest.mark.parametrize(("backend", "N", "D", "dtype", "strided"), cases(), indirect=["backend"])
def test_precision(backend, N, D, dtype, strided):
    inputs = make(N, D, dtype)
    inputs = [non_contiguous(x) for x in inputs] if strided else inputs
    check(backend, inputs, grad=torch.tensor(-1.7))


@pytest.mark.parametrize("temperature", [0.01, 0.07, 1, 100.0])
def test_temperatures(backend, temperature):
    check(backend, make(40, 20), temperature)


@pytest.mark.parametrize("backend", ["cpu", "cuda_on_cpu_1", "cuda"], indirect=True)
def test_more_tiles_than_groups_of_columns(backend):
    """Where a block of the CUDA backward multiplies its rows by more than one tile of columns."""
    check(backend, make(520, 2))


def test_large(device):
    inputs = make(4096, 16, device=device)
    for want, got in zip(
        evaluate(nt_xent_reference, inputs, None), evaluate(nt_xent, inputs, None), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("temperature", [0.02, 0.5])
def test_views_that_agree_or_oppose(backend, sign, temperature):
    """Where training ends, and where it could begin; every term but one may vanish."""
    a = torch.randn(40, 6)
    check(backend, [a, sign * a + 1e-3 * torch.randn(40, 6)], temperature)


@pytest.mark.parametrize("own", range(3))
def test_a_row_all_others_are_like(backend, own):
    """One row is the nearest to every other one: its column's sum is not like its row's."""
    a, b = make(40, 12)
    b[own * 19] = 0.01 * a.sum(0)
    check(backend, [a + b[own * 19], b], 0.1)


def test_known_values(backend):
    op = backend.op("nt_xent")
    orthogonal = torch.eye(70, dtype=torch.float64, device=backend.device)
    for temperature in (0.2, 1.0):
        loss = op(3 * orthogonal, 5 * orthogonal, temperature).item()
        expected = math.log(math.exp(1 / temperature) + 2 * 70 - 2) - 1 / temperature
        assert loss == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_single_pair_has_nothing_to_learn(backend, dtype):
    inputs = make(1, 9, dtype, backend.device)
    assert all(not x.any() for x in evaluate(at(0.1, backend.op("nt_xent")), inputs, None))


def test_gradients_do_not_change_lengths(backend):
    a, b = (x.requires_grad_() for x in make(50, 7, torch.float64, backend.device))
    for x, grad in zip(
        (a, b), torch.autograd.grad(backend.op("nt_xent")(a, b), (a, b)), strict=True
    ):
        torch.testing.assert_close((x * grad).sum(1), torch.zeros_like(x[:, 0]))
        assert grad.abs().max() > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.0, 1e-14, 1e-10, 1e15])
def test_rows_of_any_length(backend, dtype, scale):
    """As torch's normalize: below 1e-12 a norm counts as that."""
    inputs = make(40, 5, dtype, backend.device)
    for x, row in zip(inputs, (3, 37), strict=True):
        x[row] *= scale
    want = evaluate(nt_xent_reference, [x.double() for x in inputs], None)
    rtol = 64 * torch.finfo(dtype).eps
    for exact, got in zip(want, evaluate(backend.op("nt_xent"), inputs, None), strict=True):
        sizes = exact.abs().amax(-1, keepdim=True) if exact.dim() else exact
        assert ((got - exact).abs() <= rtol * sizes).all()


def test_zero_rows_in_float16(backend):
    """Their gradients would be infinite; those of others are as ever."""
    inputs = make(40, 5, torch.float16, backend.device)
    inputs[0][3] = 0
    loss, *grads = evaluate(backend.op("nt_xent"), inputs, None)
    want, *_ = evaluate(nt_xent_reference, [x.double() for x in inputs], None)
    torch.testing.assert_close(loss, want, rtol=1e-5, atol=0)
    assert (grads[0][3].abs() == 65504).all()
    assert all((grad.abs() < 1).all() for grad in (grads[0][:3], grads[0][4:], grads[1]))
    assert not evaluate(backend.op("nt_xent"), [torch.zeros_like(x) for x in inputs], None)[1].any()
    inputs[1][7] = 0
    inputs[1][7, 2] = 6e-8  # it has a direction, so that an overflow must show
    assert evaluate(backend.op("nt_xent"), inputs, None)[2][7].isinf().any()


def test_a_nan_is_not_hidden(backend):
    a, b = make(40, 5, device=backend.device)
    b[39, 2] = torch.nan
    assert backend.op("nt_xent")(a, b).isnan()


def test_gradcheck(backend):
    inputs = [x.requires_grad_() for x in make(4, 3, torch.float64, backend.device)]
    assert torch.autograd.gradcheck(at(0.3, backend.op("nt_xent")), inputs)


def test_gradcheck_of_several_tiles(backend):
    inputs = [x.requires_grad_() for x in make(50, 6, torch.float64, backend.device)]
    assert torch.autograd.gradcheck(backend.op("nt_xent"), inputs, fast_mode=True)


def test_opcheck(device):
    a, b = make(9, 5, device=device)
    op = torch.ops.fastssl.nt_xent.default
    torch.library.opcheck(op, (a.clone().requires_grad_(), b.clone().requires_grad_(), 0.5))
    torch.library.opcheck(op, (a.clone().requires_grad_(), b, 0.5))
    backward = torch.ops.fastssl.nt_xent_backward.default
    for needs in itertools.product((True, False), repeat=2):
        torch.library.opcheck(backward, (*op(a, b, 0.5), a, b, 0.5, *needs))


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compiles(device, compiler):
    check_compiles(
        lambda a, b: nt_xent(a * 2, b, 0.2) * 3, lambda N: make(N, 7, device=device), compiler
    )


def test_refuses_higher_derivatives(device):
    check_refuses_higher_derivatives(nt_xent, "nt_xent", make(6, 4, device=device))


@pytest.mark.parametrize("N", [20, 60])
def test_one_sided_gradient(backend, N):
    a, b = (x.requires_grad_() for x in make(N, 6, device=backend.device))
    op = backend.op("nt_xent")
    both = torch.autograd.grad(op(a, b), (a, b))
    (only_a,) = torch.autograd.grad(op(a, b.detach()), a)
    (only_b,) = torch.autograd.grad(op(a.detach(), b), b)
    assert torch.equal(only_a, both[0])
    assert torch.equal(only_b, both[1])


def test_same_under_autocast(device):
    inputs = make(60, 6, device=device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inside = evaluate(nt_xent, inputs, None)
    assert all(map(torch.equal, inside, evaluate(nt_xent, inputs, None)))


def test_repeats_bit_for_bit(device):
    inputs = make(700, 100, device=device)
    assert all(map(torch.equal, evaluate(nt_xent, inputs, None), evaluate(nt_xent, inputs, None)))


def test_threads_do_not_change_the_result():
    inputs = make(700, 130)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(evaluate(nt_xent, inputs, None))
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, found[0], found[1]))
    assert all(map(torch.equal, found[0], found[2]))


def test_one_dispatch_each_way_and_a_number_a_row_kept():
    N, D, size = 300, 50, 4
    inputs = [x.requires_grad_() for x in make(N, D)]
    check_dispatches(nt_xent, inputs, "nt_xent")
    cpu, gradients = torch.device("cpu"), sum(x.nbytes for x in inputs)
    check_allocations(nt_xent, inputs, [size * (1 + 2 * N), gradients], cpu)
    check_allocations(nt_xent, [x.detach() for x in inputs], [size * (1 + 2 * N)], cpu)


@pytest.mark.parametrize("capability", ["portable", "avx2"])
def test_every_instruction_set(capability):
    """The precision cases again, on the kernels this machine would not choose."""
    check_capability(capability, __file__, "test_precision and cpu-")


def test_errors():
    a, b = make(4, 3)
    with pytest.raises(ValueError, match=r"features_a is \[4, 3\] and features_b \[4, 2\]"):
        nt_xent(a, b[:, :2])
    with pytest.raises(ValueError, match=r"\[0, 3\]"):
        nt_xent(a[:0], b[:0])
    with pytest.raises(ValueError, match=r"\[4, 0\]"):
        nt_xent(a[:, :0], b[:, :0])
    with pytest.raises(ValueError, match=r"features_a is \[12\]"):
        nt_xent(a.flatten(), b.flatten())
    with pytest.raises(TypeError, match=r"features_b is torch\.float16"):
        nt_xent(a, b.half())
    with pytest.raises(TypeError, match=r"features_a is torch\.int64"):
        nt_xent(a.long(), b.long())
    for temperature in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"temperature is {temperature}"):
            nt_xent(a, b, temperature)
