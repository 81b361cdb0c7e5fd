"""Where data, model, algorithm and engine meet: building, starting and resuming a run."""

import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fastssl
from fastssl.algorithms import named
from fastssl.algorithms.base import Algorithm, Batch
from fastssl.data.batches import TwoStreams
from fastssl.data.normalise import normalise
from fastssl.data.sources import Source, load_source, resolve_source
from fastssl.data.sources.image_folder import duplicates
from fastssl.data.splits import LabelSplit, draw_split
from fastssl.errors import InputError
from fastssl.models import build_model
from fastssl.ops.policies import Policy
from fastssl.recipes import recipe
from fastssl.recipes.config import Config, DataConfig, from_json, leaves, override
from fastssl.recipes.views import check_views
from fastssl.training.checkpoint import Checkpoints
from fastssl.training.device import resolve_device
from fastssl.training.engine import train
from fastssl.training.evaluation import ROWS, Evaluation, evaluate_on
from fastssl.training.memory import freed_memory_kept
from fastssl.training.record import MetricsLog, RunFolder, read_metrics, write_atomic


@dataclass(frozen=True)
class Experiment:
    """A configuration and what it stands for, on its device."""

    config: Config
    source: Source
    split: LabelSplit
    algorithm: Algorithm
    device: torch.device

    def checkpoints(self, folder: RunFolder) -> Checkpoints:
        """The checkpoints of this experiment in a run's folder."""
        name, fingerprint = self.config.algorithm_name, self.source.fingerprint
        return Checkpoints(folder.checkpoints, name, fingerprint)

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
    def num_test(self) -> int:
        """Images tested on: the source's own, or those the split holds out; 0 for none."""
        n = len(self.source.test_labels) or len(self.split.test)
        return n if self.config.eval.images is None else min(n, self.config.eval.images)

    def test_evaluation(self) -> Evaluation:
        """How each network does on the test part; empty without test images."""
        source = self.source
        if len(source.test_labels):
            return self._evaluate(source.test_images, source.test_labels)
        return self._evaluate(source.images, source.labels, self.split.test)

    def validation_evaluation(self) -> Evaluation:
        """How each network does on the validation part; empty if there is none."""
        return self._evaluate(self.source.images, self.source.labels, self.split.validation)

    def _evaluate(
        self, images: Tensor, labels: Tensor, positions: Sequence[int] | None = None
    ) -> Evaluation:
        """On images uint8 [N,K,H,W], or on those at `positions`; few are read at once."""
        chosen = torch.arange(len(images)) if positions is None else torch.tensor(positions)
        chosen = chosen[: self.config.eval.images]
        if not len(chosen):
            return Evaluation({}, {})

        def batches() -> Iterator[Tensor]:
            for rows in chosen.split(ROWS):
                yield self.inputs(images[rows])

        return evaluate_on(self.algorithm, batches(), labels[chosen].to(self.device))

    def remarks(self) -> list[str]:
        """What its user should know about the data, a line each."""
        source, split = self.source, self.split
        lines = []
        if source.files and source.files.skipped:
            skipped = source.files.skipped
            lines.append(f"{len(skipped)} files left out, cannot be read: {_first(skipped)}")
        if not self.num_test:
            lines.append(
                "no test figure: the data has no test images, and nothing was held out; that needs "
                "two labeled images of each class and --holdout above 0"
            )
        trained = [*split.labeled, *split.unlabeled, *split.validation]
        if same := duplicates(source, list(split.test), trained):
            listed = _first([f"{tested} = {known}" for tested, known in same])
            lines.append(f"{len(same)} test images are in the training part too: {listed}")
        return lines


def _first(items: Sequence[str], most: int = 10) -> str:
    """The first of a list in one line; `fastssl data info` has them all."""
    more = f"; and {len(items) - most} more" if len(items) > most else ""
    return "; ".join(items[:most]) + more


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


def read_source(config: DataConfig, *, download: bool = False) -> Source:
    """The data set of a configuration.

    Raises:
        InputError: it is not there, or damaged.
    """
    return load_source(
        config.source,
        data_dir=config.data_dir,
        download=download,
        image_size=config.image_size,
        skip_bad=config.skip_bad,
    )


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


