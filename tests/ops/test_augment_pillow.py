"""The operations of RandAugment against Pillow, and the other policies against Pillow and torch.

What Pillow does is written out here from the published sources' own formulas, not from our tables.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from view_images import photographs

from fastssl.data.philox import philox
from fastssl.ops import augment
from fastssl.ops.plans import NOISE_QUANTILES, OPERATIONS, UNIFORM_STEPS, WARP_STEPS
from fastssl.ops.policies import Digits, IICHard, RandAugment, Weak

GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")
SEED, STEP = 11, 4
ONE = torch.ones(3)


def words(index: Tensor, block: int, view: int = 0) -> list[Tensor]:
    """The four random words of a block, for every index."""
    counter = (index, torch.tensor(STEP), torch.tensor(view), torch.tensor(block))
    return list(philox(counter, SEED))


def below(word: Tensor, count: int) -> Tensor:
    return word * count >> 32


def levels_of(images: Tensor, policy, index: Tensor, dtype=torch.uint8) -> Tensor:
    """One view of every image, gray levels or normalised by mean 0 and deviation 1."""
    K, device = images.shape[1], images.device
    return augment(
        images,
        [policy],
        seed=SEED,
        step=torch.tensor(STEP, device=device),
        index=index.to(device),
        mean=0 * ONE[:K].to(device),
        std=ONE[:K].to(device),
        dtype=dtype,
    )[0].cpu()


def picture(image: Tensor) -> Image.Image:
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(array.squeeze(2) if array.shape[2] == 1 else array)


def pixels(picture: Image.Image) -> Tensor:
    array = torch.from_numpy(np.array(picture))
    return array.unsqueeze(0) if array.dim() == 2 else array.permute(2, 0, 1)


# ---- RandAugment ---------------------------------------------------------------------------------


def magnitude(preset: str, name: str, level: int, side: int) -> float:
    """What the published code hands to Pillow at the drawn level."""
    if preset == "usb":
        low, high = {
            "Posterize": (4, 8), "Rotate": (-30, 30), "Solarize": (0, 256),
            "ShearX": (-0.3, 0.3), "ShearY": (-0.3, 0.3),
            "TranslateX": (-0.3, 0.3), "TranslateY": (-0.3, 0.3),
        }.get(name, (0.05, 0.95))  # fmt: skip
        drawn = low + (high - low) * (level + 0.5) / UNIFORM_STEPS
        if name == "Posterize":
            return int(drawn)
        return drawn * side if name.startswith("Translate") else drawn
    sign, v = (1 if level < 9 else -1), level % 9 + 1  # numpy's randint(1, 10)
    google = preset == "google"
    match name:
        case "Posterize":
            return (4 - int(v * 4 / 10)) if google else int(v * 4 / 10) + 4
        case "Rotate":
            return sign * int(v * 30 / 10)
        case "ShearX" | "ShearY":
            return sign * v * 0.3 / 10
        case "Solarize":
            return 256 - int(v * 256 / 10)
        case "TranslateX" | "TranslateY":
            return sign * int(v * 10 / 10) if google else int(sign * (v * 0.3 / 10) * side)
        case _:
            return v * 1.8 / 10 + 0.1 if google else v * 0.9 / 10 + 0.05


def by_pillow(given: Image.Image, name: str, v: float, fill: int) -> Image.Image:
    """One operation."""
    colour = fill if given.mode == "L" else (fill,) * 3
    affine = {
        "ShearX": (1, v, 0, 0, 1, 0), "ShearY": (1, 0, 0, v, 1, 0),
        "TranslateX": (1, 0, v, 0, 1, 0), "TranslateY": (1, 0, 0, 0, 1, v),
    }  # fmt: skip
    match name:
        case "AutoContrast":
            return ImageOps.autocontrast(given)
        case "Equalize":
            return ImageOps.equalize(given)
        case "Identity":
            return given
        case "Posterize":
            return ImageOps.posterize(given, v)
        case "Solarize":
            return ImageOps.solarize(given, v)
        case "Rotate":
            return given.rotate(v, fillcolor=colour)
        case "Brightness" | "Color" | "Contrast" | "Sharpness":
            return getattr(ImageEnhance, name)(given).enhance(v)
        case _:
            return given.transform(
                given.size, Image.Transform.AFFINE, affine[name], fillcolor=colour
            )


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(
    ("preset", "N", "K", "S"),
    [("google", 1000, 3, 32), ("kekmodel", 150, 3, 33), ("usb", 150, 3, 32), ("usb", 100, 1, 28)],
)
def test_operation_equals_pillow(device, preset, N, K, S, name):
    """Geometric ones on every pixel; the others on 99.9 % of them, off by one elsewhere."""
    candidates = torch.arange(40 * N)
    drawn = words(candidates, 8)
    index = candidates[below(drawn[0], len(OPERATIONS)) == OPERATIONS.index(name)][:N]
    assert len(index) == N
    magnitudes = RandAugment.preset(preset).magnitudes
    policy = RandAugment(
        n=1, probability=1.0, magnitudes=magnitudes, weak=Weak(fill=127), cutout=(0, 0)
    )
    images = photographs(N, S, K)
    got = levels_of(images.to(device), policy, index).int()
    levels = below(words(index, 8)[1], 18 if preset != "usb" else UNIFORM_STEPS)
    assert len(levels.unique()) >= 18
    want = torch.stack(
        [
            pixels(by_pillow(picture(image), name, magnitude(preset, name, level, S), 127))
            for image, level in zip(images, levels.tolist(), strict=True)
        ]
    ).int()
    if name in GEOMETRIC:
        assert torch.equal(got, want)
    off = (got - want).abs()
    assert off.max() <= 1
    assert (off == 0).float().mean() >= 0.999


def test_each_operation_is_drawn_and_applied_as_often_as_stated():
    """With one image whose every change shows: applied to half, each of 13 in 1 of 28."""
    N = 4000
    images = photographs(4, 16)[3:].expand(N, -1, -1, -1)
    policy = RandAugment(n=1, probability=0.5, weak=Weak(), cutout=(0, 0))
    changed = (levels_of(images, policy, torch.arange(N)) != images).flatten(1).any(1)
    operation, _, whether, _ = words(torch.arange(N), 8)
    names = below(operation, len(OPERATIONS))
    applied = whether < 2**31
    assert not changed[~applied].any()
    assert abs(applied.float().mean() - 0.5) < 0.03
    assert not changed[names == OPERATIONS.index("Identity")].any()
    counts = torch.bincount(names, minlength=14)
    assert ((counts - N / 14).square() / (N / 14)).sum() < 34.6  # chi-squared, 13: 1 of 1000
    seen = names[applied & changed].unique()
    assert len(seen) == len(OPERATIONS) - 1


# ---- the other policies --------------------------------------------------------------------------


def test_weak_equals_pillow_and_numpy(device):
    N, S, policy = 100, 19, Weak(rotate=20, translate=3, padding=2, flip=True, fill=5)
    images, index = photographs(N, S), torch.arange(N)
    got = levels_of(images.to(device), policy, index)
    angle, x, y, flip = (word.tolist() for word in words(index, 0))
    crop_x, crop_y, _, _ = (word.tolist() for word in words(index, 1))
    for n in range(N):
        degrees = -20 + 40 * ((angle[n] * UNIFORM_STEPS >> 32) + 0.5) / UNIFORM_STEPS
        rotated = np.array(picture(images[n]).rotate(degrees, fillcolor=(5, 5, 5)))
        reflected = np.pad(rotated, ((3, 3), (3, 3), (0, 0)), mode="reflect")
        top, left = y[n] * 7 >> 32, x[n] * 7 >> 32
        moved = reflected[top : top + S, left : left + S]
        padded = np.pad(moved, ((2, 2), (2, 2), (0, 0)), constant_values=5)
        top, left = crop_y[n] * 5 >> 32, crop_x[n] * 5 >> 32
        want = padded[top : top + S, left : left + S]
        want = want[:, ::-1] if flip[n] >> 31 else want
        assert np.array_equal(got[n].permute(1, 2, 0).numpy(), want)


def shift_hue(given: Image.Image, turns: float) -> Image.Image:
    """As torchvision's adjust_hue on Pillow images."""
    hue, saturation, value = given.convert("HSV").split()
    shifted = np.array(hue) + np.array(int(turns * 255) & 255, np.uint8)
    return Image.merge("HSV", (Image.fromarray(shifted), saturation, value)).convert("RGB")


