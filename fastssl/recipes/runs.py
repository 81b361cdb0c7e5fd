"""Runs: an experiment in a folder, started, resumed and trained."""

import platform
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import fastssl
from fastssl.algorithms.ranks import ALONE, Ranks
from fastssl.data.batches import TwoStreams
from fastssl.data.streams import Shard
from fastssl.errors import InputError
from fastssl.recipes.config import Config, from_json, leaves, override
from fastssl.recipes.data import describe_data, read_source, read_split
from fastssl.recipes.experiment import Experiment, build
from fastssl.recipes.initialise import initialise
from fastssl.recipes.outputs import keep_outputs
from fastssl.training.checkpoint import saved_steps
from fastssl.training.distributed import first_alone
from fastssl.training.engine import train
from fastssl.training.evaluation import NOT_EVALUATED
from fastssl.training.generators import own_generator
from fastssl.training.memory import freed_memory_kept
from fastssl.training.record import MetricsLog, RunFolder, read_metrics, write_atomic
from fastssl.training.step import step_by
from fastssl.training.tensorboard import event_writer


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

    Args:
        path: the folder.
        module: the user's own network, if the run is of one.
        ranks: the processes that train it.

    Raises:
        InputError: not a run folder, its data or device is not there, or its files are damaged.
    """
    folder = RunFolder.open(path)
    config = from_json(folder.description().get("config"))
    source = read_source(config.data)
    split = read_split(folder.split_json, source)
    experiment = build(config, source, split, module=module, weights=False, ranks=ranks)
    optimizer = config.optim.build(experiment.algorithm.parameters())
    checkpoints, step = experiment.checkpoints(folder), 0
    if checkpoints.steps():
        step = checkpoints.load(experiment.algorithm, optimizer, rank=ranks.rank)
    else:
        own_generator(ranks.rank)
    return Run(experiment, folder, optimizer, first_step=step)


def fit(run: Run, *, tensorboard: bool = False) -> None:
    """Train to the end, with event files for TensorBoard too if `tensorboard` is set.

    The validation part, if there is one, is evaluated during training, and the test part only at
    the end; without one the test part is evaluated throughout.

    Raises:
        InputError: the folder cannot be written, or event files are asked for without the package.
        DivergedError, StoppedError, PeerError: as `engine.train`.
    """
    experiment, config = run.experiment, run.experiment.config
    algorithm, ranks = experiment.algorithm, experiment.algorithm.ranks
    labeled_rows, unlabeled_rows = config.data.labeled_rows, config.data.unlabeled_rows
    if not algorithm.needs_labels:
        labeled_rows, unlabeled_rows = 0, labeled_rows + unlabeled_rows
    elif not algorithm.needs_unlabeled:
        unlabeled_rows = 0
    bf16 = config.precision == "bf16"
    # On the CPU oneDNN would rather have few channels planar, whatever the layout of the weights.
    on_gpu = experiment.device.type == "cuda"
    streams = TwoStreams(
        experiment.source,
        experiment.split,
        experiment.policies,
        labeled_rows=labeled_rows,
        unlabeled_rows=unlabeled_rows,
        seed=config.seed,
        device=experiment.device,
        shard=Shard(ranks.rank, ranks.count),
        dtype=torch.bfloat16 if bf16 and not algorithm.moves_images else torch.float32,
        memory_format=torch.channels_last if on_gpu else torch.contiguous_format,
    )

    autocast = torch.autocast(experiment.device.type, torch.bfloat16, enabled=bf16)

    def evaluate(done: int) -> dict[str, float]:
        parts = {"validation": experiment.validation_evaluation()}
        if done == config.steps or not experiment.split.validation:
            parts["test"] = experiment.test_evaluation()
        keep_outputs(run.folder, experiment, done, parts.get("test", NOT_EVALUATED))
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
            done, folder = run.first_step, run.folder
            events = event_writer(folder.tensorboard, after_step=done) if tensorboard else None
            metrics = MetricsLog(folder.metrics_jsonl, after_step=done, events=events)
    try:
        with freed_memory_kept():
            train(
                algorithm,
                step_by(
                    config.compile,
                    algorithm,
                    streams,
                    run.optimizer,
                    autocast,
                    whole=not config.optim.moves_beta,
                ),
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
        "data": describe_data(experiment.source, experiment.split),
        "origin": experiment.origin and asdict(experiment.origin),
        "processes": experiment.algorithm.ranks.count,
        "config": experiment.config.to_json(),
    }
