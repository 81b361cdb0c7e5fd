import itertools

import pytest
import torch
from op_checks import (
    accumulation_eps,
    check_allocations,
    check_compiles,
    check_dispatches,
    check_precision,
    evaluate,
    misaligned,
    non_contiguous,
)

from fastssl.ops import batch_norm_leaky_relu
from fastssl.ops.batch_norm_leaky_relu import batch_norm_leaky_relu_reference

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
POOLS = (1, 2)
# Maps of one window, of odd sides, of channels that no vector divides and that all do, of more
# pixels than a block whose mean is known, a piece or a row of threads has.
SHAPES = [(1, 3, 2, 2), (2, 1, 3, 5), (3, 17, 7, 4), (2, 64, 8, 8), (5, 8, 33, 9), (40, 20, 16, 17)]
LARGE = [(64, 32, 32, 32), (3000, 5, 4, 3)]
# For the checker: both sides of a part of the batch (1024), a block's groups (32) and its rows.
CHECKER_SHAPES = [*SHAPES[:4], (5, 8, 9, 6), (1100, 2, 2, 2), (2, 300, 3, 2)]


def make(shape, dtype=torch.float32, device="cpu"):
    """Maps whose channels have other means and deviations, and channels' numbers."""
    K = shape[1]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    scale, shift = 1 + torch.arange(K) % 3, torch.arange(K) % 5 - 2.0
    maps = torch.randn(shape) * scale[:, None, None] + shift[:, None, None]
    weight = torch.randn(K, device=device, dtype=wide)
    maps = maps.to(device, dtype).contiguous(memory_format=torch.channels_last)
    return maps, weight, torch.randn(K, device=device, dtype=wide)


def first(op, **options):
    """The op's output as a function of maps, weight and bias."""
    return lambda *inputs: op(*inputs, **options)[0]


def reference(**options):
    """In one dtype throughout; torch's own takes 16-bit maps beside numbers of 32 bits."""
    return first(batch_norm_leaky_relu_reference, **options)


