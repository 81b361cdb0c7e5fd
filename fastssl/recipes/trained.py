"""The networks of a run for images of one's own: from the run's folder alone, without its data.

N images, K channels, H x W pixels, C classes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastssl.algorithms.base import Algorithm
from fastssl.data.normalise import normalise
from fastssl.errors import InputError
from fastssl.recipes.config import Config, from_json, override
from fastssl.recipes.data import read_source, read_split
from fastssl.recipes.experiment import Experiment, build_algorithm, run_checkpoints
from fastssl.training.device import resolve_device
from fastssl.training.evaluation import predict_all
from fastssl.training.record import RunFolder


@dataclass(frozen=True)
class Trained:
    """An algorithm as a checkpoint left it, in evaluation mode, and what its images are like."""

    config: Config
    algorithm: Algorithm
    step: int
    shape: tuple[int, ...]  # [K,H,W], [K] of points
    class_names: tuple[str, ...]
    mean: Tensor  # float32 [K], of pixels in [0, 1]
    std: Tensor  # float32 [K]
    device: torch.device

    def inputs(self, images: Tensor) -> Tensor:
        """Images uint8 [N,K,H,W] as the networks see them: float32, normalised, on the device."""
        mean, std = self.mean.to(self.device), self.std.to(self.device)
        return normalise(images.to(self.device), mean, std)

    def logits(self, batches: Iterable[Tensor]) -> Tensor:
        """Float32 [N,C] of the network the paper evaluates, for batches of images uint8 [.,K,H,W].

        One batch at a time is on the device; the result is on the host.

        Raises:
            InputError: the run pre-trained without labels, so that its head knows no class.
        """
        require_head(self.algorithm)
        found = predict_all(self.algorithm, map(self.inputs, batches))
        return next(iter(found.values())).float().cpu()

    def probabilities(self, batches: Iterable[Tensor]) -> Tensor:
        """The softmax of `logits`."""
        return self.logits(batches).softmax(1)


def require_head(algorithm: Algorithm) -> None:
    """Refuse an algorithm that pre-trains.

    Raises:
        InputError: no image has a label in its training, so that its head knows no class.
    """
    if not algorithm.needs_labels:
        raise InputError(
            "the run pre-trained without labels and its head knows no class; train one that starts "
            "from it (--init)"
        )


def open_trained(
    path: Path,
    device: str | None = None,
    *,
    module: nn.Module | None = None,
    checkpoint: str = "last",
) -> Trained:
    """A checkpoint of a run folder.

    Args:
        path: the folder.
        device: where to put it; None for the run's own, or the CPU if that is not here.
        module: the user's own network, if the run is of one.
        checkpoint: "last", "best" on the validation part, or a step.

    Raises:
        InputError: not a run folder, no such checkpoint, a damaged one, or no such device; or the
            module is missing or another one.
    """
    folder = RunFolder.open(path)
    description = folder.description()
    config = from_json(description.get("config"))
    about = _about(description.get("data"), folder)
    place = _own_device(config) if device is None else resolve_device(device)
    config = override(config, {"device": str(place)})
    shape, names = tuple(about["shape"]), tuple(about["class_names"])
    algorithm = build_algorithm(
        config, shape, len(names), about["images"], module=module, weights=False
    )
    algorithm.to(place, memory_format=algorithm.network.memory_format)
    checkpoints = run_checkpoints(folder, config, about["fingerprint"], _split(folder))
    step = checkpoints.load(algorithm, step=checkpoints.named(checkpoint))
    mean, std = (torch.tensor(about[key]) for key in ("mean", "std"))
    return Trained(config, algorithm.eval(), step, shape, names, mean, std, place)


def trained_by(experiment: Experiment) -> Trained:
    """What an experiment has trained, at its end."""
    config, source = experiment.config, experiment.source
    return Trained(
        config,
        experiment.algorithm.eval(),
        config.steps,
        tuple(source.shape),
        source.class_names,
        source.mean,
        source.std,
        experiment.device,
    )


def with_data(trained: Trained, path: Path, data_dir: str | None = None) -> Experiment:
    """The experiment that a trained algorithm comes from: its data read, its split in place.

    Args:
        trained: as it was opened.
        path: the run's folder.
        data_dir: where its named data set is now, if not where it was.

    Raises:
        InputError: the data are not there or are other ones, or split.json is damaged.
    """
    config = trained.config
    if data_dir is not None:
        config = override(config, {"data.data_dir": data_dir})
    source = read_source(config.data)
    split = read_split(RunFolder(path).split_json, source)
    return Experiment(config, source, split, trained.algorithm, trained.device)


def load_trained(
    path: Path, *, data_dir: str | None = None, checkpoint: str = "last"
) -> tuple[Experiment, int]:
    """The experiment of a run folder with the networks of a checkpoint, and its step.

    On the device it was trained on, or on the CPU if there is no such device here.

    Raises:
        InputError: as `open_trained` and `with_data`.
    """
    trained = open_trained(path, checkpoint=checkpoint)
    return with_data(trained, path, data_dir), trained.step


def _about(data: Any, folder: RunFolder) -> dict[str, Any]:
    """What run.json says of the data, checked."""
    kinds = {"images": int, "shape": list, "dtype": str, "mean": list, "std": list}
    kinds |= {"class_names": list, "fingerprint": str}
    if not isinstance(data, dict) or any(not isinstance(data.get(k), t) for k, t in kinds.items()):
        raise InputError(f"{folder.run_json}: does not say what the data are; train the run anew")
    if not data["shape"] or not len(data["mean"]) == len(data["std"]) == data["shape"][0]:
        raise InputError(f"{folder.run_json}: shape, mean and std of the data do not fit together")
    return data


def _split(folder: RunFolder) -> bytes:
    """What split.json holds; which images they are is not looked at."""
    try:
        return folder.split_json.read_bytes()
    except OSError as error:
        raise InputError(f"{folder.split_json} cannot be read; the run needs it") from error


def _own_device(config: Config) -> torch.device:
    """The run's device, or the CPU where it is not."""
    try:
        return resolve_device(config.device)
    except InputError:
        return torch.device("cpu")
