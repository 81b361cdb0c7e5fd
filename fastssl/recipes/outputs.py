"""What a run keeps of its networks' outputs, for figures: see training/outputs.py.

n test images, K channels, H x W pixels.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from fastssl.algorithms.base import Algorithm
from fastssl.data.sources import Source
from fastssl.data.splits import LabelSplit
from fastssl.training.evaluation import ROWS, predict_all
from fastssl.training.outputs import FinalOutputs, Plane, grid, write_final, write_plane
from fastssl.training.record import RunFolder

GRID = 101  # points a side of the plane
MARGIN = 1.05  # of the plane, over the farthest coordinate of a point
FEATURES = 1000  # test images whose features are kept
DISAGREEMENTS = 256  # test images whose pixels and logits are kept

Inputs = Callable[[Tensor], Tensor]  # images or points as the networks take them, on their device


def keep_plane(
    folder: RunFolder,
    algorithm: Algorithm,
    inputs: Inputs,
    source: Source,
    split: LabelSplit,
    step: int,
) -> None:
    """Keep the networks' classes over the plane; nothing if the data are not points in it.

    Raises:
        InputError: the folder cannot be written.
    """
    if source.shape != (2,):
        return
    reach = MARGIN * source.images.abs().max().item()
    points = grid(reach, GRID)
    logits = predict_all(algorithm, map(inputs, points.split(ROWS)))
    classes = {
        name: found.argmax(1).to(torch.uint8).view(GRID, GRID) for name, found in logits.items()
    }
    labeled = torch.tensor(split.labeled)
    plane = Plane(step, reach, classes, source.images, source.labels, labeled)
    write_plane(folder, plane)


def keep_final(
    folder: RunFolder,
    algorithm: Algorithm,
    inputs: Inputs,
    source: Source,
    positions: Sequence[int],
    step: int,
) -> None:
    """Keep features of test images, evenly spaced ones, and what the networks disagree on.

    Args:
        folder: of the run.
        algorithm: whose networks they are.
        inputs: see `Inputs`.
        source: of the images.
        positions: n of its test images; or of its training images if it has no test part.
        step: of the networks.

    Raises:
        InputError: the folder cannot be written.
    """
    own = len(source.test_labels) > 0
    images, labels = (
        (source.test_images, source.test_labels) if own else (source.images, source.labels)
    )
    chosen = torch.tensor(positions)
    logits = predict_all(algorithm, (inputs(images[rows]) for rows in chosen.split(ROWS)))
    logits = {name: found.float().cpu() for name, found in logits.items()}
    classes = [found.argmax(1) for found in logits.values()]
    differs = torch.zeros(len(chosen), dtype=torch.bool)
    for one, other in pairwise(classes):
        differs |= one != other
    kept = differs.nonzero().flatten()[:DISAGREEMENTS]
    spaced = torch.linspace(0, len(chosen) - 1, min(FEATURES, len(chosen))).long()
    some = chosen[spaced]  # not the first: a source may hold one class after another
    write_final(
        folder,
        FinalOutputs(
            step,
            source.class_names,
            features=_features(algorithm, inputs(images[some])),
            labels=labels[some],
            images=images[chosen[kept]],
            image_labels=labels[chosen[kept]],
            logits={name: found[kept] for name, found in logits.items()},
        ),
    )


def _features(algorithm: Algorithm, images: Tensor) -> Tensor:
    """Float32 [n,D] of the network that is trained, in evaluation mode."""
    was_training = algorithm.training
    algorithm.eval()
    with torch.inference_mode():
        features = algorithm.network(images)[1]
    algorithm.train(was_training)
    return features.float()
