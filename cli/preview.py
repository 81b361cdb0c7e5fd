"""`fastssl data preview`: what a policy makes of a data set's images, as one picture."""

from pathlib import Path
from typing import Any

import click
import torch

from fastssl.cli.data_options import source_options
from fastssl.data.philox import Purpose, permutation
from fastssl.data.sources import Source, load_source
from fastssl.errors import InputError, unknown_name
from fastssl.ops import augment
from fastssl.ops.policies import named_policy
from fastssl.training.record import write_atomic

POLICIES = ("iic_hard", "rand_augment", "rand_augment_kekmodel", "rand_augment_usb", "digits")
CELL = 64  # pixels at least that an image's side is drawn with
GAP = 4  # pixels between two of them


@click.command()
@click.argument("source")
@click.option(
    "--policy",
    default="rand_augment",
    show_default=True,
    metavar="NAME",
    help=f"Of the hard views: {', '.join(POLICIES)}.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="PNG")
@click.option("--images", default=8, show_default=True, type=click.IntRange(1, 64), help="Rows.")
@click.option(
    "--views", default=4, show_default=True, type=click.IntRange(1, 7), help="Of each kind."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**63 - 1))
@source_options
def preview(
    source: str, policy: str, out: Path, images: int, views: int, seed: int, **place: Any
) -> None:
    """Draw weak and hard views of some images of a SOURCE.

    A row is an image: as it is, then its weak views, then its hard ones. Look at them before you
    train: a view that you cannot recognise teaches nothing.
    """
    if policy not in POLICIES:
        raise unknown_name("policy", policy, POLICIES)
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"out: {out} is not a file name in an existing folder")
    found = load_source(source, **place)
    if found.images.dtype != torch.uint8:
        raise InputError(f"data: {found.name} has points, not images; they have no views")
    try:
        drawn = picture(found, policy, images, views, seed)
    except ValueError as error:  # a size the op or the policy does not take
        raise InputError(str(error)) from error
    write_atomic(out, drawn)
    click.echo(f"columns: the image, {views} weak views, {views} of {policy}; {out}")


def picture(source: Source, policy: str, rows: int, views: int, seed: int) -> bytes:
    """A PNG of `rows` images by 1 + 2 * `views` columns, whole pixels enlarged."""
    import io

    import numpy as np
    from PIL import Image

    S = source.shape[-1]
    order = permutation(len(source.images), seed=seed, purpose=Purpose.PREVIEW)[:rows]
    chosen = torch.from_numpy(order)
    weak, hard = ("none", policy) if policy == "digits" else ("weak", policy)
    columns = ["none"] + [weak] * views + [hard] * views
    drawn = augment(
        source.images[chosen],
        [named_policy(name, S) for name in columns],
        seed=seed,
        step=torch.tensor(0),
        index=chosen,
        mean=source.mean,
        std=source.std,
        dtype=torch.uint8,
    )
    times = max(1, -(-CELL // S))
    pixels = drawn.permute(1, 0, 3, 4, 2).numpy().repeat(times, 2).repeat(times, 3)
    if pixels.shape[-1] == 1:
        pixels = pixels.repeat(3, -1)
    N, V, side, _, _ = pixels.shape
    canvas = np.full((N * (side + GAP) + GAP, V * (side + GAP) + 3 * GAP, 3), 255, np.uint8)
    for n in range(N):
        for v in range(V):
            top = GAP + n * (side + GAP)
            # A wider gap before each of the two groups.
            left = GAP * (1 + (v > 0) + (v > views)) + v * (side + GAP)
            canvas[top : top + side, left : left + side] = pixels[n, v]
    file = io.BytesIO()
    Image.fromarray(canvas).save(file, "PNG")
    return file.getvalue()
