"""`fastssl predict`: classify image files."""

import csv
import io
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import click
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from fastssl.cli.table import aligned
from fastssl.data.files import find_images, read_image
from fastssl.errors import InputError
from fastssl.recipes.trained import Trained, open_trained
from fastssl.training.record import write_atomic

IMAGES_AT_ONCE = 256  # twice that many are in memory, however many there are
COLUMNS = ("image", "class", "confidence")

Row = tuple[str, str, float]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument(
    "images", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGE..."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where the predictions go, .csv or .json, instead of a table.",
)
@click.option("--json", "as_json", is_flag=True, help="A JSON list instead of a table.")
@click.option(
    "--skip-bad", is_flag=True, help="Leave out files that cannot be read, and name them."
)
@click.option(
    "--device", metavar="NAME", help="cpu, cuda, cuda:1, ...  [default: the run's, else cpu]"
)
def predict(
    run: Path,
    images: tuple[Path, ...],
    out: Path | None,
    as_json: bool,
    skip_bad: bool,
    device: str | None,
) -> None:
    """Class and confidence of each IMAGE, by the network that RUN trained.

    An IMAGE is a file of any kind that Pillow reads, or a folder: then every such file in it and
    below. Images are cut to the network's proportions, resampled to its size, and should look like
    its training images (the digits are white on black). The run's data need not be there.

    \b
    fastssl predict runs/a photo.png
    fastssl predict runs/a ./new_images --out predictions.csv --skip-bad
    """  # noqa: D301  (click's mark for lines it must not join)
    if out is not None:
        if out.suffix.lower() not in WRITERS:
            raise InputError(f"out: {out}; expected a name that ends in {' or '.join(WRITERS)}")
        if out.is_dir() or not out.parent.is_dir():
            raise InputError(f"out: {out} is not a file name in an existing folder")
    trained = open_trained(run, device)
    paths = find_images(images)
    bad: dict[Path, str] = {}
    with tqdm(total=len(paths), desc="predicting", unit="image", disable=None) as progress:
        rows = list(classify(trained, paths, bad, progress))
    if bad and not skip_bad:
        raise unreadable(bad, len(paths))
    for path, reason in bad.items():
        click.echo(f"left out: {path} ({reason})", err=True)
    if not rows:
        raise InputError(f"image: none of {len(paths)} files can be read")
    if out is not None:
        write_atomic(out, WRITERS[out.suffix.lower()](rows).encode())
        click.echo(f"{len(rows)} images: {counts(rows)}")
        click.echo(f"predictions: {out}")
    elif as_json:
        click.echo(to_json(rows))
    else:
        shown = [[path, name, f"{confidence:.3f}"] for path, name, confidence in rows]
        click.echo(aligned([COLUMNS, *shown], right=(2,)))


def classify(
    trained: Trained, paths: list[Path], bad: dict[Path, str], progress: tqdm
) -> Iterator[Row]:
    """Path, class name and confidence (the softmax of the class) of every file, in batches.

    Files are decoded one batch ahead of the network. Those that cannot be read are added to `bad`,
    each with the reason.
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool, warnings.catch_warnings():
        # Half of Pillow's limit for a bomb only warns, and is a large photograph.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)

        def decode(some: list[Path]) -> list[Future[Tensor]]:
            return [pool.submit(read_image, path, trained.shape) for path in some]

        batches = [paths[i : i + IMAGES_AT_ONCE] for i in range(0, len(paths), IMAGES_AT_ONCE)]
        ahead = decode(batches[0])
        for number, batch in enumerate(batches):
            current, ahead = ahead, decode(batches[number + 1] if batches[number + 1 :] else [])
            read: dict[Path, Tensor] = {}
            for path, image in zip(batch, current, strict=True):
                try:
                    read[path] = image.result()
                except InputError as error:
                    bad[path] = str(error.__cause__) or type(error.__cause__).__name__
            if read:
                surest = trained.probabilities([torch.stack(list(read.values()))]).max(1)
                for path, c, p in zip(
                    read, surest.indices.tolist(), surest.values.tolist(), strict=True
                ):
                    yield str(path), trained.class_names[c], p
            progress.update(len(batch))


def unreadable(bad: dict[Path, str], total: int) -> InputError:
    """The error that names all files that cannot be read."""
    lines = [f"{path} cannot be read as an image ({reason})" for path, reason in bad.items()]
    way = "leave out what cannot be read with --skip-bad"
    if len(lines) == 1:
        return InputError(f"image: {lines[0]}; {way}")
    return InputError(f"image: {len(bad)} of {total} files cannot be read; {way}", lines)


def counts(rows: list[Row]) -> str:
    """How often each class was given, the most frequent first."""
    found = Counter(name for _, name, _ in rows)
    return ", ".join(f"{n} {name}" for name, n in found.most_common())


def to_json(rows: list[Row]) -> str:
    """A list of objects."""
    return json.dumps([dict(zip(COLUMNS, row, strict=True)) for row in rows])


def to_csv(rows: list[Row]) -> str:
    """A line an image, below a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((path, name, f"{confidence:.6f}") for path, name, confidence in rows)
    return text.getvalue()


WRITERS = {".csv": to_csv, ".json": to_json}
