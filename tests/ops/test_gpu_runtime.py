"""What a GPU alone can show of the ops: its streams, CUDA graphs, tensors beyond 2^31 elements.

The first two take the benchmarks' inputs. The last is also run on the CPU, on tensors that are
small, to show that it compares what should be equal. N rows, C classes, D features.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastssl import ops
from fastssl.benchmarks import harness
from fastssl.ops.complementary_correction import parameter_shapes
from fastssl.ops.knn_graph import Graph
from fastssl.ops.policies import RandAugment, Weak

C = 1031
LAST = 100  # rows that are compared one by one
CAPTURED = sorted(set(ops.__all__) - {"knn_graph", "propagate_labels"})  # whose sizes are data


def benchmarked(name: str, gpu: torch.device) -> harness.Implementation:
    """The op on its benchmark's smallest case."""
    module = harness.load(name)
    case = min(module.CASES, key=math.prod)
    return next(module.implementations(*case, gpu, torch.float32))


def results(call) -> list[Tensor]:
    return [result.detach().clone() for result in call()]


@pytest.mark.parametrize("name", CAPTURED)
def test_a_captured_op_is_replayed_on_what_its_inputs_hold_then(name, gpu):
    with harness.stream(gpu):
        op = benchmarked(name, gpu)
        call = harness.prepare(op, harness.modes(op)[-1])
        call()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            recorded = call()
        with torch.no_grad():
            for tensor in op.inputs:
                tensor.copy_(tensor.flip(0))
        graph.replay()
        for replayed, expected in zip(recorded, results(call), strict=True):
            torch.testing.assert_close(replayed, expected)


def test_a_captured_augment_draws_anew_at_every_replay(gpu):
    """By the step, a tensor: the images of eager calls at those steps."""
    policies, N, S = [Weak(translate=4, flip=True), RandAugment()], 16, 32
    images = torch.randint(0, 256, (N, 3, S, S), dtype=torch.uint8)
    moments = {"mean": torch.tensor([0.5] * 3), "std": torch.tensor([0.25] * 3)}

    def views(device: torch.device, step: Tensor) -> Tensor:
        own = {name: x.to(device) for name, x in moments.items()}
        index = torch.arange(N, device=device)
        return ops.augment(images.to(device), policies, seed=7, step=step, index=index, **own)

    with harness.stream(gpu):
        on_gpu = images.to(gpu)
        own = {name: x.to(gpu) for name, x in moments.items()}
        step, index = torch.zeros((), dtype=torch.int64, device=gpu), torch.arange(N, device=gpu)

        def captured() -> Tensor:
            return ops.augment(on_gpu, policies, seed=7, step=step, index=index, **own)

        captured()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            recorded = captured()
        seen = []
        for number in (3, 4):
            step.fill_(number)
            graph.replay()
            seen.append(recorded.cpu())
    assert not torch.equal(*seen)
    for number, replayed in zip((3, 4), seen, strict=True):
        torch.testing.assert_close(replayed, views(torch.device("cpu"), torch.tensor(number)))


@pytest.mark.parametrize("name", CAPTURED)
def test_an_op_works_on_the_current_stream(name, gpu):
    """Behind a copy of its inputs that comes late."""
    op = benchmarked(name, gpu)
    call, values = harness.prepare(op, harness.modes(op)[-1]), results(lambda: op.inputs)
    expected = results(call)
    with torch.no_grad():
        for tensor in op.inputs:
            tensor.zero_()
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(100_000_000)  # cycles, some 50 ms
        with torch.no_grad():
            for tensor, value in zip(op.inputs, values, strict=True):
                tensor.copy_(value)
        found = results(call)
    torch.cuda.synchronize()
    for late, early in zip(found, expected, strict=True):
        torch.testing.assert_close(late, early)


@pytest.fixture
def many(device) -> int:
    """Rows of C numbers: more than 2^31 of them on a GPU."""
    return 2**21 + 5 if device.type == "cuda" else 2**8 + 5


def normal(*shape: int, device: torch.device, scale: float = 1.0) -> Tensor:
    """Normal numbers in bfloat16, of which a tensor takes few bytes."""
    return torch.randn(shape, device=device, dtype=torch.bfloat16).mul_(scale)


def value_and_gradient(function, inputs: list[Tensor], weight: Tensor | None = None):
    first = inputs[0].detach().requires_grad_()
    value = function(first, *inputs[1:])
    (gradient,) = torch.autograd.grad(value, first, weight)
    return value.detach(), gradient


