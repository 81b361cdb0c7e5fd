"""A figure with its name and caption, and how it becomes a file."""

import io
from pathlib import Path
from typing import NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fastssl.training.record import write_atomic

# Okabe and Ito's palette: told apart by colour-blind readers, too.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


class Drawing(NamedTuple):
    """One figure of a report."""

    name: str  # that a file can have
    caption: str  # what it shows, in a sentence or two with its numbers
    figure: Figure


def write_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG.

    Raises:
        InputError: the file cannot be written.
    """
    image = io.BytesIO()
    FigureCanvasAgg(figure).print_png(image)
    write_atomic(path, image.getvalue())
