"""What a run keeps of its networks' outputs, for reports without its data.

See training/predictions.py and training/outputs.py. n test images, K channels, H x W pixels.
"""

from itertools import pairwise

import torch
from torch import Tensor

from fastssl.recipes.experiment import Experiment
from fastssl.training.evaluation import ROWS, Evaluation, predict_all
from fastssl.training.outputs import FinalOutputs, Plane, grid, write_final, write_plane
from fastssl.training.predictions import write_predictions
from fastssl.training.record import RunFolder

GRID = 101  # points a side of the plane
MARGIN = 1.05  # of the plane, over the farthest coordinate of a point
FEATURES = 1000  # test images whose features are kept
DISAGREEMENTS = 256  # test images whose pixels and logits are kept


def keep_outputs(folder: RunFolder, experiment: Experiment, step: int, found: Evaluation) -> None:
    """Keep what there is to keep after an evaluation: much after the last step, else little.

    Args:
        folder: of the run.
        experiment: of the run.
        step: steps done.
        found: of the test part; empty if it was not evaluated or there is none.

    Raises:
        InputError: the folder cannot be written.
    """
    if experiment.source.shape == (2,):
        _keep_plane(folder, experiment, step)
    if step == experiment.config.steps and found.classes:
        _keep_predictions(folder, experiment, step, found)
        _keep_final(folder, experiment, step, found)


def _keep_plane(folder: RunFolder, experiment: Experiment, step: int) -> None:
    """The networks' classes over the plane in which the points of the source are."""
    source = experiment.source
    reach = MARGIN * source.images.abs().max().item()
    points = grid(reach, GRID)
    logits = predict_all(experiment.algorithm, map(experiment.inputs, points.split(ROWS)))
    classes = {
        name: found.argmax(1).to(torch.uint8).view(GRID, GRID) for name, found in logits.items()
    }
    labeled = torch.tensor(experiment.split.labeled)
    plane = Plane(step, reach, classes, source.images, source.labels, labeled)
    write_plane(folder, plane)


def _keep_predictions(
    folder: RunFolder, experiment: Experiment, step: int, found: Evaluation
) -> None:
    """Classes and confidences of the test images, and the most confident mistakes."""
    source, positions = experiment.source, experiment.test_positions
    images, labels = experiment.test_part
    chosen = torch.tensor(positions)
    own = len(source.test_labels) > 0
    files, first = source.files, len(source.images) if own else 0  # training files come first

    def name_of(row: int) -> str:
        place = positions[row]
        return files.names[first + place] if files else f"{'test' if own else 'training'} {place}"

    write_predictions(
        folder.predictions,
        found,
        labels[chosen],
        step=step,
        class_names=source.class_names,
        images_at=lambda rows: images[chosen[rows]],
        name_of=name_of,
    )


def _keep_final(folder: RunFolder, experiment: Experiment, step: int, found: Evaluation) -> None:
    """Features of test images, evenly spaced ones, and what the networks disagree on."""
    inputs = experiment.inputs
    images, labels = experiment.test_part
    chosen = torch.tensor(experiment.test_positions)
    differs = torch.zeros(len(chosen), dtype=torch.bool)
    for one, other in pairwise(found.classes.values()):
        differs |= one != other
    kept = chosen[differs.nonzero().flatten()[:DISAGREEMENTS]]
    logits = experiment.predict([inputs(images[kept])]) if len(kept) else {}
    spaced = torch.linspace(0, len(chosen) - 1, min(FEATURES, len(chosen))).long()
    some = chosen[spaced]  # not the first: a source may hold one class after another
    C = experiment.source.num_classes
    write_final(
        folder,
        FinalOutputs(
            step,
            experiment.source.class_names,
            features=_features(experiment, inputs(images[some])),
            labels=labels[some],
            images=images[kept],
            image_labels=labels[kept],
            logits={name: logits.get(name, torch.empty(0, C)).float() for name in found.classes},
        ),
    )


def _features(experiment: Experiment, images: Tensor) -> Tensor:
    """Float32 [n,D] of the network that is trained, in evaluation mode."""
    algorithm = experiment.algorithm
    was_training = algorithm.training
    algorithm.eval()
    with torch.inference_mode():
        features = algorithm.network(images)[1]
    algorithm.train(was_training)
    return features.float()
