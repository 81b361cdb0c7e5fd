"""Train a classifier from Python, open one that was trained, use it. N images, C classes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastssl.algorithms.average import WeightAverage
from fastssl.data.files import find_images, read_image
from fastssl.data.sources import resolve_source, short_name
from fastssl.models import OWN_MODULE, Backbone
from fastssl.recipes import runs
from fastssl.recipes.config import Config, ModelConfig
from fastssl.recipes.experiment import Experiment, configure
from fastssl.reporting.curves import draw_curves

PathName = str | PathLike[str]

IMAGES_AT_ONCE = 256  # that many are in memory, however many there are


class Prediction(NamedTuple):
    """What a classifier says of an image."""

    image: str  # its path
    class_name: str
    confidence: float  # the softmax of the class


@dataclass(frozen=True, eq=False)
class Classifier:
    """The networks of a run, as its last step left them; made by `fit` and `load`."""

    experiment: Experiment  # its configuration, data, split and algorithm
    folder: Path  # of the run
    step: int  # steps done

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names."""
        return self.experiment.source.class_names

    @property
    def network(self) -> Backbone:
        """The network the paper evaluates: images [N,K,H,W] -> (logits [N,C], features [N,D]).

        Its images are normalised: `experiment.inputs` makes them of uint8 ones. Of a module of your
        own, `network.to_module()` is the module again, with what it learned.
        """
        modules = self.experiment.algorithm.modules()
        average = next((m for m in modules if isinstance(m, WeightAverage)), None)
        return self.experiment.algorithm.network if average is None else average.network

    @cached_property
    def accuracies(self) -> dict[str, float]:
        """Accuracy of every network on the test images, the one the paper evaluates first.

        Empty if the data has no test images and none were held out.
        """
        return self.experiment.test_evaluation().accuracies

    def predict(self, images: PathName | Iterable[PathName]) -> list[Prediction]:
        """Classes of image files, and of the image files in and below folders.

        Images are cut to the proportions of the training images and resampled to their size.

        Raises:
            InputError: a file that is not there or cannot be read, or a folder without an image.
        """
        given = [images] if isinstance(images, str | PathLike) else images
        paths = find_images([Path(path) for path in given])
        confidences, classes = self._logits(self._batches(paths)).softmax(1).max(1)
        return [
            Prediction(str(path), self.class_names[c], confidence)
            for path, c, confidence in zip(
                paths, classes.tolist(), confidences.tolist(), strict=True
            )
        ]

    def logits(self, images: Tensor) -> Tensor:
        """Logits [N,C], on the host, of images uint8 [N,K,H,W]."""
        return self._logits([self.experiment.inputs(images)])

    def _logits(self, batches: Iterable[Tensor]) -> Tensor:
        """Logits [N,C] of the network the paper evaluates."""
        return next(iter(self.experiment.predict(batches).values()))

    def _batches(self, paths: list[Path]) -> Iterator[Tensor]:
        """The files as the network sees them, few at once."""
        for first in range(0, len(paths), IMAGES_AT_ONCE):
            some = paths[first : first + IMAGES_AT_ONCE]
            images = [read_image(path, self.experiment.source.shape) for path in some]
            yield self.experiment.inputs(torch.stack(images))