def build(
    config: Config,
    source: Source | None = None,
    split: LabelSplit | None = None,
    *,
    download: bool = False,
) -> Experiment:
    """Join data, model and algorithm; freshly initialised from the seed.

    Args:
        config: of the run.
        source: of the configuration, if it is read already.
        split: of the run, if it has one already; else it is made.
        download: fetch a named data set that is not there.

    Raises:
        InputError: the data set, split, model or device cannot be had.
    """
    device = resolve_device(config.device)
    source = source or read_source(config.data, download=download)
    split = split or make_split(source, config.data, config.seed)
    torch.manual_seed(config.seed)
    network = build_model(
        config.model.name, source.shape[0], source.num_classes, **config.model.options
    )
    kind = named(config.algorithm_name).kind
    algorithm = kind(network, config.algorithm, config.muscle, len(source.labels))
    if algorithm.needs_unlabeled and not (split.unlabeled and config.data.unlabeled_rows):
        raise InputError(
            f"labels: {config.algorithm_name} needs unlabeled images and there are none; "
            "give fewer labels (--labels), or train supervised"
        )
    algorithm.to(device, memory_format=torch.channels_last)
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


def start(config: Config, path: Path, *, overwrite: bool = False, download: bool = False) -> Run:
    """A new run: everything is checked and built before the folder is touched.

    Raises:
        InputError: as `build`; or the folder cannot be used, or holds a run that must stay.
    """
    experiment = build(config, download=download)
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
    for key in asked:  # a policy's name comes before its values, which another one may not have
        if key in changes and asked[key] != stored.get(key):
            raise InputError(
                f"resume: the run has {key} = {stored.get(key)}, not {asked[key]}; "
                "leave it out, or start another run"
            )
    read_metrics(folder.metrics_jsonl)
    optimizer = experiment.config.optim.build(experiment.algorithm.parameters())
    step = experiment.checkpoints(folder).load(experiment.algorithm, optimizer)
    return Run(experiment, folder, optimizer, first_step=step)


def reopen(
    path: Path, *, any_device: bool = False, data_dir: str | None = None
) -> tuple[Experiment, RunFolder]:
    """The experiment of a run folder, rebuilt from its run.json and split.json, weights not loaded.

    Args:
        path: the folder.
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
    return build(config, source, read_split(folder.split_json, source)), folder


def load_trained(path: Path, *, data_dir: str | None = None) -> tuple[Experiment, int]:
    """The experiment of a run folder with the networks of its last checkpoint, and that step.

    On the device it was trained on, or on the CPU if there is no such device here. `data_dir` is
    where its named data set is now, if not where it was.

    Raises:
        InputError: not a run folder, no checkpoint, or a damaged one.
    """
    experiment, folder = reopen(path, any_device=True, data_dir=data_dir)
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
    algorithm, bf16 = experiment.algorithm, config.precision == "bf16"
    # On the CPU oneDNN would rather have few channels planar, whatever the layout of the weights.
    on_gpu = experiment.device.type == "cuda"
    streams = TwoStreams(
        experiment.source,
        experiment.split,
        experiment.policies,
        labeled_rows=config.data.labeled_rows,
        unlabeled_rows=config.data.unlabeled_rows if algorithm.needs_unlabeled else 0,
        seed=config.seed,
        device=experiment.device,
        dtype=torch.bfloat16 if bf16 and not algorithm.moves_images else torch.float32,
        memory_format=torch.channels_last if on_gpu else torch.contiguous_format,
    )

    def evaluate(done: int) -> dict[str, float]:
        parts = {"validation": experiment.validation_evaluation()}
        if done == config.steps or not experiment.split.validation:
            parts["test"] = experiment.test_evaluation()
        row = {}
        for part, found in parts.items():
            row |= {f"accuracy/{part}/{name}": value for name, value in found.accuracies.items()}
            row |= {f"count/{part}/{name}": value for name, value in found.counts.items()}
        return row

    metrics = MetricsLog(run.folder.metrics_jsonl, after_step=run.first_step)
    try:
        with freed_memory_kept():
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
                autocast=torch.autocast(experiment.device.type, torch.bfloat16, enabled=bf16),
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