def separated(maps, weight, bias):
    """The maps with no two values of a window close together: then it has one largest."""
    N, K, H, W = maps.shape
    order = torch.stack([torch.randperm(4) for _ in range(N * K)]).view(N, K, 2, 2).double()
    steps = order.repeat(1, 1, -(-H // 2), -(-W // 2))[:, :, :H, :W]
    moved = steps.to(maps) + maps / 16
    return moved.contiguous(memory_format=torch.channels_last), weight, bias


def check(backend, inputs, **options):
    """The precision rule; a floor is a few roundings of a tensor's largest entry."""
    inputs = [x.to(backend.device) for x in inputs]
    exact = evaluate(
        reference(**options), [x.double() for x in inputs], grad := gradient(inputs, options)
    )
    dtype = inputs[0].dtype
    roundings = 32 if dtype == torch.float64 else 16  # there the reference rounds as often as we
    eps, stored = roundings * accumulation_eps(dtype), torch.finfo(dtype).eps / 2
    sums = eps * (1 + grad.numel() / grad.shape[1]) ** 0.5  # g and g x^ cancel: no relative error
    scales = [x.abs().max().item() for x in exact]
    floors = [(eps + stored) * scales[0], (sums + stored) * scales[1]]
    spread = grad.abs().max().item() * (grad.numel() / grad.shape[1]) ** 0.5
    floors += [eps * max(scale, spread) for scale in scales[2:]]
    check_precision(
        first(backend.op("batch_norm_leaky_relu"), **options),
        reference(**options),
        inputs,
        floors,
        grad,
    )


def gradient(inputs, options):
    """What comes from above, in the maps' dtype."""
    shape = reference(**options)(*inputs).shape
    return torch.randn(shape).to(inputs[0].dtype).double()


def cases():
    for backend, shape, dtype, pool in itertools.product(
        ("cpu", "cuda"), SHAPES + LARGE, DTYPES, POOLS
    ):
        yield backend, shape, dtype, pool
    orders = ("cuda_on_cpu_forward", "cuda_on_cpu_reverse", "cuda_on_cpu_1")
    for backend, shape, dtype, pool in itertools.product(orders, CHECKER_SHAPES, DTYPES, POOLS):
        yield backend, shape, dtype, pool


@pytest.mark.parametrize(
    ("backend", "shape", "dtype", "pool"),
    [
        pytest.param(*case, id=f"{case[0]}-{'x'.join(map(str, case[1]))}-{case[2]}-{case[3]}")
        for case in cases()
    ],
    indirect=["backend"],
)
def test_precision(backend, shape, dtype, pool):
    if min(shape[2:]) < pool:
        pytest.skip("no window")
    inputs = make(shape, dtype)
    check(backend, separated(*inputs) if pool > 1 else inputs, pool=pool)


@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_options(backend, slope, eps):
    inputs = separated(*make((4, 10, 6, 6), torch.float64))
    check(backend, inputs, negative_slope=slope, eps=eps, pool=2)


def test_moments(backend):
    """Far from zero, where the squares of numbers would lose all of their deviation."""
    maps, weight, bias = make((40, 9, 8, 8), torch.float32)
    maps = (maps + 1e4).contiguous(memory_format=torch.channels_last)
    _, mean, variance = backend.op("batch_norm_leaky_relu")(
        *(x.to(backend.device) for x in (maps, weight, bias))
    )
    expected, exact = torch.var_mean(maps.double(), (0, 2, 3), correction=0)
    torch.testing.assert_close(mean.cpu().double(), exact, rtol=1e-7, atol=0)
    torch.testing.assert_close(variance.cpu().double(), expected, rtol=1e-5, atol=0)
    assert not mean.requires_grad
    assert not variance.requires_grad


def test_the_first_largest_gets_the_gradient(backend):
    """Of equal numbers, as with torch's max_pool2d."""
    maps, weight, bias = make((3, 4, 6, 7), torch.float64)
    maps, weight = maps.round(), weight.abs() + 0.1
    weight[1] = 0  # then all of a window are equal, whatever the maps
    grad = torch.randn(3, 4, 3, 3)
    inputs = [x.to(backend.device) for x in (maps, weight, bias)]
    ours = evaluate(first(backend.op("batch_norm_leaky_relu"), pool=2), inputs, grad)
    theirs = evaluate(reference(pool=2), inputs, grad)
    for got, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("pool", POOLS)
def test_at_an_odd_address(backend, pool):
    """Where 16 bytes at a time cannot be read."""
    inputs = [x.to(backend.device) for x in separated(*make((2, 16, 4, 6)))]
    moved = misaligned(inputs[0].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    op = first(backend.op("batch_norm_leaky_relu"), pool=pool)
    for got, want in zip(
        evaluate(op, [moved, *inputs[1:]], None), evaluate(op, inputs, None), strict=True
    ):
        torch.testing.assert_close(got, want)


def test_a_channel_of_one_number(backend):
    """Its variance is zero; eps alone keeps the output finite."""
    maps, weight, bias = make((4, 5, 4, 4))
    maps[:, 2] = 3.0
    inputs = [x.to(backend.device) for x in (maps, weight, bias)]
    output, *gradients = evaluate(first(backend.op("batch_norm_leaky_relu")), inputs, None)
    assert all(torch.isfinite(x).all() for x in (output, *gradients))
    expected = torch.nn.functional.leaky_relu(bias[2], 0.1).double()
    assert (output[:, 2] == expected).all()


def test_a_number_that_is_not_finite_is_not_hidden(backend):
    maps, weight, bias = make((2, 3, 4, 4))
    maps[1, 1, 2, 3] = torch.inf
    inputs = [x.to(backend.device) for x in (maps, weight, bias)]
    output, mean, _ = backend.op("batch_norm_leaky_relu")(*inputs, pool=2)
    assert output[:, 1].isnan().all()
    assert output[:, [0, 2]].isfinite().all()
    assert not mean[1].isfinite()


@pytest.mark.parametrize("pool", POOLS)
def test_gradcheck(device, pool):
    inputs = [x.requires_grad_() for x in separated(*make((2, 3, 4, 5), torch.float64, device))]
    assert torch.autograd.gradcheck(first(batch_norm_leaky_relu, pool=pool), inputs)


@pytest.mark.parametrize("pool", POOLS)
def test_any_strides(device, pool):
    """Maps and the gradient from above may lie in any order."""
    maps, weight, bias = make((4, 6, 5, 7), torch.float64, device)
    grad = torch.randn_like(reference(pool=pool)(maps, weight, bias))
    want = evaluate(reference(pool=pool), [maps, weight, bias], grad)
    for x, g in ((maps.contiguous(), grad.contiguous()), (non_contiguous(maps), grad.mT.mT)):
        got = evaluate(
            first(batch_norm_leaky_relu, pool=pool), [x, non_contiguous(weight), bias], g
        )
        for ours, theirs in zip(got, want, strict=True):
            torch.testing.assert_close(ours, theirs)
    output = batch_norm_leaky_relu(maps.contiguous(), weight, bias, pool=pool)[0]
    assert output.is_contiguous(memory_format=torch.channels_last)


def test_opcheck(device):
    inputs = [x.requires_grad_() for x in make((3, 4, 6, 5), device=device)]
    for pool in POOLS:
        arguments = (*inputs, 1e-5, 0.1, pool)
        torch.library.opcheck(torch.ops.fastssl.batch_norm_leaky_relu.default, arguments)


@pytest.mark.parametrize("backend_name", ["aot_eager", "inductor"])
def test_compiles(device, backend_name):
    check_compiles(
        first(batch_norm_leaky_relu, pool=2),
        lambda N: list(make((N, 4, 6, 6), device=device)),
        backend_name,
    )


def test_dispatches(device):
    inputs = [x.requires_grad_() for x in make((3, 4, 6, 6), device=device)]
    check_dispatches(first(batch_norm_leaky_relu, pool=2), inputs, "batch_norm_leaky_relu")


def test_keeps_nothing_but_its_input(device):
    inputs = [x.requires_grad_() for x in make((64, 16, 8, 8), device=device)]
    maps, numbers = 4 * 64 * 16 * 8 * 8, 2 * 4 * 16
    forward, backward = maps // 4 + numbers, maps + numbers
    workspace = 8 * 2 * 16 * 256 if device.type == "cuda" else 0
    expected = [forward + workspace, backward + workspace]
    check_allocations(first(batch_norm_leaky_relu, pool=2), inputs, expected, device)


@pytest.mark.parametrize("pool", POOLS)
def test_second_derivatives(device, pool):
    inputs = [x.requires_grad_() for x in separated(*make((2, 3, 4, 5), torch.float64, device))]
    assert torch.autograd.gradgradcheck(first(batch_norm_leaky_relu, pool=pool), inputs)


def test_refuses_forward_mode(device):
    maps, weight, bias = make((3, 4, 5, 5), device=device)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(maps, torch.ones_like(maps))
        with pytest.raises(RuntimeError, match=r"fastssl::batch_norm_leaky_relu .*forward-mode"):
            batch_norm_leaky_relu(dual, weight, bias)


def test_threads_do_not_change_the_result():
    inputs, threads = make((50, 24, 20, 20)), torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(evaluate(first(batch_norm_leaky_relu, pool=2), inputs, None))
    finally:
        torch.set_num_threads(threads)
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


def test_bad_arguments():
    maps, weight, bias = make((2, 3, 4, 4))
    for change, error, message in (
        ({"maps": maps[0]}, ValueError, r"maps is \[3, 4, 4\]"),
        ({"maps": maps[:, :, :1], "pool": 2}, ValueError, "of 2x2 pixels or more"),
        ({"maps": maps[:1, :, :1, :1]}, ValueError, "more than one value a channel"),
        ({"maps": maps.long()}, TypeError, r"maps is torch\.int64"),
        ({"weight": weight[:2]}, ValueError, r"weight is \[2\]; expected \[3\]"),
        ({"bias": bias[None]}, ValueError, r"bias is \[1, 3\]"),
        ({"weight": weight.double()}, TypeError, "weight is torch.float64 but bias"),
        ({"maps": maps.double()}, TypeError, "beside torch.float64 maps"),
        ({"pool": 3}, ValueError, "pool is 3; expected 1 or 2"),
        ({"negative_slope": -0.1}, ValueError, r"negative_slope is -0\.1"),
        ({"eps": float("nan")}, ValueError, "eps is nan"),
    ):
        arguments = {"maps": maps, "weight": weight, "bias": bias, **change}
        with pytest.raises(error, match=message):
            batch_norm_leaky_relu(**arguments)
