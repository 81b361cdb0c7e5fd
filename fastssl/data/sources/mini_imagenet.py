"""Mini-ImageNet by the 100 x 600 protocol of semi-supervised learning: 84x84 colour images.

DATA/mini-imagenet holds either a folder a class with its 600 images, or Ravi and Larochelle's
train.csv, val.csv and test.csv (`filename,label`; 64, 16 and 20 classes) beside `images/`. The
images come from ImageNet, whose licence leaves fetching them to the user.

Source: Vinyals et al., "Matching networks for one shot learning", NIPS 2016; Ravi and Larochelle,
"Optimization as a model for few-shot learning", ICLR 2017.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import torch

from fastssl.data.files import images_below
from fastssl.data.philox import Purpose
from fastssl.data.shares import stratified
from fastssl.data.sources.image_folder import Labeled, read_files
from fastssl.data.sources.place import Place
from fastssl.data.sources.source import Source
from fastssl.errors import InputError

FOLDER = "mini-imagenet"
IMAGE_SIZE = 84


@dataclass(frozen=True)
class Protocol:
    """What the whole data set must be, and how much of it is the test part."""

    classes: int
    each: int  # images of every class
    test: int  # of them


PROTOCOL = Protocol(classes=100, each=600, test=100)


def read_mini_imagenet(place: Place) -> Source:
    """Mini-ImageNet's 100 classes: 500 training and 100 test images of each.

    Which ones are tested on is drawn once, the same for every seed: no list was published.

    Raises:
        InputError: it is not there, not whole, or has images that cannot be read.
    """
    root = place.root / FOLDER
    if not root.is_dir():
        raise InputError(
            f"data: mini_imagenet is not in {place.root}: there is no folder {FOLDER}; its licence "
            "lets nobody download it for you, see mini_imagenet.py for the two layouts"
        )
    csvs = [root / f"{part}.csv" for part in ("train", "val", "test")]
    classes = _csv_classes(root, csvs) if csvs[0].exists() else _folder_classes(root)
    if len(classes) != PROTOCOL.classes:
        raise InputError(f"data: {root} has {len(classes)} classes; expected {PROTOCOL.classes}")
    for name, files in classes.items():
        if len(files) != PROTOCOL.each:
            raise InputError(
                f"data: class {name} of {root} has {len(files)} images; expected {PROTOCOL.each}"
            )
    labels = torch.arange(PROTOCOL.classes).repeat_interleave(PROTOCOL.each)
    chosen = stratified(
        labels, PROTOCOL.classes * PROTOCOL.test, seed=0, purpose=Purpose.TEST_SPLIT
    )
    tested = set(chosen.tolist())
    parts: tuple[dict, dict] = {}, {}
    position = 0
    for name in sorted(classes):
        for file in classes[name]:
            parts[position in tested][file] = name
            position += 1
    return read_files("mini_imagenet", Labeled(root, *parts), IMAGE_SIZE, place)


def _folder_classes(root: Path) -> dict[str, list[str]]:
    """Sorted files of every class folder, relative to the root."""
    folders = [p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")]
    return {p.name: [f.relative_to(root).as_posix() for f in images_below(p)] for p in folders}


def _csv_classes(root: Path, paths: list[Path]) -> dict[str, list[str]]:
    """Sorted files of every class of Ravi and Larochelle's lists, relative to the root."""
    classes: dict[str, list[str]] = {}
    real_root = root.resolve()
    for path in paths:
        try:
            with path.open(newline="") as file:
                for row in csv.DictReader(file):
                    name = f"images/{row['filename']}"
                    if not (root / name).resolve().is_relative_to(real_root):
                        raise InputError(f"data: {path}: {name!r} is not inside {root}")
                    classes.setdefault(row["label"], []).append(name)
        except InputError:
            raise
        except (OSError, ValueError, KeyError, csv.Error) as error:
            raise InputError(f"data: {path} is not a list of filename,label") from error
    return {name: sorted(files) for name, files in classes.items()}
