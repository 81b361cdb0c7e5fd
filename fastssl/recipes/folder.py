"""What suits a folder of the user's own images: chosen from its files' headers, nothing is decoded.

S x S pixels.
"""

import statistics
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fastssl.data.sources import SOURCES
from fastssl.data.sources.image_folder import Labeled, list_images
from fastssl.data.sources.place import IMAGE_SIZE
from fastssl.ops.policies import Policy
from fastssl.recipes.config import Config, DataConfig
from fastssl.recipes.views import policy_name

LOOKED_AT = 200  # files whose sizes are read, evenly spread over the folder
SMALLEST = 16  # S at least: what every network takes, and a view can shift
PASSES = 100  # over the images, if that is a number of steps in the range


@dataclass(frozen=True)
class Means:
    """What can be afforded on a kind of device, for an answer within minutes to an hour."""

    largest: int  # S at most
    network: str
    rows: int  # labeled images a step, and as many unlabeled
    steps: tuple[int, int]  # at least and at most


MEANS = {
    "cpu": Means(32, "small_cnn", 32, (400, 2000)),
    "cuda": Means(64, "conv_large", 64, (1000, 20_000)),
}


@dataclass(frozen=True)
class Survey:
    """What a folder holds."""

    labeled: int
    unlabeled: int
    classes: int
    width: int | None  # medians over the files; None if no header can be read
    height: int | None


@dataclass(frozen=True)
class Choice:
    """What is trained on a folder."""

    image_size: int
    network: str
    rows: int
    steps: int

    @property
    def every(self) -> int:
        """Steps from one evaluation to the next."""
        return max(50, self.steps // 20)

    def data(self, path: str) -> DataConfig:
        """The data of a run on that folder."""
        return DataConfig(
            source=path,
            image_size=self.image_size,
            labeled_rows=self.rows,
            unlabeled_rows=self.rows,
        )


@cache
def survey(path: str) -> Survey:
    """Look at a folder of images, or a CSV beside one.

    Raises:
        InputError: as `list_images`.
    """
    found = list_images(Path(path))
    sizes = _sizes(found)
    given = list(found.train.values())
    return Survey(
        labeled=len(given) - given.count(None),
        unlabeled=given.count(None),
        classes=len(found.class_names),
        width=round(statistics.median(w for w, _ in sizes)) if sizes else None,
        height=round(statistics.median(h for _, h in sizes)) if sizes else None,
    )


def _sizes(found: Labeled) -> list[tuple[int, int]]:
    """Width and height of some of the files; those that cannot be read are reported elsewhere."""
    from PIL import Image

    files = list(found.train)
    sizes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for i in sorted({k * len(files) // LOOKED_AT for k in range(LOOKED_AT)}):
            try:
                with Image.open(found.root / files[i]) as image:
                    sizes.append(image.size)
            except Exception:  # a damaged file makes Pillow raise anything
                continue
    return sizes


def choose(found: Survey, device: str, image_size: int | None = None) -> Choice:
    """What to train on these images.

    The images keep their shorter side, in multiples of 4 as the networks halve it, as far as the
    device affords; small ones are enlarged.

    Args:
        found: the images.
        device: "cpu" or "cuda".
        image_size: S, if it is given.
    """
    means = MEANS[device]
    if image_size is None and found.width and found.height:
        side = min(found.width, found.height)
        image_size = max(SMALLEST, min(means.largest, side // 4 * 4))
    least, most = means.steps
    steps = round(PASSES * (found.labeled + found.unlabeled) / (2 * means.rows))
    steps = max(least, min(most, steps))
    return Choice(image_size or IMAGE_SIZE, means.network, means.rows, steps)


def choices(config: Config, changes: dict[str, Any]) -> list[str]:
    """What was chosen for a folder and how to change it, a line each; none for a named data set.

    Args:
        config: of a run.
        changes: what its user has chosen, by dotted key; it is not repeated.
    """
    if config.data.source in SOURCES:
        return []
    found = survey(config.data.source)
    size = f"of about {found.width}x{found.height} pixels" if found.width else "of unknown size"
    kind = "GPU" if config.device.startswith("cuda") else "CPU"
    side, data = config.data.image_size, config.data
    chosen = {
        "data.image_size": f"images resized to {side}x{side} pixels (--image-size {2 * side})",
        "model.name": f"network {config.model.name}, as this is a {kind} (--set model.name=NAME)",
        "data.labeled_rows": f"{data.labeled_rows} labeled and {data.unlabeled_rows} unlabeled "
        "images a step (--set data.labeled_rows=N --set data.unlabeled_rows=N)",
        "steps": f"{config.steps} steps (--steps {2 * config.steps})",
        "views.weak": f"weak views: {_policy(config.views.weak)}; hard views: "
        f"{_policy(config.views.hard)} (--set views.hard.KEY=VALUE)",
    }
    lines = [f"found {found.labeled} labeled images of {found.classes} classes and "]
    lines[0] += f"{found.unlabeled} unlabeled ones, {size}; chosen, and how to change it:"
    return lines + [f"  {line}" for key, line in chosen.items() if key not in changes]


def _policy(policy: Policy) -> str:
    """A policy's name and those of its values that do something."""
    values = (f"{key} {value}" for key, value in vars(policy).items() if value)
    return ", ".join([policy_name(policy), *values])
