"""The kernels against the specification, bit for bit, and what the op promises beside that."""

import functools
from dataclasses import fields

import pytest
import torch
from op_checks import non_contiguous
from torch import Tensor
from view_images import photographs

from fastssl.ops import augment
from fastssl.ops.augment import augment_reference
from fastssl.ops.plans import PLAN_FIELDS, Plan
from fastssl.ops.policies import (
    Digits,
    IICHard,
    NoAugment,
    RandAugment,
    Weak,
    named_policy,
    plan,
)

POLICIES = (
    NoAugment(),
    Weak(translate=4, flip=True),
    Weak(rotate=25, translate=3, padding=2, flip=True, fill=9),
    IICHard(crop=5),
    RandAugment.preset("google"),
    RandAugment(n=8, probability=1.0),
    RandAugment.preset("usb"),
    Digits(rotate=30, scale=0.3, shear=0.3, translate=1, noise=0.1),
)
MEAN, STD = torch.tensor([0.3, 0.4, 0.5]), torch.tensor([0.2, 0.3, 0.4])


CPU = torch.device("cpu")


def given(N: int, K: int, S: int, device: torch.device = CPU, **changes) -> dict:
    """Arguments of the op for N images; `changes` replace some."""
    arguments = {
        "images": photographs(N, S, K).to(device),
        "policies": POLICIES,
        "seed": 2**64 - 5,
        "step": torch.tensor(3, device=device),
        "index": 5 * torch.arange(N, device=device) + 2**31,
        "mean": MEAN[:K].to(device),
        "std": STD[:K].to(device),
        "dtype": torch.float32,
        "memory_format": torch.contiguous_format,
    }
    return arguments | changes


@functools.cache
def expected(N: int, K: int, S: int, dtype: torch.dtype) -> Tensor:
    """The specification's views."""
    return augment_reference(**given(N, K, S, dtype=dtype))


def steps_apart(a: Tensor, b: Tensor) -> int:
    """How many numbers of their dtype lie between two tensors at most, counting one of them."""
    if a.dtype == torch.uint8:
        return int((a.int() - b.int()).abs().max())
    integers = {torch.float32: torch.int32, torch.bfloat16: torch.int16}[a.dtype]

    def place(x: Tensor) -> Tensor:
        bits = x.contiguous().view(integers).long()
        return torch.where(bits < 0, torch.iinfo(integers).min - bits, bits)

    return int((place(a) - place(b)).abs().max())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("N", "K", "S"), [(5, 1, 8), (6, 3, 18)])
def test_equals_the_specification(backend, N, K, S, dtype):
    """Every policy: gray levels bit for bit, normalised ones to the last bit."""
    want = expected(N, K, S, dtype)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        arguments = given(N, K, S, backend.device, dtype=dtype, memory_format=memory_format)
        got = backend.op("augment")(**arguments).cpu()
        assert got.dtype == dtype
        assert got.shape == want.shape
        assert steps_apart(got, want) <= (dtype != torch.uint8)


@pytest.mark.parametrize(("K", "S"), [(3, 32), (1, 28), (3, 96), (3, 2), (3, 160)])
def test_sizes(device, K, S):
    policies = [policy for policy in POLICIES if getattr(policy, "translate", 0) < S]
    policies = [RandAugment(n=4, probability=1, weak=Weak())] if S < 5 else policies
    N = 8 if S < 40 else 2
    arguments = given(N, K, S, device, policies=policies, dtype=torch.uint8)
    assert torch.equal(augment(**arguments), augment_reference(**arguments))


def test_is_normalised(device):
    views = augment(**given(6, 3, 32, device, policies=[NoAugment()]))
    images = given(6, 3, 32, device)["images"]
    want = (images / 255 - MEAN.to(device).view(3, 1, 1)) / STD.to(device).view(3, 1, 1)
    torch.testing.assert_close(views[0], want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16], ids=str)
def test_views_are_one_batch_in_either_memory_format(device, dtype):
    planar = augment(**given(6, 3, 32, device, dtype=dtype))
    for memory_format in (torch.contiguous_format, torch.channels_last):
        views = augment(**given(6, 3, 32, device, dtype=dtype, memory_format=memory_format))
        batch = views.flatten(0, 1)
        assert batch.data_ptr() == views.data_ptr()
        assert batch.is_contiguous(memory_format=memory_format)
        assert torch.equal(views, planar)


