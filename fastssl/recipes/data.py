"""The data set of a configuration, and which of its images carry their label."""

from pathlib import Path
from typing import Any

import torch

from fastssl.data.sources import Source, load_source
from fastssl.data.splits import LabelSplit, draw_split
from fastssl.errors import InputError
from fastssl.recipes.config import DataConfig


def read_source(config: DataConfig, *, download: bool = False) -> Source:
    """The data set of a configuration.

    Raises:
        InputError: it is not there, or damaged.
    """
    source = load_source(
        config.source,
        data_dir=config.data_dir,
        download=download,
        image_size=config.image_size,
        skip_bad=config.skip_bad,
    )
    return source if config.images is None else source.cut(config.images)


def make_split(source: Source, config: DataConfig, seed: int) -> LabelSplit:
    """The label split of a configuration: read from its file, or drawn.

    Raises:
        InputError: the file is of other data, or other values are given beside it; or as
            `draw_split`.
    """
    if config.split is None:
        return draw_split(
            source,
            num_labels=config.labels,
            num_validation=config.validation,
            holdout=config.holdout,
            rule=config.rule,
            ratio=config.ratio,
            seed=seed,
        )
    plain = DataConfig(source=config.source)
    for key in ("labels", "validation", "holdout", "rule", "ratio"):
        if getattr(config, key) != getattr(plain, key):
            raise InputError(f"split: {config.split} says it all; leave out data.{key}")
    return read_split(Path(config.split), source)


def read_split(path: Path, source: Source) -> LabelSplit:
    """A file with a label split of this source.

    Raises:
        InputError: it cannot be read, or as `LabelSplit.from_json`.
    """
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read; the run needs it") from error
    return LabelSplit.from_json(text, source)


def describe_data(source: Source, split: LabelSplit) -> dict[str, Any]:
    """What using a trained network needs to know of its data, as JSON values for run.json."""
    labeled = source.labels[list(split.labeled)]
    counts = torch.bincount(labeled, minlength=source.num_classes)
    return {
        "images": len(source.labels),
        "shape": list(source.shape),
        "dtype": str(source.images.dtype).removeprefix("torch."),
        "mean": source.mean.tolist(),
        "std": source.std.tolist(),
        "class_names": list(source.class_names),
        "labeled": counts.tolist(),
        "fingerprint": source.fingerprint,
    }
