"""MUSCLE's weak view and IIC's hard one by Pillow: torchvision v1's steps where that is missing.

S x S pixels. The calls are those of torchvision's functional_pil, their random draws torch's, as
there.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

JITTER, HUE = 0.4, 0.125


def transforms(S: int, mean: Sequence[float], std: Sequence[float]) -> tuple[Callable, Callable]:
    """The weak and the hard view of a Pillow image as a normalised tensor [3, S, S]."""
    means, deviations = (torch.tensor(x).view(3, 1, 1) for x in (mean, std))

    def tensor(image: Image.Image) -> Tensor:
        pixels = torch.from_numpy(np.array(image, copy=True)).permute(2, 0, 1).contiguous()
        return pixels.to(torch.float32).div(255).sub_(means).div_(deviations)

    def weak(image: Image.Image) -> Tensor:
        pad = S // 8
        padded = np.pad(np.asarray(image), ((pad, pad), (pad, pad), (0, 0)), "reflect")
        return tensor(flip(crop(Image.fromarray(padded), S)))

    def hard(image: Image.Image) -> Tensor:
        image = flip(crop(image, S * 20 // 32).resize((S, S), Image.Resampling.BILINEAR))
        for step in torch.randperm(4).tolist():
            image = (brighten, contrast, saturate, turn)[step](image)
        return tensor(image)

    return weak, hard


def crop(image: Image.Image, side: int) -> Image.Image:
    """A random square."""
    top, left = (int(torch.randint(0, n - side + 1, ())) for n in (image.height, image.width))
    return image.crop((left, top, left + side, top + side))


def flip(image: Image.Image) -> Image.Image:
    """Left-right, half of the time."""
    return ImageOps.mirror(image) if torch.rand(1) < 0.5 else image


def brighten(image: Image.Image) -> Image.Image:
    """By a factor of 0.6 to 1.4."""
    return ImageEnhance.Brightness(image).enhance(_between(1 - JITTER, 1 + JITTER))


def contrast(image: Image.Image) -> Image.Image:
    """As `brighten`."""
    return ImageEnhance.Contrast(image).enhance(_between(1 - JITTER, 1 + JITTER))


def saturate(image: Image.Image) -> Image.Image:
    """As `brighten`."""
    return ImageEnhance.Color(image).enhance(_between(1 - JITTER, 1 + JITTER))


def turn(image: Image.Image) -> Image.Image:
    """Its hues, by up to an eighth of a turn."""
    hue, saturation, value = image.convert("HSV").split()
    shift = np.array(int(_between(-HUE, HUE) * 255)).astype(np.uint8)
    hue = Image.fromarray(np.array(hue) + shift)
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def _between(low: float, high: float) -> float:
    return float(torch.empty(1).uniform_(low, high))
