"""Where data, model and algorithm meet: an experiment, built from its configuration."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastssl.algorithms import named
from fastssl.algorithms.base import Algorithm
from fastssl.algorithms.ranks import ALONE, Ranks
from fastssl.algorithms.state import TrainingImages
from fastssl.data.normalise import normalise
from fastssl.data.sources import UNKNOWN, Source, resolve_source
from fastssl.data.splits import LabelSplit
from fastssl.data.streams import Shard
from fastssl.errors import InputError
from fastssl.models import make_network
from fastssl.ops.policies import Policy
from fastssl.recipes import recipe
from fastssl.recipes.config import Config, override
from fastssl.recipes.data import make_split, read_source
from fastssl.recipes.initialise import Origin
from fastssl.recipes.views import check_views
from fastssl.training.checkpoint import Checkpoints, Identity
from fastssl.training.device import resolve_device
from fastssl.training.distributed import local_device, synchronise_batch_norm
from fastssl.training.evaluation import (
    NOT_EVALUATED,
    ROWS,
    Evaluation,
    evaluate_on,
    predict_all,
    predict_nearest,
)
from fastssl.training.record import RunFolder
from fastssl.training.step import check_compiler


@dataclass(frozen=True)
class Experiment:
    """A configuration and what it stands for, on its device."""

    config: Config
    source: Source
    split: LabelSplit
    algorithm: Algorithm
    device: torch.device
    origin: Origin | None = None  # of its weights, if it starts from another run's

    def checkpoints(self, folder: RunFolder) -> Checkpoints:
        """The checkpoints of this experiment in a run's folder."""
        return run_checkpoints(
            folder, self.config, self.source.fingerprint, self.split.to_json().encode()
        )

    def inputs(self, images: Tensor) -> Tensor:
        """Images uint8 [N,K,H,W] as the network sees them: float32, normalised, on the device."""
        mean, std = (x.to(self.device) for x in (self.source.mean, self.source.std))
        return normalise(images.to(self.device), mean, std)

    @property
    def policies(self) -> list[Policy]:
        """One a view of a step: the student's weak one, its hard ones, its teacher's weak ones."""
        views, algorithm = self.config.views, self.algorithm
        hard, teacher = [views.hard] * algorithm.hard_views, [views.weak] * algorithm.teacher_views
        return [views.weak, *hard, *teacher]

    @property
    def test_part(self) -> tuple[Tensor, Tensor]:
        """Images and labels that are tested on at `test_positions`."""
        source = self.source
        if len(source.test_labels):
            return source.test_images, source.test_labels
        return source.images, source.labels

    @property
    def test_positions(self) -> Sequence[int]:
        """The images tested on: the source's own, or those the split holds out; maybe none."""
        own = range(len(self.source.test_labels))
        return (own or self.split.test)[: self.config.eval.images]

    @property
    def num_test(self) -> int:
        """How many they are."""
        return len(self.test_positions)

    def test_evaluation(self) -> Evaluation:
        """How each network does on the test part; empty without test images."""
        subclasses = self.source.subclasses
        if subclasses is not None:
            own = len(self.source.test_labels) > 0
            subclasses = subclasses.test_labels if own else subclasses.labels
        return self._evaluate(*self.test_part, subclasses, self.test_positions)

    def validation_evaluation(self) -> Evaluation:
        """How each network does on the validation part; empty if there is none."""
        source, positions = self.source, self.split.validation[: self.config.eval.images]
        subclasses = source.subclasses and source.subclasses.labels
        return self._evaluate(source.images, source.labels, subclasses, positions)

    def _evaluate(
        self,
        images: Tensor,
        labels: Tensor,
        subclasses: Tensor | None,
        positions: Sequence[int],
    ) -> Evaluation:
        """On those at `positions` of images uint8 [N,K,H,W]; few are read at once.

        Images of subclasses without labels are also measured apart, and so are the others.
        """
        if not positions:
            return NOT_EVALUATED
        chosen = torch.tensor(positions)
        predicted = self.predict(self._batches(images, chosen))
        groups = {}
        if self.split.sequestered:
            unlabeled = torch.isin(subclasses[chosen], torch.tensor(self.split.sequestered))
            groups = {"labeled_subclasses": ~unlabeled, "unlabeled_subclasses": unlabeled}
        return evaluate_on(self.algorithm, predicted, labels[chosen], groups)

    def predict(self, batches: Iterable[Tensor]) -> dict[str, Tensor]:
        """Logits [N,C] of every network, on the host, for batches of `inputs`.

        Pre-training leaves the head without classes: then the labeled training images vote.
        """
        if self.algorithm.needs_labels:
            found = predict_all(self.algorithm, batches)
        else:
            labeled = torch.tensor(self.split.labeled)
            known, labels = self._batches(self.source.images, labeled), self.source.labels[labeled]
            found = predict_nearest(self.algorithm, known, labels, batches)
        return {name: logits.cpu() for name, logits in found.items()}

    def training_images(self) -> TrainingImages:
        """The images of both streams, without augmentation."""
        split, source = self.split, self.source
        index = torch.tensor(sorted([*split.labeled, *split.unlabeled]))
        labels = torch.full_like(source.labels, UNKNOWN)
        labels[list(split.labeled)] = source.labels[list(split.labeled)]
        return TrainingImages(
            index.to(self.device),
            labels[index].to(self.device),
            lambda: self._batches(source.images, index),
        )

    def _batches(self, images: Tensor, positions: Tensor) -> Iterator[Tensor]:
        """Images at positions int64 [n] as `inputs`, few at once."""
        for rows in positions.split(ROWS):
            yield self.inputs(images[rows])


