"""Where data, model, algorithm and engine meet: building, starting and resuming a run."""

import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fastssl
from fastssl.algorithms import algorithm_type
from fastssl.algorithms.base import Algorithm, Batch
from fastssl.data.batches import TwoStreams
from fastssl.data.sources import ImageSource, load_source
from fastssl.data.splits import LabelSplit, draw_split
from fastssl.data.views import normalise
from fastssl.errors import InputError, unknown_name
from fastssl.models import build_model
from fastssl.recipes import RECIPES
from fastssl.recipes.config import Config, from_json, leaves, override
from fastssl.training.checkpoint import Checkpoints
from fastssl.training.device import resolve_device
from fastssl.training.engine import train
from fastssl.training.evaluation import accuracies
from fastssl.training.record import MetricsLog, RunFolder, read_metrics, write_atomic


@dataclass(frozen=True)
class Experiment:
    """A configuration and what it stands for, on its device."""

    config: Config
    source: ImageSource
    split: LabelSplit
    algorithm: Algorithm
    device: torch.device

    def checkpoints(self, folder: RunFolder) -> Checkpoints:
        """The checkpoints of this experiment in a run's folder."""
        name, fingerprint = self.config.algorithm_name, self.source.fingerprint
        return Checkpoints(folder.checkpoints, name, fingerprint)

    def inputs(self, images: Tensor) -> Tensor:
        """Images uint8 [N,K,H,W] as the network sees them: float32, normalised, on the device."""
        return normalise(images, self.source.mean, self.source.std).to(self.device)

    def test_accuracies(self) -> dict[str, float]:
        """Accuracy of each network on the test part."""
        images, labels = self.source.test_images, self.source.test_labels
        return accuracies(self.algorithm, self.inputs(images), labels.to(self.device))


def configure(algorithm: str, data: str, changes: dict[str, Any]) -> Config:
    """The recipe for a data set and an algorithm, with values changed by dotted key.

    Raises:
        InputError: an unknown algorithm, data set or key, or a value that is not possible.
    """
    algorithm_type(algorithm)
    if data not in RECIPES:
        raise unknown_name("data", data, RECIPES)
    config = override(RECIPES[data](algorithm), changes)
    return override(config, {"device": str(resolve_device(config.device))})


def build(config: Config, split: LabelSplit | None = None) -> Experiment:
    """Join data, model and algorithm; freshly initialised from the seed.

    Args:
        config: of the run.
        split: of the run, if it has one already; else it is drawn.

    Raises:
        InputError: the data set, split, model or device cannot be had.
    """
    device = resolve_device(config.device)
    source = load_source(config.data.source)
    split = split or draw_split(
        source.labels,
        source.num_classes,
        num_labels=config.data.labels,
        num_validation=config.data.validation,
        seed=config.seed,
        source=source.name,
        fingerprint=source.fingerprint,
    )
    torch.manual_seed(config.seed)
    network = build_model(
        config.model.name, source.images.shape[1], source.num_classes, **config.model.options
    )
    kind, _ = algorithm_type(config.algorithm_name)
    algorithm = kind(network, config.algorithm, config.muscle)
    if algorithm.needs_unlabeled and not (split.unlabeled and config.data.unlabeled_rows):
        raise InputError(
            f"labels: {config.algorithm_name} needs unlabeled images and there are none; "
            "give fewer labels (--labels), or train supervised"
        )
    algorithm.to(device, memory_format=torch.channels_last)
    return Experiment(config, source, split, algorithm, device)


@dataclass(frozen=True)
class Run:
    """An experiment that is about to be trained in a folder, from `first_step` on."""

    experiment: Experiment
    folder: RunFolder
    optimizer: torch.optim.Optimizer
    first_step: int


def start(config: Config, path: Path, *, overwrite: bool = False) -> Run:
    """A new run: everything is checked and built before the folder is touched.

    Raises:
        InputError: as `build`; or the folder cannot be used, or holds a run that must stay.
    """
    experiment = build(config)
    folder = RunFolder.create(path, overwrite=overwrite)
    folder.write_description(describe(experiment))
    write_atomic(folder.split_json, experiment.split.to_json().encode())
    optimizer = config.optim.build(experiment.algorithm.parameters())
    return Run(experiment, folder, optimizer, first_step=0)