def check_mean(function, inputs: list[Tensor], weight: Tensor | None = None) -> None:
    """A mean over N rows is that of its halves; so is the last rows' gradient, of fewer rows."""
    N = len(inputs[0])
    halves = [[x[:half] for x in inputs] if half > 0 else [x[half:] for x in inputs]
              for half in (N // 2, N // 2 - N)]  # fmt: skip
    value, gradient = value_and_gradient(function, inputs, weight)
    (first, _), (second, last) = (value_and_gradient(function, half, weight) for half in halves)
    share = len(halves[1][0]) / N
    torch.testing.assert_close(value, first * (1 - share) + second * share, rtol=1e-2, atol=1e-8)
    got, want = gradient[-LAST:].float() * N, last[-LAST:].float() * N * share
    assert want.abs().max() > 0
    torch.testing.assert_close(got, want, rtol=2e-2, atol=2e-2 * want.abs().max().item())


def test_beyond_31_bits_entropy(device, many):
    check_mean(ops.entropy, [normal(many, C, device=device)])


def test_beyond_31_bits_kl_divergence(device, many):
    prediction, target = (normal(many, C, device=device) for _ in range(2))
    check_mean(lambda p, t: ops.kl_divergence(t, p), [prediction, target])


def test_beyond_31_bits_softmax_mse(device, many):
    prediction, target = (normal(many, C, device=device) for _ in range(2))
    check_mean(lambda p, t: ops.softmax_mse(t, p), [prediction, target])


def test_beyond_31_bits_pseudo_label_cross_entropy(device, many):
    strong, weak = normal(many, C, device=device), normal(many, C, device=device, scale=20)
    check_mean(lambda s, w: ops.pseudo_label_cross_entropy(w, s)[0], [strong, weak])


def test_beyond_31_bits_weighted_cross_entropy(device, many):
    logits = normal(many, C, device=device)
    targets = torch.randint(C, (many,), device=device)
    weights = torch.rand(many, device=device)
    check_mean(ops.weighted_cross_entropy, [logits, targets, weights])


def test_beyond_31_bits_joint_distribution(device, many):
    a = normal(many, C, device=device, scale=4)  # views that agree: of others I is all rounding
    b = a + normal(many, C, device=device)
    weight = torch.randn(C, C, device=device)
    joint = ops.joint_distribution(a, b)
    check_mean(ops.joint_distribution, [a, b], weight.to(joint.dtype))
    joint = joint.double()
    independent = joint.sum(0) * joint.sum(1, keepdim=True)
    expected = (joint * (joint / independent).log()).sum()
    information = ops.mutual_information(a, b).double()
    torch.testing.assert_close(information, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", ["softmax_hessian_product", "unit_perturbation"])
def test_beyond_31_bits_row_by_row(device, many, name):
    a = normal(many, C, device=device)
    inputs = [a, a.roll(1)] if name == "softmax_hessian_product" else [a, 8.0]
    last = [x[-LAST:] if isinstance(x, Tensor) else x for x in inputs]
    op = getattr(ops, name)
    assert torch.equal(op(*inputs)[-LAST:], op(*last))


def test_beyond_31_bits_complementary_correction(device, many):
    raw, features = normal(many, 10, device=device), normal(many, C, device=device)
    shapes = parameter_shapes(10, C, 64, 64, 64, 32)
    parameters = [normal(*s, device=device, scale=s[-1] ** -0.5) for s in shapes]

    def corrected(features: Tensor, raw: Tensor) -> Tensor:
        return ops.complementary_correction(raw, features, parameters)

    def run(rows: slice) -> tuple[Tensor, Tensor]:
        own = [features[rows], raw[rows]]
        return value_and_gradient(corrected, own, torch.ones_like(own[1]))

    for got, want in zip(run(slice(None)), run(slice(-LAST, None)), strict=True):
        torch.testing.assert_close(got[-LAST:], want)


def test_beyond_31_bits_augment(device):
    N, S = (20_000, 96) if device.type == "cuda" else (LAST + 7, 8)
    images = torch.randint(0, 256, (N, 3, S, S), dtype=torch.uint8, device=device)
    index, moments = torch.arange(N, device=device), torch.full((3,), 0.5, device=device)
    policies = [Weak(flip=True), *[RandAugment()] * 3]
    assert device.type == "cpu" or len(policies) * images.numel() > 2**31

    def views(rows: slice) -> Tensor:
        step = torch.zeros((), dtype=torch.int64, device=device)
        return ops.augment(
            images[rows], policies, seed=0, step=step, index=index[rows], mean=moments,
            std=moments, dtype=torch.bfloat16,
        )  # fmt: skip

    last = slice(-LAST, None)
    assert torch.equal(views(slice(None))[:, last], views(last))


def test_beyond_31_bits_batch_norm_leaky_relu(device):
    N, K, S = (17_000, 128, 32) if device.type == "cuda" else (LAST + 7, 4, 4)
    maps = normal(N, K, S, S, device=device).contiguous(memory_format=torch.channels_last)
    assert device.type == "cpu" or maps.numel() > 2**31
    weight, bias = torch.rand(K, device=device), torch.randn(K, device=device)
    chunks = maps.split(1000)
    count = maps.numel() // K
    mean = sum(x.double().sum((0, 2, 3)) for x in chunks) / count
    variance = sum(((x.double() - mean[:, None, None]) ** 2).sum((0, 2, 3)) for x in chunks) / count
    last = maps[-LAST:].float()
    expected = F.batch_norm(last, mean.float(), variance.float(), weight, bias)
    expected = F.max_pool2d(F.leaky_relu(expected, 0.1), 2)
    got = ops.batch_norm_leaky_relu(maps, weight, bias, pool=2)[0][-LAST:].float()
    torch.testing.assert_close(got, expected, rtol=1e-2, atol=1e-2)


def test_beyond_31_bits_diffuse(device, many):
    """The last classes, which are solved by themselves, on a ring of rows."""
    rows = torch.arange(many, device=device)
    neighbours = torch.stack([(rows - 1) % many, (rows + 1) % many], 1).sort().values
    graph = Graph(
        torch.arange(0, 2 * many + 1, 2, device=device, dtype=torch.int32),
        neighbours.flatten().int(),
        torch.full((2 * many,), 0.5, device=device),
        None,
    )
    seeds = torch.zeros(many, C, device=device)
    seeds[rows, rows % C] = 1.0
    scores = ops.diffuse(graph, seeds, max_iterations=3)[0]
    alone = ops.diffuse(graph, seeds[:, -3:].contiguous(), max_iterations=3)[0]
    torch.testing.assert_close(scores[:, -3:], alone)
