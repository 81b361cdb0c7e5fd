"""Where data, model, algorithm and engine meet: building, starting and resuming a run."""

import hashlib
import platform
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import fastssl
from fastssl.algorithms import named
from fastssl.algorithms.base import Algorithm, Batch
from fastssl.algorithms.ranks import ALONE, Ranks
from fastssl.algorithms.state import TrainingImages
from fastssl.data.batches import TwoStreams
from fastssl.data.normalise import normalise
from fastssl.data.sources import UNKNOWN, Source, resolve_source
from fastssl.data.splits import LabelSplit
from fastssl.data.streams import Shard
from fastssl.errors import InputError
from fastssl.models import make_network
from fastssl.ops.policies import Policy
from fastssl.recipes import recipe
from fastssl.recipes.config import Config, from_json, leaves, override
from fastssl.recipes.data import make_split, read_source, read_split
from fastssl.recipes.initialise import Origin, initialise
from fastssl.recipes.outcome import describe_data, keep_predictions
from fastssl.recipes.outputs import keep_final, keep_plane
from fastssl.recipes.views import check_views
from fastssl.training.checkpoint import Checkpoints, Identity, saved_steps
from fastssl.training.device import resolve_device
from fastssl.training.distributed import first_alone, local_device, synchronise_batch_norm
from fastssl.training.engine import train
from fastssl.training.evaluation import (
    NOT_EVALUATED,
    ROWS,
    Evaluation,
    evaluate_on,
    predict_all,
    predict_nearest,
)
from fastssl.training.generators import own_generator
from fastssl.training.record import MetricsLog, RunFolder, read_metrics, write_atomic


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
        split = hashlib.sha256(self.split.to_json().encode()).hexdigest()
        identity = Identity(self.config.algorithm_name, self.source.fingerprint, split)
        return Checkpoints(folder.checkpoints, identity, self.config.checkpoint.keep_every)

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
        source, positions = self.source, self.test_positions
        if len(source.test_labels):
            subclasses = source.subclasses and source.subclasses.test_labels
            return self._evaluate(source.test_images, source.test_labels, subclasses, positions)
        return self._evaluate_training_images(positions)

    def validation_evaluation(self) -> Evaluation:
        """How each network does on the validation part; empty if there is none."""
        return self._evaluate_training_images(self.split.validation[: self.config.eval.images])

    def _evaluate_training_images(self, positions: Sequence[int]) -> Evaluation:
        source = self.source
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
    config = override(recipe(algorithm, source), changes)
    if config.data.image_size is not None:
        config = override(recipe(algorithm, source, config.data.image_size), changes)
    return override(config, {"device": str(resolve_device(config.device))})


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
    options = config.model.options
    if not weights:
        options.pop("pretrained", None)
    network = make_network(
        config.model.name, tuple(source.shape), source.num_classes, module=module, **options
    )
    kind = named(config.algorithm_name).kind
    num_images, propagation = len(source.labels), config.propagation
    algorithm = kind(network, config.algorithm, config.muscle, num_images, propagation)
    if config.contrastive is not None:
        algorithm.add_contrastive(config.contrastive)
    needs = algorithm.needs_labels and algorithm.needs_unlabeled
    if needs and not (split.unlabeled and config.data.unlabeled_rows):
        raise InputError(
            f"labels: {config.algorithm_name} needs unlabeled images and there are none; "
            "give fewer labels (--labels), or train supervised"
        )
    trained_on = len(split.labeled) + len(split.unlabeled)
    if propagation is not None and propagation.k >= trained_on:
        raise InputError(
            f"propagation.k: {propagation.k}; expected fewer than the {trained_on} training images"
        )
    algorithm.to(device, memory_format=network.memory_format)
    if config.sync_bn:
        synchronise_batch_norm(algorithm, device)
    algorithm.ranks = ranks
    experiment = Experiment(config, source, split, algorithm, device)
    check_views(source, experiment.policies)
    return experiment


@dataclass(frozen=True)
class Run:
    """An experiment that is about to be trained in a folder, from `first_step` on."""

    experiment: Experiment
    folder: RunFolder
    optimizer: torch.optim.Optimizer
    first_step: int