def fit(
    algorithm: str = "muscle",
    data: PathName = "digits",
    *,
    network: nn.Module | str | None = None,
    labels: int | None = None,
    seed: int | None = None,
    steps: int | None = None,
    device: str | None = None,
    data_dir: PathName | None = None,
    init: PathName | None = None,
    settings: dict[str, Any] | None = None,
    out: PathName | None = None,
    resume: bool = False,
    overwrite: bool = False,
    download: bool = False,
) -> Classifier:
    """Train a classifier: what `fastssl train` does, with its defaults and its run folder.

    Args:
        algorithm: such as "muscle", "muscle+mean-teacher", "fixmatch", "ccn", or one of your own
            (`fastssl.algorithms.register`).
        data: a data set's name; a folder of images (one folder a class, and unlabeled/); or a CSV.
        network: any module that takes images [N,K,H,W] and ends in an nn.Linear, which is replaced
            if it has another number of classes; it is copied, and the copy is trained. Or a
            network's name, such as "resnet18" or "torchvision:mobilenet_v3_small". None for the
            recipe's.
        labels: images that keep their label, the same number of each class; None for all.
        seed: of the labels, order and views, and of the weights of networks made by name.
        steps: training steps; None for the recipe's.
        device: "cpu", "cuda", "cuda:1"; None for CUDA where it can be used.
        data_dir: root of named data sets; None for $FASTSSL_DATA, else the user's cache.
        init: folder of a finished run whose networks this one starts from.
        settings: any other value of the configuration by dotted key, {"optim.lr": 0.02}; run.json
            lists them.
        out: the run's folder; None for runs/ALGORITHM-DATA-LABELS-SEED.
        resume: go on with the run in the folder; `network` is needed again if it is a module.
        overwrite: replace the run in the folder.
        download: fetch what is missing of a named data set.

    Raises:
        InputError: an argument that is not possible, in one line.
        DivergedError: the loss is no longer finite.
        StoppedError: Ctrl-C; the run is saved, `resume` goes on with it.
    """
    given = {
        "data.labels": labels,
        "data.data_dir": _absolute(data_dir),
        "seed": seed,
        "steps": steps,
        "device": device,
        "init": _absolute(init),
    }
    module = network if isinstance(network, nn.Module) else None
    changes = {key: value for key, value in given.items() if value is not None}
    changes |= model_settings(network) | (settings or {})
    source = resolve_source(str(data))
    config = configure(algorithm, source, changes)
    path = default_folder(config) if out is None else Path(out)
    if resume:
        run = runs.resume(path, algorithm, {"data.source": source} | changes, module=module)
    else:
        run = runs.start(config, path, module=module, overwrite=overwrite, download=download)
    runs.fit(run)
    draw_curves([run.folder], run.folder.curves_png)
    return Classifier(run.experiment, path, run.experiment.config.steps)


def load(
    run: PathName,
    *,
    network: nn.Module | None = None,
    data_dir: PathName | None = None,
    checkpoint: str = "last",
) -> Classifier:
    """The classifier of a run's folder, from one of its checkpoints.

    On the device it was trained on, or on the CPU if there is no such device here.

    Args:
        run: the folder.
        network: a module of the same class as the run's, if it trained one of its user's own: the
            folder holds its weights, not its code.
        data_dir: where the run's named data set is now, if not where it was.
        checkpoint: "last", "best" on the validation part, or a step.

    Raises:
        InputError: not a run folder, no such checkpoint or a damaged one, its data are not there,
            or the module is missing or another one.
    """
    experiment, step = runs.load_trained(
        Path(run), module=network, data_dir=_absolute(data_dir), checkpoint=checkpoint
    )
    return Classifier(experiment, Path(run), step)


def model_settings(network: nn.Module | str | None) -> dict[str, Any]:
    """The configuration of a network in place of the recipe's, by dotted key; none for None."""
    if network is None:
        return {}
    own = isinstance(network, nn.Module)
    name = f"{OWN_MODULE}{type(network).__name__}" if own else network
    return {f"model.{field.name}": None for field in fields(ModelConfig)} | {"model.name": name}


def default_folder(config: Config) -> Path:
    """runs/ALGORITHM-DATA-LABELS-SEED."""
    labels = "all" if config.data.labels is None else config.data.labels
    data = short_name(config.data.source)
    return Path("runs") / f"{config.algorithm_name}-{data}-{labels}-{config.seed}"


def _absolute(path: PathName | None) -> str | None:
    """A path that leads to the same place from another folder."""
    return None if path is None else str(Path(path).expanduser().absolute())