# ---- random choices ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def all_at_once() -> Tensor:
    """The views of 512 images."""
    return augment(**given(512, 3, 16, dtype=torch.uint8))


def views_of(rows: Tensor) -> Tensor:
    """The views of some of the 512 images, asked for by themselves."""
    whole = given(512, 3, 16, dtype=torch.uint8)
    return augment(**whole | {"images": whole["images"][rows], "index": whole["index"][rows]})


@pytest.mark.parametrize("size", [1, 7])
def test_batching_does_not_change_a_view(all_at_once, size):
    for start in range(0, 512, 73):
        rows = torch.arange(start, min(start + size, 512))
        assert torch.equal(views_of(rows), all_at_once[:, rows])


def test_sharding_does_not_change_a_view(all_at_once):
    for rank in range(2):
        rows = torch.arange(rank, 512, 2)
        assert torch.equal(views_of(rows), all_at_once[:, rows])


def test_a_view_does_not_depend_on_the_views_after_it(all_at_once):
    first = augment(**given(512, 3, 16, policies=POLICIES[:3], dtype=torch.uint8))
    assert torch.equal(first, all_at_once[:3])


def test_threads_do_not_change_a_view(all_at_once):
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            assert torch.equal(augment(**given(512, 3, 16, dtype=torch.uint8)), all_at_once)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"seed": 2**32}, {"step": torch.tensor(4)}, {"index": torch.arange(64) + 900}],
    ids=["seed", "high half of seed", "step", "index"],
)
def test_views_differ_by_seed_step_and_index(change):
    arguments = given(64, 3, 16, policies=POLICIES[1:], seed=0, dtype=torch.uint8)
    before, after = augment(**arguments), augment(**arguments | change)
    changed = (before != after).flatten(2).any(2).float().mean(1)
    assert (changed > 0.85).all()  # google leaves a quarter to its weak part and Cutout


def test_rows_and_views_differ_from_each_other():
    images = photographs(4, 16)[3:].expand(60, -1, -1, -1)
    policies = [IICHard(crop=9)] * 3
    views = augment(**given(60, 3, 16, images=images, policies=policies)).flatten(0, 1)
    assert len(views.flatten(1).unique(dim=0)) == 180