def start(
    config: Config,
    path: Path,
    *,
    module: nn.Module | None = None,
    overwrite: bool = False,
    download: bool = False,
    ranks: Ranks = ALONE,
) -> Run:
    """A new run: everything is checked and built before the folder is touched.

    Args:
        config: of the run.
        path: its folder.
        module: the user's own network, if the configuration is of one.
        overwrite: replace the run that is there.
        download: fetch a named data set that is not there.
        ranks: the processes that will train it.

    Raises:
        InputError: as `build` and `initialise`; or the folder cannot be used, or holds a run that
            must stay.
    """
    experiment = build(config, module=module, download=download, ranks=ranks)
    if config.init is not None:
        classes = experiment.source.class_names
        origin = initialise(experiment.algorithm, config.model, classes, Path(config.init))
        experiment = replace(experiment, origin=origin)
    folder = RunFolder.create(path, overwrite=overwrite)
    folder.write_description(describe(experiment))
    write_atomic(folder.split_json, experiment.split.to_json().encode())
    optimizer = config.optim.build(experiment.algorithm.parameters())
    return Run(experiment, folder, optimizer, first_step=0)


def resume(
    path: Path,
    algorithm: str,
    changes: dict[str, Any],
    *,
    module: nn.Module | None = None,
    ranks: Ranks = ALONE,
) -> Run:
    """The run of a folder, where its last checkpoint left it; anew if it got to none.

    Args:
        path: the folder.
        algorithm: the one the run is expected to be of.
        changes: values the run is expected to have, by dotted key; a resumed run is the run that
            was started, so a difference is refused, not applied.
        module: the user's own network, if the run is of one.
        ranks: the processes that go on with it, as many as before or not.

    Raises:
        InputError: not a run folder, its device is not there, its files are damaged, or it differs
            from what is expected; the first difference is named.
    """
    folder = RunFolder.open(path)
    config = from_json(folder.description().get("config"))
    if algorithm != config.algorithm_name:
        raise InputError(f"resume: the run is of {config.algorithm_name}, not of {algorithm}")
    asked, stored = leaves(override(config, changes)), leaves(config)
    for key in asked:  # a policy's name comes before its values, which another one may not have
        if key in changes and asked[key] != stored.get(key):
            raise InputError(
                f"resume: the run has {key} = {stored.get(key)}, not {asked[key]}; "
                "leave it out, or start another run"
            )
    if not saved_steps(folder.checkpoints):
        return start(config, path, module=module, overwrite=True, ranks=ranks)
    read_metrics(folder.metrics_jsonl)
    return load_run(path, module=module, ranks=ranks)


def load_run(path: Path, *, module: nn.Module | None = None, ranks: Ranks = ALONE) -> Run:
    """The run of a folder as its files say, where its last checkpoint left it, if there is one.

    Raises:
        InputError: as `reopen`; or its last checkpoint is damaged.
    """
    experiment, folder = reopen(path, module=module, ranks=ranks)
    optimizer = experiment.config.optim.build(experiment.algorithm.parameters())
    checkpoints, step = experiment.checkpoints(folder), 0
    if checkpoints.steps():
        step = checkpoints.load(experiment.algorithm, optimizer, rank=ranks.rank)
    else:
        own_generator(ranks.rank)
    return Run(experiment, folder, optimizer, first_step=step)


def reopen(
    path: Path,
    *,
    module: nn.Module | None = None,
    any_device: bool = False,
    data_dir: str | None = None,
    ranks: Ranks = ALONE,
) -> tuple[Experiment, RunFolder]:
    """The experiment of a run folder, rebuilt from its run.json and split.json, weights not loaded.

    Args:
        path: the folder.
        module: the user's own network, if the run is of one.
        any_device: use the CPU if the run's own device is not there.
        data_dir: where its named data set is now, if not where it was.
        ranks: the processes that will train it.

    Raises:
        InputError: not a run folder, its data or device is not there, or its files are damaged.
    """
    folder = RunFolder.open(path)
    config = from_json(folder.description().get("config"))
    try:
        resolve_device(config.device)
    except InputError:
        if not any_device:
            raise
        config = override(config, {"device": "cpu", "sync_bn": False})
    if data_dir is not None:
        config = override(config, {"data.data_dir": data_dir})
    source = read_source(config.data)
    split = read_split(folder.split_json, source)
    experiment = build(config, source, split, module=module, weights=False, ranks=ranks)
    return experiment, folder


