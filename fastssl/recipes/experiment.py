"""Where data, model, algorithm and engine meet: building, starting and resuming a run."""

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
from fastssl.data.batches import TwoStreams
from fastssl.data.sources import Source, resolve_source
from fastssl.data.splits import LabelSplit
from fastssl.data.views import normalise
from fastssl.errors import InputError
from fastssl.models import make_network
from fastssl.recipes import recipe
from fastssl.recipes.config import Config, from_json, leaves, override
from fastssl.recipes.dataset import make_split, read_source, read_split
from fastssl.recipes.initialise import Origin, initialise
from fastssl.training.checkpoint import Checkpoints
from fastssl.training.device import resolve_device
from fastssl.training.engine import train
from fastssl.training.evaluation import (
    ROWS,
    Evaluation,
    evaluate_on,
    predict_all,
    predict_nearest,
)
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
        name, fingerprint = self.config.algorithm_name, self.source.fingerprint
        return Checkpoints(folder.checkpoints, name, fingerprint)

    def inputs(self, images: Tensor) -> Tensor:
        """Images uint8 [N,K,H,W] as the network sees them: float32, normalised, on the device."""
        mean, std = (x.to(self.device) for x in (self.source.mean, self.source.std))
        return normalise(images.to(self.device), mean, std)

    @property
    def num_test(self) -> int:
        """Images tested on: the source's own, or those the split holds out; 0 for none."""
        n = len(self.source.test_labels) or len(self.split.test)
        return n if self.config.eval.images is None else min(n, self.config.eval.images)

    def test_evaluation(self) -> Evaluation:
        """How each network does on the test part; empty without test images."""
        source = self.source
        if len(source.test_labels):
            subclasses = source.subclasses and source.subclasses.test_labels
            return self._evaluate(source.test_images, source.test_labels, subclasses)
        return self._evaluate_training_images(self.split.test)

    def validation_evaluation(self) -> Evaluation:
        """How each network does on the validation part; empty if there is none."""
        return self._evaluate_training_images(self.split.validation)

    def _evaluate_training_images(self, positions: Sequence[int]) -> Evaluation:
        source = self.source
        subclasses = source.subclasses and source.subclasses.labels
        return self._evaluate(source.images, source.labels, subclasses, positions)

    def _evaluate(
        self,
        images: Tensor,
        labels: Tensor,
        subclasses: Tensor | None,
        positions: Sequence[int] | None = None,
    ) -> Evaluation:
        """On images uint8 [N,K,H,W], or on those at `positions`; few are read at once.

        Images of subclasses without labels are also measured apart, and so are the others.
        """
        chosen = torch.arange(len(images)) if positions is None else torch.tensor(positions)
        chosen = chosen[: self.config.eval.images]
        if not len(chosen):
            return Evaluation({}, {})
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
    config = override(recipe(algorithm, resolve_source(data)), changes)
    return override(config, {"device": str(resolve_device(config.device))})


def build(
    config: Config,
    source: Source | None = None,
    split: LabelSplit | None = None,
    *,
    module: nn.Module | None = None,
    download: bool = False,
    weights: bool = True,
) -> Experiment:
    """Join data, model and algorithm; freshly initialised from the seed.

    Args:
        config: of the run.
        source: of the configuration, if it is read already.
        split: of the run, if it has one already; else it is made.
        module: the user's own network, if the configuration is of one.
        download: fetch a named data set that is not there.
        weights: whether a pre-trained network needs its weights; not where a checkpoint's follow.

    Raises:
        InputError: the data set, split, model or device cannot be had.
    """
    device = resolve_device(config.device)
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
    algorithm = kind(network, config.algorithm, config.muscle, len(source.labels))
    if config.contrastive is not None:
        algorithm.add_contrastive(config.contrastive)
    needs = algorithm.needs_labels and algorithm.needs_unlabeled
    if needs and not (split.unlabeled and config.data.unlabeled_rows):
        raise InputError(
            f"labels: {config.algorithm_name} needs unlabeled images and there are none; "
            "give fewer labels (--labels), or train supervised"
        )
    algorithm.to(device, memory_format=network.memory_format)
    return Experiment(config, source, split, algorithm, device)


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
) -> Run:
    """A new run: everything is checked and built before the folder is touched.

    Args:
        config: of the run.
        path: its folder.
        module: the user's own network, if the configuration is of one.
        overwrite: replace the run that is there.
        download: fetch a named data set that is not there.

    Raises:
        InputError: as `build` and `initialise`; or the folder cannot be used, or holds a run that
            must stay.
    """
    experiment = build(config, module=module, download=download)
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
    path: Path, algorithm: str, changes: dict[str, Any], *, module: nn.Module | None = None
) -> Run:
    """The run of a folder, where its last checkpoint left it.

    Args:
        path: the folder.
        algorithm: the one the run is expected to be of.
        changes: values the run is expected to have, by dotted key; a resumed run is the run that
            was started, so a difference is refused, not applied.
        module: the user's own network, if the run is of one.

    Raises:
        InputError: not a run folder, its device is not there, its files are damaged, or it differs
            from what is expected; the first difference is named.
    """
    experiment, folder = reopen(path, module=module)
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


def reopen(
    path: Path,
    *,
    module: nn.Module | None = None,
    any_device: bool = False,
    data_dir: str | None = None,
) -> tuple[Experiment, RunFolder]:
    """The experiment of a run folder, rebuilt from its run.json and split.json, weights not loaded.

    Args:
        path: the folder.
        module: the user's own network, if the run is of one.
        any_device: use the CPU if the run's own device is not there.
        data_dir: where its named data set is now, if not where it was.

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
        config = override(config, {"device": "cpu"})
    if data_dir is not None:
        config = override(config, {"data.data_dir": data_dir})
    source = read_source(config.data)
    split = read_split(folder.split_json, source)
    return build(config, source, split, module=module, weights=False), folder


def load_trained(
    path: Path, *, module: nn.Module | None = None, data_dir: str | None = None
) -> tuple[Experiment, int]:
    """The experiment of a run folder with the networks of its last checkpoint, and that step.

    On the device it was trained on, or on the CPU if there is no such device here. `module` is the
    user's own network, if the run is of one; `data_dir` is where its named data set is now, if not
    where it was.

    Raises:
        InputError: not a run folder, no checkpoint, or a damaged one.
    """
    experiment, folder = reopen(path, module=module, any_device=True, data_dir=data_dir)
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
    algorithm, rows = experiment.algorithm, (config.data.labeled_rows, config.data.unlabeled_rows)
    labeled_rows, unlabeled_rows = rows if algorithm.needs_labels else (0, sum(rows))
    streams = TwoStreams(
        experiment.source,
        experiment.split,
        [config.views.weak]
        + [config.views.hard] * algorithm.hard_views
        + [config.views.weak] * algorithm.teacher_views,
        labeled_rows=labeled_rows,
        unlabeled_rows=unlabeled_rows,
        seed=config.seed,
        device=experiment.device,
    )

    def evaluate(done: int) -> dict[str, float]:
        parts = {"validation": experiment.validation_evaluation()}
        if done == config.steps or not experiment.split.validation:
            parts["test"] = experiment.test_evaluation()
        return {
            f"{key}/{part}/{name}": value
            for part, found in parts.items()
            for key, values in found.logged.items()
            for name, value in values.items()
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
            eval_every=config.eval.every,
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
        "data": {"class_names": list(experiment.source.class_names)},
        "origin": experiment.origin and asdict(experiment.origin),
        "config": experiment.config.to_json(),
    }
