"""Folders of real images for the tests: the digits as files of many sizes and kinds."""

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fastssl.data.sources import load_source

ORIENTATION = 0x0112  # EXIF tag; 6: the camera was turned, show it a quarter to the right
BROKEN = ("3/cut.png", "5/text.jpg", "unlabeled/bomb.png")
LABELED, UNLABELED = 14, 56  # of each digit, and of all


@dataclass(frozen=True)
class Tree:
    """What a folder holds."""

    root: Path
    pixels: dict[str, np.ndarray]  # uint8 [8,8], of each readable file that is a plain digit


def digits_tree(root: Path, *, broken: bool = True) -> Tree:
    """200 real images: 14 labeled of each digit and 60 unlabeled, 56 plain and 4 odd ones.

    With `broken` three more that no program should read whole. Plain files are PNG, RGB or grey,
    the digit's pixels repeated so often that every size is a multiple of 8.
    """
    source = load_source("digits")
    pixels: dict[str, np.ndarray] = {}
    spare: list[np.ndarray] = []
    for digit in range(10):
        own = source.images[source.labels == digit, 0].numpy()
        for i, image in enumerate(own[:LABELED]):
            pixels[f"{digit}/{i:02d}.png"] = image
        spare += list(own[LABELED : LABELED + 6])
    for i, image in enumerate(spare[:UNLABELED]):
        pixels[f"unlabeled/{i:02d}.png"] = image
    for number, (name, image) in enumerate(pixels.items()):
        save(root / name, enlarged(image, 1 + number % 4), "L" if number == 0 else "RGB")
    rgba = Image.fromarray(enlarged(spare[56], 2)).convert("RGBA")
    rgba.putalpha(128)
    rgba.save(root / "unlabeled/rgba.png")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(enlarged(spare[57], 2)).convert("RGB").save(
        root / "unlabeled/turned.png", exif=exif
    )
    pixels["turned"] = spare[57]
    Image.fromarray(spare[58][:1, :1]).save(root / "unlabeled/1x1.png")
    Image.fromarray(np.hstack([spare[59], 0 * spare[59]])).save(root / "unlabeled/wide.gif")
    if broken:
        whole = io.BytesIO()
        Image.fromarray(enlarged(spare[0], 8)).save(whole, "PNG")
        (root / BROKEN[0]).write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
        (root / BROKEN[1]).write_text("not an image")
        (root / BROKEN[2]).write_bytes(bomb())
    return Tree(root, pixels)


def save(path: Path, image: np.ndarray, mode: str) -> None:
    """Write an image file and the folders it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).convert(mode).save(path)


def enlarged(image: np.ndarray, times: int) -> np.ndarray:
    """Every pixel repeated."""
    return np.kron(image, np.ones((times, times), dtype=np.uint8))


def bomb() -> bytes:
    """A PNG of 100 bytes that says it has 50,000 x 50,000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(50_001))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*part) for part in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    )