def configure(algorithm: str, data: str, changes: dict[str, Any]) -> Config:
    """The recipe for a data set and an algorithm, with values changed by dotted key.

    Raises:
        InputError: an unknown algorithm, data set or key, or a value that is not possible.
    """
    named(algorithm)
    source = resolve_source(data)
    asked = override(recipe(algorithm, source), changes)
    image_size = asked.data.image_size if "data.image_size" in changes else None
    device = resolve_device(asked.device)
    config = override(recipe(algorithm, source, image_size, device.type), changes)
    return override(config, {"device": str(device)})


def build(
    config: Config,
    source: Source | None = None,
    split: LabelSplit | None = None,
    *,
    module: nn.Module | None = None,
    download: bool = False,
    ranks: Ranks = ALONE,
    weights: bool = True,
) -> Experiment:
    """Join data, model and algorithm; freshly initialised from the seed.

    Args:
        config: of the run.
        source: of the configuration, if it is read already.
        split: of the run, if it has one already; else it is made.
        module: the user's own network, if the configuration is of one.
        download: fetch a named data set that is not there.
        ranks: the processes that will train it.
        weights: whether a pre-trained network needs its weights; not where a checkpoint's follow.

    Raises:
        InputError: the data set, split, model or device cannot be had, or not by several processes.
    """
    device = local_device(ranks, resolve_device(config.device))
    for rows in (config.data.labeled_rows, config.data.unlabeled_rows):
        Shard(ranks.rank, ranks.count).rows(rows)
    source = source or read_source(config.data, download=download)
    split = split or make_split(source, config.data, config.seed)
    torch.manual_seed(config.seed)
    algorithm = build_algorithm(
        config,
        tuple(source.shape),
        source.num_classes,
        len(source.labels),
        module=module,
        weights=weights,
    )
    needs = algorithm.needs_labels and algorithm.needs_unlabeled
    if needs and not (split.unlabeled and config.data.unlabeled_rows):
        raise InputError(
            f"labels: {config.algorithm_name} needs unlabeled images and there are none; "
            "give fewer labels (--labels), or train supervised"
        )
    trained_on, propagation = len(split.labeled) + len(split.unlabeled), config.propagation
    if propagation is not None and propagation.k >= trained_on:
        raise InputError(
            f"propagation.k: {propagation.k}; expected fewer than the {trained_on} training images"
        )
    algorithm.to(device, memory_format=algorithm.network.memory_format)
    check_compiler(config.compile, algorithm, device, ranks)
    if config.sync_bn:
        synchronise_batch_norm(algorithm, device)
    algorithm.ranks = ranks
    experiment = Experiment(config, source, split, algorithm, device)
    check_views(source, experiment.policies)
    return experiment


def build_algorithm(
    config: Config,
    shape: tuple[int, ...],
    num_classes: int,
    num_images: int,
    *,
    module: nn.Module | None = None,
    weights: bool = True,
) -> Algorithm:
    """The algorithm of a configuration on networks initialised from torch's default generator.

    Args:
        config: of the run.
        shape: [K,H,W] of its images, [K] of points.
        num_classes: of its data.
        num_images: training images.
        module: as of `build`.
        weights: as of `build`.

    Raises:
        InputError: as `make_network`.
    """
    options = config.model.options
    if not weights:
        options.pop("pretrained", None)
    network = make_network(config.model.name, shape, num_classes, module=module, **options)
    kind = named(config.algorithm_name).kind
    algorithm = kind(network, config.algorithm, config.muscle, num_images, config.propagation)
    if config.contrastive is not None:
        algorithm.add_contrastive(config.contrastive)
    return algorithm


def run_checkpoints(folder: RunFolder, config: Config, data: str, split: bytes) -> Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: of the run.
        config: of the run.
        data: fingerprint of its data set.
        split: what split.json holds.
    """
    identity = Identity(config.algorithm_name, data, hashlib.sha256(split).hexdigest())
    return Checkpoints(folder.checkpoints, identity, config.checkpoint.keep_every)
