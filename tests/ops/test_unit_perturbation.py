import no_gradient
import paired_logits
import pytest
import torch
from op_checks import accumulation_eps, non_contiguous

from fastssl.ops import unit_perturbation
from fastssl.ops.unit_perturbation import unit_perturbation_reference

# Both sides of the kernels' limits: a vector, the 256 threads of a block.
SHAPES = [(1, 1), (3, 10), (2, 17), (5, 257), (4, 3, 8, 8), (2, 1, 5, 130), (6,)]
RADIUS = 8.0


def check(backend, direction, radius=RADIUS):
    """The precision rule; no entry exceeds the radius, and each is rounded three times."""
    op = backend.op("unit_perturbation")
    no_gradient.check_values(
        lambda x: op(x, radius),
        lambda x: unit_perturbation_reference(x, radius),
        [direction.to(backend.device)],
        4 * accumulation_eps(direction.dtype) * radius,
    )


@pytest.mark.parametrize("dtype", paired_logits.DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_precision(backend, shape, dtype):
    check(backend, torch.randn(shape).to(dtype))


def norms(x: torch.Tensor) -> torch.Tensor:
    """L2 norm of every sample, in float64."""
    return torch.linalg.vector_norm(x.double().flatten(1), dim=1)


@pytest.mark.parametrize("D", [7, 300])
@pytest.mark.parametrize(
    ("dtype", "powers"),
    [
        (torch.float32, (-140, -126, -100, -53, 0, 64, 126)),
        (torch.float64, (-1070, -1022, -530, 0, 511, 1022)),
        (torch.bfloat16, (-130, -126, -53, 0, 64, 126)),
        (torch.float16, (-20, -14, 0, 14)),
    ],
    ids=str,
)
def test_any_magnitude(backend, D, dtype, powers):
    """Subnormals and the largest numbers alike: the norm is the radius, the direction unchanged."""
    pattern = torch.randint(1, 4, (len(powers), D), dtype=torch.float64)  # exact when scaled
    direction = (pattern * torch.tensor(powers, dtype=torch.float64).exp2()[:, None]).to(dtype)
    got = backend.op("unit_perturbation")(direction.to(backend.device), RADIUS).cpu().double()
    expected = RADIUS * pattern / norms(pattern)[:, None]
    torch.testing.assert_close(got, expected, rtol=4 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("D", [5, 300])
def test_samples_without_a_direction(backend, D):
    direction = torch.randn(5, D)
    direction[0] = 0
    direction[1, -1] = torch.inf
    direction[2, 0] = -torch.inf
    direction[3, D // 2] = torch.nan
    got = backend.op("unit_perturbation")(direction.to(backend.device), RADIUS).cpu()
    assert (got[0] == 0).all()
    assert got[1:4].isnan().all()
    torch.testing.assert_close(norms(got[4:]).item(), RADIUS, rtol=1e-6, atol=0)


def test_a_spike_in_every_column(backend):
    check(backend, 1e4 * torch.eye(300))


def test_radius_zero(backend):
    got = backend.op("unit_perturbation")(torch.randn(3, 5).to(backend.device), 0.0)
    assert (got == 0).all()


@pytest.mark.parametrize("shape", [(40, 3, 32, 32), (4096, 100), (3, 200_000)], ids=str)
def test_large_and_strided(device, shape):
    direction = torch.randn(shape, device=device)
    expected = unit_perturbation_reference(direction, RADIUS)
    samples_last = direction.movedim(0, -1).clone().movedim(-1, 0)
    for x in (direction, non_contiguous(direction), samples_last):
        torch.testing.assert_close(unit_perturbation(x, RADIUS), expected)


def test_channels_last_images_stay_so(device):
    images = torch.randn(4, 3, 6, 5, device=device)
    permuted = images.contiguous(memory_format=torch.channels_last)
    got = unit_perturbation(permuted, RADIUS)
    assert got.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(got, unit_perturbation(images, RADIUS))


def test_opcheck(device):
    op = torch.ops.fastssl.unit_perturbation.default
    images = torch.randn(4, 3, 6, 5, device=device)
    for x in (images, images.contiguous(memory_format=torch.channels_last), non_contiguous(images)):
        torch.library.opcheck(op, (x, RADIUS))
    torch.library.opcheck(op, (images.requires_grad_(), RADIUS))


@pytest.mark.parametrize("backend_name", ["aot_eager", "inductor"])
def test_compiles(device, backend_name):
    no_gradient.check_compiles(
        lambda x: unit_perturbation(x * 2, RADIUS).square(),
        lambda N: [torch.randn(N, 3, 4, device=device)],
        backend_name,
    )


def test_is_a_constant(device):
    no_gradient.check_is_a_constant(
        lambda x: unit_perturbation(x, RADIUS),
        "unit_perturbation",
        [torch.randn(6, 4, device=device)],
    )


def test_same_under_autocast(device):
    direction = torch.randn(20, 6, device=device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inside = unit_perturbation(direction, RADIUS)
    assert torch.equal(inside, unit_perturbation(direction, RADIUS))


def test_threads_do_not_change_the_result():
    direction, threads = torch.randn(400, 3000), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = unit_perturbation(direction, RADIUS)
        torch.set_num_threads(2)
        assert torch.equal(one, unit_perturbation(direction, RADIUS))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("shape", [(), (0, 3), (4, 0)])
def test_shapes(shape):
    with pytest.raises(ValueError, match="unit_perturbation: direction is") as raised:
        unit_perturbation(torch.zeros(shape), RADIUS)
    assert str(list(shape)) in str(raised.value)


@pytest.mark.parametrize("radius", [-1.0, float("inf"), float("nan")])
def test_radius(radius):
    with pytest.raises(ValueError, match=f"radius is {radius}"):
        unit_perturbation(torch.randn(4, 3), radius)


def test_dtype():
    with pytest.raises(TypeError, match=r"direction is torch\.int64"):
        unit_perturbation(torch.ones(4, 3).long(), RADIUS)
