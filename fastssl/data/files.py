"""Image files of any kind Pillow reads. K channels, H x W pixels."""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastssl.errors import InputError


@cache
def suffixes() -> frozenset[str]:
    """The endings, in lower case, of the formats that Pillow reads."""
    from PIL import Image

    return frozenset(s for s, kind in Image.registered_extensions().items() if kind in Image.OPEN)


def images_below(folder: Path) -> Iterator[Path]:
    """The image files in and below a folder by the ending of their names, sorted, none hidden."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in suffixes() and not hidden and path.is_file():
            yield path


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The files among `paths`, and every image file in or below the folders, sorted by name.

    Raises:
        InputError: a path that is not there, or a folder without an image.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = list(images_below(path))
            if not inside:
                raise InputError(f"image: no image file in the folder {path}")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"image: there is no {path}")
    return found


def read_image(path: Path, shape: Sequence[int]) -> Tensor:
    """One image file as uint8 [K,H,W] of the given shape, K = 1 (grey) or 3 (RGB).

    Turned as its EXIF tag says; the largest part of the right proportions, cut from the centre, is
    resampled once. Transparent parts become black; of several frames it is the first.

    Raises:
        InputError: not an image that Pillow can read whole, or a decompression bomb.
    """
    from PIL import Image, ImageOps

    K, H, W = shape
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
            if image.mode.startswith("I;16"):  # Pillow would clip its 65,536 greys, not scale them
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            image = image.convert("L" if K == 1 else "RGB")
            image = ImageOps.fit(image, (W, H), Image.Resampling.BILINEAR)
    except Exception as error:  # a damaged file makes Pillow's decoders raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"image: {path} cannot be read as an image ({reason})") from error
    return torch.from_numpy(np.array(image)).view(H, W, K).permute(2, 0, 1)
