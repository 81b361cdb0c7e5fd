"""`fastssl data preview`: what the views of a data set's images look like, as one picture."""

from pathlib import Path
from typing import Any

import click
import torch

from fastssl.cli.data_options import source_options
from fastssl.data.philox import Purpose, permutation
from fastssl.data.sources import SOURCES, Source, load_source, resolve_source
from fastssl.errors import InputError
from fastssl.ops import augment
from fastssl.ops.policies import POLICY_NAMES, NoAugment
from fastssl.recipes import recipe
from fastssl.recipes.experiment import configure
from fastssl.recipes.views import ViewsConfig, policy_for, policy_name
from fastssl.training.record import write_atomic

CELL = 64  # pixels at least that an image's side is drawn with
GAP = 4  # pixels between two of them


@click.command()
@click.argument("source")
@click.option(
    "--algorithm",
    default="muscle",
    show_default=True,
    metavar="NAME",
    help="Whose recipe for the data has the views, such as fixmatch.",
)
@click.option(
    "--policy",
    metavar="NAME",
    help=f"Of the hard views: {', '.join(POLICY_NAMES)}.  [default: the recipe's]",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="PNG")
@click.option("--images", default=8, show_default=True, type=click.IntRange(1, 64), help="Rows.")
@click.option(
    "--views", default=4, show_default=True, type=click.IntRange(1, 7), help="Of each kind."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**63 - 1))
@source_options
def preview(
    source: str,
    algorithm: str,
    policy: str | None,
    out: Path,
    images: int,
    views: int,
    seed: int,
    image_size: int | None,
    **place: Any,
) -> None:
    """Draw weak and hard views of some images of a SOURCE.

    A row is an image: as it is, then its weak views, then its hard ones, as `fastssl train` draws
    them. Look at them before you train: a view that you cannot recognise teaches nothing.
    """
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"out: {out} is not a file name in an existing folder")
    data = resolve_source(source)
    if data not in SOURCES and image_size is None:
        image_size = configure(algorithm, source, {}).data.image_size
    found = load_source(source, image_size=image_size, **place)
    if found.images.dtype != torch.uint8:
        raise InputError(f"data: {found.name} has points, not images; they have no views")
    chosen = recipe(algorithm, data, image_size).views
    if policy is not None:
        chosen = ViewsConfig(chosen.weak, policy_for(policy, data, image_size))
    try:
        drawn = picture(found, chosen, images, views, seed)
    except ValueError as error:  # a size the op or the policy does not take
        raise InputError(str(error)) from error
    write_atomic(out, drawn)
    weak, hard = policy_name(chosen.weak), policy_name(chosen.hard)
    click.echo(f"columns: the image, {views} views of {weak}, {views} of {hard}; {out}")


def picture(source: Source, views: ViewsConfig, rows: int, columns: int, seed: int) -> bytes:
    """A PNG of `rows` images by 1 + 2 * `columns` views, whole pixels enlarged."""
    import io

    import numpy as np
    from PIL import Image

    S = source.shape[-1]
    order = permutation(len(source.images), seed=seed, purpose=Purpose.PREVIEW)[:rows]
    chosen = torch.from_numpy(order)
    drawn = augment(
        source.images[chosen],
        [NoAugment(), *[views.weak] * columns, *[views.hard] * columns],
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
            left = GAP * (1 + (v > 0) + (v > columns)) + v * (side + GAP)
            canvas[top : top + side, left : left + side] = pixels[n, v]
    file = io.BytesIO()
    Image.fromarray(canvas).save(file, "PNG")
    return file.getvalue()
