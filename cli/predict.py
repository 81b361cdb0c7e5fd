"""`fastssl predict`: classify image files."""

import json
from collections.abc import Iterator
from pathlib import Path

import click
import torch

from fastssl.cli.data_options import data_dir_option
from fastssl.cli.table import aligned
from fastssl.data.files import find_images, read_image
from fastssl.recipes.experiment import Experiment, load_trained

IMAGES_AT_ONCE = 256  # that many are in memory, however many there are


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument(
    "images", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGE..."
)
@click.option("--json", "as_json", is_flag=True, help="A JSON list instead of a table.")
@data_dir_option
def predict(run: Path, images: tuple[Path, ...], as_json: bool, data_dir: str | None) -> None:
    """Class and confidence of each IMAGE, by the network that RUN trained.

    An IMAGE is a file of any kind that Pillow reads, or a folder: then every such file in it and
    below. Images are cut to the network's proportions, resampled to its size, and should look like
    its training images (the digits are white on black).
    """
    experiment, _ = load_trained(run, data_dir=data_dir)
    predictions = list(classify(experiment, find_images(images)))
    if as_json:
        keys = ("image", "class", "confidence")
        click.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in predictions]))
        return
    rows = [[path, name, f"{confidence:.3f}"] for path, name, confidence in predictions]
    click.echo(aligned([["image", "class", "confidence"], *rows], right=(2,)))


def classify(experiment: Experiment, paths: list[Path]) -> Iterator[tuple[str, str, float]]:
    """Path, class name and confidence (the softmax of the class) of every file, in batches."""
    source = experiment.source
    for first in range(0, len(paths), IMAGES_AT_ONCE):
        some = paths[first : first + IMAGES_AT_ONCE]
        images = torch.stack([read_image(path, source.shape) for path in some])
        every = experiment.predict([experiment.inputs(images)])
        logits = next(iter(every.values()))
        confidences, classes = logits.softmax(1).max(1)
        for path, c, confidence in zip(some, classes.tolist(), confidences.tolist(), strict=True):
            yield str(path), source.class_names[c], confidence
