"""`augment` in plain PyTorch, one image after another: the specification.

V views of N images of K channels, S x S pixels. An image is an int64 tensor [K, S, S] of gray
levels; the tables are those of plans.py, and random words choose among their rows.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastssl.ops.plans import OPERATIONS, Plan, Tables
from fastssl.ops.policies import Policy

OUTSIDE = -1
MASK = 0xFFFFFFFF
Words = tuple[int, int, int, int]


def augment_reference(
    images: Tensor,
    policies: Sequence[Policy],
    *,
    seed: int,
    step: Tensor,
    index: Tensor,
    mean: Tensor,
    std: Tensor,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """`augment` in plain PyTorch: the specification."""
    levels = []
    for v, policy in enumerate(policies):
        tables = Tables()
        plan = policy.plan(images.shape[-1], tables)
        for image, own in zip(images.cpu().long(), index.tolist(), strict=True):
            draws = Draws(seed, own, int(step), v)
            levels.append(view(image, plan, tables, draws))
    stacked = torch.stack(levels)  # [V * N, K, S, S], in 2^-16 of a gray level
    if dtype == torch.uint8:
        views = ((stacked + (1 << 15)) >> 16).clamp(0, 255).to(torch.uint8)
    else:
        scale, bias = 1 / (255 * std.cpu()), -mean.cpu() / std.cpu()
        scaled = stacked.float() * (scale * 2.0**-16).view(-1, 1, 1)
        views = (scaled + bias.view(-1, 1, 1)).to(dtype)
    views = views.to(images.device).contiguous(memory_format=memory_format)
    return views.unflatten(0, (len(policies), len(images)))


def view(image: Tensor, plan: Plan, tables: Tables, draws: "Draws") -> Tensor:
    """One view [K, S, S], in 2^-16 of a gray level."""
    if plan.warps:
        return warp(image, plan, tables.integers, draws)
    if plan.crop:
        image = crop(image, plan, tables.integers, draws)
    else:
        image = weak(image, plan, tables.integers, draws)
    if plan.jitters:
        image = jitter(image, plan, tables, draws)
    for i in range(plan.operations):
        operation, level, whether, _ = draws.block(8 + i)
        if whether >> 16 < plan.chance:
            name = OPERATIONS[below(operation, len(OPERATIONS))]
            image = operate(image, name, below(level, plan.levels), plan, tables)
    if plan.cutout_most:
        image = cutout(image, plan, draws)
    return image << 16


# ---- random words --------------------------------------------------------------------------------


class Draws:
    """The random words of one view of one image: Philox-4x32-10 (Salmon et al., SC 2011)."""

    def __init__(self, seed: int, index: int, step: int, view: int) -> None:
        self.key = (seed & MASK, seed >> 32 & MASK)
        self.counter = (index & MASK, step & MASK, view)

    def block(self, number: int) -> Words:
        """Four 32-bit words."""
        c0, c1, c2, c3 = (*self.counter, number)
        k0, k1 = self.key
        for _ in range(10):
            p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
            c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & MASK, (p0 >> 32) ^ c3 ^ k1, p0 & MASK
            k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
        return c0, c1, c2, c3


def below(word: int, count: int) -> int:
    """A word to an integer in [0, count)."""
    return word * count >> 32


def within(word: int, most: int) -> int:
    """A word to an integer in [-most, most]."""
    return below(word, 2 * most + 1) - most


# ---- geometry ------------------------------------------------------------------------------------


def gather(image: Tensor, source: Tensor, fill: int) -> Tensor:
    """The pixels [K, S, S] at positions [S, S] of the image, `fill` where that is OUTSIDE."""
    pixels = image.flatten(1)[:, source.clamp(min=0)]
    return torch.where(source == OUTSIDE, fill, pixels)


def affine_source(fixed: Sequence[int], x: Tensor, y: Tensor, S: int) -> Tensor:
    """Positions under a map in 16.16 fixed point, as in Pillow's affine_fixed."""
    a, b, c, d, e, f = fixed
    from_x, from_y = (a * x + b * y + c) >> 16, (d * x + e * y + f) >> 16
    inside = (from_x >= 0) & (from_x < S) & (from_y >= 0) & (from_y < S)
    return torch.where(inside, from_y * S + from_x, OUTSIDE)


def affine(image: Tensor, fixed: Sequence[int], fill: int) -> Tensor:
    """Pillow's Image.transform(AFFINE, NEAREST)."""
    S = image.shape[-1]
    i = torch.arange(S)
    return gather(image, affine_source(fixed, i.view(1, S), i.view(S, 1), S), fill)