@pytest.mark.parametrize(("crop", "S"), [(20, 32), (13, 21), (32, 32)])
def test_iic_hard_equals_pillow(device, crop, S):
    N = 200
    images, index = photographs(N, S), torch.arange(N)
    got = levels_of(images.to(device), IICHard(crop=crop), index).int()
    left, top, hue, order = words(index, 1)
    factors = words(index, 2)
    flips = words(index, 0)[3] >> 31

    def uniform(word: Tensor, n: int, low: float, high: float) -> float:
        return low + (high - low) * (int(below(word[n], UNIFORM_STEPS)) + 0.5) / UNIFORM_STEPS

    steps = ("Brightness", "Contrast", "Color")
    want = []
    for n in range(N):
        x, y = (int(below(word[n], S - crop + 1)) for word in (left, top))
        view = picture(images[n]).crop((x, y, x + crop, y + crop))
        view = view.resize((S, S), Image.Resampling.BILINEAR)
        view = ImageOps.mirror(view) if flips[n] else view
        place, rest = int(below(order[n], 24)), [0, 1, 2, 3]
        for turn in (rest.pop(place // 6), rest.pop(place % 6 // 2), rest.pop(place % 2), rest[0]):
            if turn == 3:
                view = shift_hue(view, uniform(hue, n, -0.125, 0.125))
            else:
                factor = uniform(factors[turn], n, 0.6, 1.4)
                view = getattr(ImageEnhance, steps[turn])(view).enhance(factor)
        want.append(pixels(view))
    off = (got - torch.stack(want).int()).abs()
    assert (off == 0).float().mean() >= 0.999
    assert off.max() <= 1


def test_hues_of_a_million_colours_equal_pillows(device):
    N, S = 40, 160
    images, index = torch.randint(256, (N, 3, S, S), dtype=torch.uint8), torch.arange(N)
    images[: N // 2] //= 8  # few levels: the quotients that lie on a boundary
    policy = IICHard(crop=S, flip=False, brightness=0, contrast=0, saturation=0, hue=0.5)
    got = levels_of(images.to(device), policy, index)
    turns = (below(words(index, 1)[2], UNIFORM_STEPS).double() + 0.5) / UNIFORM_STEPS - 0.5
    for n in range(N):
        assert torch.equal(got[n], pixels(shift_hue(picture(images[n]), float(turns[n]))))


@pytest.mark.parametrize(("K", "S"), [(1, 8), (3, 17)])
def test_digits_equal_grid_sample(device, K, S):
    """Torch's own bilinear sampling in floating point, of the same angles, zooms and shifts."""
    N, policy = 50, Digits(rotate=30, scale=0.3, shear=0.3, translate=1)
    images, index = photographs(N, S, K), torch.arange(N)
    got = levels_of(images.to(device), policy, index, torch.float32)
    turn, scale, shear, _ = words(index, 4)
    shift_x, shift_y, _, _ = words(index, 5)
    unit = [
        (2 * (below(word, WARP_STEPS) + 0.5) / WARP_STEPS - 1).double().view(N, 1, 1)
        for word in (turn, scale, shear, shift_x, shift_y)
    ]
    angle, zoom, slant, move_x, move_y = (
        u * r for u, r in zip(unit, (np.radians(30), 0.3, 0.3, 1, 1), strict=True)
    )
    x = (torch.arange(S, dtype=torch.float64) - (S - 1) / 2).view(1, 1, S)
    y = x.view(1, S, 1)
    sheared, shrink = x + slant * y, 1 / (1 + zoom)
    from_x = shrink * (angle.cos() * sheared - angle.sin() * y) + move_x
    from_y = shrink * (angle.sin() * sheared + angle.cos() * y) + move_y
    grid = torch.stack([from_x, from_y], -1) * (2 / S)
    want = F.grid_sample(images.double() / 255, grid, mode="bilinear", align_corners=False)
    # Two fractions of 12 bits: at most 2^-12 of the range off, a quarter of it on average.
    torch.testing.assert_close(got.double(), want, rtol=0, atol=2**-11)


def test_noise_is_that_of_the_words():
    N, S = 20, 8
    images, index = torch.full((N, 1, S, S), 128, dtype=torch.uint8), torch.arange(N)
    got = levels_of(images, Digits(noise=0.1), index, torch.float32).view(N, 8, 8)
    halves = [
        half for block in range(8) for word in words(index, 64 + block)
        for half in (word & 0xFFFF, word >> 16)
    ]  # fmt: skip
    rank = torch.stack(halves, 1) * NOISE_QUANTILES >> 16
    quantile = torch.special.ndtri((rank.double() + 0.5) / NOISE_QUANTILES).view(N, 8, 8)
    torch.testing.assert_close(got.double() - 128 / 255, 0.1 * quantile, rtol=2e-3, atol=1e-5)