def where_a_pixel_went(policy, S: int = 9) -> Tensor:
    """Column and row of a lone bright pixel in the middle, over 4000 draws; [4000, 2]."""
    N = 4000
    images = torch.zeros(N, 1, S, S, dtype=torch.uint8)
    images[:, :, S // 2, S // 2] = 255
    views = augment(**given(N, 1, S, images=images, policies=[policy], dtype=torch.uint8))[0, :, 0]
    assert ((views == 255).flatten(1).sum(1) == 1).all()
    return torch.stack([views.amax(1).int().argmax(1), views.amax(2).int().argmax(1)], 1)


@pytest.mark.parametrize("policy", [Weak(translate=2), Weak(padding=2)], ids=str)
def test_shifts_are_uniform(policy):
    """Chi-squared of the 25 equally likely places: 24 degrees of freedom, 51.2 in 1 of 1000."""
    places = where_a_pixel_went(policy) - 2
    counts = torch.bincount(places[:, 0] + 5 * places[:, 1], minlength=25)
    assert ((counts - 160.0).square() / 160).sum() < 51.2


def test_flips_are_even():
    images = torch.zeros(4000, 1, 8, 8, dtype=torch.uint8)
    images[..., 0] = 255
    arguments = given(4000, 1, 8, images=images, policies=[Weak(flip=True)], dtype=torch.uint8)
    flipped = (augment(**arguments)[0, :, 0, 0, 7] == 255).float().mean()
    assert abs(flipped - 0.5) < 0.026  # 3.3 standard errors


def test_cutout_covers_what_it_says():
    images = torch.full((4000, 3, 16, 16), 200, dtype=torch.uint8)
    policy = RandAugment(n=0, weak=Weak(), cutout=(0.25, 0.5), cutout_fill=1)
    views = augment(**given(4000, 3, 16, images=images, policies=[policy], dtype=torch.uint8))[0]
    assert set(views.unique().tolist()) == {1, 200}
    cut = views == 1
    assert torch.equal(cut[:, 0], cut.any(1))
    sides = cut[:, 0].any(1).sum(1).maximum(cut[:, 0].any(2).sum(1))
    assert sides.min() < 4  # clipped at a corner
    assert sides.max() == 8
    covered = cut[:, 0].float().mean(0)
    assert covered.min() > 0.03
    assert covered.argmax() // 16 in range(4, 12)


def test_a_warp_reaches_the_ends_of_its_ranges_and_is_centred():
    """The place of a lone bright pixel, and the angle of a bright stripe."""
    N, S = 500, 9
    axis, one = torch.arange(float(S)) - S // 2, torch.ones(1)
    images = torch.zeros(N, 1, S, S, dtype=torch.uint8)
    images[:, :, S // 2, S // 2] = 255

    def drawn(images: Tensor, policy: Digits) -> Tensor:
        arguments = given(N, 1, S, images=images, policies=[policy], mean=0 * one, std=one)
        return augment(**arguments)[0, :, 0]

    views = drawn(images, Digits(translate=2))
    for shift in ((views.sum(1) * axis).sum(1), (views.sum(2) * axis).sum(1)):
        assert 1.9 < shift.abs().max() <= 2.02
        assert shift.mean().abs() < 0.2  # 2 / sqrt(3) / sqrt(500) is one standard error: 0.05
    images[:, :, S // 2] = 255
    views = drawn(images, Digits(rotate=30))
    rise = (views * axis * axis.view(S, 1)).sum((1, 2)) / (views * axis**2).sum((1, 2))
    angles = rise.atan().rad2deg()
    assert 28 < angles.abs().max() < 32
    assert angles.mean().abs() < 3.5  # 30 / sqrt(3) / sqrt(500) is one standard error: 0.8


def test_noise_has_the_stated_deviation():
    images = torch.full((200, 1, 8, 8), 128, dtype=torch.uint8)
    one = torch.ones(1)
    arguments = given(200, 1, 8, images=images, policies=[Digits(noise=0.1)], mean=0 * one, std=one)
    noise = augment(**arguments) - 128 / 255
    assert abs(noise.std() - 0.1) < 0.003  # 12,800 draws: one standard error is 0.0006
    assert abs(noise.mean()) < 0.003
    assert abs((noise**4).mean() / 0.1**4 - 3) < 0.2  # Gaussian kurtosis
    pairs = noise.flatten(1)
    assert abs((pairs[:, 1:] * pairs[:, :-1]).mean() / 0.01) < 0.04  # neighbours are independent


# ---- contract ------------------------------------------------------------------------------------


def raw_arguments(device: torch.device, channels_last: bool = False, **changes) -> tuple:
    """Arguments of torch.ops.fastssl.augment."""
    names = ("seed", "step", "index", "mean", "std", "dtype")
    arguments = given(3, 3, 16, device, seed=7) | changes
    plans, integers, factors = plan(POLICIES, 16)
    tables = (
        torch.tensor(integers, dtype=torch.int32, device=device),
        torch.tensor(factors, dtype=torch.float32, device=device),
    )
    rest = (arguments[name] for name in names)
    return arguments["images"], *tables, plans, *rest, channels_last


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("K", [1, 3])
def test_opcheck(device, K, channels_last):
    changes = {name: given(3, K, 16, device)[name] for name in ("images", "mean", "std")}
    op = torch.ops.fastssl.augment.default
    torch.library.opcheck(op, raw_arguments(device, channels_last, **changes))


@pytest.mark.skipif(
    torch.__version__ < "2.13", reason="torch.compile takes no frozen dataclasses yet"
)
@pytest.mark.parametrize("backend_name", ["aot_eager", "inductor"])
def test_compiles(device, backend_name):
    torch._dynamo.reset()

    mean, std = MEAN.to(device), STD.to(device)

    def step_views(images, step, index):
        views = augment(images, POLICIES, seed=1, step=step, index=index, mean=mean, std=std)
        return views.flatten(0, 1) * 2

    compiled = torch.compile(step_views, fullgraph=True, dynamic=True, backend=backend_name)
    for N in (3, 5) if backend_name == "aot_eager" else (3,):
        inputs = photographs(N, 16).to(device), torch.tensor(N), torch.arange(N)
        inputs = [x.to(device) for x in inputs]
        assert torch.equal(compiled(*inputs), step_views(*inputs))


def test_non_contiguous_images_and_index(device):
    arguments = given(6, 3, 16, device)
    strided = {
        "images": arguments["images"].contiguous(memory_format=torch.channels_last),
        "index": non_contiguous(arguments["index"]),
    }
    assert torch.equal(augment(**arguments | strided), augment(**arguments))


def test_is_a_constant():
    arguments = given(3, 3, 16)
    assert not augment(**arguments | {"mean": MEAN.clone().requires_grad_()}).requires_grad


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"images": torch.zeros(0, 3, 16, 16).byte()}, ValueError, r"images is \[0, 3, 16, 16\]"),
        ({"images": torch.zeros(2, 2, 16, 16).byte()}, ValueError, r"images is \[2, 2, 16, 16\]"),
        ({"images": torch.zeros(2, 3, 16, 12).byte()}, ValueError, r"images is \[2, 3, 16, 12\]"),
        ({"images": torch.zeros(2, 3, 200, 200).byte()}, ValueError, "sides of 2 to 160"),
        ({"images": torch.zeros(2, 3, 16, 16)}, TypeError, r"images is torch\.float32"),
        ({"policies": []}, ValueError, "0 policies"),
        ({"policies": [NoAugment()] * 17}, ValueError, "17 policies"),
        ({"policies": [Weak(translate=16)]}, ValueError, "translate is 16"),
        ({"policies": [IICHard(crop=20)]}, ValueError, "crop is 20"),
        ({"step": torch.tensor([3])}, ValueError, r"step is \[1\]; expected \[\]"),
        ({"step": torch.tensor(3.0)}, TypeError, r"step is torch\.float32"),
        ({"index": torch.arange(3)}, ValueError, r"index is \[3\]; expected \[2\]"),
        ({"mean": torch.ones(1)}, ValueError, r"mean is \[1\]; expected \[3\]"),
        ({"std": torch.ones(3).double()}, TypeError, r"std is torch\.float64"),
        ({"std": torch.ones(3, device="meta")}, ValueError, "std on meta"),
        ({"dtype": torch.float16}, TypeError, r"dtype is torch\.float16"),
        ({"memory_format": torch.preserve_format}, ValueError, "memory_format is"),
    ],
)
def test_refuses(changes, error, message):
    with pytest.raises(error, match=f"{message}"):
        augment(**given(2, 3, 16) | changes)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("translate", 16), ("padding", -1), ("crop", 1), ("angles", -1), ("angle_table", 10**6),
        ("resize_table", -1), ("jitters", 10**6), ("hues", 0), ("operations", 33), ("levels", 0),
        ("level_table", 10**9), ("enhance_table", -3), ("cutout_least", 99), ("warp_table", 10**6),
        ("noises", 2**17), ("noise_table", 2**31 - 1),
    ],
)  # fmt: skip
def test_plans_cannot_lead_astray(field, value):
    """What the kernels index with is bounded where tensors become pointers."""
    arguments = list(raw_arguments(CPU))
    place = [f.name for f in fields(Plan)].index(field)
    views = [v for v in range(len(POLICIES)) if arguments[3][v * PLAN_FIELDS + place] != 0]
    for v in views or range(len(POLICIES)):
        changed = list(arguments[3])
        changed[v * PLAN_FIELDS + place] = value
        with pytest.raises(RuntimeError, match="augment: a "):
            torch.ops.fastssl.augment(*arguments[:3], changed, *arguments[4:])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Weak(rotate=-1), "Weak: rotate is -1"),
        (lambda: Weak(fill=256), "Weak: fill is 256"),
        (lambda: IICHard(hue=0.6), "IICHard: hue is 0.6"),
        (lambda: RandAugment(probability=1.5), "RandAugment: probability is 1.5"),
        (lambda: RandAugment(cutout=(0.5, 0.2)), "RandAugment: cutout is"),
        (lambda: RandAugment.preset("googel"), "no preset 'googel'; known: google, kekmodel, usb"),
        (lambda: Digits(noise=float("nan")), "Digits: noise is nan"),
        (lambda: Digits(scale=1), "Digits: scale is 1"),
        (lambda: named_policy("hard"), "unknown name 'hard'; known: none, weak, iic_hard"),
    ],
)
def test_impossible_policies_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_policies_by_name():
    assert named_policy("weak") == Weak(translate=4, flip=True)
    assert named_policy("iic_hard", 84) == IICHard(crop=52)
    assert named_policy("rand_augment") == RandAugment.preset("google")
    assert named_policy("rand_augment_usb") == RandAugment.preset("usb")
    still = Weak(rotate=10, padding=8)
    assert named_policy("weak", 84, still) == still
    assert named_policy("iic_hard", 84, still) == IICHard(crop=52, flip=False)
    assert named_policy("rand_augment", 84, still).weak == Weak(rotate=10, padding=8, fill=127)
