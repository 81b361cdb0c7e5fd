"""What a run says in its folder of its data and of its test part, for readers without the data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fastssl.data.sources import Source
from fastssl.training.evaluation import Evaluation
from fastssl.training.predictions import write_predictions


def describe_data(source: Source) -> dict[str, Any]:
    """What using a trained network needs to know of its data, as JSON values."""
    return {
        "images": len(source.labels),
        "shape": list(source.shape),
        "dtype": str(source.images.dtype).removeprefix("torch."),
        "mean": source.mean.tolist(),
        "std": source.std.tolist(),
        "class_names": list(source.class_names),
        "fingerprint": source.fingerprint,
    }


def keep_predictions(
    path: Path, found: Evaluation, source: Source, positions: Sequence[int], step: int
) -> None:
    """Write predictions.safetensors: what the networks of a step say of the test part.

    Args:
        path: of the file.
        found: of the test part.
        source: of its images.
        positions: N of its test images; or of its training images if it has no test part.
        step: of the networks.

    Raises:
        InputError: the file cannot be written.
    """
    own = len(source.test_labels) > 0
    images, labels = (
        (source.test_images, source.test_labels) if own else (source.images, source.labels)
    )
    chosen = torch.tensor(positions)
    files, first = source.files, len(source.images) if own else 0  # training files come first

    def name_of(row: int) -> str:
        place = positions[row]
        return files.names[first + place] if files else f"{'test' if own else 'training'} {place}"

    write_predictions(
        path,
        found,
        labels[chosen],
        step=step,
        class_names=source.class_names,
        images_at=lambda rows: images[chosen[rows]],
        name_of=name_of,
    )
