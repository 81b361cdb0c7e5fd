"""The networks of a run for images of one's own: from the run's folder alone, without its data.

N images, K channels, H x W pixels, C classes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastssl.algorithms.base import Algorithm
from fastssl.data.views import normalise
from fastssl.errors import InputError
from fastssl.recipes.config import Config, from_json
from fastssl.recipes.experiment import build_algorithm
from fastssl.training.checkpoint import Checkpoints
from fastssl.training.device import resolve_device
from fastssl.training.evaluation import predict_all
from fastssl.training.record import RunFolder


@dataclass(frozen=True)
class Trained:
    """An algorithm as its last checkpoint left it, and what its images are like."""

    config: Config
    algorithm: Algorithm
    step: int
    shape: tuple[int, ...]  # [K,H,W]
    class_names: tuple[str, ...]
    mean: Tensor  # float32 [K], of pixels in [0, 1]
    std: Tensor  # float32 [K]
    device: torch.device

    def probabilities(self, batches: Iterable[Tensor]) -> Tensor:
        """Float32 [N,C] of the network the paper evaluates, for batches of images uint8 [.,K,H,W].

        One batch at a time is on the device; the result is on the host.
        """
        mean, std = self.mean.to(self.device), self.std.to(self.device)
        inputs = (normalise(images.to(self.device), mean, std) for images in batches)
        logits = next(iter(predict_all(self.algorithm, inputs).values()))
        return logits.float().softmax(1).cpu()


def open_trained(path: Path, device: str | None = None) -> Trained:
    """The last checkpoint of a run folder.

    Args:
        path: the folder.
        device: where to put it; None for the run's own, or the CPU if that is not here.

    Raises:
        InputError: not a run folder, no checkpoint, a damaged one, or no such device.
    """
    folder = RunFolder.open(path)
    description = folder.description()
    config = from_json(description.get("config"))
    about = _about(description.get("data"), folder)
    place = _device(config.device) if device is None else resolve_device(device)
    shape, names = tuple(about["shape"]), tuple(about["class_names"])
    if about["dtype"] != "uint8":
        raise InputError(f"{path}: its data are points, not images")
    algorithm = build_algorithm(config, shape, len(names), about["images"])
    algorithm.to(place, memory_format=torch.channels_last)
    checkpoints = Checkpoints(folder.checkpoints, config.algorithm_name, about["fingerprint"])
    step = checkpoints.load(algorithm)
    mean, std = (torch.tensor(about[key]) for key in ("mean", "std"))
    return Trained(config, algorithm.eval(), step, shape, names, mean, std, place)


def _about(data: Any, folder: RunFolder) -> dict[str, Any]:
    """What run.json says of the data, checked."""
    kinds = {"images": int, "shape": list, "dtype": str, "mean": list, "std": list}
    kinds |= {"class_names": list, "fingerprint": str}
    if not isinstance(data, dict) or any(not isinstance(data.get(k), t) for k, t in kinds.items()):
        raise InputError(f"{folder.run_json}: does not say what the data are; train the run anew")
    if not data["shape"] or not len(data["mean"]) == len(data["std"]) == data["shape"][0]:
        raise InputError(f"{folder.run_json}: shape, mean and std of the data do not fit together")
    return data


def _device(name: str) -> torch.device:
    """The run's device, or the CPU where it is not."""
    try:
        return resolve_device(name)
    except InputError:
        return torch.device("cpu")