def weak(image: Tensor, plan: Plan, integers: Sequence[int], draws: Draws) -> Tensor:
    """Rotation, translation with reflection, crop with padding, flip."""
    S = image.shape[-1]
    angle, shift_x, shift_y, flip = draws.block(0)
    crop_x, crop_y, _, _ = draws.block(1)
    if plan.angles:
        start = plan.angle_table + 6 * below(angle, plan.angles)
        image = affine(image, integers[start : start + 6], plan.fill)
    for dim, shift, crop_shift in ((-1, shift_x, crop_x), (-2, shift_y, crop_y)):
        i = torch.arange(S) + within(shift, plan.translate)
        reflected = (S - 1) - ((S - 1) - i.abs()).abs()
        image = image.index_select(dim, reflected)
        i = torch.arange(S) + within(crop_shift, plan.padding)
        cropped = image.index_select(dim, i.clamp(0, S - 1))
        outside = ((i < 0) | (i >= S)).view(S, *([1] * (-1 - dim)))
        image = torch.where(outside, plan.fill, cropped)
    return image.flip(-1) if plan.flip and flip >> 31 else image


def crop(image: Tensor, plan: Plan, integers: Sequence[int], draws: Draws) -> Tensor:
    """A random crop resized to the whole, as Pillow's Image.resize(BILINEAR), and flip."""
    S, side = image.shape[-1], plan.crop
    x, y, _, _ = draws.block(1)
    left, top = below(x, S - side + 1), below(y, S - side + 1)
    image = image[:, top : top + side, left : left + side]
    table = torch.tensor(integers[plan.resize_table : plan.resize_table + 3 * S]).view(S, 3)
    first, weights = table[:, 0], table[:, 1:]
    for dim, shape in ((-1, (S,)), (-2, (S, 1))):
        pair = [
            image.index_select(dim, first + tap) * weights[:, tap].view(shape) for tap in (0, 1)
        ]
        image = (pair[0] + pair[1] + (1 << 21)) >> 22
    return image.flip(-1) if plan.flip and draws.block(0)[3] >> 31 else image


