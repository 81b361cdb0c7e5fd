"""Images from the user's own files. K channels, H x W pixels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastssl.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg")


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The files among `paths`, and every PNG and JPEG file in or below the folders, sorted by name.

    Raises:
        InputError: a path that is not there, or a folder without an image.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise InputError(f"image: no PNG or JPEG file in the folder {path}")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"image: there is no {path}")
    return found


def read_image(path: Path, shape: Sequence[int]) -> Tensor:
    """One image file as uint8 [K,H,W] of the given shape, K = 1 (grey) or 3 (RGB).

    Transparent parts become black; another size is resampled, without keeping the proportions.

    Raises:
        InputError: not an image that Pillow can read.
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
            image = image.resize((W, H), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"image: {path} cannot be read as an image") from error
    return torch.from_numpy(np.array(image)).view(H, W, K).permute(2, 0, 1)