def load_trained(
    path: Path,
    *,
    module: nn.Module | None = None,
    data_dir: str | None = None,
    checkpoint: str = "last",
) -> tuple[Experiment, int]:
    """The experiment of a run folder with the networks of a checkpoint, and its step.

    On the device it was trained on, or on the CPU if there is no such device here.

    Args:
        path: the folder.
        module: the user's own network, if the run is of one.
        data_dir: where its named data set is now, if not where it was.
        checkpoint: "last", "best" on the validation part, or a step.

    Raises:
        InputError: not a run folder, no such checkpoint, or a damaged one.
    """
    experiment, folder = reopen(path, module=module, any_device=True, data_dir=data_dir)
    checkpoints = experiment.checkpoints(folder)
    return experiment, checkpoints.load(experiment.algorithm, step=checkpoints.named(checkpoint))


def fit(run: Run) -> None:
    """Train to the end.

    The validation part, if there is one, is evaluated during training, and the test part only at
    the end; without one the test part is evaluated throughout.

    Raises:
        InputError: the folder cannot be written.
        DivergedError, StoppedError, PeerError: as `engine.train`.
    """
    experiment, config = run.experiment, run.experiment.config
    algorithm, ranks = experiment.algorithm, experiment.algorithm.ranks
    rows = (config.data.labeled_rows, config.data.unlabeled_rows)
    labeled_rows, unlabeled_rows = rows if algorithm.needs_labels else (0, sum(rows))
    streams = TwoStreams(
        experiment.source,
        experiment.split,
        experiment.policies,
        labeled_rows=labeled_rows,
        unlabeled_rows=unlabeled_rows,
        seed=config.seed,
        device=experiment.device,
        shard=Shard(ranks.rank, ranks.count),
    )

    def evaluate(done: int) -> dict[str, float]:
        parts = {"validation": experiment.validation_evaluation()}
        if done == config.steps or not experiment.split.validation:
            parts["test"] = experiment.test_evaluation()
        if done == config.steps and parts["test"].classes:
            file, positions = run.folder.predictions, experiment.test_positions
            keep_predictions(file, parts["test"], experiment.source, positions, done)
        kept = run.folder, algorithm, experiment.inputs, experiment.source
        keep_plane(*kept, experiment.split, done)
        if done == config.steps and experiment.num_test:
            keep_final(*kept, experiment.test_positions, done)
        return {
            f"{key}/{part}/{name}": value
            for part, found in parts.items()
            for key, values in found.logged.items()
            for name, value in values.items()
        }

    def settings(step: int) -> dict[str, Any]:
        _, within, steps = config.stages.at(step)
        return config.optim.settings(within, steps)

    metrics = None
    with first_alone(ranks) as first:
        if first:
            metrics = MetricsLog(run.folder.metrics_jsonl, after_step=run.first_step)
    try:
        train(
            algorithm,
            lambda step: Batch(*streams.at(step)),
            run.optimizer,
            settings,
            evaluate,
            metrics,
            experiment.checkpoints(run.folder),
            first_step=run.first_step,
            stages=config.stages,
            steps_per_pass=streams.steps_per_pass,
            log_every=config.log_every,
            eval_every=config.eval.every,
            images=experiment.training_images(),
            checkpoint_every=config.checkpoint.every,
            checkpoint_minutes=config.checkpoint.minutes,
            ranks=ranks,
        )
    finally:
        if metrics is not None:
            metrics.close()


def describe(experiment: Experiment) -> dict[str, Any]:
    """What run.json says: the configuration, and what it ran on."""
    return {
        "fastssl": fastssl.build_info()["version"],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": f"{sys.platform}-{platform.machine()}",
        "device": torch.cuda.get_device_name(experiment.device)
        if experiment.device.type == "cuda"
        else "cpu",
        "threads": torch.get_num_threads(),
        "data": describe_data(experiment.source),
        "origin": experiment.origin and asdict(experiment.origin),
        "processes": experiment.algorithm.ranks.count,
        "config": experiment.config.to_json(),
    }