def warp(image: Tensor, plan: Plan, integers: Sequence[int], draws: Draws) -> Tensor:
    """An affine map, bilinear in fixed point, and noise; in 2^-16 of a gray level."""
    K, S, _ = image.shape
    words = draws.block(4) + draws.block(5)
    table = torch.tensor(integers[plan.warp_table : plan.warp_table + 5 * plan.warps]).view(5, -1)
    rows = [below(words[i], plan.warps) for i in (0, 0, 1, 2, 4, 5)]
    cos, sin, shrink, shear, shift_x, shift_y = (
        int(table[row, column]) for row, column in zip((0, 1, 2, 3, 4, 4), rows, strict=True)
    )
    x, y = 2 * torch.arange(S).view(1, S) - (S - 1), 2 * torch.arange(S).view(S, 1) - (S - 1)
    xx, xy = shrink * cos >> 24, shrink * ((cos * shear >> 24) - sin) >> 24
    yx, yy = shrink * sin >> 24, shrink * ((sin * shear >> 24) + cos) >> 24
    centre = (S - 1) << 23
    from_x, from_y = (
        ((xx * x + xy * y) >> 1) + shift_x + centre,
        ((yx * x + yy * y) >> 1) + shift_y + centre,
    )
    left, top = from_x >> 24, from_y >> 24
    u, v = from_x >> 12 & 0xFFF, from_y >> 12 & 0xFFF  # of 4096

    def pixel(column: Tensor, row: Tensor) -> Tensor:
        inside = (column >= 0) & (column < S) & (row >= 0) & (row < S)
        return gather(image, torch.where(inside, row * S + column, OUTSIDE), 0)

    upper = pixel(left, top) * (4096 - u) + pixel(left + 1, top) * u
    lower = pixel(left, top + 1) * (4096 - u) + pixel(left + 1, top + 1) * u
    levels = (upper * (4096 - v) + lower * v + 128) >> 8
    if plan.noises:
        drawn = [word for i in range(-(-K * S * S // 8)) for word in draws.block(64 + i)]
        halves = torch.tensor([half for word in drawn for half in (word & 0xFFFF, word >> 16)])
        quantiles = torch.tensor(integers[plan.noise_table : plan.noise_table + plan.noises])
        levels += quantiles[halves[: K * S * S] * plan.noises >> 16].view(K, S, S)
    return levels


def cutout(image: Tensor, plan: Plan, draws: Draws) -> Tensor:
    """A square around a random pixel in one gray."""
    S = image.shape[-1]
    x, y, part, _ = draws.block(3)
    side = plan.cutout_least + below(part, plan.cutout_most - plan.cutout_least + 1)
    left, top = below(x, S) - side // 2, below(y, S) - side // 2
    image = image.clone()
    image[:, max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)] = (
        plan.cutout_fill
    )
    return image


# ---- gray levels and colours ---------------------------------------------------------------------


def luma(image: Tensor) -> Tensor:
    """Pillow's convert("L"), [S, S]."""
    if len(image) == 1:
        return image[0]
    red, green, blue = image
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def blend(degenerate: Tensor | int, image: Tensor, factor: float) -> Tensor:
    """Pillow's Image.blend, in float32, one rounding an operation."""
    product = torch.tensor(factor, dtype=torch.float32) * (image - degenerate).float()
    return (degenerate + product).clamp(0, 255).long()


def color(image: Tensor, factor: float) -> Tensor:
    """Pillow's ImageEnhance.Color."""
    return blend(luma(image), image, factor) if len(image) == 3 else image


def contrast(image: Tensor, factor: float) -> Tensor:
    """Pillow's ImageEnhance.Contrast."""
    return blend(int(luma(image).double().mean() + 0.5), image, factor)


def sharpness(image: Tensor, factor: float) -> Tensor:
    """Pillow's ImageEnhance.Sharpness, which leaves the border as it is."""
    S = image.shape[-1]
    inner = image[:, 1:-1, 1:-1]
    around = sum(image[:, i : i + S - 2, j : j + S - 2] for i in range(3) for j in range(3))
    sharpened = image.clone()
    sharpened[:, 1:-1, 1:-1] = blend((2 * (around + 4 * inner) + 13) // 26, inner, factor)
    return sharpened


def auto_contrast(channel: Tensor) -> Tensor:
    """Pillow's ImageOps.autocontrast of one channel."""
    low, high = int(channel.min()), int(channel.max())
    if low == high:
        return channel
    scale = 255.0 / (high - low)
    return (channel.double() * scale + -low * scale).long().clamp(0, 255)


def equalize(channel: Tensor) -> Tensor:
    """Pillow's ImageOps.equalize of one channel."""
    counts = torch.bincount(channel.flatten(), minlength=256)
    last = int(counts[channel.max()])
    step = (channel.numel() - last) // 255
    if step == 0:
        return channel
    darker = counts.cumsum(0) - counts
    return ((step // 2 + darker) // step).clamp(max=255)[channel]


def hue(image: Tensor, shift: int) -> Tensor:
    """Pillow's convert("HSV"), hue + shift modulo 256, convert("RGB")."""
    if len(image) == 1:
        return image
    value, least = image.amax(0), image.amin(0)
    span = (value - least).clamp(min=1).float()
    red, green, blue = (value - image).float() / span
    sixths = torch.where(
        image[0] == value,
        blue - green,
        torch.where(
            image[1] == value,
            (2.0 + red.double() - blue.double()).float(),
            (4.0 + green.double() - red.double()).float(),
        ),
    )
    turn = (sixths.double() / 6.0 + 1.0).fmod(1.0).float()
    shifted = ((turn.double() * 255.0).long() + shift) & 255
    saturation = ((span / value.clamp(min=1).float()).double() * 255.0).long()
    position = shifted.double() * 6.0 / 255.0
    sector = position.floor().long()
    f = (position - sector).float()
    s = (saturation.double() / 255.0).float()

    def part(rest: Tensor) -> Tensor:
        return (value.double() * (1.0 - rest) + 0.5).long().clamp(0, 255)

    p, q, t = part(s.double()), part((s * f).double()), part(s.double() * (1.0 - f.double()))
    sectors = [
        (value, t, p),
        (q, value, p),
        (p, value, t),
        (p, q, value),
        (t, p, value),
        (value, p, q),
    ]
    choices = torch.stack([torch.stack(channels) for channels in sectors])  # [6, 3, S, S]
    chosen = choices.gather(0, (sector % 6).expand(1, *image.shape))[0]
    chosen = torch.where(saturation == 0, value, chosen)
    return torch.where(least == value, image, chosen)


def jitter(image: Tensor, plan: Plan, tables: Tables, draws: Draws) -> Tensor:
    """Brightness, contrast, saturation and hue in one of their 24 orders."""
    words, (_, _, hue_word, order_word) = draws.block(2), draws.block(1)
    order, left = below(order_word, 24), [0, 1, 2, 3]
    turns = [left.pop(order // 6), left.pop(order % 6 // 2), left.pop(order % 2), left.pop()]
    for turn in turns:
        if turn == 3:
            shift = tables.integers[plan.hue_table + below(hue_word, plan.hues)]
            image = hue(image, shift)
        else:
            row = turn * plan.jitters + below(words[turn], plan.jitters)
            factor = tables.factors[plan.jitter_table + row]
            adjust: Callable = (lambda x, f: blend(0, x, f), contrast, color)[turn]
            image = adjust(image, factor)
    return image


def operate(image: Tensor, name: str, level: int, plan: Plan, tables: Tables) -> Tensor:
    """One of RandAugment's operations, at a row of its table."""
    start = plan.level_table + 6 * (OPERATIONS.index(name) * plan.levels + level)
    fixed = tables.integers[start : start + 6]
    factor = tables.factors[plan.enhance_table + level]
    match name:
        case "AutoContrast":
            return torch.stack([auto_contrast(channel) for channel in image])
        case "Brightness":
            return blend(0, image, factor)
        case "Color":
            return color(image, factor)
        case "Contrast":
            return contrast(image, factor)
        case "Equalize":
            return torch.stack([equalize(channel) for channel in image])
        case "Identity":
            return image
        case "Posterize":
            return image & fixed[0]
        case "Sharpness":
            return sharpness(image, factor)
        case "Solarize":
            return torch.where(image < fixed[0], image, 255 - image)
        case _:
            return affine(image, fixed, plan.fill)
