"""`fastssl predict`: classify image files."""

import json
from pathlib import Path

import click

from fastssl.classifier import load
from fastssl.cli.data_options import checkpoint_option, data_dir_option
from fastssl.cli.table import aligned


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument(
    "images", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGE..."
)
@click.option("--json", "as_json", is_flag=True, help="A JSON list instead of a table.")
@checkpoint_option
@data_dir_option
def predict(
    run: Path, images: tuple[Path, ...], as_json: bool, checkpoint: str, data_dir: str | None
) -> None:
    """Class and confidence of each IMAGE, by the network that RUN trained.

    An IMAGE is a file of any kind that Pillow reads, or a folder: then every such file in it and
    below. Images are cut to the network's proportions, resampled to its size, and should look like
    its training images (the digits are white on black).
    """
    predictions = load(run, data_dir=data_dir, checkpoint=checkpoint).predict(images)
    if as_json:
        keys = ("image", "class", "confidence")
        click.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in predictions]))
        return
    rows = [[path, name, f"{confidence:.3f}"] for path, name, confidence in predictions]
    click.echo(aligned([["image", "class", "confidence"], *rows], right=(2,)))
