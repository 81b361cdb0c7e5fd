"""`fastssl predict`: classify image files."""

import csv
import io
import json
from collections import Counter
from pathlib import Path

import click
from tqdm import tqdm

from fastssl.classifier import Prediction, load, unreadable
from fastssl.cli.data_options import checkpoint_option, data_dir_option
from fastssl.cli.table import aligned
from fastssl.data.files import find_images
from fastssl.errors import InputError
from fastssl.training.record import write_atomic

COLUMNS = ("image", "class", "confidence")


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
@checkpoint_option
@data_dir_option
def predict(
    run: Path,
    images: tuple[Path, ...],
    out: Path | None,
    as_json: bool,
    skip_bad: bool,
    device: str | None,
    checkpoint: str,
    data_dir: str | None,
) -> None:
    """Class and confidence of each IMAGE, by the network that RUN trained.

    An IMAGE is a file of any kind that Pillow reads, or a folder: then every such file in it and
    below. Images are cut to the network's proportions, resampled to its size, and should look like
    its training images (the digits are white on black). The run's data need not be there, but for
    contrastive, whose network is not trained on classes: the labeled images vote.

    \b
    fastssl predict runs/a photo.png
    fastssl predict runs/a ./new_images --out predictions.csv --skip-bad
    """  # noqa: D301  (click's mark for lines it must not join)
    if out is not None:
        if out.suffix.lower() not in WRITERS:
            raise InputError(f"out: {out}; expected a name that ends in {' or '.join(WRITERS)}")
        if out.is_dir() or not out.parent.is_dir():
            raise InputError(f"out: {out} is not a file name in an existing folder")
    classifier = load(run, device=device, data_dir=data_dir, checkpoint=checkpoint)
    paths = find_images(images)
    bad: dict[Path, str] = {}
    with tqdm(total=len(paths), desc="predicting", unit="image", disable=None) as progress:
        rows = list(classifier.classify(paths, bad, progress.update))
    if bad and not skip_bad:
        error = unreadable(bad, len(paths))
        way = "leave out what cannot be read with --skip-bad"
        raise InputError(f"{error}; {way}", error.details) from error
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


def counts(rows: list[Prediction]) -> str:
    """How often each class was given, the most frequent first."""
    found = Counter(row.class_name for row in rows)
    return ", ".join(f"{n} {name}" for name, n in found.most_common())


def to_json(rows: list[Prediction]) -> str:
    """A list of objects."""
    return json.dumps([dict(zip(COLUMNS, row, strict=True)) for row in rows])


def to_csv(rows: list[Prediction]) -> str:
    """A line an image, below a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((path, name, f"{confidence:.6f}") for path, name, confidence in rows)
    return text.getvalue()


WRITERS = {".csv": to_csv, ".json": to_json}
