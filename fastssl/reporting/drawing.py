"""Figures and pixels as bytes, and what all figures look like. K channels, H x W pixels."""

import base64
import io
import warnings
from pathlib import Path
from typing import NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from fastssl.training.record import write_atomic

# Okabe and Ito's palette: told apart by colour-blind readers, too.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", ":", "-.")  # networks of one run; runs beyond the palette
SHARP = 48  # pixels a side up to which an image is kept exactly, as PNG
LARGEST = 128  # pixels a side that a page has room for


class Drawing(NamedTuple):
    """One figure of a report."""

    name: str  # that a file can have
    caption: str  # what it shows, in a sentence or two with its numbers
    figure: Figure


def look(run: int, network: int = 0) -> dict[str, str]:
    """Colour and line style of a run's network, both counted from 0."""
    style, colour = divmod(run, len(COLOURS))
    return {"color": COLOURS[colour], "linestyle": STYLES[(style + network) % len(STYLES)]}


def plain(text: str) -> str:
    """A name from disk as matplotlib shows it unchanged: no formula, and in every legend."""
    escaped = text.replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped


def png(figure: Figure) -> bytes:
    """A figure as PNG; a letter that its font does not have is a box, without a warning."""
    image = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        FigureCanvasAgg(figure).print_png(image)
    return image.getvalue()


def write_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG.

    Raises:
        InputError: the file cannot be written.
    """
    write_atomic(path, png(figure))


def data_uri(data: bytes, kind: str = "png") -> str:
    """Image bytes as the address an HTML page can hold in itself."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def image_uri(pixels: Tensor) -> str:
    """An image uint8 [K,H,W], K = 1 or 3, as `data_uri`; a large one is made smaller."""
    array = pixels.permute(1, 2, 0).numpy()
    image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    file = io.BytesIO()
    if max(image.size) <= SHARP:
        image.save(file, "PNG")
        return data_uri(file.getvalue())
    image.thumbnail((LARGEST, LARGEST))
    image.save(file, "JPEG", quality=85)
    return data_uri(file.getvalue(), "jpeg")