def resume(path: Path, algorithm: str, changes: dict[str, Any]) -> Run:
    """The run of a folder, where its last checkpoint left it.

    Args:
        path: the folder.
        algorithm: the one the run is expected to be of.
        changes: values the run is expected to have, by dotted key; a resumed run is the run that
            was started, so a difference is refused, not applied.

    Raises:
        InputError: not a run folder, its device is not there, its files are damaged, or it differs
            from what is expected; the first difference is named.
    """
    experiment, folder = reopen(path)
    config = experiment.config
    if algorithm != config.algorithm_name:
        raise InputError(f"resume: the run is of {config.algorithm_name}, not of {algorithm}")
    asked, stored = leaves(override(config, changes)), leaves(config)
    for key in changes:
        if asked[key] != stored[key]:
            raise InputError(
                f"resume: the run has {key} = {stored[key]}, not {asked[key]}; "
                "leave it out, or start another run"
            )
    read_metrics(folder.metrics_jsonl)
    optimizer = experiment.config.optim.build(experiment.algorithm.parameters())
    step = experiment.checkpoints(folder).load(experiment.algorithm, optimizer)
    return Run(experiment, folder, optimizer, first_step=step)


def reopen(path: Path, *, any_device: bool = False) -> tuple[Experiment, RunFolder]:
    """The experiment of a run folder, rebuilt from its run.json and split.json, weights not loaded.

    Args:
        path: the folder.
        any_device: use the CPU if the run's own device is not there.

    Raises:
        InputError: not a run folder, its device is not there, or its files are damaged.
    """
    folder = RunFolder.open(path)
    config = from_json(folder.description().get("config"))
    try:
        resolve_device(config.device)
    except InputError:
        if not any_device:
            raise
        config = override(config, {"device": "cpu"})
    source = load_source(config.data.source)
    try:
        text = folder.split_json.read_text()
    except (OSError, ValueError) as error:
        raise InputError(f"{folder.split_json} cannot be read; the run needs it") from error
    split = LabelSplit.from_json(
        text, fingerprint=source.fingerprint, num_images=len(source.images)
    )
    return build(config, split), folder


def load_trained(path: Path) -> tuple[Experiment, int]:
    """The experiment of a run folder with the networks of its last checkpoint, and that step.

    On the device it was trained on, or on the CPU if there is no such device here.

    Raises:
        InputError: not a run folder, no checkpoint, or a damaged one.
    """
    experiment, folder = reopen(path, any_device=True)
    return experiment, experiment.checkpoints(folder).load(experiment.algorithm)


def fit(run: Run) -> None:
    """Train to the end.

    The validation part, if there is one, is evaluated during training, and the test part only at
    the end; without one the test part is evaluated throughout.

    Raises:
        InputError: the folder cannot be written.
        DivergedError, StoppedError: as `engine.train`.
    """
    experiment, config = run.experiment, run.experiment.config
    source, algorithm = experiment.source, experiment.algorithm
    streams = TwoStreams(
        source,
        experiment.split,
        [config.views.weak]
        + [config.views.hard] * algorithm.hard_views
        + [config.views.weak] * algorithm.teacher_views,
        labeled_rows=config.data.labeled_rows,
        unlabeled_rows=config.data.unlabeled_rows,
        seed=config.seed,
        device=experiment.device,
    )
    held_out = list(experiment.split.validation)
    validation_images = experiment.inputs(source.images[held_out])
    validation_labels = source.labels[held_out].to(experiment.device)

    def evaluate(done: int) -> dict[str, float]:
        parts = {}
        if held_out:
            parts["validation"] = accuracies(algorithm, validation_images, validation_labels)
        if done == config.steps or not held_out:
            parts["test"] = experiment.test_accuracies()
        return {
            f"accuracy/{part}/{network}": value
            for part, values in parts.items()
            for network, value in values.items()
        }

    metrics = MetricsLog(run.folder.metrics_jsonl, after_step=run.first_step)
    try:
        train(
            algorithm,
            lambda step: Batch(*streams.at(step)),
            run.optimizer,
            lambda step: config.optim.settings(step, config.steps),
            evaluate,
            metrics,
            experiment.checkpoints(run.folder),
            first_step=run.first_step,
            steps=config.steps,
            steps_per_pass=streams.steps_per_pass,
            log_every=config.log_every,
            eval_every=config.eval_every,
            checkpoint_every=config.checkpoint_every,
        )
    finally:
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
        "config": experiment.config.to_json(),
    }
